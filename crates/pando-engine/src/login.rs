//! A private key of the user's own that logs in beside a cluster's. Its file is read for its public
//! half when the cluster is defined; nothing else of it is kept or told.
//!
//! A topology may name any file, so its reading is bounded, and errors say nothing of what is in it.

mod key_file;

use std::io::{self, Read};
use std::path::Path;

use pando_api::topology::Drift;
use pando_model::cluster::{LoginKey, TopologySource};
use pando_model::{Cluster, ErrorCode};
use pando_topology::Topology;

use self::key_file::{Kind, Private};
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::keys::quoted;
use crate::topology_files::blocking;

/// Longest file of a key, in bytes: one of RSA with 16384 bits has 13 KB.
const MAX_KEY_BYTES: u64 = 64 * 1024;
/// Characters of a public key that tell it from others: its end.
const TAIL: usize = 12;
/// Permissions with which OpenSSH refuses a private key.
const OTHERS: u32 = 0o077;

/// A private key as its file is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// Its public half, as one line.
    public: String,
    /// Whether a passphrase protects it.
    has_passphrase: bool,
    /// Whether others than its owner may read or change its file.
    exposed: bool,
}

/// Why a file is of no use as a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unusable {
    what: String,
    fix: String,
}

fn unusable<T>(
    what: impl Into<String>,
    fix: impl Into<String>,
) -> std::result::Result<T, Unusable> {
    Err(Unusable { what: what.into(), fix: fix.into() })
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Returns a regular file's text and its permissions. Files of the kernel's own, some of which keep
/// their readers waiting for ever, have no length.
fn read(path: &Path) -> io::Result<(String, u32)> {
    use std::os::unix::fs::PermissionsExt;
    let facts = std::fs::metadata(path)?;
    if !facts.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    if facts.len() == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is empty"));
    }
    if facts.len() > MAX_KEY_BYTES {
        let message = format!("it is longer than {MAX_KEY_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_KEY_BYTES).read_to_end(&mut bytes)?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), facts.permissions().mode()))
}

/// Returns the key in a file; `None` if there is no such file.
fn look(path: &str) -> std::result::Result<Option<Found>, Unusable> {
    let (text, mode) = match read(Path::new(path)) {
        Ok(read) => read,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return unusable(error.to_string(), "name the file of a private key"),
    };
    let Some(Private { public, has_passphrase }) = key_file::private(&text) else {
        return match key_file::public(&text) {
            Some(_) => {
                let private = path.strip_suffix(".pub").unwrap_or("the other half's file");
                unusable("it is a public key", format!("name the private one: {private}"))
            }
            None => unusable("it is no private key", "name the file of a private key"),
        };
    };
    let beside = read(Path::new(&format!("{path}.pub"))).ok();
    let beside = beside.and_then(|(text, _)| key_file::public(&text));
    let write_it = || format!("write it: ssh-keygen -y -f {0} >{0}.pub", quoted(path));
    let public = match (public, beside) {
        (Kind::Known(own), Some(beside)) if own != beside => {
            return unusable(format!("{path}.pub is not its public half"), write_it());
        }
        (Kind::Known(public), _) | (Kind::Hidden, Some(public)) => public,
        (Kind::Hidden, None) => {
            return unusable(
                format!("it does not tell its public half, and {path}.pub is not there"),
                write_it(),
            );
        }
    };
    Ok(Some(Found { public, has_passphrase, exposed: mode & OTHERS != 0 }))
}

/// Returns what a user should know of a key that is used, or would be.
fn note(path: &str, found: Option<&Found>) -> Option<String> {
    let Some(found) = found else {
        return Some(format!(
            "ssh.key_path: {path} is not there: only the cluster's own key logs in (`pando ssh`); for \
             one of yours: ssh-keygen -t ed25519 -N '' -f {}, before the cluster is defined",
            quoted(path)
        ));
    };
    if found.exposed {
        return Some(format!(
            "ssh.key_path: others may read {path}, and ssh takes no such key: chmod 600 {}",
            quoted(path)
        ));
    }
    let passphrase = "has a passphrase: ssh asks for it, or takes the key from its agent";
    found.has_passphrase.then(|| format!("ssh.key_path: {path} {passphrase}"))
}

/// Returns a key in a few words, for comparisons.
fn brief(path: &str, public: Option<&str>) -> String {
    let Some(public) = public else { return format!("{path}: not there") };
    let kind = public.split(' ').next().unwrap_or_default();
    let skipped = public.len().saturating_sub(TAIL);
    format!("{path}: {kind} …{}", public.get(skipped..).unwrap_or_default())
}

async fn looked(path: &str) -> Result<std::result::Result<Option<Found>, Unusable>> {
    let path = path.to_owned();
    blocking(move || Ok(look(&path))).await
}

impl Engine {
    /// Returns the key that a new cluster's nodes let in beside its own, and what to know of it.
    ///
    /// # Errors
    /// `topology_invalid` for a file that is there and is no private key.
    pub(crate) async fn login_key(
        &self,
        topology: &Topology,
    ) -> Result<(Option<LoginKey>, Option<String>)> {
        let Some(path) = &topology.ssh.key_path else { return Ok((None, None)) };
        match looked(path).await? {
            Ok(found) => {
                let note = note(path, found.as_ref());
                let key = found.map(|found| LoginKey { path: path.clone(), public: found.public });
                Ok((key, note))
            }
            Err(Unusable { what, fix }) => {
                let message = format!("ssh.key_path: {path} cannot log in: {what}");
                let failure = Failure::new(ErrorCode::TopologyInvalid, message);
                let setting = self.config.ssh.key_path.as_ref() == Some(path);
                let or = if setting { "; or unset `cluster.ssh_key_path`" } else { "" };
                Err(failure.subject("ssh.key_path").hint(format!("{fix}{or}")))
            }
        }
    }

    /// Returns how a key's file differs from the key that a cluster lets in, where the topology that
    /// it was defined from names the same file.
    pub(crate) async fn key_drift(
        &self,
        source: &TopologySource,
        defined: &Topology,
        now: &Topology,
    ) -> Result<Option<Drift>> {
        let Some(path) = &now.ssh.key_path else { return Ok(None) };
        if defined.ssh.key_path != now.ssh.key_path {
            return Ok(None);
        }
        let defined = source.login_key.as_ref();
        let defined = defined.map(|key| key.public.as_str());
        let file = match looked(path).await? {
            Ok(found) if found.as_ref().map(|found| found.public.as_str()) == defined => {
                return Ok(None);
            }
            Ok(found) => brief(path, found.as_ref().map(|found| found.public.as_str())),
            Err(Unusable { what, .. }) => format!("{path}: {what}"),
        };
        Ok(Some(Drift {
            path: "ssh.key_path".to_owned(),
            defined: Some(brief(path, defined)),
            file: Some(file),
        }))
    }

    /// Returns the file of the private key that logs in to a cluster's nodes: the user's own as
    /// long as it is the one that they let in, else the cluster's.
    pub(crate) async fn key_file(&self, cluster: &Cluster) -> Result<String> {
        let own = || self.config.layout.ssh_key(&cluster.id).display().to_string();
        let given = cluster.topology.as_ref().and_then(|source| source.login_key.as_ref());
        let Some(LoginKey { path, public }) = given else { return Ok(own()) };
        let is_still = looked(path)
            .await?
            .ok()
            .flatten()
            .is_some_and(|found| found.public == *public && !found.exposed);
        Ok(if is_still { path.clone() } else { own() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::keys::KeyPair;

    /// Writes a file that only its owner can read; returns its path.
    fn write(directory: &tempfile::TempDir, name: &str, text: &str) -> String {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn why(path: &str) -> (String, String) {
        let Unusable { what, fix } = look(path).unwrap_err();
        (what, fix)
    }

    #[test]
    fn a_key_is_found_with_and_without_its_public_half_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let pair = KeyPair::generate("me@here").unwrap();
        let path = write(&directory, "id", &pair.private);
        let public = pair.public.strip_suffix(" me@here").unwrap().to_owned();
        let found = Found { public, has_passphrase: false, exposed: false };
        assert_eq!(look(&path), Ok(Some(found.clone())));
        write(&directory, "id.pub", &pair.public);
        assert_eq!(look(&path), Ok(Some(found.clone())));
        assert_eq!(note(&path, Some(&found)), None);

        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let exposed = look(&path).unwrap().unwrap();
        assert!(note(&path, Some(&exposed)).unwrap().contains("chmod 600"), "{exposed:?}");
        let other = KeyPair::generate("").unwrap();
        write(&directory, "id.pub", &other.public);
        assert_eq!(why(&path).0, format!("{path}.pub is not its public half"));
    }

    #[test]
    fn what_is_no_private_key_is_refused_and_none_of_it_told() {
        let directory = tempfile::tempdir().unwrap();
        let pair = KeyPair::generate("").unwrap();
        let path = write(&directory, "id.pub", &pair.public);
        let private = path.strip_suffix(".pub").unwrap();
        let expected =
            ("it is a public key".to_owned(), format!("name the private one: {private}"));
        assert_eq!(why(&path), expected);
        let path = write(&directory, "passwd", "root:x:0:0:secret:/root:/bin/sh\n");
        assert_eq!(why(&path).0, "it is no private key");
        let half = pair.private.get(..pair.private.len() / 2).unwrap();
        assert_eq!(why(&write(&directory, "half", half)).0, "it is no private key");
        assert_eq!(why(directory.path().to_str().unwrap()).0, "it is no regular file");
        assert!(why("/dev/zero").0.contains("no regular file"));
        assert_eq!(why("/proc/kmsg").0, "it is empty");
        let long = "a".repeat(1 + usize::try_from(MAX_KEY_BYTES).unwrap());
        assert!(why(&write(&directory, "long", &long)).0.contains("longer than"));
        assert_eq!(look(&write(&directory, "x", "x").replace("/x", "/none")), Ok(None));
        assert_eq!(look(&format!("{path}/below")), Ok(None));
    }

    #[test]
    fn a_key_that_hides_its_public_half_needs_it_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let pem = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQE=\n-----END EC PRIVATE KEY-----\n";
        let path = write(&directory, "id", pem);
        let (what, fix) = why(&path);
        assert!(what.contains("does not tell") && fix.contains("ssh-keygen -y -f"), "{what} {fix}");
        let pair = KeyPair::generate("").unwrap();
        write(&directory, "id.pub", &pair.public);
        let found = look(&path).unwrap().unwrap();
        assert_eq!(found.public, pair.public.trim_end());
    }
}
