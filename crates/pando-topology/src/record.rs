//! Reading values into types: records with known keys, lists and maps. Each record is declared once,
//! and from that come its type, its reader and its part of the JSON Schema.

use std::collections::BTreeMap;

use pando_model::suggest;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::error::Place;
use crate::report::{At, Report};
use crate::yaml::{Kind, Value, shown};

/// A type that is read from a value.
pub trait Read: Sized {
    /// Returns the value, or tells `report` what is wrong with it.
    fn read(report: &mut Report<'_>, path: &str, value: &Value) -> Option<Self>;
}

/// A field of a record: required (`At`) or not (`Option<At>`).
pub trait Field: Sized {
    /// Returns the field, or tells `report` what is wrong.
    fn field(report: &mut Report<'_>, record: &Record<'_>, key: &str) -> Option<Self>;
}

/// A map whose keys are known to be the record's.
pub struct Record<'v> {
    path: String,
    place: Place,
    fields: BTreeMap<&'v str, &'v Value>,
}

/// Declares a record: `Name, "what it is called" { fields }`.
macro_rules! record {
    ($(#[doc = $doc:literal])* $name:ident, $what:literal {
        $($(#[doc = $about:literal])* $(#[schemars($($rule:tt)*)])? $field:ident: $type:ty,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub struct $name {
            $($(#[doc = $about])* $(#[schemars($($rule)*)])? pub $field: $type,)*
        }

        impl $crate::record::Read for $name {
            fn read(
                report: &mut $crate::report::Report<'_>,
                path: &str,
                value: &$crate::yaml::Value,
            ) -> Option<Self> {
                const KEYS: &[&str] = &[$(stringify!($field)),*];
                let record = $crate::record::open(report, path, value, $what, KEYS)?;
                $(let $field = $crate::record::Field::field(report, &record, stringify!($field));)*
                Some(Self { $($field: $field?,)* })
            }
        }
    };
}
pub(crate) use record;

/// Returns the map's fields; unknown keys are told, and then left out.
pub fn open<'v>(
    report: &mut Report<'_>,
    path: &str,
    value: &'v Value,
    what: &str,
    keys: &[&str],
) -> Option<Record<'v>> {
    let at = At { path: path.to_owned(), place: value.place, value: () };
    let Kind::Map(entries) = &value.kind else {
        let fix = format!("write `KEY: VALUE` lines; the keys are: {}", keys.join(", "));
        report.wrong(&at, format!("{} is no {what}", describe(value)), fix);
        return None;
    };
    let mut fields = BTreeMap::new();
    for (key, value) in entries {
        if keys.contains(&key.text.as_str()) {
            fields.insert(key.text.as_str(), value);
            continue;
        }
        let at = At { path: join(path, &key.text), place: key.place, value: () };
        let fix = match (!report.is_full())
            .then(|| suggest::nearest(&key.text, keys.iter().copied()))
            .flatten()
        {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("remove it; the keys of a {what} are: {}", keys.join(", ")),
        };
        report.wrong(&at, format!("there is no key `{}` here", shown(&key.text)), fix);
    }
    Some(Record { path: at.path, place: at.place, fields })
}

/// Returns the path of a key below `path`.
pub fn join(path: &str, key: &str) -> String {
    let key = shown(key);
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// Returns what a value is, in words.
pub fn describe(value: &Value) -> String {
    match &value.kind {
        Kind::Null => "nothing".to_owned(),
        Kind::Scalar { text, .. } => format!("`{}`", shown(text)),
        Kind::List(_) => "a list".to_owned(),
        Kind::Map(_) => "a map".to_owned(),
    }
}

fn read_at<T: Read>(report: &mut Report<'_>, path: String, value: &Value) -> Option<At<T>> {
    let read = T::read(report, &path, value)?;
    Some(At { path, place: value.place, value: read })
}

impl<T: Read> Field for At<T> {
    fn field(report: &mut Report<'_>, record: &Record<'_>, key: &str) -> Option<Self> {
        match record.fields.get(key) {
            Some(value) => read_at(report, join(&record.path, key), value),
            None => {
                let at = At { path: record.path.clone(), place: record.place, value: () };
                report.wrong(&at, format!("`{key}` is missing"), format!("add `{key}: …`"));
                None
            }
        }
    }
}

impl<T: Read> Field for Option<At<T>> {
    fn field(report: &mut Report<'_>, record: &Record<'_>, key: &str) -> Option<Self> {
        match record.fields.get(key) {
            Some(value) if value.kind != Kind::Null => {
                read_at(report, join(&record.path, key), value).map(Some)
            }
            _ => Some(None),
        }
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A sequence.
#[derive(Debug, Clone)]
pub struct List<T>(pub Vec<At<T>>);

impl<T: Read> Read for List<T> {
    fn read(report: &mut Report<'_>, path: &str, value: &Value) -> Option<Self> {
        let Kind::List(items) = &value.kind else {
            let at = At { path: path.to_owned(), place: value.place, value: () };
            let message = format!("{} is no list", describe(value));
            report.wrong(&at, message, "write one `- …` line for each entry");
            return None;
        };
        let read: Vec<Option<At<T>>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| read_at(report, format!("{path}[{index}]"), item))
            .collect();
        read.into_iter().collect::<Option<Vec<_>>>().map(List)
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("List_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<T>::json_schema(generator)
    }
}

/// A map of free keys.
#[derive(Debug, Clone)]
pub struct Entries<T>(pub Vec<(At<String>, At<T>)>);

impl<T: Read> Read for Entries<T> {
    fn read(report: &mut Report<'_>, path: &str, value: &Value) -> Option<Self> {
        let Kind::Map(entries) = &value.kind else {
            let at = At { path: path.to_owned(), place: value.place, value: () };
            let message = format!("{} is no map", describe(value));
            report.wrong(&at, message, "write one `KEY: VALUE` line for each entry");
            return None;
        };
        let mut read = Vec::new();
        let mut complete = true;
        for (key, value) in entries {
            let path = join(path, &key.text);
            let name = At { path: path.clone(), place: key.place, value: key.text.clone() };
            match read_at(report, path, value) {
                Some(value) => read.push((name, value)),
                None => complete = false,
            }
        }
        complete.then_some(Self(read))
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Map_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<String, T>::json_schema(generator)
    }
}
