//! The types that a setting can have.

/// A type with one way to write it.
pub trait Setting: Sized {
    /// Returns the value of a text.
    ///
    /// # Errors
    /// What it must be, as a phrase.
    fn parse(text: &str) -> Result<Self, &'static str>;

    /// Returns the value as text that parses back.
    fn show(&self) -> String;
}

impl Setting for String {
    fn parse(text: &str) -> Result<Self, &'static str> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Setting for u64 {
    fn parse(text: &str) -> Result<Self, &'static str> {
        text.trim().parse().map_err(|_| "a whole number")
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for bool {
    fn parse(text: &str) -> Result<Self, &'static str> {
        text.trim().parse().map_err(|_| "true or false")
    }

    fn show(&self) -> String {
        self.to_string()
    }
}
