//! Tools from verbs: name, title, description, input schema, annotations. No tool is written by
//! hand but the two that lead to verbs which are not listed.
//!
//! Tools have no output schemas: they would more than double what a list costs, and some clients
//! refuse results that are errors because of them. `tool_find` shows a verb's.

use pando_api::verb::{Alias, Runs};
use pando_api::{Effect, Verb, catalogue};
use serde_json::{Map, Value, json};

use crate::budget;
use crate::profile::{Names, Profile};

/// Finds verbs that are not listed.
pub const FIND: &str = "tool_find";
/// The argument that makes a call again find the first one's operation: lists leave it out, for their
/// length, and [`FIND`] shows it.
pub const KEY: &str = "idempotency_key";
/// Calls a verb that is not listed, for clients that call listed tools only.
pub const CALL: &str = "tool_call";
/// The parameter that carries a plan's token.
pub const CONFIRM: &str = "confirm";

/// One tool, in no protocol's words.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// `noun_verb`, or an alias.
    pub name: String,
    /// For people.
    pub title: String,
    /// For models.
    pub description: String,
    /// JSON schema of its arguments; the root is an object.
    pub input: Map<String, Value>,
    /// Whether it changes nothing.
    pub read_only: bool,
    /// Whether it may lose what is not committed or tagged.
    pub destructive: bool,
    /// Whether calling it again with the same arguments does nothing more.
    pub idempotent: bool,
}

/// Returns the tools of a profile, in the catalogue's order.
pub fn tools(profile: &Profile) -> Vec<Tool> {
    let mut tools = Vec::new();
    for verb in catalogue().iter().filter(|verb| profile.lists(verb)) {
        match profile.names {
            Names::Compat if !verb.aliases.is_empty() => {
                tools.extend(verb.aliases.iter().map(|alias| of_alias(verb, alias)));
            }
            Names::Own | Names::Compat => tools.push(of_verb(verb)),
        }
    }
    if profile.has_unlisted() {
        tools.push(find());
        tools.push(call(profile));
    }
    tools
}

/// Returns the tool that a verb is.
pub fn of_verb(verb: &Verb) -> Tool {
    Tool {
        name: verb.name.to_owned(),
        title: verb.title().to_owned(),
        description: verb.description().to_owned(),
        input: input(verb),
        read_only: verb.effect == Effect::Read,
        destructive: verb.effect == Effect::Destructive,
        idempotent: verb.is_idempotent(),
    }
}

/// Returns the tool that a verb is under another name, with that name's parameters.
fn of_alias(verb: &Verb, alias: &Alias) -> Tool {
    let mut tool = of_verb(verb);
    alias.name.clone_into(&mut tool.name);
    for (theirs, ours) in alias.renames {
        if let Some(properties) = tool.input.get_mut("properties").and_then(Value::as_object_mut)
            && let Some(schema) = properties.get(*ours).cloned()
        {
            // Several of their names may stand for one of ours: the first takes its place.
            properties.insert((*theirs).to_owned(), schema);
        }
    }
    for (_, ours) in alias.renames {
        if let Some(properties) = tool.input.get_mut("properties").and_then(Value::as_object_mut) {
            properties.remove(*ours);
        }
        if let Some(required) = tool.input.get_mut("required").and_then(Value::as_array_mut) {
            let theirs = alias.renames.iter().filter(|(_, name)| name == ours);
            let mut theirs = theirs.map(|(name, _)| *name);
            let only = theirs.next().filter(|_| theirs.next().is_none());
            required.retain_mut(|name| match (name == ours, only) {
                (false, _) => true,
                (true, Some(only)) => {
                    *name = Value::from(only);
                    true
                }
                // Either name will do, which a list of required names cannot say.
                (true, None) => false,
            });
        }
    }
    tool
}

/// Whether a call can be made again under the same key: it finds the first one's operation.
pub fn takes_key(verb: &Verb) -> bool {
    verb.effect != Effect::Read && verb.runs != Runs::Directly
}

/// Returns a verb's parameters as a tool's arguments: only what a reader needs.
pub fn input(verb: &Verb) -> Map<String, Value> {
    let mut schema = verb.params.as_object().cloned().unwrap_or_default();
    schema.remove("description");
    // Said to whoever adds one, by name.
    schema.remove("additionalProperties");
    schema.entry("type").or_insert_with(|| json!("object"));
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    slim(properties);
    for (name, usual) in budget::usual(verb) {
        if let Some(property) = properties.get_mut(name).filter(|own| own.get("default").is_some())
        {
            property["default"] = json!(usual);
        }
    }
    if verb.effect == Effect::Destructive
        && let Some(properties) = properties.as_object_mut()
    {
        let text = "Token of the plan that a call without it returns.";
        properties.insert(CONFIRM.to_owned(), json!({"type": "string", "description": text}));
    }
    schema
}

/// Removes what a reader can do without: patterns and bounds (a refusal says what was wrong),
/// defaults that absence implies.
fn slim(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(slim),
        Value::Object(object) => {
            object.remove("pattern");
            for bound in ["minimum", "maximum", "maxItems"] {
                object.remove(bound);
            }
            if matches!(object.get("default"), Some(Value::Bool(false))) {
                object.remove("default");
            }
            // What a list is of, the list's own description says.
            if let Some(Value::Object(items)) = object.get_mut("items") {
                items.remove("description");
            }
            object.values_mut().for_each(slim);
        }
        _ => {}
    }
}

fn find() -> Tool {
    let input = json!({
        "type": "object",
        "required": ["query"],
        "properties": {
            "query": {"type": "string", "description": "A tool's name, or words for what it should do."},
        },
    });
    Tool {
        name: FIND.to_owned(),
        title: "Find more tools".to_owned(),
        description:
            "Find tools that are not listed (latency, probes, images, tags, SSH and more), \
            with their arguments and results."
                .to_owned(),
        input: object(input),
        read_only: true,
        destructive: false,
        idempotent: true,
    }
}

fn call(profile: &Profile) -> Tool {
    let effects = || profile.permitted().map(|verb| verb.effect);
    let input = json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "description": "The tool's name."},
            "arguments": {"type": "object", "description": "Its arguments."},
        },
    });
    let read_only = effects().all(|effect| effect == Effect::Read);
    Tool {
        name: CALL.to_owned(),
        title: "Call another tool".to_owned(),
        description: "Call a tool that is not listed.".to_owned(),
        input: object(input),
        read_only,
        destructive: effects().any(|effect| effect == Effect::Destructive),
        idempotent: read_only,
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
