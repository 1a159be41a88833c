//! The plugin folder for agents: that its files are what clients read, and that every call it shows
//! can be made as it stands.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pando_api::{Call, Toolset, Verb};
use serde_json::Value;

/// Tools that are no verbs.
const TOOLS: &[&str] = &["tool_find", "tool_call"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../agent")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap_or_else(|why| panic!("{path:?}: {why}"))
}

/// Returns every page of the skill with its name.
fn pages() -> Vec<(String, String)> {
    let entries = fs::read_dir(folder().join("skills/pando")).unwrap();
    let mut pages: Vec<(String, String)> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect();
    pages.sort();
    pages
}

#[test]
fn the_plugin_is_what_clients_read() {
    let plugin = json(&folder().join(".claude-plugin/plugin.json"));
    assert_eq!(plugin["name"], "pando");
    assert_eq!(plugin["version"], env!("CARGO_PKG_VERSION"));
    assert!(plugin["description"].as_str().unwrap().len() > 20);
    let server = &json(&folder().join(".mcp.json"))["mcpServers"]["pando"];
    assert_eq!(server["command"], "pando");
    assert_eq!(server["args"], serde_json::json!(["mcp"]));
}

#[test]
fn the_skill_has_its_front_matter_and_leads_to_its_pages() {
    let pages = pages();
    let (_, skill) = pages.iter().find(|(name, _)| name == "SKILL.md").unwrap();
    let (front, body) = skill.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap();
    let fields: Vec<(&str, &str)> =
        front.lines().map(|line| line.split_once(": ").expect(line)).collect();
    let [("name", name), ("description", description)] = fields.as_slice() else {
        panic!("{fields:?}");
    };
    // The name is the folder's; a description says when the skill is used, within what clients
    // show.
    assert_eq!(*name, "pando");
    assert!(description.contains("Use when") && description.len() <= 1024);
    let linked: BTreeSet<&str> =
        body.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    let others = pages.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "SKILL.md");
    assert_eq!(linked, others.collect());
    assert!(linked.len() == 4 && body.lines().count() < 200);
}

#[test]
fn every_call_in_the_skill_can_be_made() {
    let mut verbs = BTreeSet::new();
    for (page, text) in pages() {
        let blocks = text.split("```json\n").skip(1);
        for line in blocks.filter_map(|rest| rest.split("```").next()).flat_map(str::lines) {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let call: Value =
                serde_json::from_str(line).unwrap_or_else(|why| panic!("{page}: {line}: {why}"));
            let name = call["tool"].as_str().unwrap();
            let parsed = Call::parse(name, call["arguments"].clone());
            let parsed = parsed.unwrap_or_else(|why| panic!("{page}: {line}: {why}"));
            assert_eq!(parsed.name(), name, "{page}: an alias");
            verbs.insert(parsed.name());
        }
    }
    for wanted in [
        "branch_create",
        "exec_fanout",
        "state_diff",
        "commit_show",
        "branch_rollback",
        "cluster_define",
        "net_partition",
    ] {
        assert!(verbs.contains(wanted), "no page shows {wanted}");
    }
}

#[test]
fn every_tool_and_parameter_that_is_named_exists() {
    let known = |word: &str| {
        let parameters = pando_api::catalogue().iter().flat_map(|verb| {
            let fields = [&verb.params, &verb.result].into_iter();
            fields.filter_map(|schema| schema["properties"].as_object()).flat_map(|map| map.keys())
        });
        Verb::find(word).is_some()
            || TOOLS.contains(&word)
            || parameters.into_iter().any(|name| name == word)
    };
    for (page, text) in pages() {
        for word in text.split('`').skip(1).step_by(2) {
            if word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                assert!(known(word), "{page}: `{word}`");
            }
        }
    }
}

#[test]
fn the_page_for_clients_names_every_toolset_and_prompt() {
    let page = fs::read_to_string(folder().join("../docs/clients.md")).unwrap();
    let prompts = ["reproduce_bug", "compare_fixes", "bisect_commits", "break_network"];
    for name in Toolset::ALL.iter().map(|toolset| toolset.as_str()).chain(prompts) {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}
