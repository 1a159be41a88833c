//! Quantities with their unit in the type.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number of bytes. Serialised as a plain integer; parsed from text as `512M`, `2GiB`, `4096`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct ByteCount(pub u64);

/// Why a string is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size (examples: 512M, 2G, 1048576)")]
pub struct ByteCountError(pub String);

impl ByteCount {
    /// Returns this many MiB.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// Returns this many GiB.
    pub const fn from_gib(gib: u64) -> Self {
        Self(gib << 30)
    }

    /// Returns the number of whole MiB.
    pub const fn mib(self) -> u64 {
        self.0 >> 20
    }

    /// Returns the number of whole GiB.
    pub const fn gib(self) -> u64 {
        self.0 >> 30
    }

    /// Returns the number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteCount {
    type Err = ByteCountError;

    fn from_str(text: &str) -> Result<Self, ByteCountError> {
        let wrong = || ByteCountError(text.chars().take(40).collect());
        let trimmed = text.trim();
        let digits = trimmed.len() - trimmed.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = trimmed.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let shift =
            match unit.trim().to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
                "" => 0,
                "k" => 10,
                "m" => 20,
                "g" => 30,
                "t" => 40,
                _ => return Err(wrong()),
            };
        number.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        for (unit, shift) in units {
            if self.0 >= 1 << shift {
                let whole = self.0 >> shift;
                let exact = whole << shift == self.0;
                #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
                let value = self.0 as f64 / (1u64 << shift) as f64;
                return if exact || whole >= 100 {
                    write!(f, "{value:.0} {unit}")
                } else {
                    write!(f, "{value:.1} {unit}")
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse() {
        let cases = [
            ("512M", 512 << 20),
            ("2GiB", 2 << 30),
            ("4096", 4096),
            ("1 kb", 1024),
            ("1t", 1 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse::<ByteCount>().unwrap(), ByteCount(bytes), "{text}");
        }
        for text in ["", "-1", "M", "1.5G", "99999999T", "1X"] {
            assert!(text.parse::<ByteCount>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_print() {
        let cases =
            [(0, "0 B"), (512 << 20, "512 MiB"), (1536 << 20, "1.5 GiB"), (1025, "1.0 KiB")];
        for (bytes, text) in cases {
            assert_eq!(ByteCount(bytes).to_string(), text);
        }
    }
}
