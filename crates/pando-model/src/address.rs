//! `CLUSTER[@BRANCH][/NODE]`: how every verb names what it works on. An id or a tag may stand
//! where the cluster stands; resolution against what exists is the engine's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{Name, NameError};

/// The parsed form of an address. Parts that were left out are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// A cluster name, or an id (`cl_…`, `br_…`, `cm_…`) as text.
    pub cluster: String,
    /// A branch name, or a tag where the verb takes commits.
    pub branch: Option<Name>,
    /// A node name.
    pub node: Option<Name>,
}

/// Why a string is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The string is empty.
    #[error("an address cannot be empty (CLUSTER[@BRANCH][/NODE])")]
    Empty,
    /// One of its parts is not a name.
    #[error("the {part} of the address `{address}` is not a name")]
    Part {
        /// Which part: "cluster", "branch" or "node".
        part: &'static str,
        /// The address as given.
        address: String,
        /// What is wrong with the part.
        #[source]
        source: NameError,
    },
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let part = |part: &'static str, value: &str| {
            value.parse::<Name>().map_err(|source| AddressError::Part {
                part,
                address: text.chars().take(200).collect(),
                source,
            })
        };
        let (rest, node) = match text.split_once('/') {
            Some((rest, node)) => (rest, Some(part("node", node)?)),
            None => (text, None),
        };
        let (cluster, branch) = match rest.split_once('@') {
            Some((cluster, branch)) => (cluster, Some(part("branch", branch)?)),
            None => (rest, None),
        };
        if crate::id::kind_of(cluster).is_none() {
            part("cluster", cluster)?;
        }
        Ok(Self { cluster: cluster.to_owned(), branch, node })
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cluster)?;
        if let Some(branch) = &self.branch {
            write!(f, "@{branch}")?;
        }
        if let Some(node) = &self.node {
            write!(f, "/{node}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_forms_parse_and_print_back() {
        for text in ["shop", "shop@main", "shop/db", "shop@try-3/db", "br_0123456789ab"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_wrong_part_is_named() {
        let error = "shop@No/db".parse::<Address>().unwrap_err();
        assert!(error.to_string().contains("branch"), "{error}");
        for text in ["", "@main", "/db", "a@", "a/", "a/b/c", "a@b@c"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_prints_back(text in ".{0,80}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string(), text);
            }
        }
    }
}
