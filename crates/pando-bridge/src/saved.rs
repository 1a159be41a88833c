//! What a cut keeps of a bridge: its counts. Frames in the kernel are not kept; what a machine sent
//! and no other has received is lost to a branch, as on a wire that is unplugged for a moment.

use std::collections::BTreeMap;

use pando_model::FaultId;
use pando_model::network::{DropReason, Link};
use serde::{Deserialize, Serialize};

/// What the file says that it is.
const KIND: &str = "pando-bridge-1";

/// Counts of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of those, dropped.
    pub dropped: BTreeMap<DropReason, u64>,
}

/// Counts of a fault on a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Met {
    /// Frames.
    pub frames: u64,
    /// Of those, dropped.
    pub dropped: u64,
}

/// Everything counted since the branch's line began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// By link.
    pub links: BTreeMap<Link, Sent>,
    /// By fault and link.
    pub faults: BTreeMap<(FaultId, Link), Met>,
}

#[derive(Serialize, Deserialize)]
struct File {
    kind: String,
    links: Vec<(Link, Sent)>,
    faults: Vec<(FaultId, Link, Met)>,
}

impl Totals {
    /// Returns the bytes of the file.
    pub fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let links = self.links.iter().map(|(link, sent)| (link.clone(), sent.clone()));
        let fault = |((id, link), met): (&(FaultId, Link), &Met)| (id.clone(), link.clone(), *met);
        let faults = self.faults.iter().map(fault).collect();
        serde_json::to_vec(&File { kind: KIND.to_owned(), links: links.collect(), faults })
    }

    /// Returns what a file says, or why it is none. Total: any bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if file.kind != KIND {
            return Err("it is not a state of this version".to_owned());
        }
        let faults = file.faults.into_iter().map(|(id, link, met)| ((id, link), met));
        Ok(Self { links: file.links.into_iter().collect(), faults: faults.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wiring::tests::link;

    #[test]
    fn a_state_is_read_as_it_was_written_and_nonsense_is_not() {
        let mut totals = Totals::default();
        let dropped = BTreeMap::from([(DropReason::Partition, 2)]);
        totals.links.insert(link("a", "b"), Sent { frames: 3, bytes: 180, dropped });
        let met = Met { frames: 3, dropped: 2 };
        totals.faults.insert((FaultId::random(), link("a", "b")), met);
        assert_eq!(Totals::parse(&totals.encode().unwrap()), Ok(totals));
        for bytes in [&b""[..], b"{}", b"pando-n1", br#"{"kind":"x","links":[],"faults":[]}"#] {
            assert!(Totals::parse(bytes).is_err());
        }
    }
}
