//! The types that a setting can have.

use std::net::{Ipv4Addr, SocketAddr};

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

/// A user of guests; empty for the usual one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserName(pub String);

impl Setting for UserName {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text.is_empty() || pando_topology::is_user_name(text) {
            true => Ok(Self(text.to_owned())),
            false => Err("a user's name"),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The path of a private key; empty for none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyPath(pub String);

impl Setting for KeyPath {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text.is_empty() || pando_topology::is_clean_path(text) {
            true => Ok(Self(text.to_owned())),
            false => Err("an absolute path without `..`"),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
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

/// Where the daemon listens on TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpListen {
    /// Nowhere.
    Off,
    /// There; port 0 is any free one.
    At(SocketAddr),
}

impl HttpListen {
    /// Where it listens unless another place is named.
    pub const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7717);
}

impl Setting for HttpListen {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let address = match text {
            "" | "off" => return Ok(Self::Off),
            "on" => Some(Self::USUAL),
            text => {
                let numeric = match text.strip_prefix("localhost:") {
                    Some(port) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
                    None => text.to_owned(),
                };
                let port = || text.parse().ok().map(|port| SocketAddr::new(Self::USUAL.ip(), port));
                numeric.parse().ok().or_else(port)
            }
        };
        match address {
            Some(address) if address.ip().is_loopback() => Ok(Self::At(address)),
            Some(_) => Err("a loopback address (others need TLS, which is not there yet)"),
            None => Err("off, a port, or a loopback address and port such as 127.0.0.1:7717"),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::At(address) => address.to_string(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_listened_on() {
        let cases = [
            ("", "off"),
            ("off", "off"),
            ("on", "127.0.0.1:7717"),
            ("0", "127.0.0.1:0"),
            ("8080", "127.0.0.1:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("127.0.0.2:1", "127.0.0.2:1"),
            ("[::1]:8080", "[::1]:8080"),
        ];
        for (text, shown) in cases {
            let setting = HttpListen::parse(text).unwrap();
            assert_eq!(setting.show(), shown);
            assert_eq!(HttpListen::parse(shown), Ok(setting));
        }
        for text in ["0.0.0.0:80", "[::]:80", "192.0.2.1:7717", "example.com:80", "99999", "yes"] {
            assert!(HttpListen::parse(text).is_err(), "{text}");
        }
    }
}
