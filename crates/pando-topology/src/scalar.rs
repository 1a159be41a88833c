//! Scalars: what a text stands for where a number, an address or a word is expected.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use pando_model::guest::Command;
use pando_model::network::MacAddress;
use pando_model::{ByteCount, Name};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::limits::Limits;
use crate::record::{Read, describe};
use crate::report::{At, Report};
use crate::yaml::{Kind, Value, shown};

/// What a scalar is read into.
pub trait Scalar: Sized {
    /// What it must be, for messages: "an IPv4 address".
    const WHAT: &'static str;
    /// An example of it, or the rule.
    const FIX: &'static str;
    /// Returns the value, or why the text is none.
    fn parse(text: &str) -> Result<Self, Option<String>>;
    /// Returns its JSON Schema.
    fn schema() -> Schema;
    /// Returns what should be said of how it was read.
    fn note(&self, _text: &str) -> Option<String> {
        None
    }
    /// Returns how long its text may be, in bytes.
    fn longest(limits: &Limits) -> usize {
        limits.text_bytes
    }
}

fn read_scalar<T: Scalar>(report: &mut Report<'_>, path: &str, value: &Value) -> Option<T> {
    let at = At { path: path.to_owned(), place: value.place, value: () };
    let Kind::Scalar { text, .. } = &value.kind else {
        report.wrong(&at, format!("{} is not {}", describe(value), T::WHAT), T::FIX);
        return None;
    };
    let longest = T::longest(report.limits);
    if text.len() > longest {
        let message = format!("the text has {} bytes, but at most {longest} are read", text.len());
        report.wrong(&at, message, "shorten it, or copy a file into the node with `pando cp`");
        return None;
    }
    if text.contains('\0') {
        report.wrong(&at, "the text contains a zero byte", "remove it");
        return None;
    }
    match T::parse(text) {
        Ok(value) => {
            if let Some(note) = value.note(text) {
                report.note(&at, note);
            }
            Some(value)
        }
        Err(why) => {
            let message = why.unwrap_or_else(|| format!("`{}` is not {}", shown(text), T::WHAT));
            report.wrong(&at, message, T::FIX);
            None
        }
    }
}

macro_rules! scalars {
    ($($(#[doc = $doc:literal])* $name:ident($type:ty): $what:literal, $fix:literal,
       $parse:expr, $schema:expr $(, $longest:expr)? $(=> $note:expr)?;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name(pub $type);

        impl Scalar for $name {
            const WHAT: &'static str = $what;
            const FIX: &'static str = $fix;

            fn parse(text: &str) -> Result<Self, Option<String>> {
                let parse: fn(&str) -> Result<$type, Option<String>> = $parse;
                parse(text).map(Self)
            }

            fn schema() -> Schema {
                $schema
            }

            $(fn longest(limits: &Limits) -> usize {
                let longest: fn(&Limits) -> usize = $longest;
                longest(limits)
            })?

            $(fn note(&self, text: &str) -> Option<String> {
                let note: fn(&$type, &str) -> Option<String> = $note;
                note(&self.0, text)
            })?
        }

        impl Read for $name {
            fn read(report: &mut Report<'_>, path: &str, value: &Value) -> Option<Self> {
                read_scalar(report, path, value)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                Self::schema()
            }
        }
    )*};
}

fn plain<T: std::str::FromStr>(text: &str) -> Result<T, Option<String>> {
    text.parse().map_err(|_| None)
}

scalars! {
    /// Any text; numbers and words are texts too.
    Text(String): "a text", "quote it if it has signs that YAML knows",
        |text| Ok(text.to_owned()),
        json_schema!({"type": ["string", "number", "boolean"]});
    /// A long text: a script, a file.
    Contents(String): "a text", "write `|` and the lines below it, indented",
        |text| Ok(text.to_owned()), json_schema!({"type": "string"}), |limits| limits.contents_bytes;
    /// A name; vmcluster's may have capitals.
    Named(Name): "a name",
        "use lower-case letters, digits, `-`, `_` and single `.`, at most 63",
        |text| text.to_ascii_lowercase().parse().map_err(|source: pando_model::name::NameError| Some(match source {
            pando_model::name::NameError::Characters { name } =>
                format!("`{}` is not a name", shown(&name)),
            other => other.to_string(),
        })),
        json_schema!({"type": "string", "maxLength": 63,
            "pattern": "^[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?$"})
        => |name, text| (name.as_str() != text)
            .then(|| format!("names are in lower case here: `{name}`"));
    /// A whole number.
    Integer(i64): "a whole number", "write digits only",
        plain, json_schema!({"type": "integer"});
    /// A number.
    Number(f64): "a number", "write digits, with a point if need be",
        |text| text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or(None),
        json_schema!({"type": "number"});
    /// Yes or no.
    Flag(bool): "true or false", "write `true` or `false`",
        |text| match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            _ => Err(None),
        },
        json_schema!({"type": "boolean"});
    /// A number of bytes.
    Size(ByteCount): "a size", "write a number with its unit: 512M, 2G",
        plain,
        json_schema!({"type": ["string", "integer"], "examples": ["512M", "10G"]});
    /// An IPv4 address.
    V4(Ipv4Addr): "an IPv4 address", "write four numbers, without a prefix: 10.20.0.11",
        plain, json_schema!({"type": "string", "format": "ipv4"});
    /// An IPv6 address.
    V6(Ipv6Addr): "an IPv6 address", "write it without a prefix: fd00:20::11",
        plain, json_schema!({"type": "string", "format": "ipv6"});
    /// An IPv4 network.
    Net4((Ipv4Addr, u8)): "an IPv4 network", "write address and prefix: 10.20.0.0/24",
        |text| network(text, 32),
        json_schema!({"type": "string", "pattern": "^[0-9.]+/[0-9]+$", "examples": ["10.20.0.0/24"]});
    /// An IPv6 network.
    Net6((Ipv6Addr, u8)): "an IPv6 network", "write address and prefix: fd00:20::/64",
        |text| network(text, 128),
        json_schema!({"type": "string", "pattern": "^[0-9a-fA-F:.]+/[0-9]+$", "examples": ["fd00:20::/64"]});
    /// A MAC address.
    Mac(MacAddress): "a MAC address",
        "write six pairs of hex digits with colons between: 52:54:00:12:34:56",
        plain, json_schema!({"type": "string", "pattern": "^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$"});
    /// Permission bits.
    Mode(u32): "permission bits", "write three or four octal digits: 0644",
        |text| {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            match digits.len() {
                3..=4 => u32::from_str_radix(digits, 8).map_err(|_| None),
                _ => Err(None),
            }
        },
        json_schema!({"type": ["string", "integer"], "examples": ["0644"]});
}

fn network<T: std::str::FromStr>(text: &str, most: u8) -> Result<(T, u8), Option<String>> {
    let (address, bits) = text.split_once('/').ok_or(None)?;
    let bits: u8 = plain(bits)?;
    if bits > most {
        return Err(None);
    }
    Ok((plain(address)?, bits))
}

/// A word of a few.
pub trait Word: Sized + Copy + 'static {
    /// The words and what they stand for.
    const WORDS: &'static [(&'static str, Self)];
}

/// One word of a few.
#[derive(Debug, Clone, Copy)]
pub struct OneOf<T>(pub T);

impl<T: Word> Read for OneOf<T> {
    fn read(report: &mut Report<'_>, path: &str, value: &Value) -> Option<Self> {
        let text = match &value.kind {
            Kind::Scalar { text, .. } => text.as_str(),
            _ => "",
        };
        let found = T::WORDS.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let at = At { path: path.to_owned(), place: value.place, value: () };
            let message = format!("{} is not known here", describe(value));
            report.wrong(&at, message, format!("write {}", words::<T>().join(" or ")));
        }
        found.map(|(_, value)| Self(*value))
    }
}

fn words<T: Word>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(word, _)| *word).collect()
}

impl<T: Word> JsonSchema for OneOf<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        words::<T>().join("_or_").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": words::<T>()})
    }
}

/// A value that is accepted and not used.
#[derive(Debug, Clone)]
pub struct Ignored;

impl Read for Ignored {
    fn read(_: &mut Report<'_>, _: &str, _: &Value) -> Option<Self> {
        Some(Self)
    }
}

impl JsonSchema for Ignored {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Ignored".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"deprecated": true})
    }
}

/// A command: a line for a shell, or a list of a program and its arguments.
#[derive(Debug, Clone)]
pub struct CommandLine(pub Command);

impl Read for CommandLine {
    fn read(report: &mut Report<'_>, path: &str, value: &Value) -> Option<Self> {
        let Kind::List(_) = &value.kind else {
            let Contents(line) = Contents::read(report, path, value)?;
            let at = At { path: path.to_owned(), place: value.place, value: () };
            if line.trim().is_empty() {
                report.wrong(&at, "the command is empty", "write a line for the node's shell");
                return None;
            }
            return Some(Self(Command::Shell(line)));
        };
        let words = crate::record::List::<Contents>::read(report, path, value)?.0;
        let argv: Vec<String> = words.into_iter().map(|word| word.value.0).collect();
        if argv.first().is_none_or(String::is_empty) {
            let at = At { path: path.to_owned(), place: value.place, value: () };
            report.wrong(&at, "the command is empty", "write a program and its arguments");
            return None;
        }
        Some(Self(Command::Argv(argv)))
    }
}

impl JsonSchema for CommandLine {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Command".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string", "minLength": 1, "description": "A line for the node's `/bin/sh -c`."},
            {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean"]},
             "description": "A program and its arguments."},
        ]})
    }
}
