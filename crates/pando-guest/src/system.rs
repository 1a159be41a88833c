//! Requests that concern the guest as a whole, each answered by the module it belongs to.

use pando_wire::guest::{Answer, Refusal, RefusalKind, Reply, Request};

use crate::config::Config;
use crate::{facts, identity, probe, scrub};

/// Does what `request` asks; runs on a job's thread.
pub fn answer(config: &Config, request: Request) -> Answer {
    match request {
        Request::Facts => Ok(Reply::Facts(Box::new(facts::gather(config)))),
        Request::SetIdentity(identity) => identity::set(config, &identity),
        Request::Scrub => scrub::scrub(config),
        Request::Sync => {
            rustix::fs::sync();
            Ok(Reply::Done)
        }
        Request::Probe { targets, count, timeout_ms } => probe::measure(targets, count, timeout_ms),
        _ => Err(Refusal::new(RefusalKind::Unsupported, "this guest does not know that request")),
    }
}
