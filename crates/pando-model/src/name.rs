//! Names that people give: clusters, nodes, branches, tags, images. One rule for all of them, so
//! that a name is always safe as a path component, a DNS label and a command argument.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id;

/// Longest accepted name, in bytes: a DNS label.
pub const MAX_NAME_BYTES: usize = 63;

/// A validated name: 1–63 of `a-z 0-9 - _ .`, starting and ending with a letter or digit, without
/// `..`, and not shaped like an id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a string is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The string is empty.
    #[error("a name cannot be empty")]
    Empty,
    /// The string is longer than [`MAX_NAME_BYTES`].
    #[error("a name has at most {MAX_NAME_BYTES} characters, this one has {0}")]
    TooLong(usize),
    /// The string has a character that is not allowed, or one in a place where it is not.
    #[error(
        "`{name}` is not a name: use lower-case letters, digits, `-`, `_` and single `.`, \
         starting and ending with a letter or digit"
    )]
    Characters {
        /// The string as given.
        name: String,
    },
    /// The string could be taken for an id.
    #[error("`{name}` looks like the id of {kind}; choose another name")]
    LooksLikeId {
        /// The string as given.
        name: String,
        /// The kind of id it looks like, with its article.
        kind: &'static str,
    },
}

impl Name {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the host name of a machine with this name: what of it is not allowed there (RFC 1123,
    /// section 2.1) is `-`, and no label begins or ends with one.
    pub fn host_name(&self) -> String {
        let plain = self.0.replace('_', "-");
        let labels = plain.split('.').map(|label| label.trim_matches('-'));
        labels.filter(|label| !label.is_empty()).collect::<Vec<_>>().join(".")
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong(text.len()));
        }
        let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let allowed = |byte: u8| alphanumeric(byte) || matches!(byte, b'-' | b'_' | b'.');
        let ends_well = text.bytes().next().is_some_and(alphanumeric)
            && text.bytes().last().is_some_and(alphanumeric);
        if !text.bytes().all(allowed) || !ends_well || text.contains("..") {
            return Err(NameError::Characters { name: text.to_owned() });
        }
        if let Some(kind) = id::kind_of(text) {
            return Err(NameError::LooksLikeId { name: text.to_owned(), kind });
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_names_are_accepted() {
        for text in ["a", "shop", "try-3", "debian-12", "v1.2.0", "my_vm"] {
            assert!(text.parse::<Name>().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_host_name_has_only_what_one_may_have() {
        for (name, host) in
            [("db", "db"), ("my_vm", "my-vm"), ("a._b", "a.b"), ("a-.-.b", "a.b"), ("v1.2", "v1.2")]
        {
            assert_eq!(name.parse::<Name>().unwrap().host_name(), host);
        }
    }

    #[test]
    fn names_that_could_escape_or_inject_are_refused() {
        let long = "a".repeat(64);
        for text in
            ["", "..", "a/b", "-rf", "a b", "x; touch p", "$(id)", "a..b", "Ünï", "A", "a.", &long]
        {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_that_looks_like_an_id_is_refused() {
        let id = crate::BranchId::random();
        assert!(matches!(id.as_str().parse::<Name>(), Err(NameError::LooksLikeId { .. })));
    }
}
