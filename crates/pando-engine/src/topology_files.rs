//! Topologies by name: files of one directory. A name is never a path, so nothing outside of the
//! directory is read; files are the user's own and small.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pando_api::ApiError;
use pando_api::topology::TopologyView;
use pando_model::cluster::SshDefaults;
use pando_model::{ErrorCode, suggest};
use pando_topology::{Limits, Topology, TopologyErrors, parse_bytes};

use crate::engine::Engine;
use crate::failure::{Failure, Result};

/// How a topology's file ends.
const EXTENSIONS: [&str; 2] = ["yaml", "yml"];
/// Longest name of a topology, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// Most topologies of a directory; what is beyond is not listed.
const MAX_LISTED: usize = 1000;

/// A text and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// What it is called, if it is a file of the directory.
    pub name: Option<String>,
    /// Its file.
    pub path: Option<PathBuf>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Source {
    /// Returns what the text means; `ssh` holds where it says nothing.
    pub fn parse(&self, ssh: &SshDefaults) -> std::result::Result<Topology, TopologyErrors> {
        parse_bytes(&self.bytes, &Limits::default(), ssh)
    }

    /// Returns the file's path as text.
    pub fn shown_path(&self) -> Option<String> {
        self.path.as_ref().map(|path| path.display().to_string())
    }
}

/// Returns what a topology describes, in short.
pub(crate) fn view(topology: &Topology) -> TopologyView {
    let nodes = &topology.nodes;
    let mut images: Vec<String> = nodes.iter().map(|node| node.image.name.clone()).collect();
    images.sort();
    images.dedup();
    TopologyView {
        cluster: topology.name.clone(),
        description: topology.description.clone(),
        nodes: nodes.iter().map(|node| node.name.clone()).collect(),
        networks: topology.networks.iter().map(|network| network.name.clone()).collect(),
        images,
        vcpus: nodes.iter().map(|node| u32::from(node.vcpus)).sum(),
        memory_mib: nodes.iter().map(|node| node.memory.mib()).sum(),
        digest: topology.digest(),
    }
}

/// Returns a topology's errors as one answer.
pub(crate) fn invalid(source: &Source, errors: &TopologyErrors) -> Failure {
    let what = match &source.name {
        Some(name) => format!("the topology `{name}`"),
        None => "the topology".to_owned(),
    };
    let count = errors.errors.len() + errors.more;
    let errors_are = if count == 1 { "an error".to_owned() } else { format!("{count} errors") };
    let message = format!("{what} has {errors_are}:\n{errors}");
    Failure::new(ErrorCode::TopologyInvalid, message).subject("topology")
}

impl Engine {
    /// Returns the topology that `text` names or is.
    pub(crate) async fn topology(&self, text: &str) -> Result<(Source, Topology)> {
        let source = self.topology_source(text).await?;
        match source.parse(&self.config.ssh) {
            Ok(topology) => Ok((source, topology)),
            Err(errors) => Err(invalid(&source, &errors)),
        }
    }

    /// Returns the text that `text` names or is. No name has a line break, a colon or a brace, and
    /// no topology is without all of them.
    pub(crate) async fn topology_source(&self, text: &str) -> Result<Source> {
        if text.contains(['\n', ':', '{']) {
            return Ok(Source { name: None, path: None, bytes: text.as_bytes().to_vec() });
        }
        let (directory, name) = (self.config.topology_dir.clone(), text.to_owned());
        blocking(move || find(&directory, &name)).await
    }

    /// Returns every topology of the directory, sorted by name.
    pub(crate) async fn topology_sources(&self) -> Result<Vec<Source>> {
        let directory = self.config.topology_dir.clone();
        blocking(move || {
            let names = names(&directory)?;
            Ok(names.iter().filter_map(|name| find(&directory, name).ok()).collect())
        })
        .await
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::internal(format!("a reading task ended: {error}")))?
}

/// Returns whether a text may be a file's name: no path, nothing hidden.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty()
        && text.len() <= MAX_NAME_BYTES
        && !text.starts_with('.')
        && text.chars().all(allowed)
}

/// Returns a file's name without its ending, if it is a topology's.
fn stem(file: &str) -> Option<&str> {
    EXTENSIONS.iter().find_map(|end| file.strip_suffix(end)?.strip_suffix('.'))
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(directory, &error)),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|file| stem(&file).filter(|name| is_name(name)).map(str::to_owned))
        .take(MAX_LISTED)
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn find(directory: &Path, text: &str) -> Result<Source> {
    let name = stem(text).unwrap_or(text);
    if text.contains('/') {
        let shown: String = text.chars().take(60).collect();
        let message = format!("`{shown}` is a path, and only the command line reads those");
        return Err(ApiError::parameter("topology", message)
            .hint(format!(
                "pass what the file holds as `topology`, or a name that topology_list shows: \
                 files in {}",
                directory.display()
            ))
            .into());
    }
    if !is_name(name) {
        let shown: String = text.chars().take(60).collect();
        return Err(ApiError::parameter(
            "topology",
            format!("`{shown}` is no topology's name: letters, digits, `-`, `_` and `.`"),
        )
        .hint("give a name that topology_list shows, or the YAML itself")
        .into());
    }
    for extension in EXTENSIONS {
        let path = directory.join(format!("{name}.{extension}"));
        match read(&path) {
            Ok(bytes) => {
                return Ok(Source { name: Some(name.to_owned()), path: Some(path), bytes });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&path, &error)),
        }
    }
    let known = names(directory).unwrap_or_default();
    let hint = match suggest::nearest(name, known.iter().map(String::as_str)) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!(
            "`pando topology list`; write {}, give the file's path on the command line, or pass \
             what it holds",
            directory.join(format!("{name}.yaml")).display()
        ),
    };
    Err(Failure::not_found("topology", name).hint(hint))
}

/// Reads a regular file, and no more of it than a topology can have, so that its reader says so.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let most = Limits::default().bytes as u64 + 1;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("cannot read {}: {error}", path.display()))
        .subject("topology")
        .hint("make it readable, or set another directory: `pando config set cluster.topology_dir DIR`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_directory() {
        for text in ["etcd", "my-Lab_2", "a.b"] {
            assert!(is_name(text), "{text}");
        }
        let long = "a".repeat(129);
        for text in ["", "..", ".a", "../a", "a/b", "/etc/passwd", "a b", "a\0", "ü", &long] {
            assert!(!is_name(text), "{text}");
        }
        assert_eq!(
            [stem("a.yaml"), stem("a.yml"), stem("a.json"), stem("yaml")],
            [Some("a"), Some("a"), None, None]
        );
    }
}
