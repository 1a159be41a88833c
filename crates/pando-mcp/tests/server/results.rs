//! Results: envelopes, budgets, what comes next, other names.

use std::sync::Arc;

use pando_api::{ApiError, Call, Caller};
use pando_mcp::Profile;
use pando_model::ErrorCode;
use serde_json::{Value, json};

use crate::support::{Era, Session, control, handler};

#[tokio::test]
async fn errors_carry_code_hint_and_the_next_call() {
    let control = control();
    let error = ApiError::new(ErrorCode::NotFound, "there is no branch `b` in shop")
        .subject("shop@b")
        .hint("one of main, a");
    control.fail("vm_status", error);
    control
        .fail("exec_run", ApiError::new(ErrorCode::GuestUnreachable, "no answer").subject("shop"));
    let mut session = Session::open(&control, Era::Modern).await;
    let envelope = session.call("vm_status", json!({"address": "shop@b"})).await;
    assert_eq!(envelope["success"], false);
    assert_eq!(envelope["result"], Value::Null);
    assert_eq!(envelope["error"]["hint"], "one of main, a");
    assert_eq!(envelope["next"], json!({"tool": "branch_list", "arguments": {"cluster": "shop"}}));
    let envelope = session.call("exec_run", json!({"command": "id"})).await;
    assert_eq!(envelope["next"], json!({"tool": "vm_status", "arguments": {"address": "shop"}}));
    session.close().await;
}

#[tokio::test]
async fn a_long_list_is_read_again_shorter_so_that_its_cursor_is_right() {
    let control = control();
    control.on(
        "vm_list",
        Arc::new(|_, call| {
            let Call::VmList(params) = call else { panic!("{call:?}") };
            let limit = params.limit.min(400);
            let row = |n| json!({"name": format!("vm-{n}"), "image": "i".repeat(200)});
            let rows: Vec<Value> = (0..limit).map(row).collect();
            Ok(json!({
                "vms": rows, "total": 400, "returned": limit, "truncated": limit < 400,
                "next_cursor": format!("after-{limit}"),
            }))
        }),
    );
    let mut session = Session::open(&control, Era::Modern).await;
    let envelope = session.call("vm_list", json!({"limit": 400})).await;
    assert!(envelope.to_string().len() <= 8192 + 400, "{}", envelope.to_string().len());
    let result = &envelope["result"];
    let returned = result["returned"].as_u64().unwrap();
    assert!((20..40).contains(&returned), "{returned}");
    assert_eq!(result["vms"].as_array().map(Vec::len), Some(returned as usize));
    assert_eq!(result["total"], 400);
    assert_eq!(result["truncated"], true);
    assert_eq!(envelope["next"]["tool"], "vm_list");
    assert_eq!(envelope["next"]["arguments"]["cursor"], format!("after-{returned}"));
    session.close().await;
}

#[tokio::test]
async fn commands_are_asked_for_little_output_unless_told_otherwise() {
    let control = control();
    control.on(
        "exec_run",
        Arc::new(|_, call| {
            let Call::ExecRun(params) = call else { panic!("{call:?}") };
            let text = "\u{1}".repeat(usize::try_from(params.max_output_bytes).unwrap());
            Ok(json!({"stdout": text, "stderr": "", "exit_code": 0, "stdout_bytes": 1 << 30,
                "stdout_truncated": true}))
        }),
    );
    let mut session = Session::open(&control, Era::Modern).await;
    // Every byte becomes six in JSON: it is cut again, and says so.
    let envelope = session.call("exec_run", json!({"command": "dmesg"})).await;
    assert!(envelope.to_string().len() <= 8192 + 400);
    assert_eq!(envelope["cut"][0]["path"], "/stdout");
    assert_eq!(envelope["cut"][0]["total"], 1 << 30);
    assert!(envelope["cut"][0]["kept"].as_u64().unwrap() < 3072);
    assert_eq!(envelope["result"]["stdout_bytes"], 1 << 30);
    let envelope =
        session.call("exec_run", json!({"command": "dmesg", "max_output_bytes": 5000})).await;
    assert!(envelope.to_string().len() > 12_000);
    session.close().await;
}

#[tokio::test]
async fn clusters_are_compared_without_a_node_and_the_result_is_not_cut() {
    let control = control();
    control.on(
        "state_diff",
        Arc::new(|_, call| {
            let Call::StateDiff(params) = call else { panic!("{call:?}") };
            let (Some(from), Some(to)) = (&params.from, &params.to) else { panic!("two sides") };
            assert_eq!((&from.node, &to.node), (&None, &None));
            let node = |n| json!({"node": format!("n{n}"), "from": "running", "to": "crashed"});
            let own = |n| json!({"node": "n1", "id": format!("files:/srv/{n:060}")});
            let most = usize::try_from(params.max_bytes).unwrap();
            let mut differences = Vec::new();
            while json!(differences).to_string().len() + 1500 < most {
                differences.push(own(differences.len()));
            }
            Ok(json!({
                "nodes": (0..10).map(node).collect::<Vec<_>>(), "differences": differences,
                "cluster": {"one_node": "from etcd@left/NODE, to etcd@right/NODE"},
                "total": 500, "returned": differences.len(), "truncated": true,
                "next_cursor": "x:9",
            }))
        }),
    );
    let mut session = Session::open(&control, Era::Modern).await;
    let sides = json!({"from": "etcd@left", "to": "etcd@right"});
    let envelope = session.call("state_diff", sides).await;
    assert!(envelope.to_string().len() <= 8192, "{}", envelope.to_string().len());
    assert_eq!(envelope.get("cut"), None);
    assert_eq!(envelope["result"]["nodes"].as_array().map(Vec::len), Some(10));
    assert_eq!(envelope["next"]["arguments"]["cursor"], "x:9");
    session.close().await;
}

#[tokio::test]
async fn a_file_that_was_cut_says_how_to_read_on() {
    let control = control();
    let text = "é".repeat(2000);
    control.answer(
        "file_pull",
        json!({"path": "/a", "size_bytes": 9999, "content": text, "truncated": true}),
    );
    let mut session = Session::open(&control, Era::Modern).await;
    let envelope = session.call("file_pull", json!({"address": "shop", "path": "/a"})).await;
    let next = &envelope["next"];
    assert_eq!(next["tool"], "exec_run");
    assert_eq!(next["arguments"]["argv"], json!(["tail", "-c", "+4001", "/a"]));

    // What is not text is whole as far as it goes, and so is the rest.
    let content = format!("{}//8=", "////".repeat(1866));
    control.answer(
        "file_pull",
        json!({"path": "/a", "size_bytes": 9999, "content_base64": content, "truncated": true}),
    );
    let envelope = session.call("file_pull", json!({"address": "shop", "path": "/a"})).await;
    assert_eq!(envelope["result"]["content_base64"], content);
    assert!(envelope.to_string().len() <= 8192, "{}", envelope.to_string().len());
    let argv = &envelope["next"]["arguments"]["argv"];
    assert_eq!((&argv[0], &argv[4], &argv[5]), (&json!("sh"), &json!("5601"), &json!("/a")));
    session.close().await;
}

#[tokio::test]
async fn a_captures_bounds_are_its_own() {
    let control = control();
    control.answer("net_capture", json!({"address": "trio@main"}));
    let mut session = Session::open(&control, Era::Modern).await;
    for (action, limit) in [("start", json!(4096)), ("read", json!(4096))] {
        let arguments = json!({"cluster_name": "trio", "action": action});
        let call = json!({"name": "net_capture", "arguments": arguments});
        session.call("tool_call", call).await;
        let params = control.calls().last().unwrap().1.params().unwrap();
        assert_eq!((&params["max_bytes"], &params["limit"]), (&json!(16 << 20), &limit));
    }
    session.close().await;
}

#[tokio::test]
async fn verbs_that_are_not_listed_are_found_and_called() {
    let control = control();
    control.answer("commit_verify", json!({"intact": true}));
    let mut session = Session::open(&control, Era::Legacy("2025-06-18")).await;
    let found = session.call("tool_find", json!({"query": "verify a commit's checksums"})).await;
    let tool = &found["result"]["tools"][0];
    assert_eq!(tool["name"], "commit_verify");
    assert_eq!(tool["listed"], false);
    assert_eq!(tool["arguments"]["required"], json!(["commit"]));
    assert!(found.to_string().len() <= 8192);
    let exact = session.call("tool_find", json!({"query": "commit_verify"})).await;
    assert!(exact["result"]["tools"][0]["result"]["properties"]["intact"].is_object());

    let arguments = json!({"commit": "shop@v1"});
    let direct = session.call("commit_verify", arguments.clone()).await;
    assert_eq!(direct["result"]["intact"], true);
    let wrapped =
        session.call("tool_call", json!({"name": "commit_verify", "arguments": arguments})).await;
    assert_eq!(wrapped, direct);
    session.close().await;
}

#[tokio::test]
async fn earlier_names_are_callable_with_their_own_parameters() {
    let control = control();
    control.answer("exec_run", json!({"stdout": "root\n", "exit_code": 0}));
    let mut session = Session::open(&control, Era::Modern).await;
    let envelope = session.call("vers_execute", json!({"command": "id -un", "timeout": 5})).await;
    assert_eq!(envelope["result"]["exit_code"], 0);
    let (caller, call) = control.calls().remove(0);
    let Call::ExecRun(params) = call else { panic!("{call:?}") };
    assert_eq!(params.timeout_s, 5);
    assert!(!caller.read_only);
    session.close().await;
}

#[tokio::test]
async fn every_call_has_a_request_id_of_its_own() {
    let control = control();
    control.answer("image_list", json!({"images": []}));
    let mut session = Session::open(&control, Era::Modern).await;
    session.call("image_list", json!({})).await;
    session.call("image_list", json!({})).await;
    let calls = control.calls();
    assert_ne!(calls[0].0.request_id, calls[1].0.request_id);
    assert_eq!(calls[0].0.principal, "local:1000");
    session.close().await;
}

#[tokio::test]
async fn one_server_serves_several_callers() {
    let control = control();
    control.answer("image_list", json!({"images": []}));
    let first = handler(&control, Profile::default());
    let second = first.clone().for_caller(Caller::local(2000));
    for (handler, principal) in [(first, "local:1000"), (second, "local:2000")] {
        let mut session = Session::with(handler, Era::Modern, json!({})).await;
        session.call("image_list", json!({})).await;
        assert_eq!(control.calls().pop().unwrap().0.principal, principal);
        session.close().await;
    }
}

#[tokio::test]
async fn a_key_travels_with_a_call_that_can_be_made_again() {
    let control = control();
    control.answer("commit_create", json!({"commit_id": "cm_0123456789ab"}));
    let mut session = Session::open(&control, Era::Modern).await;
    let arguments = json!({"branch": "shop", "message": "a", "idempotency_key": "k1"});
    let envelope = session.call("commit_create", arguments).await;
    assert_eq!(envelope["success"], true, "{envelope}");
    let (caller, _) = control.calls().pop().unwrap();
    assert_eq!(caller.idempotency_key.as_deref(), Some("k1"));

    let envelope = session.call("vm_list", json!({"idempotency_key": "k1"})).await;
    assert_eq!(envelope["error"]["code"], "invalid_parameter", "reads take none: {envelope}");
    let wrong = json!({"branch": "shop", "message": "a", "idempotency_key": 1});
    let envelope = session.call("commit_create", wrong).await;
    assert_eq!(envelope["error"]["code"], "invalid_parameter", "{envelope}");
    let found = session.call("tool_find", json!({"query": "commit_create"})).await;
    let arguments = &found["result"]["tools"][0]["arguments"]["properties"];
    assert!(arguments["idempotency_key"].is_object(), "{found}");
    session.close().await;
}
