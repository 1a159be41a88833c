//! A verb as a command, and a command's arguments as a verb's parameters. A flag drops the unit of
//! its parameter and takes one in its value: `memory_mib` is `--memory 2G`, `timeout_s` is
//! `--timeout 5m`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};
use pando_api::verb::{Hint, Runs};
use pando_api::{ApiError, Verb};
use pando_model::{ByteCount, ErrorCode};
use serde_json::{Map, Value};

/// The flag, of every command that is an operation, that does not wait for it.
pub const NO_WAIT: &str = "no_wait";

/// Most bytes of a file whose contents are a parameter; each verb has its own limit below that.
const MAX_FILE: u64 = 16 << 20;

/// Width of help, in columns: what clap wraps at.
const HELP_COLUMNS: usize = 100;

/// What stands for a topology on the command line, which reads files where agents may not.
const TOPOLOGY_HELP: &str = "A name that pando topology list shows, or a file";

/// What a parameter's text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Number,
    /// A size in units of this many bits of shift.
    Size(u32),
    Seconds,
    /// A flag that makes it true.
    On,
    /// A flag that makes it false.
    Off,
    List,
    Map,
}

pub(super) fn kind(name: &str, schema: &Value) -> Kind {
    match schema.get("type").and_then(Value::as_str) {
        Some("boolean") if schema.get("default") == Some(&Value::Bool(true)) => Kind::Off,
        Some("boolean") => Kind::On,
        Some("array") => Kind::List,
        Some("object") => Kind::Map,
        Some("number") => Kind::Number,
        Some("integer") => match name.rsplit_once('_') {
            Some((_, "s")) => Kind::Seconds,
            Some((_, "bytes")) => Kind::Size(0),
            Some((_, "mib")) => Kind::Size(20),
            Some((_, "gib")) => Kind::Size(30),
            _ => Kind::Integer,
        },
        _ => Kind::Text,
    }
}

/// Returns the flag of a parameter, without its unit.
pub(super) fn flag(name: &str, kind: Kind) -> String {
    let stem = match (kind, name.rsplit_once('_')) {
        (Kind::Seconds | Kind::Size(_), Some((stem, _))) => stem,
        _ => name,
    };
    let stem = stem.replace('_', "-");
    if kind == Kind::Off { format!("no-{stem}") } else { stem }
}

/// Returns the command of a verb under the last word of its path.
pub fn command(verb: &'static Verb, word: &'static str) -> Command {
    let mut command = Command::new(word).about(verb.summary.trim_end_matches('.'));
    // The whole description, but in the compact form of help: a long "about" would spread it.
    let description = wrapped(&plain(verb.description()));
    command = command.help_template(format!(
        "{description}\n\n{{usage-heading}} {{usage}}\n\n{{all-args}}{{after-help}}"
    ));
    command = match word {
        "list" => command.visible_alias("ls"),
        "rm" => command.visible_alias("delete"),
        "show" => command.alias("get"),
        _ => command,
    };
    let mut names: Vec<&String> = verb.properties().into_iter().flat_map(Map::keys).collect();
    names.sort_by_key(|name| position(verb, name).unwrap_or(usize::MAX));
    for name in names {
        if let Some(arg) = argument(verb, name) {
            command = command.arg(arg);
        }
    }
    if verb.runs == Runs::AsOperation {
        command = command.arg(
            Arg::new(NO_WAIT)
                .long("no-wait")
                .action(ArgAction::SetTrue)
                .help("Begin it and return its operation at once"),
        );
    }
    command
}

/// Returns how a parameter of a verb with a generated command is typed.
pub fn spelling(verb: &'static Verb, name: &'static str) -> Option<String> {
    if is_wait(verb, name) {
        return Some("--no-wait".to_owned());
    }
    argument(verb, name).map(|arg| crate::cli::spelling(&arg))
}

/// Returns a description as it reads at a terminal.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + word.chars().count() < HELP_COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

pub(super) fn position(verb: &Verb, name: &str) -> Option<usize> {
    verb.cli.positionals.iter().position(|known| *known == name)
}

/// Whether this parameter is the command line's `--no-wait`.
pub(super) fn is_wait(verb: &Verb, name: &str) -> bool {
    verb.runs == Runs::AsOperation && name == "wait"
}

fn argument(verb: &'static Verb, name: &'static str) -> Option<Arg> {
    let schema = verb.properties()?.get(name)?;
    if is_wait(verb, name) {
        return None;
    }
    let kind = kind(name, schema);
    let mut arg = Arg::new(name).help(help(schema, kind)).required(verb.is_required(name));
    arg = match kind {
        Kind::On | Kind::Off => arg.action(ArgAction::SetTrue),
        Kind::List | Kind::Map => arg.action(ArgAction::Append),
        _ => arg.action(ArgAction::Set),
    };
    arg = match kind {
        Kind::Map => arg.value_name("KEY=VALUE"),
        Kind::Size(_) => arg.value_name("SIZE"),
        Kind::Seconds => arg.value_name("TIME"),
        // Below zero is for the verb to refuse, in words of its own.
        Kind::Integer | Kind::Number => arg.value_name("N").allow_negative_numbers(true),
        _ => arg.value_name(singular(name)),
    };
    // Of a list, each one.
    let choices = schema.get("enum").or_else(|| schema.get("items")?.get("enum"));
    if let Some(values) = choices.and_then(Value::as_array) {
        let values: Vec<String> =
            values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        arg = arg.value_parser(clap::builder::PossibleValuesParser::new(values));
    }
    if verb.cli.hints.contains(&(name, Hint::Topology)) {
        arg = arg.value_name("NAME|FILE").help(TOPOLOGY_HELP);
    }
    if position(verb, name).is_some() {
        return Some(if kind == Kind::List { arg.num_args(0..) } else { arg });
    }
    let long = flag(name, kind);
    let full = name.replace('_', "-");
    if full != long && kind != Kind::Off {
        arg = arg.alias(full);
    }
    let short = verb.cli.shorts.iter().find(|(_, known)| *known == name);
    if let Some((letter, _)) = short {
        arg = arg.short(*letter);
    }
    let hint = verb.cli.hints.iter().find(|(known, _)| *known == name);
    if let Some((_, Hint::Contents)) = hint {
        arg = arg.value_name("TEXT|@FILE");
    }
    // One flag is one of them.
    if matches!(kind, Kind::List | Kind::Map) {
        let one = singular(name).to_lowercase().replace('_', "-");
        return Some(if one == long { arg.long(one) } else { arg.alias(long).long(one) });
    }
    Some(arg.long(long))
}

pub(super) fn singular(name: &str) -> String {
    let name = match name {
        "branches" => "branch",
        "aspects" | "labels" | "names" | "packages" => name.trim_end_matches('s'),
        other => other,
    };
    name.to_uppercase()
}

fn help(schema: &Value, kind: Kind) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let unit = match kind {
        Kind::Seconds => Some(", in seconds"),
        Kind::Size(20) => Some(", in MiB"),
        Kind::Size(30) => Some(", in GiB"),
        _ => None,
    };
    let mut text = match unit {
        Some(unit) => text.replace(unit, ""),
        None => text.to_owned(),
    };
    text = plain(text.trim_end_matches('.'));
    if kind == Kind::Off {
        return format!("Do not: {}", lower_first(&text));
    }
    let default = match (schema.get("default"), kind) {
        (Some(Value::Number(number)), Kind::Seconds) => Some(format!("{number}s")),
        (Some(Value::Number(number)), Kind::Size(shift)) => number
            .as_u64()
            .and_then(|number| number.checked_shl(shift))
            .map(|bytes| ByteCount(bytes).to_string().replace(' ', "")),
        (Some(Value::Number(number)), _) => Some(number.to_string()),
        (Some(Value::String(text)), _) if !text.is_empty() => Some(text.clone()),
        _ => None,
    };
    match default {
        Some(default) => format!("{text} [default: {default}]"),
        None => text,
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_lowercase().chain(chars).collect())
}

/// Returns the parameters that a command's arguments make.
///
/// # Errors
/// `invalid_parameter` with the flag's name.
pub fn params(verb: &'static Verb, matches: &ArgMatches) -> Result<Value, ApiError> {
    let mut params = Map::new();
    for (name, schema) in verb.properties().into_iter().flatten() {
        let kind = kind(name, schema);
        if is_wait(verb, name) || !matches.try_contains_id(name).unwrap_or(false) {
            continue;
        }
        let value = match kind {
            Kind::On | Kind::Off => {
                let given = matches.get_flag(name);
                given.then_some(Value::Bool(kind == Kind::On))
            }
            Kind::List => {
                let texts = matches.get_many::<String>(name).into_iter().flatten();
                let texts: Vec<Value> = texts.map(|text| Value::from(text.as_str())).collect();
                (!texts.is_empty()).then_some(Value::Array(texts))
            }
            Kind::Map => pairs(name, matches.get_many::<String>(name).into_iter().flatten())?,
            Kind::Text | Kind::Integer | Kind::Number | Kind::Size(_) | Kind::Seconds => {
                let text = matches.get_one::<String>(name);
                let hint = verb.cli.hints.iter().find(|(known, _)| known == name);
                text.map(|text| scalar(name, kind, hint.map(|(_, hint)| *hint), text))
                    .transpose()?
            }
        };
        if let Some(value) = value {
            params.insert(name.clone(), value);
        }
    }
    Ok(Value::Object(params))
}

/// Returns `KEY=VALUE` texts as an object; `None` for no texts.
///
/// # Errors
/// `invalid_parameter` for a text without `=`.
pub fn pairs<'a>(
    name: &str,
    texts: impl Iterator<Item = &'a String>,
) -> Result<Option<Value>, ApiError> {
    let mut object = Map::new();
    for text in texts {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            ApiError::parameter(name, format!("`{text}` is not KEY=VALUE")).hint(format!("{text}="))
        })?;
        object.insert(key.to_owned(), Value::from(value));
    }
    Ok((!object.is_empty()).then_some(Value::Object(object)))
}

fn scalar(name: &str, kind: Kind, hint: Option<Hint>, text: &str) -> Result<Value, ApiError> {
    match (kind, hint) {
        (Kind::Integer, _) => text
            .parse::<u64>()
            .map(Value::from)
            .map_err(|_| ApiError::parameter(name, format!("`{text}` is not a whole number"))),
        (Kind::Number, _) => text
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())
            .map(Value::from)
            .ok_or_else(|| ApiError::parameter(name, format!("`{text}` is not a number"))),
        (Kind::Size(shift), _) => size(name, shift, text).map(Value::from),
        (Kind::Seconds, _) => seconds(name, text).map(Value::from),
        (_, Some(Hint::HostPath)) => {
            let path = std::path::absolute(text)
                .map_err(|source| ApiError::parameter(name, format!("`{text}`: {source}")))?;
            Ok(Value::from(path.to_string_lossy()))
        }
        (_, Some(Hint::Contents)) => text_or_file(name, text),
        (_, Some(Hint::Topology)) if is_file(text) => contents(name, Path::new(text)),
        _ => Ok(Value::from(text)),
    }
}

/// Returns a text, or with `@FILE` that file's.
///
/// # Errors
/// `invalid_parameter` when it cannot be read.
pub fn text_or_file(name: &str, text: &str) -> Result<Value, ApiError> {
    match text.strip_prefix('@') {
        Some(path) => contents(name, Path::new(path)),
        None => Ok(Value::from(text)),
    }
}

/// Whether a topology is named by its file.
fn is_file(text: &str) -> bool {
    text.contains('/') || [".yaml", ".yml", ".json"].iter().any(|end| text.ends_with(end))
}

fn contents(name: &str, path: &Path) -> Result<Value, ApiError> {
    let refused = |why: String| {
        let message = format!("cannot read {}: {why}", path.display());
        ApiError::new(ErrorCode::InvalidParameter, message).subject(name)
    };
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    match read.map_err(|source| refused(source.to_string()))? as u64 > MAX_FILE {
        true => Err(refused(format!("it has more than {} MiB", MAX_FILE >> 20))),
        false => Ok(Value::from(text)),
    }
}

/// Returns a size in units of `1 << shift` bytes; a plain number is in that unit already.
///
/// # Errors
/// `invalid_parameter`.
pub fn size(name: &str, shift: u32, text: &str) -> Result<u64, ApiError> {
    if let Ok(number) = text.parse::<u64>() {
        return Ok(number);
    }
    let bytes = text
        .parse::<ByteCount>()
        .map_err(|source| ApiError::parameter(name, source.to_string()))?;
    let unit = 1u64 << shift;
    if bytes.0 % unit != 0 {
        let message = format!("`{text}` is not a multiple of {}", ByteCount(unit));
        return Err(ApiError::parameter(name, message));
    }
    Ok(bytes.0 >> shift)
}

/// Returns a time as seconds: `90`, `90s`, `5m`, `2h`.
///
/// # Errors
/// `invalid_parameter`.
pub fn seconds(name: &str, text: &str) -> Result<u64, ApiError> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, text.chars().last()),
        None => (text, None),
    };
    let factor = match unit {
        Some('m') => 60,
        Some('h') => 3600,
        _ => 1,
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(|| {
        ApiError::parameter(name, format!("`{text}` is not a time (examples: 30s, 5m, 2h)"))
    })
}

#[cfg(test)]
mod tests {
    use pando_api::{Call, Verb};

    use super::*;
    use crate::cli::root;

    fn parsed(line: &str) -> Result<Value, ApiError> {
        let matches = root().try_get_matches_from(line.split(' ')).expect(line);
        let (mut path, mut matches) = (Vec::new(), &matches);
        while let Some((word, below)) = matches.subcommand() {
            path.push(word);
            matches = below;
        }
        let verb = pando_api::catalogue().iter().find(|verb| verb.cli.path == path).expect(line);
        params(verb, matches)
    }

    #[test]
    fn arguments_become_parameters() {
        let cases = [
            ("pando vm create shop", r#"{"name":"shop"}"#),
            (
                "pando vm create shop -m 2G --disk 10G -c 2 -e A=b=c -e D= --cold --no-wait --timeout 5m",
                r#"{"cold":true,"disk_gib":10,"env":{"A":"b=c","D":""},"memory_mib":2048,"name":"shop","timeout_s":300,"vcpus":2}"#,
            ),
            ("pando vm create shop --memory-mib 256", r#"{"memory_mib":256,"name":"shop"}"#),
            ("pando branch shop a b", r#"{"from":"shop","names":["a","b"]}"#),
            ("pando branch shop -n 4 --exact", r#"{"count":4,"exact":true,"from":"shop"}"#),
            ("pando commit", "{}"),
            (
                "pando commit shop -m x -t v1 --kind disk",
                r#"{"branch":"shop","kind":"disk","message":"x","tag":"v1"}"#,
            ),
            ("pando image build -p nginx -p curl", r#"{"packages":["nginx","curl"]}"#),
            ("pando image import a /b --kind disk", r#"{"kind":"disk","name":"a","path":"/b"}"#),
            ("pando vm control shop pause", r#"{"action":"pause","address":"shop"}"#),
            (
                "pando op wait op_0123456789ab --timeout 2h",
                r#"{"id":"op_0123456789ab","timeout_s":7200}"#,
            ),
            ("pando gc --dry-run", r#"{"dry_run":true}"#),
            ("pando topology show etcd", r#"{"topology":"etcd"}"#),
        ];
        for (line, expected) in cases {
            assert_eq!(parsed(line).expect(line).to_string(), expected, "{line}");
        }
    }

    #[test]
    fn wrong_values_name_their_parameter() {
        for (line, subject) in [
            ("pando vm create shop -m 100K", "memory_mib"),
            ("pando vm create shop --timeout soon", "timeout_s"),
            ("pando vm create shop -e A", "env"),
            ("pando vm create shop -c two", "vcpus"),
            ("pando vm create shop --user-data @/nonexistent", "user_data"),
            ("pando topology validate /nonexistent/etcd", "topology"),
            ("pando topology validate nonexistent.yaml", "topology"),
        ] {
            assert_eq!(parsed(line).expect_err(line).subject.as_deref(), Some(subject), "{line}");
        }
    }

    #[test]
    fn every_generated_command_makes_a_call() {
        for verb in pando_api::catalogue().iter().filter(|verb| !verb.cli.by_hand) {
            let mut line = vec!["pando"];
            line.extend(verb.cli.path);
            for name in verb.cli.positionals.iter().filter(|name| verb.is_required(name)) {
                line.push(match *name {
                    "id" => "op_0123456789ab",
                    "action" => "stop",
                    "path" => "/a",
                    _ => "shop",
                });
            }
            if verb.name == "image_import" {
                line.extend(["--kind", "disk"]);
            }
            if verb.name == "cluster_define" {
                line.extend(["--topology-name", "shop"]);
            }
            if verb.name == "net_impair" {
                line.extend(["--latency-ms", "50"]);
            }
            let value = parsed(&line.join(" ")).expect(verb.name);
            let call = Call::parse(verb.name, value).expect(verb.name);
            assert_eq!(Verb::find(call.name()).map(|verb| verb.name), Some(verb.name));
        }
    }
}
