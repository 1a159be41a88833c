//! A verb's example call as a command line: what the reference shows, and what tests type.

use pando_api::Verb;
use serde_json::Value;

use crate::cli::by_hand;
use crate::cli::generated::{Kind, flag, is_wait, kind, position, singular};

/// Returns the command line that makes a verb's example call.
pub fn line(verb: &Verb) -> String {
    if let Some(command) = by_hand::of(verb.name) {
        return command.line.to_owned();
    }
    let example = verb.example();
    let mut words = vec!["pando".to_owned()];
    words.extend(verb.cli.path.iter().map(|word| (*word).to_owned()));
    for name in verb.cli.positionals {
        words.extend(example.get(*name).into_iter().flat_map(texts));
    }
    for (name, value) in example.as_object().into_iter().flatten() {
        if position(verb, name).is_none() && !is_wait(verb, name) {
            words.extend(option(verb, name, value));
        }
    }
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn option(verb: &Verb, name: &str, value: &Value) -> Vec<String> {
    let schema = verb.properties().and_then(|known| known.get(name)).unwrap_or(&Value::Null);
    let kind = kind(name, schema);
    let long = flag(name, kind);
    match (kind, value) {
        (Kind::On, Value::Bool(true)) | (Kind::Off, Value::Bool(false)) => {
            vec![format!("--{long}")]
        }
        (Kind::On | Kind::Off, _) => Vec::new(),
        (Kind::List, _) => {
            let one = singular(name).to_lowercase().replace('_', "-");
            texts(value).into_iter().flat_map(|text| [format!("--{one}"), text]).collect()
        }
        (Kind::Map, _) => {
            let one = singular(name).to_lowercase().replace('_', "-");
            let pairs = value.as_object().into_iter().flatten();
            pairs
                .flat_map(|(key, value)| [format!("--{one}"), format!("{key}={}", text(value))])
                .collect()
        }
        (Kind::Seconds | Kind::Size(_), Value::Number(number)) => {
            vec![format!("--{long}"), measure(kind, number.as_u64().unwrap_or(0))]
        }
        _ => vec![format!("--{long}"), text(value)],
    }
}

/// Returns a number with the largest unit that it is a whole number of.
fn measure(kind: Kind, number: u64) -> String {
    let (units, step): (&[&str], u64) = match kind {
        Kind::Seconds => (&["s", "m", "h"], 60),
        Kind::Size(20) => (&["M", "G"], 1024),
        Kind::Size(30) => (&["G"], 1024),
        _ => (&[""], 1024),
    };
    let mut number = number;
    let mut units = units.iter().peekable();
    while let Some(unit) = units.next() {
        if units.peek().is_none() || number == 0 || !number.is_multiple_of(step) {
            return format!("{number}{unit}");
        }
        number /= step;
    }
    number.to_string()
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        other => vec![text(other)],
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns a word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use pando_api::{Call, catalogue};

    use super::*;
    use crate::cli::{generated, root};

    /// Returns the words of a line whose quotes stand around whole words.
    fn words(line: &str) -> Vec<String> {
        let pieces = line.split('\'').enumerate().flat_map(|(number, piece)| {
            let quoted = number % 2 == 1;
            let pieces: Vec<&str> =
                if quoted { vec![piece] } else { piece.split_whitespace().collect() };
            pieces.into_iter().map(str::to_owned).collect::<Vec<_>>()
        });
        pieces.collect()
    }

    #[test]
    fn what_a_line_is_typed_for_is_what_it_does() {
        for verb in catalogue().iter().filter(|verb| !verb.cli.by_hand) {
            let line = line(verb);
            let matches = root().try_get_matches_from(words(&line)).expect(&line);
            let mut level = &matches;
            while let Some((_, below)) = level.subcommand() {
                level = below;
            }
            let typed = generated::params(verb, level).expect(&line);
            let typed = Call::parse(verb.name, typed).expect(&line);
            assert_eq!(typed, Call::parse(verb.name, verb.example()).expect(verb.name), "{line}");
        }
    }

    #[test]
    fn measures_are_as_people_write_them() {
        for (kind, number, expected) in [
            (Kind::Seconds, 90, "90s"),
            (Kind::Seconds, 300, "5m"),
            (Kind::Seconds, 7200, "2h"),
            (Kind::Size(20), 512, "512M"),
            (Kind::Size(20), 2048, "2G"),
            (Kind::Size(30), 4, "4G"),
            (Kind::Size(0), 4096, "4096"),
        ] {
            assert_eq!(measure(kind, number), expected);
        }
        assert_eq!(quoted("nginx -t"), "'nginx -t'");
    }
}
