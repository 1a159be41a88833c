//! What was done, what the state is and what differs, on a simulated world.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod common;

use common::Bench;
use serde_json::{Value, json};

fn told(rows: &Value) -> Vec<String> {
    let rows = rows.as_array().unwrap().iter();
    let one = |row: &Value| {
        let end = match (&row["exit_code"], &row["why"]) {
            (Value::Number(code), _) => code.to_string(),
            (_, Value::String(why)) => why.clone(),
            _ => "runs".to_owned(),
        };
        format!("{} {}: {end}", row["act"].as_str().unwrap(), row["command"].as_str().unwrap())
    };
    rows.map(one).collect()
}

#[tokio::test(start_paused = true)]
async fn history_tells_what_was_done_and_how_it_ended() {
    let bench = Bench::with_vm().await;
    bench.exec("shop", "set-disk a 1").await;
    bench.ok("exec_run", json!({"address": "shop", "argv": ["false"]})).await;
    let push = json!({"address": "shop", "path": "/etc/motd", "content": "hello"});
    bench.ok("file_push", push).await;
    bench.ok("branch_create", json!({"from": "shop", "name": "try"})).await;
    bench.exec("shop@try", "echo only here").await;
    let detached = json!({"address": "shop", "command": "true", "detach": true});
    let id = bench.ok("exec_run", detached).await["operation_id"].clone();
    bench.ok("operation_wait", json!({"id": id})).await;
    let timed = json!({"address": "shop", "command": "sleep-forever", "timeout_s": 3});
    bench.ok("exec_run", timed).await;

    let main = bench.ok("journal_list", json!({"address": "shop"})).await;
    let expected = [
        "exec sleep-forever: timed out",
        "exec true: 0",
        "push /etc/motd: 0",
        "exec false: 1",
        "exec set-disk a 1: 0",
    ];
    assert_eq!(told(&main["commands"]), expected);
    let first = &main["commands"][0];
    assert_eq!((&first["by"], &first["branch"]), (&json!("local:0"), &json!("main")));
    let page = bench.ok("journal_list", json!({"address": "shop", "limit": 2})).await;
    let next = json!({"address": "shop", "limit": 2, "cursor": page["next_cursor"]});
    let page = bench.ok("journal_list", next).await;
    assert_eq!(told(&page["commands"]), expected[2..4]);
    let own = bench.ok("journal_list", json!({"address": "shop@try"})).await;
    assert_eq!(told(&own["commands"]), ["exec echo only here: 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_shows_the_commands_since_its_parent() {
    let bench = Bench::with_vm().await;
    bench.exec("shop", "set-disk a 1").await;
    let first = bench.ok("commit_create", json!({"branch": "shop"})).await;
    bench.exec("shop", "set-disk a 2").await;
    bench.ok("exec_run", json!({"address": "shop", "command": "false"})).await;
    let second = bench.ok("commit_create", json!({"branch": "shop"})).await;
    bench.exec("shop", "set-disk a 3").await;
    for (commit, expected) in [
        (&first, &["exec set-disk a 1: 0"][..]),
        (&second, &["exec set-disk a 2: 0", "exec false: 1"][..]),
    ] {
        let shown = bench.ok("commit_show", json!({"commit": commit["commit_id"]})).await;
        assert_eq!(told(&shown["commands"]), expected);
        assert_eq!(shown["commands_total"], expected.len());
    }
}
