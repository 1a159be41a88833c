//! Topologies over the verbs: by name, by text, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::Bench;
use serde_json::json;

const SHOP: &str = "name: shop\nnodes:\n  - name: web\n  - name: db\n    memory: 1G\n";

/// Returns a bench with files in its topology directory.
async fn bench(files: &[(&str, &str)]) -> Bench {
    let bench = Bench::new().await;
    let directory = bench.home.path().join("topologies");
    std::fs::create_dir(&directory).unwrap();
    for (name, text) in files {
        std::fs::write(directory.join(name), text).unwrap();
    }
    bench
}

#[tokio::test]
async fn a_topology_means_the_same_by_name_and_by_text() {
    let bench = bench(&[("shop.yaml", SHOP)]).await;
    let shown = bench.ok("topology_show", json!({"topology": "shop"})).await;
    assert!(shown["path"].as_str().unwrap().ends_with("/topologies/shop.yaml"));
    assert_eq!(shown["topology"]["nodes"], json!(["web", "db"]));
    assert_eq!(shown["topology"]["memory_mib"], 512 + 1024);

    for text in [SHOP, shown["yaml"].as_str().unwrap()] {
        let again = bench.ok("topology_show", json!({"topology": text})).await;
        assert_eq!(again["topology"], shown["topology"]);
        assert_eq!(again["yaml"], shown["yaml"]);
        assert_eq!(again.get("path"), None);
    }
    // The ending is no part of the name, and does no harm.
    let with_ending = bench.ok("topology_show", json!({"topology": "shop.yaml"})).await;
    assert_eq!(with_ending, shown);
}

#[tokio::test]
async fn validation_tells_every_error_and_no_call_fails() {
    let bench = bench(&[("bad.yml", "name: a\nnodes: [{name: b, vcpus: 0}, {name: b}]\n")]).await;
    let result = bench.ok("topology_validate", json!({"topology": "bad"})).await;
    assert_eq!(result["valid"], false);
    let errors = result["errors"].as_array().unwrap();
    let paths: Vec<&str> = errors.iter().map(|error| error["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["nodes[0].vcpus", "nodes[1].name"]);
    assert_eq!((&errors[0]["line"], &errors[0]["column"]), (&json!(2), &json!(26)));

    let good = bench.ok("topology_validate", json!({"topology": SHOP})).await;
    assert_eq!((&good["valid"], &good["topology"]["cluster"]), (&json!(true), &json!("shop")));

    // Where the topology itself is needed, its errors are the answer.
    let error = bench.fails("topology_show", json!({"topology": "bad"})).await;
    assert_eq!(error.code.as_str(), "topology_invalid");
    assert!(error.message.starts_with("the topology `bad` has 2 errors:\n"), "{}", error.message);
}

#[tokio::test]
async fn names_never_leave_the_directory() {
    let bench = bench(&[("shop.yaml", SHOP)]).await;
    std::fs::write(bench.home.path().join("secret.yaml"), SHOP).unwrap();
    for name in ["../secret", "..", "/etc/hostname", "topologies/shop", ".shop", "a b"] {
        let error = bench.fails("topology_show", json!({"topology": name})).await;
        assert_eq!(error.code.as_str(), "invalid_parameter", "{name}");
    }
    // A file that is there is not read either, whoever asks: its text is passed instead.
    let path = bench.home.path().join("topologies/shop.yaml");
    assert!(path.is_file());
    for verb in ["cluster_define", "topology_validate"] {
        let error = bench.fails(verb, json!({"topology": path})).await;
        assert_eq!(error.code.as_str(), "invalid_parameter", "{verb}");
        assert!(error.message.contains("is a path"), "{}", error.message);
        let hint = error.hint.unwrap();
        assert!(
            hint.contains("pass what the file holds") && hint.contains("topology_list"),
            "{hint}"
        );
    }
    let error = bench.fails("topology_validate", json!({"topology": "shopp"})).await;
    assert_eq!(error.code.as_str(), "not_found");
    assert_eq!(error.hint.as_deref(), Some("did you mean `shop`?"));
    assert!(bench.call("topology_show", json!({"topology": "secret"})).await.is_err());
}

#[tokio::test]
async fn the_list_has_what_is_valid_and_what_is_not() {
    let empty = Bench::new().await.ok("topology_list", json!({})).await;
    assert_eq!((&empty["total"], &empty["topologies"]), (&json!(0), &json!([])));

    let bench = bench(&[
        ("shop.yaml", SHOP),
        ("broken.yaml", "name: [\n"),
        ("notes.txt", "no topology"),
        (".hidden.yaml", SHOP),
    ])
    .await;
    // What is no regular file would block its reader, or is none to read.
    std::fs::create_dir(bench.home.path().join("topologies/dir.yaml")).unwrap();
    let list = bench.ok("topology_list", json!({})).await;
    let rows = list["topologies"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["broken", "shop"]);
    assert!(rows[0]["error"].as_str().unwrap().starts_with("line 1, column 7: "), "{}", rows[0]);
    assert_eq!(rows[1]["topology"]["cluster"], "shop");
    let first = bench.ok("topology_list", json!({"limit": 1})).await;
    let rest = json!({"cursor": first["next_cursor"]});
    assert_eq!(bench.ok("topology_list", rest).await["topologies"][0]["name"], "shop");
}
