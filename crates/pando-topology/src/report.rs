//! What reading collects: errors and notes, and values that know where they are written.

use crate::error::{Note, Place, TopologyError, TopologyErrors};
use crate::limits::Limits;

/// A value that was read, its path and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// Its path, such as `nodes[2].ip`.
    pub path: String,
    /// Where it is written.
    pub place: Place,
    /// The value.
    pub value: T,
}

impl<T> At<T> {
    /// Returns another value at the same place.
    pub fn with<U>(&self, value: U) -> At<U> {
        At { path: self.path.clone(), place: self.place, value }
    }
}

/// Collects what is wrong and what is worth saying.
pub struct Report<'l> {
    /// The bounds on what is read.
    pub limits: &'l Limits,
    errors: Vec<TopologyError>,
    more: usize,
    notes: Vec<Note>,
}

impl<'l> Report<'l> {
    /// Returns an empty report.
    pub fn new(limits: &'l Limits) -> Self {
        Self { limits, errors: Vec::new(), more: 0, notes: Vec::new() }
    }

    /// Adds an error.
    pub fn error(&mut self, error: TopologyError) {
        if self.is_full() {
            self.more += 1;
        } else {
            self.errors.push(error);
        }
    }

    /// Adds an error about something that is written.
    pub fn wrong<T>(&mut self, at: &At<T>, message: impl Into<String>, fix: impl Into<String>) {
        self.error(TopologyError {
            path: at.path.clone(),
            place: at.place,
            message: message.into(),
            fix: fix.into(),
        });
    }

    /// Adds a note about something that is written.
    pub fn note<T>(&mut self, at: &At<T>, message: impl Into<String>) {
        // As many as errors: each note is about a key that is written, and texts are long.
        if self.notes.len() < self.limits.errors {
            let (path, place) = (at.path.clone(), at.place);
            self.notes.push(Note { path, place, message: message.into() });
        }
    }

    /// Returns whether further errors are only counted: no work needs to be put into their words.
    pub fn is_full(&self) -> bool {
        self.errors.len() >= self.limits.errors
    }

    /// Returns whether nothing is wrong so far.
    pub fn is_good(&self) -> bool {
        self.errors.is_empty()
    }

    /// Returns the notes, or all errors in the order of the text.
    ///
    /// # Errors
    /// When there are any.
    pub fn finish(mut self) -> Result<Vec<Note>, TopologyErrors> {
        if self.errors.is_empty() {
            self.notes.sort_by_key(|note| note.place);
            return Ok(self.notes);
        }
        self.errors.sort_by_key(|error| error.place);
        Err(TopologyErrors { errors: self.errors, more: self.more })
    }
}
