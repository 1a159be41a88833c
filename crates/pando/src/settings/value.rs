//! The types that a setting can have.

use pando_model::Accelerator;

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

/// How guest code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceleratorChoice {
    /// By whatever works best.
    Auto,
    /// By this, or not at all.
    Fixed(Accelerator),
}

impl Setting for AcceleratorChoice {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text.trim() {
            "" | "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Fixed(Accelerator::Kvm)),
            "tcg" => Ok(Self::Fixed(Accelerator::Tcg)),
            _ => Err("auto, kvm or tcg"),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Fixed(accelerator) => accelerator.as_str().to_owned(),
        }
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
