//! One verb, the same parameters on the command line, over HTTP and over MCP: names, types, which
//! are needed, defaults, choices. What differs is listed here, with its reason.

use std::collections::BTreeSet;

use clap::{Arg, ArgAction};
use pando_api::{Effect, Verb, catalogue};
use pando_mcp::tools::{CONFIRM, tools};
use pando_mcp::{Profile, Role};
use serde_json::Value;

use crate::cli;
use crate::cli::by_hand::{self, Taken};
use crate::cli::generated::{NO_WAIT, spelling};

/// Arguments of commands made by hand that are no parameters.
const EXTRA: &[(&str, &str, &str)] = &[
    ("exec_run", "tty", "a terminal is a stream, which the verb's result cannot be"),
    (
        "exec_run",
        "no_stdin",
        "a shell's command has a standard input that it may have to be denied",
    ),
    ("commit_list", "graph", "a way to draw the result"),
    ("console_read", "follow", "calls again for what comes"),
    ("net_capture", "write", "where the command puts what it reads"),
    ("state_diff", "node", "names the node of both addresses"),
    ("state_diff", "stat", "shows the counts of the result only"),
    ("state_diff", "as-script", "shows the commands of the result only"),
    ("state_diff", "exit-code", "makes the result an exit status"),
    ("file_pull", "to", "the other end of the copy"),
    ("file_pull", "mode", "of a copy into a machine"),
    ("file_pull", "owner", "of a copy into a machine"),
    ("file_pull", "parents", "of a copy into a machine"),
    ("branch_delete", "disks", "of `rm` with a machine: `vm_delete` with remove_overlays"),
    ("commit_delete", "disks", "of `rm` with a machine: `vm_delete` with remove_overlays"),
];

/// Parameters whose arguments are needed where the parameter is not, or the other way round.
const NEED: &[(&str, &str, &str)] = &[
    ("exec_run", "address", "the words after an address would be taken for one"),
    ("branch_rollback", "branch", "the last of one or two words is the target"),
    ("branch_delete", "branch", "`rm` takes one target or more"),
    ("commit_delete", "commit", "`rm` takes one target or more"),
    ("net_capture", "action", "without one it begins, follows and ends"),
    ("file_push", "content", "there is always a file to copy"),
];

/// Parameters that bound a result, which is short for a tool.
const BOUNDS: &[&str] = &["limit", "max_bytes", "max_output_bytes", "tail_bytes"];

/// Parameters whose command has another default.
const DEFAULTS: &[(&str, &str, &str)] =
    &[("state_diff", "max_bytes", "a person scrolls: 1 MiB, where a model is given 8 KB")];

fn listed(list: &[(&str, &str, &str)], verb: &Verb, name: &str) -> bool {
    list.iter().any(|(known, what, _)| *known == verb.name && *what == name)
}

/// Returns the arguments of a verb's command that are its own.
fn own_arguments(verb: &Verb) -> Vec<Arg> {
    let root = cli::root();
    let command = verb.cli.path.iter().try_fold(&root, |above, word| above.find_subcommand(word));
    let command = command.unwrap_or_else(|| panic!("{} has no command", verb.name));
    command.get_arguments().cloned().collect()
}

fn takes_many(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
        || arg.get_num_args().is_some_and(|range| range.max_values() > 1)
}

/// Asserts that an argument is what a schema says.
fn same(verb: &'static Verb, name: &'static str, arg: &Arg, schema: &Value) {
    let what = format!("{} {name}: {arg:?}", verb.name);
    let shares = by_hand::of(verb.name).is_some_and(|command| {
        let id = Taken::As(arg.get_id().as_str().to_owned().leak());
        command.parameters.iter().filter(|(_, taken)| *taken == id).count() > 1
    });
    match schema["type"].as_str() {
        Some("boolean") => assert!(!arg.get_action().takes_values(), "{what}"),
        Some("array" | "object") => assert!(takes_many(arg), "{what}"),
        // One argument may hold two parameters, and `rm` takes several targets.
        _ => assert!(
            arg.get_action().takes_values()
                && (shares || !takes_many(arg) || verb.cli.path == ["rm"]),
            "{what}"
        ),
    }
    if schema["default"] == Value::Bool(true) {
        assert!(spelled(arg).contains("--no-"), "{what}");
    }
    if let Some(choices) = choices(schema) {
        let offered: BTreeSet<String> =
            arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        assert_eq!(offered, choices, "{what}");
    }
    if !listed(NEED, verb, name) && !shares {
        assert_eq!(arg.is_required_set(), verb.is_required(name), "{what}");
    }
    let default = match &schema["default"] {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    if !verb.cli.by_hand {
        assert_eq!(help.contains("[default: "), default.is_some(), "{what}");
    }
}

fn spelled(arg: &Arg) -> String {
    cli::spelling(arg)
}

/// Returns the values that a schema, or that of its items, allows.
fn choices(schema: &Value) -> Option<BTreeSet<String>> {
    let values = schema.get("enum").or_else(|| schema.get("items")?.get("enum"))?.as_array()?;
    Some(values.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

#[test]
fn the_command_line_takes_every_parameter() {
    for verb in catalogue() {
        let arguments = own_arguments(verb);
        let find = |id: &str| arguments.iter().find(|arg| arg.get_id() == id);
        let mut used = BTreeSet::from([NO_WAIT]);
        let command = by_hand::of(verb.name);
        assert_eq!(command.is_some(), verb.cli.by_hand, "{}", verb.name);
        if let Some(command) = command {
            let named: Vec<&str> = command.parameters.iter().map(|(name, _)| *name).collect();
            let known: Vec<&String> =
                verb.properties().into_iter().flatten().map(|(name, _)| name).collect();
            assert_eq!(named, known, "{}", verb.name);
        }
        for (name, schema) in verb.properties().into_iter().flatten() {
            let taken = command.map(|command| {
                command.parameters.iter().find(|(known, _)| known == name).map(|(_, taken)| *taken)
            });
            let id = match taken {
                Some(Some(Taken::As(id))) => id,
                Some(Some(Taken::Otherwise(reason))) => {
                    assert!(reason.len() > 10 && !verb.is_required(name), "{} {name}", verb.name);
                    continue;
                }
                Some(None) => panic!("{} {name} is not mentioned", verb.name),
                None if spelling(verb, name).as_deref() == Some("--no-wait") => continue,
                None => name,
            };
            let arg = find(id).unwrap_or_else(|| panic!("{} has no argument {id}", verb.name));
            used.insert(id);
            same(verb, name, arg, schema);
        }
        for arg in arguments.iter().filter(|arg| arg.get_id() != "help") {
            let id = arg.get_id().as_str();
            assert!(used.contains(id) || listed(EXTRA, verb, id), "{} --{id}", verb.name);
        }
    }
}

#[test]
fn differences_are_of_things_that_exist() {
    for (verb, name, reason) in NEED.iter().chain(DEFAULTS) {
        let verb = Verb::find(verb).expect(verb);
        assert!(verb.properties().is_some_and(|known| known.contains_key(*name)), "{name}");
        assert!(reason.len() > 10, "{reason}");
    }
    for (verb, id, reason) in EXTRA {
        let verb = Verb::find(verb).expect(verb);
        assert!(own_arguments(verb).iter().any(|arg| arg.get_id() == *id), "{id}");
        assert!(reason.len() > 10, "{reason}");
    }
}

#[test]
fn the_http_api_takes_the_same_parameters() {
    let document = pando_api::openapi();
    for verb in catalogue() {
        let item = &document["paths"][format!("/v1/{}", verb.name)];
        let body = &item["post"]["requestBody"]["content"]["application/json"]["schema"];
        let reference = body["$ref"].as_str().expect(verb.name).trim_start_matches('#');
        assert_eq!(document.pointer(reference), Some(&verb.params), "{}", verb.name);
        if verb.effect != Effect::Read {
            continue;
        }
        let queries = item["get"]["parameters"].as_array().expect(verb.name);
        let queries: Vec<&Value> = queries.iter().filter(|one| one["in"] == "query").collect();
        assert_eq!(queries.len(), verb.properties().map_or(0, serde_json::Map::len));
        for query in queries {
            let name = query["name"].as_str().expect(verb.name);
            let mut schema = verb.params["properties"][name].clone();
            schema.as_object_mut().expect(name).remove("description");
            assert_eq!(query["schema"], schema, "{} {name}", verb.name);
            assert_eq!(query["required"], verb.is_required(name), "{} {name}", verb.name);
        }
    }
}

#[test]
fn mcp_tools_take_the_same_parameters() {
    let everything = Profile { role: Some(Role::Admin), ..Profile::default() };
    let tools = tools(&everything);
    assert_eq!(tools.len(), catalogue().len());
    for (verb, tool) in catalogue().iter().zip(&tools) {
        assert_eq!(verb.name, tool.name);
        assert_eq!(verb.effect == Effect::Read, tool.read_only, "{}", verb.name);
        assert_eq!(verb.effect == Effect::Destructive, tool.destructive, "{}", verb.name);
        assert_eq!(verb.params.get("required"), tool.input.get("required"), "{}", verb.name);
        let theirs = tool.input["properties"].as_object().expect(verb.name);
        let names = |map: &serde_json::Map<String, Value>| -> BTreeSet<String> {
            map.keys().filter(|name| *name != CONFIRM).cloned().collect()
        };
        let ours = verb.properties().map(names).unwrap_or_default();
        assert_eq!(ours, names(theirs), "{}", verb.name);
        assert_eq!(tool.destructive, theirs.contains_key(CONFIRM), "{}", verb.name);
        for (name, schema) in verb.properties().into_iter().flatten() {
            let theirs = &theirs[name];
            for key in ["type", "enum", "description", "default"] {
                // A flag that is off needs no default to say so, and what bounds a result has another.
                let is_bound = BOUNDS.contains(&name.as_str()) && key == "default";
                if schema.get(key) != Some(&Value::Bool(false)) && !is_bound {
                    assert_eq!(schema.get(key), theirs.get(key), "{} {name} {key}", verb.name);
                }
            }
        }
    }
}
