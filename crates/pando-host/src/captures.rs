//! Guests' states, asked of keepers and put together here: the first place that knows how much is
//! too much.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use pando_driver::host::HostError;
use pando_model::capture::{Aspect, Capture};
use pando_model::{BranchId, Name};
use pando_wire::capture::{Assembler, CaptureError};
use pando_wire::keeper::{Answer, Frame, Reply, Request};
use pando_wire::limits::MAX_DIGESTS;
use tokio::time::timeout;

use crate::client::unexpected;
use crate::{LocalHost, limits};

/// Returns the host's clock, in nanoseconds since 1970.
fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

fn hostile(error: &CaptureError) -> HostError {
    HostError::Protocol { detail: error.to_string() }
}

impl LocalHost {
    pub(crate) async fn capture_of(
        &self,
        branch: &BranchId,
        node: &Name,
        aspects: &[Aspect],
    ) -> Result<Capture, HostError> {
        let request = Request::Capture { node: node.clone(), aspects: aspects.to_vec() };
        self.assemble(branch, &request).await
    }

    pub(crate) async fn digests_of(
        &self,
        branch: &BranchId,
        node: &Name,
        paths: &[String],
    ) -> Result<BTreeMap<String, String>, HostError> {
        let mut digests = BTreeMap::new();
        for paths in paths.chunks(MAX_DIGESTS) {
            let request = Request::Digest { node: node.clone(), paths: paths.to_vec() };
            digests.append(&mut self.assemble(branch, &request).await?.digests);
        }
        digests.retain(|_, digest| !digest.is_empty());
        Ok(digests)
    }

    async fn assemble(&self, branch: &BranchId, request: &Request) -> Result<Capture, HostError> {
        let mut connection = self.connect(branch).await?;
        connection.send(request).await?;
        let receive = async {
            let mut assembler = Assembler::new();
            loop {
                match connection.reader.next().await {
                    Ok(Some(Frame::Data(_, bytes))) => {
                        assembler.push(&bytes).map_err(|error| hostile(&error))?;
                    }
                    Ok(Some(frame)) => {
                        let answer = frame.parse::<Answer>();
                        let answer = answer
                            .map_err(|error| HostError::Protocol { detail: error.to_string() })?;
                        match answer? {
                            Reply::Captured { end } => {
                                let mut capture =
                                    assembler.finish(end).map_err(|error| hostile(&error))?;
                                // The clock was read last, just before the answer.
                                capture.ahead_ns = capture.guest_ns.saturating_sub(now_ns());
                                return Ok(capture);
                            }
                            other => return Err(unexpected(&other)),
                        }
                    }
                    Ok(None) => {
                        return Err(connection.lost("it hung up in the middle of a capture"));
                    }
                    Err(detail) => return Err(connection.lost(detail)),
                }
            }
        };
        match timeout(limits::CAPTURE, receive).await {
            Ok(result) => result,
            Err(_) => Err(HostError::Deadline {
                what: "the capture".into(),
                waited_ms: u64::try_from(limits::CAPTURE.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }
}
