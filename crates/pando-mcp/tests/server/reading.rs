//! Resources and prompts.

use serde_json::json;

use crate::support::{ERAS, Era, Session, control};

#[tokio::test]
async fn things_are_listed_and_read_as_resources() {
    for era in ERAS {
        let control = control();
        let nodes = json!([{"name": "shop"}, {"name": "trio"}, {"name": "trio"}]);
        control.answer("vm_list", json!({"vms": nodes}));
        let row = |address: &str| json!({"address": address, "state": "running"});
        let rows = [row("shop@main"), row("trio@main"), row("trio@left")];
        control.answer("branch_list", json!({"branches": rows}));
        control.answer("net_fault_list", json!({"address": "trio@left", "faults": []}));
        let operation = json!({"operation_id": "op_0123456789ab", "verb": "commit_create"});
        control.answer("operation_list", json!({"operations": [operation]}));
        control.answer("vm_status", json!({"address": "shop@main", "state": "running"}));
        control.answer("console_read", json!({"text": "Linux version 6\n", "next_offset": 16}));
        let mut session = Session::open(&control, *era).await;
        let listed = session.request("resources/list", json!({})).await;
        let uris: Vec<&str> = listed["result"]["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|resource| resource["uri"].as_str().unwrap())
            .collect();
        for uri in [
            "pando://machines",
            "pando://machine/shop@main",
            "pando://console/shop@main",
            "pando://commits/shop",
            "pando://operation/op_0123456789ab",
            "pando://clusters",
            "pando://topologies",
            "pando://cluster/trio@left",
            "pando://faults/trio@left",
        ] {
            assert_eq!(uris.iter().filter(|known| **known == uri).count(), 1, "{uri} in {uris:?}");
        }
        // Several nodes are no machine, and have no one console.
        assert!(!uris.contains(&"pando://machine/trio@main"), "{uris:?}");
        assert_eq!(uris.iter().filter(|uri| uri.ends_with("commits/trio")).count(), 1);
        let templates = session.request("resources/templates/list", json!({})).await;
        assert_eq!(templates["result"]["resourceTemplates"].as_array().map(Vec::len), Some(10));

        let uri = "pando://machine/shop@main";
        let read = session.request("resources/read", json!({"uri": uri})).await;
        let contents = &read["result"]["contents"][0];
        assert_eq!(contents["uri"], uri);
        assert_eq!(contents["mimeType"], "application/json");
        assert!(contents["text"].as_str().unwrap().contains("\"running\""));
        let console =
            session.request("resources/read", json!({"uri": "pando://console/shop"})).await;
        assert_eq!(console["result"]["contents"][0]["text"], "Linux version 6\n");
        let faults =
            session.request("resources/read", json!({"uri": "pando://faults/trio@left"})).await;
        assert!(faults["result"]["contents"][0]["text"].as_str().unwrap().contains("trio@left"));
        session.close().await;
    }
}

#[tokio::test]
async fn what_is_no_resource_is_said_to_be_none() {
    for (era, code) in [(Era::Modern, -32_602), (Era::Legacy("2025-11-25"), -32_002)] {
        let mut session = Session::open(&control(), era).await;
        for uri in ["pando://nothing/x", "file:///etc/passwd", "pando://machine/gone", ""] {
            let answer = session.request("resources/read", json!({"uri": uri})).await;
            assert_eq!(answer["error"]["code"], code, "{uri}: {answer}");
        }
        let answer =
            session.request("resources/read", json!({"uri": "pando://machine/../x"})).await;
        assert_eq!(answer["error"]["code"], -32_602, "{answer}");
        session.close().await;
    }
}

#[tokio::test]
async fn prompts_start_real_work() {
    for era in ERAS {
        let mut session = Session::open(&control(), *era).await;
        let listed = session.request("prompts/list", json!({})).await;
        let prompts = listed["result"]["prompts"].as_array().unwrap().clone();
        assert_eq!(prompts.len(), 4);
        for prompt in prompts {
            let arguments: serde_json::Map<_, _> = prompt["arguments"]
                .as_array()
                .unwrap()
                .iter()
                .map(|own| (own["name"].as_str().unwrap().to_owned(), json!("shop@v1")))
                .collect();
            let params = json!({"name": prompt["name"], "arguments": arguments});
            let got = session.request("prompts/get", params).await;
            let message = &got["result"]["messages"][0];
            assert_eq!(message["role"], "user");
            let text = message["content"]["text"].as_str().unwrap();
            assert!(text.contains("shop@v1") && text.contains("branch_create"), "{text}");
        }
        let missing = session.request("prompts/get", json!({"name": "compare_fixes"})).await;
        assert!(missing["error"]["message"].as_str().unwrap().contains("machine"), "{missing}");
        let unknown = session.request("prompts/get", json!({"name": "x"})).await;
        assert!(unknown["error"]["message"].as_str().unwrap().contains("reproduce_bug"));
        session.close().await;
    }
}
