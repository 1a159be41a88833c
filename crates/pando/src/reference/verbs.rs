//! A page for each toolset: its verbs with their parameters, results and an example.

use pando_api::verb::Runs;
use pando_api::{Effect, Toolset, Verb, catalogue};
use serde_json::Value;

use crate::cli::by_hand::Taken;
use crate::cli::{self, by_hand, example, generated};
use crate::reference::markdown::{Table, block, cell, code};

/// What the patterns of texts stand for.
const PATTERNS: &[(&str, &str)] = &[
    ("^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$", "name"),
    ("^[a-z0-9._-]+(@[a-z0-9._-]+)?(/[a-z0-9._-]+)?$", "address"),
    ("^cl_", "cluster's id"),
    ("^br_", "branch's id"),
    ("^cm_", "commit's id"),
    ("^im_", "image's id"),
    ("^op_", "operation's id"),
    ("^jr_", "recorded command's id"),
    ("^cp_", "capture's id"),
];

/// Returns a toolset's file.
pub(super) fn file(toolset: Toolset) -> String {
    format!("{}.md", toolset.as_str())
}

/// Returns a toolset's title.
pub(super) const fn title(toolset: Toolset) -> &'static str {
    match toolset {
        Toolset::Machine => "Machines",
        Toolset::Cluster => "Clusters, nodes and snapshots",
        Toolset::Branch => "Branches",
        Toolset::Commit => "Commits and tags",
        Toolset::Exec => "Work in machines",
        Toolset::Image => "Images",
        Toolset::State => "State, differences, history",
        Toolset::Fault => "Networks and faults",
        Toolset::Operation => "Operations",
        Toolset::System => "The daemon and its host",
    }
}

/// Returns a toolset's page.
pub(super) fn page(toolset: Toolset) -> String {
    let mut page = format!("# {}\n\n{}", title(toolset), toolset.about());
    page.push_str(" Any call may fail with one of the [errors](errors.md).\n\n");
    let verbs = || catalogue().iter().filter(|verb| verb.toolset == toolset);
    for verb in verbs() {
        page.push_str(&format!("- [`{0}`](#{0}): {1}\n", verb.name, verb.title()));
    }
    page.push('\n');
    for verb in verbs() {
        page.push_str(&section(verb));
    }
    page
}

fn section(verb: &'static Verb) -> String {
    let mut text = format!("## {}\n\n{}\n\n", verb.name, verb.description().replace('<', "&lt;"));
    text.push_str(&facts(verb));
    text.push_str("### Parameters\n\n");
    let parameters = parameters(verb);
    if parameters.is_empty() {
        text.push_str("None.\n\n");
    } else {
        text.push_str(&parameters.to_string());
    }
    text.push_str("### Result\n\n");
    let mut table = Table::new(&["field", "type", "what it is"]);
    fields(&mut table, "", &verb.result);
    text.push_str(&table.to_string());
    text.push_str("### Example\n\n");
    text.push_str(&block("console", &format!("$ {}", example::line(verb))));
    text.push_str(&format!(
        "The same as the body of `POST /v1/{0}`, and as the arguments of the tool `{0}`:\n\n",
        verb.name
    ));
    text.push_str(&block("json", &verb.example().to_string()));
    text
}

/// Returns what is true of a verb besides its parameters.
fn facts(verb: &Verb) -> String {
    let effect = match verb.effect {
        Effect::Read => "reads only",
        Effect::Write => "changes something; nothing is lost",
        Effect::Destructive => {
            "may lose what is not committed or tagged: over MCP, the first call returns a plan to confirm"
        }
    };
    let runs = match verb.runs {
        Runs::Directly => "answers directly",
        Runs::Either => {
            "answers directly; with an idempotency key (`--key`) or `Prefer: respond-async` it is an \
             [operation](operation.md), whose result is kept"
        }
        Runs::AsOperation => {
            "an [operation](operation.md): recorded first, finished or undone after a crash; \
             `--no-wait` or `Prefer: respond-async` returns its id at once"
        }
    };
    let route = match verb.effect {
        Effect::Read => format!("`GET` or `POST /v1/{}`", verb.name),
        Effect::Write | Effect::Destructive => format!("`POST /v1/{}`", verb.name),
    };
    let mut lines = vec![
        format!("- Command: `pando {}`", verb.cli.path.join(" ")),
        format!("- HTTP: {route}"),
        format!("- MCP: the tool `{}`", verb.name),
        format!("- Effect: {effect}"),
        format!("- Runs: {runs}"),
    ];
    if verb.effect != Effect::Read && verb.is_idempotent() {
        lines.push("- Calling it again with the same parameters changes nothing more".to_owned());
    }
    let aliases: Vec<String> = verb.aliases.iter().map(alias).collect();
    if !aliases.is_empty() {
        lines.push(format!("- Also called: {}", aliases.join(", ")));
    }
    format!("{}\n\n", lines.join("\n"))
}

fn alias(alias: &pando_api::verb::Alias) -> String {
    let renames: Vec<String> =
        alias.renames.iter().map(|(theirs, ours)| format!("`{theirs}` for `{ours}`")).collect();
    if renames.is_empty() {
        return format!("`{}`", alias.name);
    }
    format!("`{}` ({})", alias.name, renames.join(", "))
}

fn parameters(verb: &'static Verb) -> Table {
    let mut table = Table::new(&["parameter", "option", "type", "default", "what it is"]);
    let properties = verb.properties().into_iter().flatten();
    let mut rows: Vec<(&'static String, &Value)> = properties.collect();
    rows.sort_by_key(|(name, _)| (!verb.is_required(name), *name));
    for (name, schema) in rows {
        let default = match schema.get("default") {
            _ if verb.is_required(name) => "*needed*".to_owned(),
            Some(value) => code(&value.to_string()),
            None => String::new(),
        };
        let option = spelling(verb, name);
        table.row([code(name), option, kind(schema), default, about(schema)]);
    }
    table
}

/// Returns how a parameter is typed, or why it is not.
fn spelling(verb: &'static Verb, name: &'static str) -> String {
    let Some(command) = by_hand::of(verb.name) else {
        return generated::spelling(verb, name).map_or_else(String::new, |text| code(&text));
    };
    match command.parameters.iter().find(|(known, _)| *known == name) {
        Some((_, Taken::Otherwise(how))) => (*how).to_owned(),
        Some((_, Taken::As(id))) => {
            let arg = cli::argument(verb.cli.path, id);
            arg.map_or_else(String::new, |arg| code(&cli::spelling(&arg)))
        }
        None => String::new(),
    }
}

fn about(schema: &Value) -> String {
    cell(schema.get("description").and_then(Value::as_str).unwrap_or_default())
}

/// Adds a row for each field of an object, and of the objects in it.
fn fields(table: &mut Table, prefix: &str, schema: &Value) {
    let required = schema.get("required").and_then(Value::as_array);
    for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let always = required.is_some_and(|names| names.iter().any(|one| one == name));
        let path = format!("{prefix}{name}");
        let kind = if always { kind(inner) } else { format!("{}, if any", kind(inner)) };
        table.row([code(&path), kind, about(inner)]);
        fields(table, &format!("{path}."), inner);
        if let Some(items) = inner.get("items") {
            fields(table, &format!("{path}[]."), items);
        }
        if let Some(values) = inner.get("additionalProperties") {
            fields(table, &format!("{path}.*."), values);
        }
    }
}

/// Returns a schema's type in words, with its bounds.
fn kind(schema: &Value) -> String {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let values: Vec<String> = values.iter().filter_map(Value::as_str).map(code).collect();
        return values.join(" \\| ");
    }
    let number = |key: &str| schema.get(key).and_then(Value::as_u64);
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => {
            let most =
                number("maxItems").map_or_else(String::new, |most| format!(", at most {most}"));
            format!(
                "list of {}{most}",
                schema.get("items").map_or_else(|| "anything".to_owned(), kind)
            )
        }
        Some("object") => match schema.get("additionalProperties") {
            Some(Value::Object(_)) => "map".to_owned(),
            _ => "object".to_owned(),
        },
        Some("string") => {
            let pattern = schema.get("pattern").and_then(Value::as_str).unwrap_or_default();
            let known = PATTERNS.iter().find(|(known, _)| pattern.starts_with(known));
            known.map_or("text", |(_, name)| name).to_owned()
        }
        Some("integer") => match (number("minimum"), number("maximum")) {
            (Some(least), Some(most)) if most < u64::from(u32::MAX) => format!("{least} to {most}"),
            _ => "whole number".to_owned(),
        },
        Some("boolean") => "boolean".to_owned(),
        Some("number") => "number".to_owned(),
        _ => "anything".to_owned(),
    }
}
