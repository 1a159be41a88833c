//! What may lose something is confirmed first, in each way that a client allows.

use std::sync::Arc;

use pando_api::fake::FakeControl;
use pando_mcp::Profile;
use serde_json::{Value, json};

use crate::support::{ERAS, Era, Session, control, envelope, handler};

fn machine() -> Arc<FakeControl> {
    let control = control();
    let row = json!({"address": "shop@main", "state": "running", "commit_id": "cm_0123456789ab"});
    control.answer("branch_list", json!({"branches": [row], "total": 1}));
    control.answer("commit_list", json!({"commits": [], "total": 3}));
    control.answer("vm_delete", json!({"name": "shop", "stopped_branches": 1}));
    control
}

fn deletions(control: &FakeControl) -> usize {
    control.calls().iter().filter(|(_, call)| call.name() == "vm_delete").count()
}

#[tokio::test]
async fn without_elicitation_a_token_stands_for_the_plan() {
    for era in ERAS {
        let control = machine();
        let mut session = Session::open(&control, *era).await;
        let plan = session.call("vm_delete", json!({"name": "shop"})).await;
        let result = &plan["result"];
        assert_eq!(result["status"], "confirmation_required", "{plan}");
        assert_eq!(result["plan"]["now"][0]["branches"][0]["address"], "shop@main");
        assert_eq!(result["plan"]["now"][1]["total"], 3);
        assert_eq!(deletions(&control), 0);

        // Another plan's token is none.
        let token = &result["confirm"];
        let other = json!({"name": "shop", "remove_overlays": true, "confirm": token});
        let other = session.call("vm_delete", other).await;
        assert_eq!(other["result"]["status"], "confirmation_required");
        let made_up = json!({"name": "shop", "confirm": "0123456789abcdef"});
        let made_up = session.call("vm_delete", made_up).await;
        assert_eq!(made_up["result"]["status"], "confirmation_required");

        // Nor is it one once the state has changed.
        control.answer("commit_list", json!({"commits": [], "total": 4}));
        let next = plan["next"].clone();
        assert_eq!(next["tool"], "vm_delete");
        let late = session.call("vm_delete", next["arguments"].clone()).await;
        assert_eq!(late["result"]["status"], "confirmation_required");
        assert_eq!(deletions(&control), 0);

        let done = session.call("vm_delete", late["next"]["arguments"].clone()).await;
        assert_eq!(done["result"]["stopped_branches"], 1, "{done}");
        assert_eq!(deletions(&control), 1);
        session.close().await;
    }
}

#[tokio::test]
async fn a_legacy_client_that_can_ask_is_asked_within_the_call() {
    let answers = [
        (json!({"action": "accept", "content": {"confirm": true}}), 1),
        (json!({"action": "accept", "content": {"confirm": false}}), 0),
        (json!({"action": "decline"}), 0),
        (json!({"action": "cancel"}), 0),
    ];
    for (consent, deleted) in answers {
        let control = machine();
        let handler = handler(&control, Profile::default());
        let capabilities = json!({"elicitation": {}});
        let mut session = Session::with(handler, Era::Legacy("2025-06-18"), capabilities).await;
        session.consent = Some(consent.clone());
        let done = session.call("vm_delete", json!({"name": "shop"})).await;
        assert_eq!(done["success"], deleted == 1, "{consent}: {done}");
        assert_eq!(deletions(&control), deleted, "{consent}");
        let [question] = session.questions.as_slice() else { panic!("{:?}", session.questions) };
        assert_eq!(question["method"], "elicitation/create");
        let message = question["params"]["message"].as_str().unwrap();
        assert!(message.contains("vm_delete (name shop)?"), "{message}");
        if deleted == 0 {
            assert_eq!(done["error"]["code"], "cancelled");
        }
        session.close().await;
    }
}

#[tokio::test]
async fn a_client_that_fails_to_ask_gets_the_plan() {
    let control = machine();
    let handler = handler(&control, Profile::default());
    let mut session =
        Session::with(handler, Era::Legacy("2025-11-25"), json!({"elicitation": {}})).await;
    let plan = session.call("vm_delete", json!({"name": "shop"})).await;
    assert_eq!(plan["result"]["status"], "confirmation_required", "{plan}");
    session.close().await;
}

async fn modern(control: &Arc<FakeControl>) -> Session {
    let capabilities = json!({"elicitation": {"form": {}}});
    Session::with(handler(control, Profile::default()), Era::Modern, capabilities).await
}

async fn asked(session: &mut Session, params: &Value) -> Value {
    let answer = session.request("tools/call", params.clone()).await;
    assert_eq!(answer["result"]["resultType"], "input_required", "{answer}");
    answer["result"].clone()
}

#[tokio::test]
async fn a_modern_client_asks_and_calls_again() {
    let control = machine();
    let mut session = modern(&control).await;
    let params = json!({"name": "vm_delete", "arguments": {"name": "shop"}});
    let first = asked(&mut session, &params).await;
    let form = &first["inputRequests"]["confirm"];
    assert_eq!(form["method"], "elicitation/create");
    assert_eq!(form["params"]["requestedSchema"]["properties"]["confirm"]["type"], "boolean");
    assert_eq!(deletions(&control), 0);

    let again = |state: &Value, response: Value| {
        let mut params = params.clone();
        params["requestState"] = state.clone();
        params["inputResponses"] = json!({"confirm": response});
        params
    };
    let yes = json!({"action": "accept", "content": {"confirm": true}});
    // A state that was made up is asked about again.
    asked(&mut session, &again(&json!("0123456789abcdef"), yes.clone())).await;
    // So is one of a state that has changed.
    control.answer("commit_list", json!({"commits": [], "total": 9}));
    let second = asked(&mut session, &again(&first["requestState"], yes.clone())).await;
    assert_eq!(deletions(&control), 0);

    let no = again(&second["requestState"], json!({"action": "decline"}));
    let refused = envelope(&session.request("tools/call", no).await);
    assert_eq!(refused["error"]["code"], "cancelled");
    assert_eq!(deletions(&control), 0);

    let done = session.request("tools/call", again(&second["requestState"], yes)).await;
    assert_eq!(envelope(&done)["success"], true, "{done}");
    assert_eq!(deletions(&control), 1);
    session.close().await;
}

#[tokio::test]
async fn what_loses_nothing_needs_no_confirmation() {
    let control = control();
    control.answer("vm_control", json!({"state": "paused"}));
    control.answer("branch_rollback", json!({"success": true}));
    let row = json!({"address": "shop@main", "state": "running", "created_by": "ada"});
    control.answer("branch_list", json!({"branches": [row], "total": 1}));
    let mut session = Session::open(&control, Era::Modern).await;
    for (tool, arguments, asks) in [
        ("vm_control", json!({"address": "shop", "action": "pause"}), false),
        ("vm_control", json!({"address": "shop", "action": "kill"}), true),
        ("branch_rollback", json!({"target": "v1"}), false),
        ("branch_rollback", json!({"target": "v1", "save": false}), true),
    ] {
        let envelope = session.call(tool, arguments.clone()).await;
        let asked = envelope["result"]["status"] == "confirmation_required";
        assert_eq!(asked, asks, "{tool} {arguments}: {envelope}");
    }
    session.close().await;
}

#[tokio::test]
async fn what_does_not_exist_is_not_asked_about() {
    let control = control();
    let mut session = Session::open(&control, Era::Modern).await;
    let envelope = session.call("vm_delete", json!({"name": "shop"})).await;
    assert_eq!(envelope["error"]["code"], "not_found");
    session.close().await;
}

#[tokio::test]
async fn a_plan_of_a_verb_that_is_not_listed_is_called_as_it_was() {
    let control = control();
    control.answer("tag_delete", json!({"tag": "v1"}));
    control.answer("commit_show", json!({"id": "cm_0123456789ab", "tags": ["v1"]}));
    let mut session = Session::open(&control, Era::Modern).await;
    let call = json!({"name": "tag_delete", "arguments": {"tag": "v1"}});
    let plan = session.call("tool_call", call).await;
    assert_eq!(plan["next"]["tool"], "tool_call", "{plan}");
    let done = session.call("tool_call", plan["next"]["arguments"].clone()).await;
    assert_eq!(done["result"]["tag"], "v1", "{done}");
    session.close().await;
}

/// A cluster with two branches and a snapshot.
fn cluster() -> Arc<FakeControl> {
    let control = control();
    let row = |name: &str, id: &str, state: &str| json!({"id": id, "address": format!("trio@{name}"), "state": state, "current": false});
    let rows = [row("main", "br_000000000001", "running"), row("b", "br_000000000002", "stopped")];
    control.answer("branch_list", json!({"branches": rows, "total": 2}));
    control.answer("commit_list", json!({"commits": [], "total": 3}));
    control.answer("commit_show", json!({"id": "cm_0123456789ab", "tags": ["keep"]}));
    for verb in ["cluster_stop", "cluster_destroy", "node_crash", "snapshot_revert"] {
        control.answer(verb, json!({"done": verb}));
    }
    control
}

#[tokio::test]
async fn plans_of_clusters_show_what_would_be_lost_and_hold_once() {
    let control = cluster();
    let mut session = Session::open(&control, Era::Modern).await;
    let stop = json!({"cluster_name": "trio@main"});
    let plan = session.call("cluster_stop", stop.clone()).await;
    let now = &plan["result"]["plan"]["now"];
    assert_eq!(*now, json!([{"branches": [{"address": "trio@main", "state": "running"}]}]));
    let confirmed = plan["next"]["arguments"].clone();
    let tool = plan["next"]["tool"].as_str().unwrap().to_owned();
    let done = session.call(&tool, confirmed.clone()).await;
    assert_eq!(done["result"]["done"], "cluster_stop", "{done}");
    let again = session.call(&tool, confirmed).await;
    assert_eq!(again["result"]["status"], "confirmation_required", "a token is good once: {again}");

    let by_id = json!({"cluster_name": "br_000000000002"});
    let plan = session.call("cluster_stop", by_id).await;
    assert_eq!(plan["result"]["plan"]["now"][0]["branches"][0]["address"], "trio@b", "{plan}");

    let destroy = json!({"cluster_name": "trio", "remove_overlays": true});
    let plan = session.call("cluster_destroy", destroy).await;
    assert_eq!(plan["result"]["plan"]["now"][1]["total"], 3, "{plan}");
    control.answer("commit_list", json!({"commits": [], "total": 4}));
    let tool = plan["next"]["tool"].as_str().unwrap().to_owned();
    let late = session.call(&tool, plan["next"]["arguments"].clone()).await;
    assert_eq!(late["result"]["status"], "confirmation_required", "there is a new commit: {late}");
    session.close().await;
}

#[tokio::test]
async fn a_revert_asks_only_when_it_keeps_nothing_and_says_so() {
    let control = cluster();
    let mut session = Session::open(&control, Era::Modern).await;
    let revert = |save: bool| {
        let arguments = json!({"cluster_name": "trio", "snapshot_name": "keep", "save": save});
        json!({"name": "snapshot_revert", "arguments": arguments})
    };
    let kept = session.call("tool_call", revert(true)).await;
    assert_eq!(kept["result"]["done"], "snapshot_revert", "{kept}");
    let plan = session.call("tool_call", revert(false)).await;
    assert_eq!(plan["result"]["status"], "confirmation_required", "{plan}");
    let loses = plan["result"]["plan"]["loses"].as_str().unwrap();
    assert!(loses.contains("is lost") && !loses.contains("kept"), "{loses}");
    session.close().await;
}
