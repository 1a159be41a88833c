//! What is listed: schemas, annotations, budgets.

use std::collections::BTreeSet;

use pando_api::{Effect, Verb};
use pando_mcp::tools::{CALL, FIND, Tool, tools};
use pando_mcp::{Access, Names, Profile, Role};
use serde_json::{Value, json};

use crate::support::{Era, Session, control, handler};

/// Returns about how many tokens a tool takes, rather too many than too few: counted with o200k,
/// the default list has 4.28 bytes a token, and 4.34 without what models do not see.
fn tokens(tool: &Value) -> usize {
    (tool.to_string().len() * 100).div_ceil(425)
}

/// Returns what a model sees of a tool; title and annotations are for its client.
fn for_models(tool: &Value) -> Value {
    json!({
        "name": tool["name"], "description": tool["description"],
        "inputSchema": tool["inputSchema"],
    })
}

fn shown(tool: &Tool) -> Value {
    json!({
        "name": tool.name, "title": tool.title, "description": tool.description,
        "inputSchema": tool.input,
        "annotations": {
            "readOnlyHint": tool.read_only, "destructiveHint": tool.destructive,
            "idempotentHint": tool.idempotent, "openWorldHint": false,
        },
    })
}

async fn on_the_wire(profile: Profile) -> Vec<Value> {
    let mut session = Session::with(handler(&control(), profile), Era::Modern, json!({})).await;
    let listed = session.request("tools/list", json!({})).await;
    session.close().await;
    listed["result"]["tools"].as_array().unwrap().clone()
}

#[tokio::test]
async fn the_default_list_is_small() {
    let listed = on_the_wire(Profile::default()).await;
    let whole: usize = listed.iter().map(tokens).sum();
    let shown: usize = listed.iter().map(|tool| tokens(&for_models(tool))).sum();
    assert!(listed.len() <= 25, "{}", listed.len());
    assert!(whole <= 5000, "{whole}");
    assert!(shown <= 150 * listed.len(), "{shown}");
}

#[tokio::test]
async fn everything_is_listed_for_an_admin_within_budget() {
    let listed = on_the_wire(Profile { role: Some(Role::Admin), ..Profile::default() }).await;
    assert_eq!(listed.len(), pando_api::catalogue().len());
    let total: usize = listed.iter().map(tokens).sum();
    assert!(total <= 16_000, "{total}");
    assert!(listed.iter().all(|tool| tool["name"] != FIND && tool["name"] != CALL));
}

#[test]
fn tools_match_their_golden_files() {
    let everything = Profile { role: Some(Role::Admin), ..Profile::default() };
    let mut listed = tools(&everything);
    // What leads to tools that are not listed is listed where there are such.
    let leading = |tool: &Tool| tool.name == FIND || tool.name == CALL;
    listed.extend(tools(&Profile::default()).into_iter().filter(leading));
    assert_eq!(listed.len(), pando_api::catalogue().len() + 2);
    for tool in listed {
        insta::assert_json_snapshot!(tool.name.clone(), shown(&tool));
    }
}

#[tokio::test]
async fn schemas_are_objects_and_annotations_are_complete() {
    for access in [Access::Full, Access::ReadOnly] {
        for role in [None, Some(Role::Dev), Some(Role::Ops), Some(Role::Admin)] {
            let profile = Profile { role, access, ..Profile::default() };
            for tool in on_the_wire(profile).await {
                let name = tool["name"].as_str().unwrap();
                assert_eq!(tool["inputSchema"]["type"], "object", "{name}");
                assert!(tool["inputSchema"]["properties"].is_object(), "{name}");
                assert!(tool.get("outputSchema").is_none(), "{name}");
                assert!(!tool["title"].as_str().unwrap().ends_with('.'), "{name}");
                let notes = tool["annotations"].as_object().unwrap();
                for hint in ["readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"] {
                    assert!(notes[hint].is_boolean(), "{name}: {hint}");
                }
                assert_eq!(notes["openWorldHint"], false);
                let Some(verb) = Verb::find(name) else { continue };
                assert_eq!(notes["readOnlyHint"], json!(verb.effect == Effect::Read));
                assert_eq!(notes["destructiveHint"], json!(verb.effect == Effect::Destructive));
                assert!(access == Access::Full || verb.effect == Effect::Read, "{name}");
                let confirms = tool["inputSchema"]["properties"].get("confirm").is_some();
                assert_eq!(confirms, verb.effect == Effect::Destructive, "{name}");
                assert!(verb.properties().is_none_or(|own| !own.contains_key("confirm")));
            }
        }
    }
}

#[tokio::test]
async fn the_list_does_not_change_with_what_is_called() {
    let control = control();
    let mut session = Session::open(&control, Era::Legacy("2025-11-25")).await;
    let before = session.request("tools/list", json!({})).await["result"].clone();
    session.call("tool_find", json!({"query": "build an image"})).await;
    session.call("image_list", json!({})).await;
    let after = session.request("tools/list", json!({})).await["result"].clone();
    assert_eq!(before, after);
    session.close().await;
}

#[tokio::test]
async fn toolsets_list_themselves_and_permit_nothing_else() {
    let toolsets = Profile::toolsets("image,commit").ok();
    let profile = Profile { toolsets, ..Profile::default() };
    let names: BTreeSet<String> = on_the_wire(profile.clone())
        .await
        .iter()
        .map(|tool| tool["name"].as_str().unwrap().to_owned())
        .collect();
    assert!(names.contains("image_build") && names.contains("commit_verify"));
    assert!(names.contains("operation_wait"));
    assert!(!names.contains("exec_run") && !names.contains(FIND), "{names:?}");
    let mut session = Session::with(handler(&control(), profile), Era::Modern, json!({})).await;
    let refused = session.call("exec_run", json!({"command": "id"})).await;
    assert_eq!(refused["error"]["code"], "forbidden");
    assert!(refused["error"]["hint"].as_str().unwrap().contains("--toolset exec"), "{refused}");
    session.close().await;
}

#[test]
fn earlier_names_are_listed_on_request() {
    let profile = Profile { names: Names::Compat, ..Profile::default() };
    let listed = tools(&profile);
    let find = |name: &str| listed.iter().find(|tool| tool.name == name);
    assert!(find("vm_create").is_none());
    let create = find("vm.create").unwrap();
    assert!(create.input["properties"]["memory_mb"].is_object());
    assert!(create.input["properties"].get("memory_mib").is_none());
    let control = find("update_state").unwrap();
    assert_eq!(
        control.input["required"],
        json!(["action"]).as_array().map(|_| json!(["state"])).unwrap()
    );
    assert!(control.input["properties"]["vm_id"].is_object());
}
