//! Typed identifiers. Every id prints its kind (`br_…`), so that a caller who mixes two kinds is
//! told which one it gave. The random part is 60 bits in Crockford's base 32, lower case.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use serde::{Deserialize, Serialize};

/// Length of the part after the prefix, in characters.
pub const RANDOM_CHARS: usize = 12;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Why a string is not the id that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The string is an id of another kind.
    #[error("`{given}` is {given_kind}, not {wanted_kind}")]
    WrongKind {
        /// The string as given.
        given: String,
        /// The kind that its prefix names, with its article.
        given_kind: &'static str,
        /// The kind that was asked for, with its article.
        wanted_kind: &'static str,
    },
    /// The string is no id at all.
    #[error(
        "`{given}` is not {wanted_kind} id (expected `{prefix}` and {RANDOM_CHARS} characters)"
    )]
    Malformed {
        /// The string as given, cut to a readable length.
        given: String,
        /// The kind that was asked for, with its article.
        wanted_kind: &'static str,
        /// The prefix of that kind.
        prefix: &'static str,
    },
}

/// Every id prefix with the kind it stands for.
pub const KINDS: &[(&str, &str)] = &[
    ("cl_", "a cluster"),
    ("br_", "a branch"),
    ("cm_", "a commit"),
    ("im_", "an image"),
    ("ly_", "a disk layer"),
    ("op_", "an operation"),
    ("rq_", "a request"),
    ("jr_", "a journal entry"),
    ("cp_", "a capture"),
    ("ft_", "a fault"),
];

/// Returns the kind that an id-shaped string names by its prefix, if any.
pub fn kind_of(text: &str) -> Option<&'static str> {
    KINDS
        .iter()
        .find(|(prefix, _)| text.strip_prefix(prefix).is_some_and(is_random_part))
        .map(|(_, kind)| *kind)
}

fn is_random_part(text: &str) -> bool {
    text.len() == RANDOM_CHARS && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

fn random_part() -> String {
    let mut rng = rand::rng();
    (0..RANDOM_CHARS).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

/// Returns the random part that stands for 60 bits of `digest`; used by content-addressed ids.
fn part_from_digest(digest: &[u8; 32]) -> String {
    digest
        .iter()
        .take(RANDOM_CHARS)
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The prefix that every id of this kind starts with.
            pub const PREFIX: &'static str = $prefix;

            /// Returns a fresh random id.
            pub fn random() -> Self {
                Self(format!("{}{}", $prefix, random_part()))
            }

            /// Returns the id that stands for a content digest (60 bits of it).
            pub fn from_digest(digest: &[u8; 32]) -> Self {
                Self(format!("{}{}", $prefix, part_from_digest(digest)))
            }

            /// Returns the whole id, prefix included.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Returns the part after the prefix.
            pub fn suffix(&self) -> &str {
                self.0.strip_prefix($prefix).unwrap_or(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if text.strip_prefix($prefix).is_some_and(is_random_part) {
                    return Ok(Self(text.to_owned()));
                }
                Err(match kind_of(text) {
                    Some(given_kind) => IdError::WrongKind {
                        given: text.to_owned(),
                        given_kind,
                        wanted_kind: $kind,
                    },
                    None => IdError::Malformed {
                        given: text.chars().take(40).collect(),
                        wanted_kind: $kind,
                        prefix: $prefix,
                    },
                })
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(/// A cluster of 1..N nodes.
    ClusterId, "cl_", "a cluster");
id!(/// A live line of a cluster's state.
    BranchId, "br_", "a branch");
id!(/// An immutable, restorable cut of a branch.
    CommitId, "cm_", "a commit");
id!(/// An immutable bootable base, named after its content.
    ImageId, "im_", "an image");
id!(/// One qcow2 file of a disk chain.
    LayerId, "ly_", "a disk layer");
id!(/// The durable record of one mutating request.
    OperationId, "op_", "an operation");
id!(/// One call through the gate, whether or not it mutates.
    RequestId, "rq_", "a request");
id!(/// One act in a guest: a command, a file written or read.
    JournalId, "jr_", "a journal entry");
id!(/// Evidence of a branch's state at one time; for comparing, not for restoring.
    CaptureId, "cp_", "a capture");
id!(/// Something that a branch's network is told to do wrong.
    FaultId, "ft_", "a fault");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_parse_back() {
        let id = BranchId::random();
        assert_eq!(id.as_str().parse::<BranchId>().unwrap(), id);
    }

    #[test]
    fn an_id_of_another_kind_is_named() {
        let commit = CommitId::random();
        let error = commit.as_str().parse::<BranchId>().unwrap_err();
        assert_eq!(error.to_string(), format!("`{commit}` is a commit, not a branch"));
    }

    #[test]
    fn hostile_strings_are_malformed() {
        for text in ["", "br_", "br_../../../etc", "br_ABCDEFGHIJKL", "br_0123456789ab\n"] {
            assert!(matches!(text.parse::<BranchId>(), Err(IdError::Malformed { .. })), "{text:?}");
        }
    }
}
