//! The settings of vmcluster-mcp: its variables, and the YAML file that one of them names. What
//! means something here is read, the variables below our own and above `config.toml`, the file below
//! both; the rest is accepted, and said to have no effect.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use pando_api::ApiError;
use pando_model::ErrorCode;
use pando_topology::{Limits, Place, Single, settings};
use serde::Serialize;

use super::Sources;
use crate::limits::MAX_SETTINGS_BYTES;

/// How those variables begin; the file's keys are the rest, in small letters.
pub const PREFIX: &str = "VMCLUSTER_";
/// The variable that names the file.
const CONFIG: &str = "VMCLUSTER_CONFIG";

/// What a variable means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The same as this setting.
    Setting(&'static str),
    /// The path of a file with the other ones.
    File,
    /// Nothing; why.
    Nothing(&'static str),
}

use Meaning::{File, Nothing, Setting};

/// Every variable.
pub const VARIABLES: &[(&str, Meaning)] = &[
    (CONFIG, File),
    ("VMCLUSTER_TOPOLOGY_DIR", Setting("cluster.topology_dir")),
    ("VMCLUSTER_OVERLAY_DIR", Nothing("disks are in the home: `PANDO_HOME`")),
    ("VMCLUSTER_ARTIFACT_REGISTRY", Nothing("artifacts are not there yet")),
    ("VMCLUSTER_ARTIFACT_STORE_DIR", Nothing("artifacts are not there yet")),
    ("VMCLUSTER_FAULT_REGISTRY", Nothing("faults are in the database of the home, and in commits")),
    ("VMCLUSTER_SSH_KEY_PATH", Setting("cluster.ssh_key_path")),
    ("VMCLUSTER_SSH_USER", Setting("cluster.ssh_user")),
    ("VMCLUSTER_LIBVIRT_URI", Nothing("QEMU is started without libvirt")),
    ("VMCLUSTER_LOG_LEVEL", Setting("daemon.log")),
];

/// Returns the key of the file that is the same as a variable.
pub fn key_of(variable: &str) -> String {
    variable.strip_prefix(PREFIX).unwrap_or(variable).to_ascii_lowercase()
}

fn meaning(variable: &str) -> Option<Meaning> {
    let known = VARIABLES.iter().find(|(known, _)| *known == variable);
    known.map(|(_, meaning)| *meaning)
}

/// Returns the variable that stands for a setting of ours.
fn variable_for(key: &str) -> Option<&'static str> {
    let is_it = |meaning: &Meaning| matches!(meaning, Setting(known) if *known == key);
    VARIABLES.iter().find(|(_, meaning)| is_it(meaning)).map(|(name, _)| *name)
}

/// Returns a value as ours would be written.
fn ours(key: &str, text: &str) -> String {
    if key == "daemon.log" { log_level(text) } else { text.to_owned() }
}

/// Something that is set and has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// The variable, or the key of the file.
    pub variable: String,
    /// The file, for a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Why.
    pub why: &'static str,
}

impl Ignored {
    /// Returns what it is, and where.
    pub fn what(&self) -> String {
        match &self.file {
            Some(file) => format!("`{}` in {file}", self.variable),
            None => self.variable.clone(),
        }
    }
}

/// The file, as far as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Theirs {
    /// Its path.
    pub path: String,
    /// Its values by key, and where they are.
    values: BTreeMap<String, (String, Place)>,
    /// Its keys that mean nothing here, and why.
    ignored: Vec<(String, &'static str)>,
}

impl Theirs {
    /// Returns what the file that the variable names says.
    ///
    /// # Errors
    /// `config_invalid` when it cannot be read, is no mapping in YAML, or has something else than
    /// one value for a key that means something here.
    fn read(path: &str) -> Result<Self, ApiError> {
        if !Path::new(path).is_absolute() {
            return Err(invalid(&format!("{CONFIG} is `{path}`, but must be an absolute path")));
        }
        let text = text_of(Path::new(path))
            .map_err(|error| invalid(&format!("{CONFIG}: cannot read {path}: {error}")))?;
        let entries = settings(&text, &Limits::default())
            .map_err(|error| invalid(&format!("{path}, {error}")).hint(error.fix))?;
        let mut theirs = Self { path: path.to_owned(), ..Self::default() };
        for entry in entries {
            let variable = VARIABLES.iter().find(|(name, _)| key_of(name) == entry.key);
            let why = match (variable.map(|(_, meaning)| *meaning), entry.value) {
                (Some(Setting(_)), Single::Text(text)) => {
                    theirs.values.insert(entry.key, (text, entry.place));
                    continue;
                }
                (Some(Setting(_)), Single::Several) => {
                    let (key, place) = (entry.key, entry.place);
                    let message = format!("{path}, {place}: `{key}` must be one value");
                    return Err(invalid(&message).subject(key));
                }
                (_, Single::Nothing) => continue,
                (Some(File), _) => "a file names no other file",
                (Some(Nothing(why)), _) => why,
                (None, _) => "no setting of vmcluster-mcp 1.1 has this name",
            };
            theirs.ignored.push((entry.key, why));
        }
        Ok(theirs)
    }
}

fn invalid(message: &str) -> ApiError {
    ApiError::new(ErrorCode::ConfigInvalid, message)
        .subject(CONFIG)
        .hint(format!("correct the file, or unset {CONFIG}"))
}

/// Returns the text of a regular file that is no longer than settings can be.
fn text_of(path: &Path) -> io::Result<String> {
    let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
    if !std::fs::metadata(path)?.is_file() {
        return Err(invalid("it is no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_SETTINGS_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SETTINGS_BYTES {
        return Err(invalid(format!("it is longer than {MAX_SETTINGS_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| invalid("it is not UTF-8".to_owned()))
}

impl Sources {
    /// Reads the file that the environment names, if it names one.
    ///
    /// # Errors
    /// `config_invalid`.
    pub(super) fn read_theirs(&mut self) -> Result<(), ApiError> {
        let path = self.environment.get(CONFIG).filter(|path| !path.is_empty());
        self.theirs = path.map(|path| Theirs::read(path)).transpose()?;
        Ok(())
    }

    /// Returns the variable that stands for a setting, and its text as ours would be written.
    pub(super) fn foreign(&self, key: &str) -> Option<(&'static str, String)> {
        let name = variable_for(key)?;
        Some((name, ours(key, self.environment.get(name)?)))
    }

    /// Returns the text of a setting in the file that the environment names, as ours would be
    /// written, and where it is.
    pub(super) fn foreign_file(&self, key: &str) -> Option<(String, String)> {
        let theirs = self.theirs.as_ref()?;
        let own = key_of(variable_for(key)?);
        let (text, place) = theirs.values.get(&own)?;
        Some((ours(key, text), format!("`{own}` in {}, {place}", theirs.path)))
    }

    /// Returns what is set and has no effect: variables, then keys of the file.
    pub fn ignored(&self) -> Vec<Ignored> {
        let theirs = self.environment.keys().filter(|name| name.starts_with(PREFIX));
        let variables = theirs.filter_map(|name| {
            let why = match meaning(name) {
                Some(Setting(_) | File) => return None,
                Some(Nothing(why)) => why,
                None => "no variable of vmcluster-mcp 1.1 has this name",
            };
            Some(Ignored { variable: name.clone(), file: None, why })
        });
        let keys = self.theirs.iter().flat_map(|theirs| {
            theirs.ignored.iter().map(|(key, why)| Ignored {
                variable: key.clone(),
                file: Some(theirs.path.clone()),
                why,
            })
        });
        variables.chain(keys).collect()
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

#[cfg(test)]
mod tests {
    use super::super::{Origin, Settings};
    use super::*;

    /// Returns sources whose environment names a file with this text.
    fn sources(file: &Path, text: &str) -> Result<Sources, ApiError> {
        std::fs::write(file, text).unwrap();
        let mut sources = Sources::default();
        let path = file.to_str().unwrap().to_owned();
        sources.environment.insert(CONFIG.to_owned(), path);
        sources.read_theirs().map(|()| sources)
    }

    #[test]
    fn the_file_stands_below_variables_and_our_own_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.yaml");
        let text = "topology_dir: /theirs\nssh_user: ops\nssh_key_path: /k\nlog_level: WARNING\n";
        let mut sources = sources(&path, text).unwrap();
        let shown = |sources: &Sources, key: &str| {
            let (_, shown) = Settings::resolve(sources).unwrap();
            let one = shown.into_iter().find(|one| one.key == key).unwrap();
            (one.value, one.origin)
        };
        let file = Origin::Foreign(path.to_str().unwrap().to_owned());
        for (key, value) in [
            ("cluster.topology_dir", "/theirs"),
            ("cluster.ssh_user", "ops"),
            ("cluster.ssh_key_path", "/k"),
            ("daemon.log", "warn"),
        ] {
            assert_eq!(shown(&sources, key), (value.to_owned(), file.clone()));
        }
        sources.file.insert("cluster.ssh_user".to_owned(), "own".to_owned());
        assert_eq!(shown(&sources, "cluster.ssh_user"), ("own".to_owned(), Origin::File));
        let name = "VMCLUSTER_SSH_USER".to_owned();
        sources.environment.insert(name.clone(), "env".to_owned());
        let by_variable = ("env".to_owned(), Origin::Environment(name));
        assert_eq!(shown(&sources, "cluster.ssh_user"), by_variable);
        assert_eq!(sources.ignored(), []);
    }

    #[test]
    fn what_means_nothing_in_the_file_is_told_with_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.yaml");
        let text = "overlay_dir: /o\nlibvirt_uri: [a]\nssh_user:\nconfig: /c\nnew: {a: b}\n";
        let sources = sources(&path, text).unwrap();
        let ignored = sources.ignored();
        let keys: Vec<&str> = ignored.iter().map(|one| one.variable.as_str()).collect();
        assert_eq!(keys, ["overlay_dir", "libvirt_uri", "config", "new"]);
        assert_eq!(ignored[0].what(), format!("`overlay_dir` in {}", path.display()));
        assert!(Settings::resolve(&sources).unwrap().0.ssh_user.0.is_empty());
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_with_its_path_and_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.yaml");
        let bomb: String = std::iter::once("k0: &k0 [x]\n".to_owned())
            .chain((1..40).map(|n| format!("k{n}: &k{n} [*k{0}, *k{0}]\n", n - 1)))
            .collect();
        for (text, why) in [
            ("ssh_user: [ops]", ", line 1, column 11: `ssh_user` must be one value"),
            ("- ssh_user", ", line 1, column 1: this is no mapping"),
            ("ssh_user: a\nssh_user: b", "`ssh_user` is there twice"),
            ("ssh_user: {", "this is not YAML"),
            (&bomb, "with its aliases the text has more than"),
            (&"#".repeat(70_000), "it is longer than"),
        ] {
            let error = sources(&path, text).unwrap_err();
            assert_eq!(error.code, ErrorCode::ConfigInvalid);
            let shown = error.message;
            assert!(shown.contains(why) && shown.contains(path.to_str().unwrap()), "{shown}");
        }
        let error = Settings::resolve(&sources(&path, "\nssh_user: A B\n").unwrap()).unwrap_err();
        let place = format!("`ssh_user` in {}, line 2, column 11", path.display());
        assert_eq!(error.message, format!("{place} is `A B`, but must be a user's name"));
        for named in ["config.yaml", "/none/config.yaml", directory.path().to_str().unwrap()] {
            let mut sources = Sources::default();
            sources.environment.insert(CONFIG.to_owned(), named.to_owned());
            let error = sources.read_theirs().unwrap_err();
            assert!(error.message.contains(named) && error.hint.is_some(), "{}", error.message);
        }
    }
}
