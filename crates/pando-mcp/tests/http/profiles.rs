//! A URL chooses what is offered, and nothing can change it afterwards.

use hyper::StatusCode;
use serde_json::json;

use crate::support::{Client, MODERN, Served, VERSIONS};

async fn names(client: &mut Client) -> Vec<String> {
    let listed = client.ask("tools/list", json!({})).await;
    let tools = listed["result"]["tools"].as_array().unwrap();
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_url_names_role_toolsets_access_and_names() {
    let served = Served::open().await;
    for version in VERSIONS {
        let at = async |path: &str| {
            let mut client = served.client(version);
            path.clone_into(&mut client.path);
            client.begin().await;
            names(&mut client).await
        };
        let everything = at("/mcp?role=admin").await;
        assert_eq!(everything.len(), pando_api::catalogue().len());
        let some = at("/mcp?toolset=image%2Ccommit").await;
        assert!(some.iter().any(|name| name == "image_build"));
        assert!(!some.iter().any(|name| name == "exec_run"));
        let reading = at("/mcp?role=dev&read_only=true").await;
        assert!(reading.iter().any(|name| name == "vm_list"));
        assert!(!reading.iter().any(|name| name == "vm_create"));
        assert!(at("/mcp?compat=true").await.iter().any(|name| name == "vm.create"));
        assert!(at("/mcp?compat=false").await.iter().any(|name| name == "vm_create"));
    }
}

#[tokio::test]
async fn a_url_that_is_not_understood_opens_nothing() {
    let served = Served::open().await;
    let cases = [
        ("/mcp?role=root", "role", "dev, ops, admin"),
        ("/mcp?toolset=exec,disk", "toolset", "machine"),
        ("/mcp?readonly=true", "readonly", "read_only"),
        ("/mcp?read_only=yes", "read_only", "true or false"),
        ("/mcp?role=dev&role=admin", "role", "twice"),
    ];
    for version in VERSIONS {
        for (path, subject, says) in cases {
            let mut client = served.client(version);
            path.clone_into(&mut client.path);
            let info = json!({"name": "test", "version": "1"});
            let params =
                json!({"protocolVersion": version, "capabilities": {}, "clientInfo": info});
            let mut reply = client.post("initialize", params).await;
            assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{path}");
            assert!(!reply.headers.contains_key("mcp-session-id"));
            let error = reply.answer().await["error"].clone();
            assert_eq!(error["data"]["subject"], subject, "{error}");
            assert!(error["message"].as_str().unwrap().contains(says), "{error}");
        }
    }
}

#[tokio::test]
async fn who_may_only_read_only_reads() {
    let served = Served::open().await;
    served.control.answer("vm_list", json!({"vms": []}));
    for (principal, path) in [("reader", "/mcp?role=admin"), ("ada", "/mcp?read_only=true")] {
        let mut client = served.client(MODERN);
        client.principal = principal.to_owned();
        client.path = path.to_owned();
        assert!(!names(&mut client).await.iter().any(|name| name == "vm_create"));
        let refused = client.call("vm_create", json!({"name": "shop"})).await;
        assert_eq!(refused["error"]["code"], "forbidden");
        assert_eq!(client.call("vm_list", json!({})).await["success"], true);
    }
    // The engine hears it too, and would refuse by itself.
    assert!(served.control.calls().iter().all(|(caller, _)| caller.read_only));
    assert_eq!(served.control.calls().len(), 2);
}

#[tokio::test]
async fn plans_are_confirmed_by_whoever_made_them() {
    let served = Served::open().await;
    let row = json!({"address": "shop@main", "state": "running"});
    served.control.answer("branch_list", json!({"branches": [row]}));
    served.control.answer("vm_control", json!({"state": "stopped"}));
    let mut ada = served.client(MODERN);
    let plan = ada.call("vm_control", json!({"address": "shop", "action": "stop"})).await;
    let next = &plan["next"];
    assert_eq!(plan["result"]["status"], "confirmation_required");
    let mut bob = served.client(MODERN);
    bob.principal = "bob".to_owned();
    let tool = next["tool"].as_str().unwrap();
    let his = bob.call(tool, next["arguments"].clone()).await;
    assert_eq!(his["result"]["status"], "confirmation_required", "{his}");
    let hers = ada.call(tool, next["arguments"].clone()).await;
    assert_eq!(hers["result"]["state"], "stopped", "{hers}");
}
