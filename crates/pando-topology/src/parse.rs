//! From text to topology, stage by stage.

use pando_model::cluster::SshDefaults;

use crate::error::{TopologyError, TopologyErrors};
use crate::input::TopologyInput;
use crate::limits::Limits;
use crate::record::Read;
use crate::report::Report;
use crate::resolve;
use crate::topology::Topology;
use crate::yaml;

/// Returns the topology that `text` describes; `ssh` holds where it says nothing.
///
/// # Errors
/// Everything that is wrong with it. Later stages are looked at only if earlier ones found nothing:
/// first whether it is YAML, then keys and types, then what values mean together.
pub fn parse(text: &str, limits: &Limits, ssh: &SshDefaults) -> Result<Topology, TopologyErrors> {
    let one = |error| TopologyErrors { errors: vec![error], more: 0 };
    let root = yaml::read(text, limits).map_err(one)?;
    let mut report = Report::new(limits);
    let input = TopologyInput::read(&mut report, "", &root);
    let topology = match input {
        Some(input) if report.is_good() => resolve::topology(&mut report, root.place, input, ssh),
        _ => None,
    };
    let notes = report.finish()?;
    topology.map(|topology| Topology { notes, ..topology }).ok_or_else(|| {
        one(TopologyError {
            path: String::new(),
            place: root.place,
            message: "the topology has no meaning".to_owned(),
            fix: "report this text as a defect of pando".to_owned(),
        })
    })
}

/// Returns the topology that a file's `bytes` describe.
///
/// # Errors
/// As [`parse`], and bytes that are no text.
pub fn parse_bytes(
    bytes: &[u8],
    limits: &Limits,
    ssh: &SshDefaults,
) -> Result<Topology, TopologyErrors> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (good, _) = bytes.split_at_checked(error.valid_up_to()).unwrap_or_default();
        let error = TopologyError {
            path: String::new(),
            place: yaml::place_after(&String::from_utf8_lossy(good)),
            message: "the text is not UTF-8".to_owned(),
            fix: "save it as UTF-8".to_owned(),
        };
        TopologyErrors { errors: vec![error], more: 0 }
    })?;
    parse(text, limits, ssh)
}
