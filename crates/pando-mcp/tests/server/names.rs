//! Names that complete what somebody types.

use std::sync::Arc;

use pando_api::fake::FakeControl;
use pando_mcp::Profile;
use serde_json::{Value, json};

use crate::support::{ERAS, Era, Session, control, handler};

fn peopled() -> Arc<FakeControl> {
    let control = control();
    control.answer("vm_list", json!({"vms": [{"name": "shop"}, {"name": "web"}]}));
    control.answer(
        "branch_list",
        json!({"branches": [{"address": "shop@main"}, {"address": "shop@try-1"}]}),
    );
    control.answer(
        "commit_list",
        json!({"commits": [
            {"id": "cm_0123456789ab", "tags": ["clean", "v2"]},
            {"id": "cm_ba9876543210", "tags": []},
        ]}),
    );
    control.answer("operation_list", json!({"operations": [{"operation_id": "op_0123456789ab"}]}));
    control.answer("image_list", json!({"images": [{"name": "default"}, {"name": "debian"}]}));
    control
}

async fn names(session: &mut Session, of: Value, argument: &str, typed: &str) -> Value {
    let params = json!({"ref": of, "argument": {"name": argument, "value": typed}});
    let answer = session.request("completion/complete", params).await;
    assert!(answer["result"].is_object(), "{answer}");
    answer["result"]["completion"].clone()
}

#[tokio::test]
async fn every_kind_of_name_is_completed() {
    let resource = |uri: &str| json!({"type": "ref/resource", "uri": uri});
    let prompt = |name: &str| json!({"type": "ref/prompt", "name": name});
    let cases = [
        (
            resource("pando://machine/{address}"),
            "address",
            "sh",
            json!(["shop", "shop@main", "shop@try-1"]),
        ),
        (resource("pando://console/{address}"), "address", "shop@t", json!(["shop@try-1"])),
        (resource("pando://branches/{cluster}"), "cluster", "", json!(["shop", "web"])),
        (resource("pando://commit/{id}"), "id", "", json!(["shop@", "web@"])),
        (resource("pando://commit/{id}"), "id", "shop@", json!(["shop@clean", "shop@v2"])),
        (resource("pando://operation/{id}"), "id", "op_", json!(["op_0123456789ab"])),
        (resource("pando://image/{name}"), "name", "de", json!(["default", "debian"])),
        (prompt("reproduce_bug"), "machine", "w", json!(["web"])),
        (prompt("reproduce_bug"), "symptom", "it", json!([])),
        (prompt("bisect_commits"), "cluster", "s", json!(["shop"])),
    ];
    for era in ERAS {
        let mut session = Session::open(&peopled(), *era).await;
        for (of, argument, typed, expected) in &cases {
            let found = names(&mut session, of.clone(), argument, typed).await;
            assert_eq!(&found["values"], expected, "{era:?} {of}");
            assert_eq!(found["total"], expected.as_array().unwrap().len());
            assert_eq!(found["hasMore"], false);
        }
        session.close().await;
    }
}

#[tokio::test]
async fn what_was_filled_in_before_narrows_what_comes_next() {
    let control = peopled();
    let mut session = Session::open(&control, Era::Modern).await;
    let params = json!({
        "ref": {"type": "ref/prompt", "name": "bisect_commits"},
        "argument": {"name": "good", "value": "cm_0"},
        "context": {"arguments": {"cluster": "shop"}},
    });
    let answer = session.request("completion/complete", params).await;
    assert_eq!(answer["result"]["completion"]["values"], json!(["cm_0123456789ab"]), "{answer}");
    let (_, call) = control.calls().pop().unwrap();
    assert_eq!(call.params().unwrap()["cluster"], "shop");
    session.close().await;
}

#[tokio::test]
async fn there_are_never_more_names_than_the_protocol_allows() {
    let control = control();
    let many: Vec<Value> = (0..300).map(|n| json!({"name": format!("vm-{n:03}")})).collect();
    control.answer("vm_list", json!({"vms": many, "truncated": true}));
    let mut session = Session::open(&control, Era::Modern).await;
    let of = json!({"type": "ref/resource", "uri": "pando://branches/{cluster}"});
    let found = names(&mut session, of.clone(), "cluster", "vm-").await;
    assert_eq!(found["values"].as_array().unwrap().len(), 100);
    assert_eq!((&found["total"], &found["hasMore"]), (&json!(300), &json!(true)));
    let found = names(&mut session, of, "cluster", "vm-29").await;
    assert_eq!(found["values"].as_array().unwrap().len(), 10);
    assert_eq!(found["hasMore"], true, "the list itself went on");
    session.close().await;
}

#[tokio::test]
async fn what_does_not_exist_is_refused_by_name() {
    let cases = [
        (json!({"type": "ref/prompt", "name": "nothing"}), "machine", "reproduce_bug"),
        (json!({"type": "ref/prompt", "name": "reproduce_bug"}), "nothing", "machine"),
        (json!({"type": "ref/resource", "uri": "file:///{path}"}), "path", "pando://machine"),
        (json!({"type": "ref/resource", "uri": "pando://machine/{address}"}), "id", "address"),
        (json!({"type": "ref/else"}), "id", "params.ref"),
        (json!(7), "id", "params.ref"),
    ];
    for era in ERAS {
        let control = control();
        let mut session = Session::open(&control, *era).await;
        for (of, argument, says) in &cases {
            let params = json!({"ref": of, "argument": {"name": argument, "value": ""}});
            let answer = session.request("completion/complete", params).await;
            assert_eq!(answer["error"]["code"], -32_602, "{era:?}: {answer}");
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains(says), "{message}");
        }
        let long = json!({
            "ref": {"type": "ref/prompt", "name": "reproduce_bug"},
            "argument": {"name": "machine", "value": "x".repeat(1 << 20)},
        });
        let answer = session.request("completion/complete", long).await;
        assert_eq!(answer["error"]["code"], -32_602);
        assert!(control.calls().is_empty());
        session.close().await;
    }
}

#[tokio::test]
async fn what_may_not_be_read_has_no_names() {
    let toolsets = Profile::toolsets("exec").ok();
    let profile = Profile { toolsets, ..Profile::default() };
    let control = peopled();
    let mut session = Session::with(handler(&control, profile), Era::Modern, json!({})).await;
    let of = json!({"type": "ref/resource", "uri": "pando://image/{name}"});
    assert_eq!(names(&mut session, of, "name", "").await["values"], json!([]));
    assert!(control.calls().is_empty());
    session.close().await;
}
