//! `state_capture`: a live machine's state, kept as evidence.

use std::sync::Arc;

use std::collections::BTreeMap;

use jiff::Timestamp;
use pando_api::Caller;
use pando_api::state::{StateCaptureParams, StateCaptureResult};
use pando_model::CaptureId;
use pando_model::capture::{Aspect, Capture, Coverage};
use tokio::time::Instant;

use super::diff::{clipped, elapsed_ms};
use crate::captures::{Kept, Sight};
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::resolve::Target;

fn unknown_of(capture: &Capture) -> BTreeMap<String, String> {
    let why = |(aspect, coverage): (&Aspect, &Coverage)| match coverage {
        Coverage::Complete => None,
        Coverage::Partial(why) | Coverage::Absent(why) => {
            Some((aspect.as_str().to_owned(), clipped(why)))
        }
    };
    capture.coverage.iter().filter_map(why).collect()
}

fn counts_of(capture: &Capture) -> BTreeMap<String, u64> {
    let config = capture.files.keys().filter(|path| path.starts_with("/etc/")).count();
    let counts = [
        (Aspect::Packages, capture.packages.len()),
        (Aspect::Config, config),
        (Aspect::Files, capture.files.len() - config),
        (Aspect::Services, capture.services.len()),
        (Aspect::Users, capture.users.len()),
        (Aspect::Ports, capture.ports.len()),
        (Aspect::Processes, capture.processes.len()),
        (Aspect::Env, capture.env.len()),
        (Aspect::Kernel, capture.kernel.len()),
        (Aspect::Network, capture.network.len()),
        (Aspect::Database, capture.databases.len()),
    ];
    let asked = counts.into_iter().filter(|(aspect, _)| capture.coverage.contains_key(aspect));
    asked.map(|(aspect, count)| (aspect.as_str().to_owned(), count as u64)).collect()
}

impl Engine {
    pub(super) async fn state_capture(
        &self,
        caller: &Caller,
        params: StateCaptureParams,
    ) -> Result<StateCaptureResult> {
        let began = Instant::now();
        let target = self.target(&caller.principal, params.address.as_ref()).await?;
        self.must_run(&target.place)?;
        let aspects = if params.aspects.is_empty() { Aspect::ALL } else { &params.aspects };
        let capture = self.capture_live(&target, aspects).await?;
        let (counts, unknown) = (counts_of(&capture), unknown_of(&capture));
        let id = CaptureId::random();
        let captured_at = Timestamp::now();
        let address = format!("{}/{}", target.place.address(), target.node);
        let kept = Kept {
            branch: target.place.branch.id.clone(),
            address: address.clone(),
            head: target.place.branch.head.clone(),
            node: target.node.clone(),
            at: captured_at,
            sight: Sight { capture: Arc::new(capture), ..Sight::default() },
        };
        self.keep(id.as_str(), kept)
            .await
            .map_err(|error| Failure::internal(format!("the capture cannot be kept: {error}")))?;
        let duration_ms = elapsed_ms(began);
        Ok(StateCaptureResult {
            capture_id: id,
            captured_at,
            address,
            counts,
            unknown,
            duration_ms,
        })
    }

    pub(super) async fn capture_live(
        &self,
        target: &Target,
        aspects: &[Aspect],
    ) -> Result<Capture> {
        let host_id = &target.place.branch.host_id;
        let captured = self.host.capture(host_id, &target.node, aspects).await;
        let captured = captured.map_err(|error| {
            let old = matches!(error, pando_driver::HostError::GuestRefused { .. });
            let failure = Failure::from(error);
            match old {
                true => failure.hint(
                    "its guest program may be older than this pando: build the image anew, and \
                     make a new machine of it",
                ),
                false => failure,
            }
        });
        self.notice_loss_in(target, captured)
    }
}
