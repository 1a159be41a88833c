//! SSH keys: one for each cluster to log in with, made once and kept in a file that only its owner
//! can read; one for each new node to be known by.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use pando_model::guest::Identity;
use pando_model::{Cluster, ClusterId, Layout, Name, NodeDef};
use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use crate::failure::{Failure, Result};
use crate::incarnation::{interfaces, random_hex};

/// A key pair as text, in OpenSSH's formats.
pub(crate) struct KeyPair {
    pub private: String,
    pub public: String,
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::internal(format!("cannot {what} {}: {error}", path.display()))
}

impl KeyPair {
    /// Returns a new ed25519 key.
    pub fn generate(comment: &str) -> Result<Self> {
        let failed =
            |error: ssh_key::Error| Failure::internal(format!("cannot make a key: {error}"));
        let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(failed)?;
        key.set_comment(comment);
        let private = key.to_openssh(LineEnding::LF).map_err(failed)?;
        let public = key.public_key().to_openssh().map_err(failed)?;
        Ok(Self { private: private.to_string(), public })
    }
}

/// Returns the public key of a cluster; makes the pair if there is none.
pub(crate) fn cluster_key(layout: &Layout, cluster: &ClusterId) -> Result<String> {
    let path = layout.ssh_key(cluster);
    let public = path.with_extension("pub");
    match std::fs::read_to_string(&public) {
        Ok(line) => return Ok(line.trim_end().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("read", &public, &error)),
    }
    let pair = KeyPair::generate(&format!("pando {cluster}"))?;
    // The public half is written last: it stands for a pair that is complete.
    write_private(&path, &pair.private).map_err(|error| failed("write", &path, &error))?;
    write_private(&public, &format!("{}\n", pair.public))
        .map_err(|error| failed("write", &public, &error))?;
    Ok(pair.public)
}

/// Returns the public keys that log in to a cluster's nodes: its own and, if there is one, that of
/// its user.
pub(crate) fn login_keys(layout: &Layout, cluster: &Cluster) -> Result<Vec<String>> {
    let mut keys = vec![cluster_key(layout, &cluster.id)?];
    let source = cluster.topology.as_ref();
    let given = source.and_then(|source| source.login_key.as_ref());
    keys.extend(given.map(|key| key.public.clone()));
    Ok(keys)
}

/// Returns new identities for all nodes of a cluster, which records their host keys.
pub(crate) fn identities(
    layout: &Layout,
    cluster: &mut Cluster,
) -> Result<BTreeMap<Name, Identity>> {
    let login = login_keys(layout, cluster)?;
    let mut identities = BTreeMap::new();
    let told: Vec<_> = cluster.nodes.iter().map(|def| interfaces(cluster, def)).collect();
    for (def, interfaces) in cluster.nodes.iter_mut().zip(told) {
        let host_key = KeyPair::generate(def.name.as_str())?;
        let identity = Identity {
            hostname: def.name.host_name(),
            machine_id: random_hex(),
            ssh_host_key: host_key.private,
            ssh_host_key_public: host_key.public.clone(),
            authorized_keys: login.clone(),
            interfaces,
            env: def.env.clone(),
        };
        def.host_key = Some(host_key.public);
        identities.insert(def.name.clone(), identity);
    }
    write_known_hosts(layout, &cluster.id, &cluster.nodes)?;
    Ok(identities)
}

/// Returns the file with a cluster's host keys, by node name: every branch has the same, whatever
/// its port.
pub(crate) fn known_hosts(layout: &Layout, cluster: &ClusterId) -> PathBuf {
    layout.ssh_key(cluster).with_extension("known_hosts")
}

/// Writes that file.
fn write_known_hosts(layout: &Layout, cluster: &ClusterId, nodes: &[NodeDef]) -> Result<()> {
    let path = known_hosts(layout, cluster);
    let keyed = nodes.iter().filter_map(|node| Some((&node.name, node.host_key.as_ref()?)));
    let lines: String = keyed.map(|(name, key)| format!("{name} {key}\n")).collect();
    write_private(&path, &lines).map_err(|error| failed("write", &path, &error))
}

/// Returns a path as one word of a shell's command line.
pub(crate) fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    match path.chars().all(plain) {
        true => path.to_owned(),
        false => format!("'{}'", path.replace('\'', "'\\''")),
    }
}

/// Removes the keys of a cluster.
pub(crate) fn remove_cluster_key(layout: &Layout, cluster: &ClusterId) -> Result<()> {
    let path = layout.ssh_key(cluster);
    let half_written = path.with_extension(PARTIAL);
    for path in [half_written, path.with_extension("pub"), path, known_hosts(layout, cluster)] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &path, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What a key is called until it is whole.
const PARTIAL: &str = "partial";

/// Writes a file of mode 0600 that appears whole or not at all.
fn write_private(path: &Path, contents: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let partial = path.with_extension(PARTIAL);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(contents.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_cluster_key_is_made_once_and_private() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path(), home.path());
        let cluster = ClusterId::random();
        let public = cluster_key(&layout, &cluster).unwrap();
        assert!(public.starts_with("ssh-ed25519 "), "{public}");
        assert_eq!(cluster_key(&layout, &cluster).unwrap(), public);
        let mode = std::fs::metadata(layout.ssh_key(&cluster)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // As a crash leaves it.
        std::fs::write(layout.ssh_key(&cluster).with_extension(PARTIAL), "half").unwrap();
        remove_cluster_key(&layout, &cluster).unwrap();
        remove_cluster_key(&layout, &cluster).unwrap();
        assert_eq!(std::fs::read_dir(home.path().join("keys")).unwrap().count(), 0);
    }

    #[test]
    fn a_key_reads_back_as_the_pair_it_is() {
        let pair = KeyPair::generate("test").unwrap();
        let key = PrivateKey::from_openssh(&pair.private).unwrap();
        assert_eq!(key.public_key().to_openssh().unwrap(), pair.public);
    }
}
