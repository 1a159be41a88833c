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
        let mut capture = self.assemble(branch, &request).await?;
        capture.ahead_ns = self.ahead(branch, node).await?;
        Ok(capture)
    }

    /// Returns how much a guest's clock is ahead of the host's, in nanoseconds. Told with a capture,
    /// the time would be off by however long the capture waits to be read: it is asked for alone,
    /// and of several answers the quickest is the truest.
    async fn ahead(&self, branch: &BranchId, node: &Name) -> Result<i64, HostError> {
        let mut best: Option<(i64, i64)> = None;
        for _ in 0..limits::CLOCK_ROUNDS {
            let request = Request::Capture { node: node.clone(), aspects: Vec::new() };
            let asked_ns = now_ns();
            let guest_ns = self.assemble(branch, &request).await?.guest_ns;
            let took_ns = now_ns().saturating_sub(asked_ns).max(0);
            if best.is_none_or(|(least, _)| took_ns < least) {
                let halfway_ns = asked_ns.saturating_add(took_ns / 2);
                best = Some((took_ns, guest_ns.saturating_sub(halfway_ns)));
            }
            if took_ns <= limits::CLOCK_QUICK_NS {
                break;
            }
        }
        Ok(best.map_or(0, |(_, ahead_ns)| ahead_ns))
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
                                return assembler.finish(end).map_err(|error| hostile(&error));
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
