//! Whatever a client sends: an answer that names what is wrong, and a server that goes on.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::{Served, VERSIONS};

#[tokio::test]
async fn bad_messages_are_answered_by_name() {
    let served = Served::open().await;
    served.control.answer("vm_list", json!({"vms": []}));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases = [
        ("{".to_owned(), Value::Null, -32_700),
        (String::new(), Value::Null, -32_700),
        (format!(r#"{{"jsonrpc":"2.0","id":4,"method":"x","params":{deep}}}"#), json!(4), -32_700),
        (r#"[{"jsonrpc":"2.0","id":5,"method":"ping"}]"#.to_owned(), Value::Null, -32_600),
        (r#"{"jsonrpc":"1.0","id":6,"method":"ping"}"#.to_owned(), json!(6), -32_600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#.to_owned(), Value::Null, -32_600),
    ];
    for version in VERSIONS {
        let mut client = served.begun(version).await;
        for (text, id, code) in &cases {
            let mut reply = client.send("POST", &[], text.clone()).await;
            assert_eq!(reply.status, StatusCode::BAD_REQUEST);
            let answer = reply.answer().await;
            assert_eq!(answer["error"]["code"], *code, "{answer}");
            assert_eq!(&answer["id"], id, "{answer}");
        }
        let wrong = client.ask("tools/call", json!({"name": "vm_list", "arguments": [1]})).await;
        assert_eq!(wrong["error"]["code"], -32_602, "{wrong}");
        let (_, headers) = client.request("notifications/nothing", json!({}));
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let text = r#"{"jsonrpc":"2.0","method":"notifications/nothing","params":{}}"#;
        let reply = client.send("POST", &headers, text.to_owned()).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED);
        assert_eq!(client.call("vm_list", json!({})).await["success"], true, "{version}");
    }
}

#[tokio::test]
async fn long_messages_are_read_up_to_a_limit() {
    let served = Served::open().await;
    for version in VERSIONS {
        let mut client = served.begun(version).await;
        let huge = "x".repeat(10 << 20);
        let refused = client.call("vm_create", json!({"name": huge})).await;
        assert_eq!(refused["error"]["code"], "invalid_parameter", "{version}");
        let mut reply = client.send("POST", &[], "x".repeat((16 << 20) + 1)).await;
        assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
        let answer = reply.answer().await;
        assert!(answer["error"]["message"].as_str().unwrap().contains("bytes"), "{answer}");
    }
    assert!(served.control.calls().is_empty());
}

#[tokio::test]
async fn other_kinds_of_bodies_are_refused() {
    let served = Served::open().await;
    let mut client = served.client("2026-07-28");
    let (request, _) = client.request("tools/list", json!({}));
    let cases = [
        (("content-type", "text/plain"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (("accept", "text/html"), StatusCode::NOT_ACCEPTABLE),
    ];
    for (header, status) in cases {
        let headers = [("mcp-method", "tools/list"), header];
        let reply = client.send("POST", &headers, request.to_string()).await;
        assert_eq!(reply.status, status, "{header:?}");
    }
    let reply = client.send("PUT", &[], request.to_string()).await;
    assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_defect_ends_its_request_only() {
    let served = Served::open().await;
    served.control.on("vm_status", std::sync::Arc::new(|_, _| panic!("scripted")));
    served.control.answer("vm_list", json!({"vms": []}));
    for version in VERSIONS {
        let mut client = served.begun(version).await;
        assert_eq!(client.call("vm_status", json!({})).await["error"]["code"], "internal");
        assert_eq!(client.call("vm_list", json!({})).await["success"], true);
    }
}
