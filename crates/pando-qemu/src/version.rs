//! QEMU's version, and what depends on it.

use std::fmt;
use std::str::FromStr;

/// A version of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major.
    pub major: u16,
    /// Minor.
    pub minor: u16,
    /// Micro.
    pub micro: u16,
}

/// Not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a QEMU version")]
pub struct VersionError(pub String);

impl Version {
    /// The oldest that works: RAM as a private mapping of a read-only file (`rom=off`) and typed
    /// migration channels came with it.
    pub const OLDEST: Self = Self::new(8, 2, 0);

    /// Returns a version.
    pub const fn new(major: u16, minor: u16, micro: u16) -> Self {
        Self { major, minor, micro }
    }

    /// Returns the version in the output of `qemu-system-x86_64 --version`.
    ///
    /// # Errors
    /// When there is none.
    pub fn from_banner(banner: &str) -> Result<Self, VersionError> {
        let wrong = || VersionError(banner.chars().take(80).collect());
        let rest = banner.split_once(" version ").ok_or_else(wrong)?.1;
        rest.split_ascii_whitespace().next().ok_or_else(wrong)?.parse()
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let wrong = || VersionError(text.chars().take(80).collect());
        let parts: Vec<u16> = text
            .split('.')
            .map(|part| part.parse().map_err(|_| wrong()))
            .collect::<Result<_, _>>()?;
        match parts.as_slice() {
            [major, minor, micro] => Ok(Self::new(*major, *minor, *micro)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_banners() {
        let debian = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright";
        assert_eq!(Version::from_banner(debian), Ok(Version::new(10, 0, 2)));
        assert_eq!(Version::from_banner("QEMU emulator version 8.2.0"), Ok(Version::OLDEST));
        for text in ["", "bash version", "QEMU emulator version x.y.z", "QEMU version 10.0"] {
            assert!(Version::from_banner(text).is_err(), "{text}");
        }
    }

    #[test]
    fn versions_compare_by_number() {
        assert!("10.0.0".parse::<Version>().unwrap() > "9.2.1".parse().unwrap());
    }
}
