//! The spool: where a cut's files wait until the daemon makes them a commit's own.
//!
//! ```text
//!   spool/COMMIT/spec.json    written before the disks move: from here on, the next layers are
//!                             the right tops, whether or not the cut got further (an empty
//!                             overlay reads like what lies below it)
//!                NODE.pages NODE.state
//!                report.json  written last: the cut is complete and durable, or failed
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use pando_model::host::{CutNodeReport, CutReport, CutSpec, HostError};
use pando_model::{BranchId, ByteCount, CommitId, Layout, Name, NodeLayers};
use serde::{Deserialize, Serialize};

use crate::trouble;

const SPEC: &str = "spec.json";
const REPORT: &str = "report.json";

/// What was written before the disks moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutIntent {
    /// The cut that was asked for.
    pub spec: CutSpec,
    /// The tops before it: what the commit's layers will be.
    pub tops: Vec<(Name, NodeLayers)>,
}

/// What a spool directory says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpoolState {
    /// No cut touched the disks.
    Nothing,
    /// The disks may have moved; no commit came of it.
    Broken(CutIntent),
    /// The cut ended.
    Ended(CutReport),
}

/// Writes a file so that it is whole or not there, also after a power cut.
pub(crate) fn write_durably(path: &Path, contents: &[u8]) -> io::Result<()> {
    let scratch = path.with_extension("new");
    let mut file = File::create(&scratch)?;
    file.write_all(contents)?;
    file.sync_data()?;
    fs::rename(&scratch, path)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes the intent of a cut; needs to survive us, not a power cut.
pub(crate) fn write_intent(spool: &Path, intent: &CutIntent) -> Result<(), HostError> {
    let json = serde_json::to_vec(intent)
        .map_err(|error| HostError::Protocol { detail: error.to_string() })?;
    fs::write(spool.join(SPEC), json).map_err(|e| trouble::io("write the spool", &e))
}

/// Writes the end of a cut, durably.
pub(crate) fn write_report(spool: &Path, report: &CutReport) -> Result<(), HostError> {
    let json = serde_json::to_vec_pretty(report)
        .map_err(|error| HostError::Protocol { detail: error.to_string() })?;
    write_durably(&spool.join(REPORT), &json).map_err(|e| trouble::io("write the spool", &e))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, HostError> {
    let what = || path.display().to_string();
    match fs::read(path) {
        Ok(json) => serde_json::from_slice(&json)
            .map(Some)
            .map_err(|e| HostError::Corrupt { what: what(), detail: e.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(trouble::io(format!("read {}", what()), &error)),
    }
}

/// Returns what a spool or commit directory says of its cut.
///
/// # Errors
/// [`HostError::Corrupt`], [`HostError::Io`].
pub fn inspect(directory: &Path) -> Result<SpoolState, HostError> {
    if let Some(report) = read_json(&directory.join(REPORT))? {
        return Ok(SpoolState::Ended(report));
    }
    match read_json(&directory.join(SPEC)) {
        Ok(Some(intent)) => Ok(SpoolState::Broken(intent)),
        // Written before the disks move, so a torn one means that they did not.
        Ok(None) | Err(HostError::Corrupt { .. }) => Ok(SpoolState::Nothing),
        Err(error) => Err(error),
    }
}

/// Makes a finished cut's files the commit's own, or clears away an unfinished one's, and returns
/// what came of the cut. Call it only when no keeper works on that cut. May be repeated.
///
/// # Errors
/// [`HostError::Corrupt`], [`HostError::Io`].
pub fn adopt(
    layout: &Layout,
    branch: &BranchId,
    commit: &CommitId,
) -> Result<Option<CutReport>, HostError> {
    let home = layout.commit(commit);
    if let SpoolState::Ended(report) = inspect(&home)? {
        return Ok(Some(report));
    }
    let spool = layout.spool(branch, commit);
    let report = match inspect(&spool)? {
        SpoolState::Ended(report) if report.failed.is_none() => {
            let move_files = || -> io::Result<()> {
                fs::create_dir_all(layout.commits())?;
                fs::rename(&spool, &home)?;
                sync_directory(&layout.commits())
            };
            move_files().map_err(|e| trouble::io("adopt a cut", &e))?;
            return Ok(Some(report));
        }
        SpoolState::Ended(report) => Some(report),
        SpoolState::Broken(intent) => Some(broken_report(branch, &intent)),
        SpoolState::Nothing => None,
    };
    if report.is_some() {
        free_space(&spool).map_err(|e| trouble::io("clear a spool", &e))?;
    }
    Ok(report)
}

/// Removes the large files of a cut that came to nothing. What says so stays, for a caller that
/// asks again; it goes with the branch.
pub fn free_space(spool: &Path) -> io::Result<()> {
    for entry in fs::read_dir(spool)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "pages" || kind == "state") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn broken_report(branch: &BranchId, intent: &CutIntent) -> CutReport {
    let nodes = intent.tops.iter().map(|(name, layers)| CutNodeReport {
        name: name.clone(),
        layers: layers.clone(),
        memory: None,
        profile: None,
        disk_bytes: ByteCount(0),
    });
    CutReport {
        commit: intent.spec.commit.clone(),
        pause_us: 0,
        total_us: 0,
        nodes: nodes.collect(),
        network: None,
        failed: Some(HostError::KeeperLost {
            branch: branch.clone(),
            detail: "it ended in the middle of a cut".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pando_model::commit::CommitKind;
    use pando_model::host::AfterCut;
    use std::time::Duration;

    fn intent(commit: &CommitId) -> CutIntent {
        CutIntent {
            spec: CutSpec {
                commit: commit.clone(),
                kind: CommitKind::Full,
                nodes: vec![],
                then: AfterCut::Continue,
                timeout: Duration::from_secs(1),
            },
            tops: vec![(
                "db".parse().unwrap(),
                NodeLayers::of_root(pando_model::LayerId::random()),
            )],
        }
    }

    fn report(commit: &CommitId, failed: Option<HostError>) -> CutReport {
        CutReport {
            commit: commit.clone(),
            pause_us: 1,
            total_us: 2,
            nodes: vec![],
            network: None,
            failed,
        }
    }

    #[test]
    fn every_state_of_a_spool_is_adopted_the_same_way_twice() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path(), home.path().join("run"));
        let branch = BranchId::random();
        let spool = |commit: &CommitId| {
            let spool = layout.spool(&branch, commit);
            fs::create_dir_all(&spool).unwrap();
            fs::write(spool.join("db.pages"), "x").unwrap();
            spool
        };
        let twice = |commit: &CommitId| {
            let first = adopt(&layout, &branch, commit).unwrap();
            assert_eq!(adopt(&layout, &branch, commit).unwrap(), first);
            first
        };

        assert_eq!(twice(&CommitId::random()), None, "no cut was asked for");

        let untouched = CommitId::random();
        spool(&untouched);
        assert_eq!(twice(&untouched), None, "the disks did not move");

        let broken = CommitId::random();
        write_intent(&spool(&broken), &intent(&broken)).unwrap();
        assert!(twice(&broken).unwrap().failed.is_some(), "the disks moved");
        assert!(!layout.spool(&branch, &broken).join("db.pages").exists(), "space is freed");

        let full = CommitId::random();
        let failure = HostError::DiskFull { what: "memory".into() };
        write_report(&spool(&full), &report(&full, Some(failure))).unwrap();
        assert!(twice(&full).unwrap().failed.is_some());

        let good = CommitId::random();
        write_report(&spool(&good), &report(&good, None)).unwrap();
        assert_eq!(twice(&good), Some(report(&good, None)));
        assert!(layout.commit(&good).join("db.pages").exists(), "the files are the commit's");
    }
}
