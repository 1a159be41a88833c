//! The variables of vmcluster-mcp: those that mean something here are read, below our own variables
//! and above the file; the others are accepted, and said to have no effect.

use serde::Serialize;

use super::Sources;

/// How those variables begin.
pub const PREFIX: &str = "VMCLUSTER_";

/// What a variable means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The same as this setting.
    Setting(&'static str),
    /// Nothing; why.
    Nothing(&'static str),
}

use Meaning::{Nothing, Setting};

/// Every variable.
pub const VARIABLES: &[(&str, Meaning)] = &[
    ("VMCLUSTER_CONFIG", Nothing("settings are in config.toml of the home: `pando config path`")),
    ("VMCLUSTER_TOPOLOGY_DIR", Setting("cluster.topology_dir")),
    ("VMCLUSTER_OVERLAY_DIR", Nothing("disks are in the home: `PANDO_HOME`")),
    ("VMCLUSTER_ARTIFACT_REGISTRY", Nothing("artifacts are not there yet")),
    ("VMCLUSTER_ARTIFACT_STORE_DIR", Nothing("artifacts are not there yet")),
    ("VMCLUSTER_FAULT_REGISTRY", Nothing("faults are in the database of the home, and in commits")),
    ("VMCLUSTER_SSH_KEY_PATH", Nothing("each cluster has a key of its own: `pando ssh`")),
    ("VMCLUSTER_SSH_USER", Nothing("the user is the topology's `ssh.user`")),
    ("VMCLUSTER_LIBVIRT_URI", Nothing("QEMU is started without libvirt")),
    ("VMCLUSTER_LOG_LEVEL", Setting("daemon.log")),
];

/// A variable that is set and has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// The variable.
    pub variable: String,
    /// Why.
    pub why: &'static str,
}

impl Sources {
    /// Returns the variable that stands for a setting, and its text as ours would be written.
    pub(super) fn foreign(&self, key: &str) -> Option<(&'static str, String)> {
        let (name, _) = VARIABLES
            .iter()
            .find(|(_, meaning)| matches!(meaning, Setting(known) if *known == key))?;
        let text = self.environment.get(*name)?;
        let ours = if key == "daemon.log" { log_level(text) } else { text.clone() };
        Some((name, ours))
    }

    /// Returns the variables that are set and have no effect.
    pub fn ignored(&self) -> Vec<Ignored> {
        let theirs = self.environment.keys().filter(|name| name.starts_with(PREFIX));
        let ignored = theirs.filter_map(|name| {
            let known = VARIABLES.iter().find(|(known, _)| known == name);
            let why = match known.map(|(_, meaning)| *meaning) {
                Some(Setting(_)) => return None,
                Some(Nothing(why)) => why,
                None => "no variable of vmcluster-mcp 1.1 has this name",
            };
            Some(Ignored { variable: name.clone(), why })
        });
        ignored.collect()
    }
}

/// Returns a level of Python's logging as ours.
fn log_level(text: &str) -> String {
    match text.trim().to_ascii_lowercase().as_str() {
        "warning" => "warn".to_owned(),
        "critical" | "fatal" => "error".to_owned(),
        other => other.to_owned(),
    }
}
