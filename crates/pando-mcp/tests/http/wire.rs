//! What both eras look like over HTTP.

use hyper::StatusCode;
use serde_json::json;

use crate::support::{MODERN, Served, VERSIONS};

#[tokio::test]
async fn every_revision_lists_and_calls() {
    let served = Served::open().await;
    served.control.answer("vm_list", json!({"vms": [], "total": 0}));
    for version in VERSIONS {
        let mut client = served.begun(version).await;
        let listed = client.ask("tools/list", json!({})).await;
        let tools = listed["result"]["tools"].as_array().unwrap();
        assert!(tools.iter().any(|tool| tool["name"] == "vm_list"), "{version}");
        assert_eq!(client.call("vm_list", json!({})).await["result"]["total"], 0);
    }
    let callers: Vec<_> = served.control.calls().into_iter().map(|(caller, _)| caller).collect();
    assert!(callers.iter().all(|caller| caller.principal == "ada"));
    // Those with a session say which.
    let sessions: Vec<bool> = callers.iter().map(|caller| caller.session.is_some()).collect();
    assert_eq!(sessions, [false, true, true]);
}

#[tokio::test]
async fn a_modern_answer_is_one_message_and_has_no_session() {
    let served = Served::open().await;
    let mut client = served.client(MODERN);
    let mut reply = client.post("server/discover", json!({})).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert!(!reply.is_stream());
    assert!(!reply.headers.contains_key("mcp-session-id"));
    let answer = reply.answer().await;
    assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
    for method in ["GET", "DELETE"] {
        let reply = client.send(method, &[], String::new()).await;
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
}

#[tokio::test]
async fn headers_must_say_what_the_message_says() {
    let served = Served::open().await;
    served.control.answer("vm_list", json!({"vms": []}));
    let call = json!({"name": "vm_list", "arguments": {}});
    let cases: &[(&[(&str, &str)], i64)] = &[
        (&[("mcp-method", "tools/list"), ("mcp-name", "vm_list")], -32_020),
        (&[("mcp-method", ""), ("mcp-name", "vm_list")], -32_020),
        (&[("mcp-method", "tools/call"), ("mcp-name", "vm_create")], -32_020),
        (&[("mcp-method", "tools/call"), ("mcp-name", "")], -32_020),
        (
            &[
                ("mcp-method", "tools/call"),
                ("mcp-name", "vm_list"),
                ("mcp-protocol-version", "2025-11-25"),
            ],
            -32_020,
        ),
        (
            &[("mcp-method", "tools/call"), ("mcp-name", "vm_list"), ("mcp-protocol-version", "")],
            -32_020,
        ),
    ];
    for (headers, code) in cases {
        let mut client = served.client(MODERN);
        let (request, _) = client.request("tools/call", call.clone());
        let mut reply = client.send("POST", headers, request.to_string()).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{headers:?}");
        let answer = reply.answer().await;
        assert_eq!(answer["error"]["code"], *code, "{headers:?}: {answer}");
        assert_eq!(answer["id"], request["id"]);
    }
    assert!(served.control.calls().is_empty(), "nothing reached the engine");
    let mut client = served.client(MODERN);
    assert_eq!(client.call("vm_list", json!({})).await["success"], true);
}

#[tokio::test]
async fn unknown_revisions_and_methods_are_refused_by_status() {
    let served = Served::open().await;
    let mut client = served.client("2031-01-01");
    let (mut request, _) = client.request("tools/list", json!({}));
    request["params"]["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2031-01-01",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let headers = [("mcp-method", "tools/list")];
    let mut reply = client.send("POST", &headers, request.to_string()).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let answer = reply.answer().await;
    assert_eq!(answer["error"]["code"], -32_022, "{answer}");

    let of_sessions = ["ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];
    let mut client = served.client(MODERN);
    for method in of_sessions.iter().chain(&["no/such"]) {
        let mut reply = client.post(method, json!({})).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{method}");
        assert_eq!(reply.answer().await["error"]["code"], -32_601, "{method}");
    }
    // `initialize` begins a session, unless it says that it is of the revision that has none.
    let meta = json!({"io.modelcontextprotocol/protocolVersion": MODERN});
    let mut reply = client.post("initialize", json!({"_meta": meta})).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert_eq!(reply.answer().await["error"]["code"], -32_601);
}

#[tokio::test]
async fn pages_of_other_origins_and_names_are_refused() {
    let served = Served::open().await;
    served.control.answer("vm_list", json!({"vms": []}));
    let cases = [
        (("origin", "https://evil.example"), false),
        (("origin", "http://localhost.evil.example"), false),
        (("origin", "null"), false),
        (("origin", "http://localhost:5173"), true),
        (("origin", "http://[::1]:80"), true),
        (("host", "evil.example"), false),
        (("host", "127.0.0.1.evil.example:80"), false),
        (("host", "localhost:9"), true),
    ];
    for version in VERSIONS {
        for (header, is_fine) in cases {
            let mut client = served.client(version);
            let (request, headers) = if *version == MODERN {
                client.request("tools/call", json!({"name": "vm_list"}))
            } else {
                let info = json!({"name": "test", "version": "1"});
                let params =
                    json!({"protocolVersion": version, "capabilities": {}, "clientInfo": info});
                client.request("initialize", params)
            };
            let mut all: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            all.push(header);
            let reply = client.send("POST", &all, request.to_string()).await;
            let expected = if is_fine { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(reply.status, expected, "{version} {header:?}");
        }
    }
}

#[tokio::test]
async fn nobody_is_served_whom_nobody_knows() {
    let served = Served::open().await;
    for version in VERSIONS {
        let mut client = served.client(version);
        client.principal = String::new();
        let mut reply = client.post("initialize", json!({})).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
        assert_eq!(reply.answer().await["error"]["data"]["code"], "forbidden");
    }
}

#[tokio::test]
async fn a_task_outlives_the_request_that_began_it() {
    let served = Served::open().await;
    let id = served.control.begin("vm_create");
    served.control.answer("vm_create", json!({"operation": id}));
    served.control.show_operations();
    let mut client = served.client(MODERN);
    client.capabilities = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let call = json!({"name": "vm_create", "arguments": {"name": "shop"}});
    let begun = client.ask("tools/call", call).await;
    assert_eq!(begun["result"]["taskId"], id.as_str(), "{begun}");
    let working = client.ask("tasks/get", json!({"taskId": id})).await;
    assert_eq!(working["result"]["status"], "working", "{working}");
    // Another process of the same caller asks for its end.
    served.control.finish(&id, Ok(json!({"name": "shop"})));
    let mut later = served.client(MODERN);
    later.capabilities = client.capabilities.clone();
    let done = later.ask("tasks/get", json!({"taskId": id})).await;
    assert_eq!(done["result"]["status"], "completed", "{done}");
    assert!(served.control.calls().iter().all(|(_, call)| call.name() != "operation_cancel"));
    // Without the extension there are none.
    let mut plain = served.client(MODERN);
    let mut refused = plain.post("tasks/get", json!({"taskId": id})).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.answer().await["error"]["code"], -32_021);
}

#[tokio::test]
async fn a_question_comes_on_the_stream_of_the_call_that_asks_it() {
    let served = Served::open().await;
    let row = json!({"address": "shop@main", "state": "running"});
    served.control.answer("branch_list", json!({"branches": [row]}));
    served.control.answer("vm_control", json!({"state": "stopped"}));
    let mut client = served.client("2025-11-25");
    client.capabilities = json!({"elicitation": {}});
    client.begin().await;
    let call = json!({"name": "vm_control", "arguments": {"address": "shop", "action": "stop"}});
    let mut reply = client.post("tools/call", call).await;
    let asked = reply.message().await.unwrap();
    assert_eq!(asked["method"], "elicitation/create", "{asked}");
    let yes = json!({"action": "accept", "content": {"confirm": true}});
    let said = json!({"jsonrpc": "2.0", "id": asked["id"], "result": yes});
    let taken = client.send("POST", &[], said.to_string()).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED);
    let answer = reply.answer().await;
    assert_eq!(answer["result"]["structuredContent"]["result"]["state"], "stopped", "{answer}");
}
