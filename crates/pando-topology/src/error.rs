//! What is wrong with a topology, and where: a path of keys, a line and a column, and the fix.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where in the text something is, counted from 1.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The character in the line.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// One thing that is wrong.
#[derive(
    Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, schemars::JsonSchema,
)]
#[error("{at}: {message}", at = Where(path, *place))]
pub struct TopologyError {
    /// What is meant: `nodes[2].ip`. Empty for the whole text.
    pub path: String,
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// The value, and what is wrong with it.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

struct Where<'a>(&'a str, Place);

impl fmt::Display for Where<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => fmt::Display::fmt(&self.1, f),
            path => write!(f, "{path} ({})", self.1),
        }
    }
}

/// All that is wrong, in the order of the text; at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyErrors {
    /// The errors.
    pub errors: Vec<TopologyError>,
    /// How many more there are than [`crate::Limits::errors`] allows to tell.
    pub more: usize,
}

impl fmt::Display for TopologyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.errors.iter().enumerate() {
            let separator = if number == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}; {}", error.fix)?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for TopologyErrors {}

/// Something that is accepted and has no effect here, or another one than one might think.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Note {
    /// What is meant: `network.bridge`.
    pub path: String,
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// What happens instead.
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.path, self.place, self.message)
    }
}
