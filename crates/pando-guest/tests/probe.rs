//! Probes through a link.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{soon, start};
use pando_link::{LinkError, RefusalKind};
use pando_model::network::{ProbeMethod, ProbeTarget};

#[test]
fn a_guest_measures_the_way_to_itself() {
    let guest = start();
    let targets = ["127.0.0.1", "::1"].map(|address| ProbeTarget {
        name: address.to_owned(),
        address: address.parse().unwrap(),
        method: ProbeMethod::Icmp,
    });
    match guest.link.probe(targets.to_vec(), 2, Duration::from_secs(5), soon()) {
        Ok(results) => {
            assert!(results.iter().map(|result| &result.target).eq(&targets));
            assert!(results.iter().all(|result| result.received == 2), "{results:?}");
        }
        // Only a guest's root may, and this machine's user need not be one.
        Err(LinkError::Refused { kind, .. }) => assert_eq!(kind, RefusalKind::Denied),
        Err(error) => panic!("{error}"),
    }
}
