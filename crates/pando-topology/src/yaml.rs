//! YAML text into values that know where they are written. Total and bounded: aliases are expanded
//! within a budget of values and bytes, nesting has a limit, and nothing recurses with the text.
//!
//! Scalars stay text. What a scalar is follows from what is expected of it, so `no`, `1e3` and
//! `52:54:00:12:34:56` mean what they say.

use std::borrow::Cow;
use std::collections::BTreeMap;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use crate::error::{Place, TopologyError};
use crate::limits::Limits;

/// One value and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Where.
    pub place: Place,
    /// What.
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Nothing was written, or `null`, or `~`.
    Null,
    /// A text; `quoted` if it cannot be anything else.
    Scalar {
        /// The text, escapes resolved.
        text: String,
        /// Whether it was written in quotes or as a block.
        quoted: bool,
    },
    /// A sequence.
    List(Vec<Value>),
    /// A mapping, in the order of the text; keys are unique.
    Map(Vec<(Key, Value)>),
}

/// A key of a mapping and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub text: String,
    /// Where.
    pub place: Place,
}

/// How many values and bytes of text a value has; what an alias of it costs.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    values: usize,
    bytes: usize,
}

impl Weight {
    fn plus(self, other: Self) -> Self {
        Self {
            values: self.values.saturating_add(other.values),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// A collection that is not complete.
struct Open {
    place: Place,
    anchor: usize,
    weight: Weight,
    items: Items,
}

enum Items {
    List(Vec<Value>),
    Map {
        entries: Vec<(Key, Value)>,
        keys: BTreeMap<String, Place>,
        merged: Vec<Value>,
        key: Option<MapKey>,
    },
}

/// A key whose value is not there yet.
enum MapKey {
    /// One of the mapping's own.
    Own(Key),
    /// `<<`: the value's entries become the mapping's own, where it has none of that name.
    Merge,
}

struct Builder<'l> {
    limits: &'l Limits,
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Value, Weight)>,
    total: Weight,
    root: Option<Value>,
}

/// Returns the one document of `text`, which is not empty.
///
/// # Errors
/// As [`document`], and for an empty text.
pub fn read(text: &str, limits: &Limits) -> Result<Value, TopologyError> {
    document(text, limits)?.ok_or_else(|| {
        wrong(START, "the text is empty".to_owned(), "begin with `name:` and `nodes:`")
    })
}

/// Returns the one document of `text`; `None` if there is nothing in it.
///
/// # Errors
/// The first thing that is no YAML, or that is beyond `limits`.
pub fn document(text: &str, limits: &Limits) -> Result<Option<Value>, TopologyError> {
    if text.len() > limits.bytes {
        return Err(wrong(
            START,
            format!("the text has {} bytes, but at most {} are read", text.len(), limits.bytes),
            "keep files that nodes need outside of it and copy them with `pando cp`",
        ));
    }
    refuse_control_characters(text)?;
    let mut options = granit_parser::options! {
        flow_nesting_limit: limits.depth,
        block_nesting_limit: limits.depth,
        disallow_directives: true,
    };
    options.set_emit_comments(false);
    let mut builder = Builder {
        limits,
        open: Vec::new(),
        anchors: BTreeMap::new(),
        total: Weight::default(),
        root: None,
    };
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| no_yaml(&error, limits))?;
        builder.event(event, &span)?;
    }
    Ok(builder.root.filter(|root| root.kind != Kind::Null))
}

const START: Place = Place { line: 1, column: 1 };

fn place(marker: Marker) -> Place {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Place { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
}

fn wrong(place: Place, message: String, fix: &str) -> TopologyError {
    TopologyError { path: String::new(), place, message, fix: fix.to_owned() }
}

/// The parser takes a zero byte for the end, which would hide what follows.
fn refuse_control_characters(text: &str) -> Result<(), TopologyError> {
    let odd = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    let Some((at, found)) = text.char_indices().find(|(_, c)| odd(*c)) else { return Ok(()) };
    let before = text.get(..at).unwrap_or_default();
    Err(wrong(
        place_after(before),
        format!("there is a control character, {}", found.escape_unicode()),
        "remove it, or write it as an escape in double quotes",
    ))
}

/// Returns the place that follows `before`.
pub fn place_after(before: &str) -> Place {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let line = before.matches('\n').count();
    let last = before.rsplit('\n').next().unwrap_or_default();
    Place {
        line: number(line).saturating_add(1),
        column: number(last.chars().count()).saturating_add(1),
    }
}

fn no_yaml(error: &ScanError, limits: &Limits) -> TopologyError {
    let place = place(*error.marker());
    match error.kind() {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart => wrong(
            place,
            "a tab is used for indentation".to_owned(),
            "indent with spaces: YAML allows no tabs",
        ),
        ErrorKind::UnknownAnchor => wrong(
            place,
            "an alias has no anchor before it".to_owned(),
            "write `&NAME` before the value that `*NAME` stands for",
        ),
        ErrorKind::DirectiveDisallowed => wrong(
            place,
            "a directive (`%…`) is not accepted".to_owned(),
            "remove the line; quote a text that begins with `%`",
        ),
        ErrorKind::RecursionLimitExceeded => too_deep(place, limits),
        _ => wrong(
            place,
            format!("this is not YAML: {}", error.info()),
            "check the indentation, and quote texts that have `: `, ` #` or begin with a sign",
        ),
    }
}

fn too_deep(place: Place, limits: &Limits) -> TopologyError {
    wrong(
        place,
        format!("values are nested more than {} deep", limits.depth),
        "six levels are enough for everything; remove the rest",
    )
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), TopologyError> {
        let place = place(span.start);
        match event {
            Event::DocumentStart(..) if self.root.is_some() => Err(wrong(
                place,
                "a second document begins here".to_owned(),
                "keep one document in a file: remove the `---` or split the file",
            )),
            Event::Scalar(text, style, anchor, tag) => {
                let tagged = text_tag(tag.as_deref(), place)?;
                let weight = Weight { values: 1, bytes: text.len() };
                let kind = scalar(text, tagged || style != ScalarStyle::Plain);
                self.charge(weight, place)?;
                self.complete(Value { place, kind }, weight, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                text_tag(tag.as_deref(), place)?;
                self.begin(place, anchor, Items::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                text_tag(tag.as_deref(), place)?;
                let items = Items::Map {
                    entries: Vec::new(),
                    keys: BTreeMap::new(),
                    merged: Vec::new(),
                    key: None,
                };
                self.begin(place, anchor, items)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let Some((value, weight)) = self.anchors.get(&anchor) else {
                    return Err(wrong(
                        place,
                        "an alias stands inside the value that it stands for".to_owned(),
                        "write the value out",
                    ));
                };
                let weight = *weight;
                // Before the copy is made: an alias of aliases doubles with every line.
                let copy = |value: &Value| Value { place, kind: value.kind.clone() };
                if self.fits(weight) {
                    let value = copy(value);
                    self.charge(weight, place)?;
                    self.complete(value, weight, 0)
                } else {
                    self.charge(weight, place)
                }
            }
            _ => Ok(()),
        }
    }

    fn fits(&self, weight: Weight) -> bool {
        let total = self.total.plus(weight);
        total.values <= self.limits.values && total.bytes <= self.limits.bytes
    }

    fn charge(&mut self, weight: Weight, place: Place) -> Result<(), TopologyError> {
        if !self.fits(weight) {
            let Limits { values, bytes, .. } = self.limits;
            return Err(wrong(
                place,
                format!("with its aliases the text has more than {values} values or {bytes} bytes"),
                "remove aliases of aliases, and values that repeat",
            ));
        }
        self.total = self.total.plus(weight);
        Ok(())
    }

    fn begin(&mut self, place: Place, anchor: usize, items: Items) -> Result<(), TopologyError> {
        if self.open.len() >= self.limits.depth {
            return Err(too_deep(place, self.limits));
        }
        let weight = Weight { values: 1, bytes: 0 };
        self.charge(weight, place)?;
        self.open.push(Open { place, anchor, weight, items });
        Ok(())
    }

    fn end(&mut self) -> Result<(), TopologyError> {
        let Some(Open { place, anchor, weight, items }) = self.open.pop() else { return Ok(()) };
        let kind = match items {
            Items::List(list) => Kind::List(list),
            Items::Map { entries, keys, merged, .. } => Kind::Map(merge(entries, keys, merged)),
        };
        self.complete(Value { place, kind }, weight, anchor)
    }

    fn complete(
        &mut self,
        value: Value,
        weight: Weight,
        anchor: usize,
    ) -> Result<(), TopologyError> {
        if anchor != 0 {
            // The copy is held in memory, so it counts like an alias.
            self.charge(weight, value.place)?;
            self.anchors.insert(anchor, (value.clone(), weight));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(value);
            return Ok(());
        };
        open.weight = open.weight.plus(weight);
        match &mut open.items {
            Items::List(list) => list.push(value),
            Items::Map { entries, keys, merged, key } => match key.take() {
                None => *key = Some(as_key(value, keys)?),
                Some(MapKey::Merge) => merged.extend(to_merge(value)?),
                Some(MapKey::Own(key)) => entries.push((key, value)),
            },
        }
        Ok(())
    }
}

fn as_key(value: Value, keys: &mut BTreeMap<String, Place>) -> Result<MapKey, TopologyError> {
    let Value { place, kind } = value;
    let (text, quoted) = match kind {
        Kind::Scalar { text, quoted } => (text, quoted),
        Kind::Null => {
            let message = "a key is missing, or is `null`".to_owned();
            return Err(wrong(place, message, "write one, or quote it"));
        }
        Kind::List(_) | Kind::Map(_) => {
            return Err(wrong(
                place,
                "a key is a list or a map".to_owned(),
                "keys are texts; quote one that begins with `{` or `[`",
            ));
        }
    };
    if let Some(first) = keys.insert(text.clone(), place) {
        return Err(wrong(
            place,
            format!("`{}` is there twice; first at {first}", shown(&text)),
            "remove one of the two",
        ));
    }
    if text == "<<" && !quoted {
        return Ok(MapKey::Merge);
    }
    Ok(MapKey::Own(Key { text, place }))
}

fn to_merge(value: Value) -> Result<Vec<Value>, TopologyError> {
    let place = value.place;
    let maps = match value.kind {
        Kind::List(list) => list,
        kind => vec![Value { place, kind }],
    };
    if maps.iter().all(|map| matches!(map.kind, Kind::Map(_))) {
        return Ok(maps);
    }
    Err(wrong(place, "`<<` is given something that is no map".to_owned(), "write `<<: *NAME`"))
}

fn merge(
    mut entries: Vec<(Key, Value)>,
    mut keys: BTreeMap<String, Place>,
    merged: Vec<Value>,
) -> Vec<(Key, Value)> {
    for map in merged {
        let Kind::Map(more) = map.kind else { continue };
        for (key, value) in more {
            if keys.insert(key.text.clone(), key.place).is_none() {
                entries.push((key, value));
            }
        }
    }
    entries
}

fn scalar(text: Cow<'_, str>, quoted: bool) -> Kind {
    if !quoted && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL") {
        return Kind::Null;
    }
    Kind::Scalar { text: text.into_owned(), quoted }
}

/// Returns whether the tag says that a scalar is a text.
fn text_tag(tag: Option<&Tag>, place: Place) -> Result<bool, TopologyError> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() => Ok(tag.core_suffix() == Some("str")),
        Some(tag) => Err(wrong(
            place,
            format!("the tag `{}` is not known here", shown(&tag.original())),
            "remove it: what a value is follows from its key",
        )),
    }
}

/// Returns the beginning of a text, for messages.
pub fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(MOST).map(printable).collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}
