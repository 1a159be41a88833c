//! The kernel's bridges, in place of a user-space switch: what they are called, and whether a host
//! can make them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::{Effect, Fault, Impairment};

/// Longest name of a network device, in bytes (`IFNAMSIZ` without its end).
pub const MAX_DEVICE_BYTES: usize = 15;

/// What the names of a bridge's ports begin with; a bridge cannot be called so.
pub const TAP: &str = "tap";

/// The name of a bridge: 1–15 of `a-z A-Z 0-9 - _ .`, beginning with a letter, and not one that the
/// kernel or a port of a bridge has.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BridgeName(String);

/// A text is no name of a bridge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name of a bridge: use up to {MAX_DEVICE_BYTES} letters, digits, `-`, `_` and `.`, \
     beginning with a letter, but not `lo`, `all`, `default` or `{TAP}…`"
)]
pub struct BridgeNameError(String);

impl BridgeName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BridgeName {
    type Err = BridgeNameError;

    fn from_str(text: &str) -> Result<Self, BridgeNameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let taken = matches!(text, "lo" | "all" | "default") || text.starts_with(TAP);
        let begins_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
        if !begins_well || text.len() > MAX_DEVICE_BYTES || !text.bytes().all(allowed) || taken {
            return Err(BridgeNameError(text.chars().take(40).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for BridgeName {
    type Error = BridgeNameError;

    fn try_from(text: String) -> Result<Self, BridgeNameError> {
        text.parse()
    }
}

impl From<BridgeName> for String {
    fn from(name: BridgeName) -> Self {
        name.0
    }
}

impl fmt::Display for BridgeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BridgeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Something that a host lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// What, as a clause.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// What the kernel of a host can do for a cluster's network, as tried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelNetwork {
    /// Why there can be no bridge; empty if there can.
    pub lacks: Vec<Lack>,
    /// Why links cannot be limited in rate, if they cannot.
    pub no_rate: Option<Lack>,
    /// Why frames cannot be delayed, lost, duplicated, corrupted and reordered, if they cannot.
    pub no_netem: Option<Lack>,
}

impl KernelNetwork {
    /// Returns what a fault needs and the host lacks.
    pub fn lack_for(&self, fault: &Fault) -> Option<&Lack> {
        let Effect::Impair(impairment) = &fault.effect else { return None };
        let rate = self.no_rate.as_ref().filter(|_| impairment.rate_bps.is_some());
        self.no_netem.as_ref().filter(|_| impairment.is_more_than_rate()).or(rate)
    }
}

impl Impairment {
    /// Returns whether it does anything beside limiting the rate.
    pub fn is_more_than_rate(&self) -> bool {
        *self != Self { rate_bps: self.rate_bps, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_are_called_what_the_kernel_and_its_tools_take() {
        for good in ["br0", "vmcluster-br0", "a_b.c", "virbr-etcd"] {
            assert_eq!(good.parse::<BridgeName>().unwrap().as_str(), good);
        }
        for bad in ["", "br 0", "br0;x", "../br", "-x", "0br", "tap0", "lo", "a234567890123456"] {
            assert!(bad.parse::<BridgeName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_alone_needs_no_netem() {
        let mut impairment = Impairment { rate_bps: Some(1), ..Impairment::default() };
        assert!(!impairment.is_more_than_rate());
        impairment.jitter_us = 1;
        assert!(impairment.is_more_than_rate());
    }
}
