//! The token of a home's listener on TCP: 256 random bits in a file that only its user may read.
//! The file is the truth: it is read for each request, so that a new token holds at once.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// What a token begins with, so that a leaked one is recognised.
const PREFIX: &str = "pando_";
/// Random bytes of a token.
const RANDOM_BYTES: usize = 32;
/// Shortest text that is taken for a token: what anybody put there is no shorter than a secret.
const MIN_BYTES: usize = 32;
/// Longest text that is taken for a token.
pub(crate) const MAX_BYTES: usize = 256;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file is not there.
    #[error("there is no token in {0}")]
    Absent(PathBuf),
    /// Others may read it, so that it may be no secret any more.
    #[error("{0} can be read by others, so its token may be known to them")]
    Exposed(PathBuf),
    /// It is no file of this user.
    #[error("{0} is no file of this user")]
    Foreign(PathBuf),
    /// It holds something else.
    #[error("{0} holds no token ({MIN_BYTES} to {MAX_BYTES} visible ASCII characters)")]
    Malformed(PathBuf),
    /// The operating system refused.
    #[error("{path} is not usable")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// The file that holds a token.
#[derive(Debug, Clone)]
pub struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// Returns the file at `path`, which need not be there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the token.
    ///
    /// # Errors
    /// Any [`TokenError`].
    pub fn read(&self) -> Result<String, TokenError> {
        // A pipe that somebody put there must not hold us up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&self.path, flags, Mode::empty());
        let file = File::from(opened.map_err(|source| match source {
            Errno::NOENT => TokenError::Absent(self.path.clone()),
            Errno::LOOP => TokenError::Foreign(self.path.clone()),
            other => self.failed(other.into()),
        })?);
        let facts = file.metadata().map_err(|source| self.failed(source))?;
        if !facts.is_file() || facts.uid() != rustix::process::geteuid().as_raw() {
            return Err(TokenError::Foreign(self.path.clone()));
        }
        if facts.mode() & 0o077 != 0 {
            return Err(TokenError::Exposed(self.path.clone()));
        }
        let mut text = Vec::new();
        let most = MAX_BYTES as u64 + 2;
        file.take(most).read_to_end(&mut text).map_err(|source| self.failed(source))?;
        let token = text.trim_ascii();
        let is_token = (MIN_BYTES..=MAX_BYTES).contains(&token.len())
            && token.iter().all(u8::is_ascii_graphic);
        match String::from_utf8(token.to_vec()) {
            Ok(token) if is_token => Ok(token),
            _ => Err(TokenError::Malformed(self.path.clone())),
        }
    }

    /// Returns the token, made now if there is none.
    ///
    /// # Errors
    /// Any [`TokenError`] but `Absent`.
    pub fn read_or_make(&self) -> Result<String, TokenError> {
        match self.read() {
            Err(TokenError::Absent(_)) => {}
            other => return other,
        }
        let file = self.prepared(&random_token().map_err(|source| self.failed(source))?)?;
        match file.persist_noclobber(&self.path) {
            // Somebody else made one in the meantime: that one holds.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(self.failed(error.error)),
            Ok(_) => {}
        }
        self.read()
    }

    /// Replaces the token, and returns the new one. The old one opens nothing any more.
    ///
    /// # Errors
    /// `Io`.
    pub fn rotate(&self) -> Result<String, TokenError> {
        let token = random_token().map_err(|source| self.failed(source))?;
        let file = self.prepared(&token)?;
        file.persist(&self.path).map_err(|error| self.failed(error.error))?;
        Ok(token)
    }

    /// Returns whether `presented` is the token, in a time that says nothing of how much of it is.
    ///
    /// # Errors
    /// Any [`TokenError`].
    pub fn accepts(&self, presented: &[u8]) -> Result<bool, TokenError> {
        let token = self.read()?;
        // Hashes of equal length, compared in constant time.
        Ok(blake3::hash(token.as_bytes()) == blake3::hash(presented))
    }

    /// Returns a private file beside the real one that holds the token.
    fn prepared(&self, token: &str) -> Result<tempfile::NamedTempFile, TokenError> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let prepare = || {
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            writeln!(file, "{token}")?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        prepare().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> TokenError {
        TokenError::Io { path: self.path.clone(), source }
    }
}

fn random_token() -> io::Result<String> {
    let mut bytes = [0; RANDOM_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{PREFIX}{digits}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file() -> (tempfile::TempDir, TokenFile) {
        let directory = tempfile::tempdir().unwrap();
        let file = TokenFile::new(directory.path().join("http.token"));
        (directory, file)
    }

    #[test]
    fn a_token_is_made_once_and_is_private() {
        let (directory, file) = file();
        assert!(matches!(file.read(), Err(TokenError::Absent(_))));
        let token = file.read_or_make().unwrap();
        assert_eq!(token.len(), PREFIX.len() + 2 * RANDOM_BYTES);
        assert_eq!(file.read_or_make().unwrap(), token);
        let mode = std::fs::metadata(file.path()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn twenty_that_make_one_at_once_get_the_same() {
        let (directory, file) = file();
        let makers: Vec<_> = (0..20)
            .map(|_| {
                let file = file.clone();
                std::thread::spawn(move || file.read_or_make().unwrap())
            })
            .collect();
        let tokens: std::collections::BTreeSet<String> =
            makers.into_iter().map(|maker| maker.join().unwrap()).collect();
        assert_eq!(tokens.len(), 1);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_new_token_ends_the_old_one() {
        let (_directory, file) = file();
        let old = file.read_or_make().unwrap();
        assert!(file.accepts(old.as_bytes()).unwrap());
        let new = file.rotate().unwrap();
        assert!(file.accepts(new.as_bytes()).unwrap());
        for wrong in [old.as_str(), "", "pando_", &new[..new.len() - 1], &format!("{new} ")] {
            assert!(!file.accepts(wrong.as_bytes()).unwrap(), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_is_no_secret_is_refused() {
        let (directory, file) = file();
        file.read_or_make().unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(file.read(), Err(TokenError::Exposed(_))));
        // A new token makes a new file, which is private.
        file.rotate().unwrap();
        file.read().unwrap();
        for text in ["", "short", &"x".repeat(MAX_BYTES + 1), &format!("{0} {0}", "y".repeat(30))] {
            std::fs::write(file.path(), text).unwrap();
            assert!(matches!(file.read(), Err(TokenError::Malformed(_))), "{text}");
        }
        let link = TokenFile::new(directory.path().join("link"));
        std::os::unix::fs::symlink(file.path(), link.path()).unwrap();
        assert!(matches!(link.read(), Err(TokenError::Foreign(_))));
        let directory = TokenFile::new(directory.path());
        assert!(matches!(directory.read(), Err(TokenError::Foreign(_))));
    }
}
