//! What was done, what the state is and what differs, on a simulated world.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::Bench;
use pando_driver::Store;
use pando_driver::store::{AuditRow, Query, StoreError, Table, Transaction};
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

    for action in ["pause", "resume"] {
        bench.ok("vm_control", json!({"address": "shop", "action": action})).await;
    }

    let main = bench.ok("journal_list", json!({"address": "shop"})).await;
    let expected = [
        "control resume: 0",
        "control pause: 0",
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

fn differing(result: &Value) -> Vec<String> {
    let one = |change: &Value| {
        let causes = change["causes"].as_array().into_iter().flatten();
        let causes: Vec<&str> = causes.map(|cause| cause["command"].as_str().unwrap()).collect();
        format!(
            "{} {} on {} by {causes:?}",
            change["change"].as_str().unwrap(),
            change["id"].as_str().unwrap(),
            change["side"].as_str().unwrap()
        )
    };
    result["differences"].as_array().unwrap().iter().map(one).collect()
}

/// Commands of the simulated guest take no time, and a guest's clock is blurred: what is done next
/// must be another time.
fn pass_time() {
    let then = std::time::Instant::now() + std::time::Duration::from_millis(60);
    while std::time::Instant::now() < then {
        std::thread::yield_now();
    }
}

#[tokio::test(start_paused = true)]
async fn two_branches_differ_in_what_was_done_since_they_parted() {
    let bench = Bench::with_vm().await;
    bench.exec("shop", "set-disk /srv/same 1").await;
    bench.exec("shop", "set-disk /srv/touched 1").await;
    bench.exec("shop", "set-disk /etc/conf old").await;
    let branched = bench.ok("branch_create", json!({"from": "shop", "name": "try"})).await;
    pass_time();
    bench.exec("shop@try", "set-disk /srv/new 1").await;
    pass_time();
    bench.exec("shop@try", "set-disk /etc/conf new").await;
    pass_time();
    bench.exec("shop@try", "set-disk /srv/touched 1").await;
    bench.exec("shop@try", "set-disk package.curl 8").await;
    bench.exec("shop@main", "set-mem worker 1").await;
    pass_time();
    let diff = bench.ok("state_diff", json!({"from": "shop@main", "to": "shop@try"})).await;
    assert_eq!(
        differing(&diff),
        [
            r#"added packages:curl on to by ["set-disk package.curl 8"]"#,
            r#"changed config:/etc/conf on to by ["set-disk /etc/conf new"]"#,
            r#"added files:/srv/new on to by ["set-disk /srv/new 1"]"#,
            r#"removed processes:worker on from by []"#,
        ]
    );
    assert_eq!(diff["base"], branched["commit_id"]);
    assert_eq!(diff["suppressed"], json!({"files with other times only": 1}));
    assert_eq!((&diff["equal"], &diff["unexplained"]), (&json!(false), &json!(1)));
    let commands: Vec<&str> = diff["commands"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["command"].as_str().unwrap())
        .collect();
    assert_eq!(
        commands,
        ["set-disk /srv/new 1", "set-disk /etc/conf new", "set-disk package.curl 8"]
    );

    // From one command on, one aspect, one file's lines.
    let since = &diff["commands"][1]["id"];
    let params = json!({"from": "shop@main", "to": "shop@try", "since": since,
        "aspects": ["config"], "hunks": "/etc/conf"});
    let later = bench.ok("state_diff", params).await;
    assert_eq!(later["page"], Value::Null);
    assert_eq!(later["total"], 1);
    assert_eq!(later["hunks"], "@@ -1,1 +1,1 @@\n-old\n+new\n");
    let nobody = json!({"from": "shop@main", "to": "shop@try", "since": "jr_0123456789ab"});
    assert_eq!(bench.fails("state_diff", nobody).await.code.as_str(), "not_found");
    bench.assert_consistent("looked").await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_looked_into_once_and_nothing_of_the_copy_stays() {
    let bench = Bench::with_vm().await;
    bench.exec("shop", "set-disk /srv/a 1").await;
    let commit = bench.ok("commit_create", json!({"branch": "shop", "tag": "v1"})).await;
    pass_time();
    bench.exec("shop", "set-disk /srv/a 22").await;
    let expected = [r#"changed files:/srv/a on to by ["set-disk /srv/a 22"]"#];
    let first = bench.ok("state_diff", json!({"from": "shop@v1", "to": "shop"})).await;
    assert_eq!(differing(&first), expected);
    bench.assert_consistent("after a look").await;
    // Alone, a branch is compared with its latest commit; the kept capture serves.
    let before = looks(&bench).await;
    let again = bench.ok("state_diff", json!({"from": "shop"})).await;
    assert_eq!(differing(&again), expected);
    assert_eq!(again["from"], commit["commit_id"]);
    assert_eq!((before, looks(&bench).await), (1, 1));
    // A damaged cache is as good as none.
    for file in std::fs::read_dir(bench.home.path().join("captures")).unwrap() {
        std::fs::write(file.unwrap().path(), "x".repeat(100)).unwrap();
    }
    let again = bench.ok("state_diff", json!({"from": "shop"})).await;
    assert_eq!(differing(&again), expected);
    assert_eq!(looks(&bench).await, 2);
    let same = bench.ok("state_diff", json!({"from": "shop@v1", "to": "shop@v1"})).await;
    assert_eq!((&same["equal"], &same["differences"]), (&json!(true), &json!([])));
}

#[tokio::test(start_paused = true)]
async fn a_capture_is_evidence_for_later() {
    let bench = Bench::with_vm().await;
    bench.exec("shop", "set-disk /srv/a 1").await;
    let capture = bench.ok("state_capture", json!({"address": "shop"})).await;
    assert_eq!(
        (&capture["address"], &capture["counts"]["files"]),
        (&json!("shop@main/shop"), &json!(1))
    );
    pass_time();
    bench.exec("shop", "set-disk /srv/b 1").await;
    let diff = bench.ok("state_diff", json!({"from": capture["capture_id"], "to": "shop"})).await;
    assert_eq!(differing(&diff), [r#"added files:/srv/b on unknown by ["set-disk /srv/b 1"]"#]);
    let gone = json!({"from": "cp_0123456789ab", "to": "shop"});
    assert_eq!(bench.fails("state_diff", gone).await.code.as_str(), "not_found");
}

#[tokio::test(start_paused = true)]
async fn results_are_bounded_and_read_on() {
    let bench = Bench::with_vm().await;
    bench.ok("commit_create", json!({"branch": "shop", "tag": "v1"})).await;
    for n in 0..60 {
        bench.exec("shop", &format!("set-disk /srv/file-{n:03} {n}")).await;
    }
    let mut page = bench.ok("state_diff", json!({"from": "shop"})).await;
    let mut seen = differing(&page);
    assert!(page.to_string().len() <= 8 * 1024, "{}", page.to_string().len());
    assert_eq!((&page["total"], &page["truncated"]), (&json!(60), &json!(true)));
    while let Some(cursor) = page["next_cursor"].as_str().map(str::to_owned) {
        page = bench.ok("state_diff", json!({"cursor": cursor})).await;
        assert!(page.to_string().len() <= 8 * 1024);
        seen.extend(differing(&page));
    }
    assert_eq!(seen.len(), 60);
}

fn of_node<'a>(diff: &'a Value, name: &str) -> &'a Value {
    let nodes = diff["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["node"] == name).unwrap_or_else(|| panic!("{name}: {diff:#}"))
}

async fn looks(bench: &Bench) -> usize {
    let all = bench.ok("operation_list", json!({"limit": 500})).await;
    let all = all["operations"].as_array().unwrap().clone();
    all.iter().filter(|one| one["verb"] == "commit_look").count()
}

#[tokio::test(start_paused = true)]
async fn clusters_differ_node_by_node_and_between_them() {
    let bench = Bench::with_cluster().await;
    let names = json!({"from": "duo", "names": ["left", "right"]});
    let branched = bench.ok("branch_create", names).await;
    pass_time();
    bench.exec("duo@left/db", "set-disk /srv/new 1").await;
    let cut = json!({"cluster_name": "duo@left", "partition_a": ["db"], "label": "split"});
    let fault = bench.ok("net_partition", cut).await;
    let diff = bench.ok("state_diff", json!({"from": "duo@main", "to": "duo@left"})).await;
    assert_eq!(differing(&diff), [r#"added files:/srv/new on to by ["set-disk /srv/new 1"]"#]);
    assert_eq!((&diff["differences"][0]["node"], &diff["total"]), (&json!("db"), &json!(1)));
    assert_eq!((&diff["base"], &diff["equal"]), (&branched["commit_id"], &json!(false)));
    let untouched = json!({"node": "web", "from": "running", "to": "running", "equal": true});
    assert_eq!(*of_node(&diff, "web"), untouched);
    let touched = json!({"node": "db", "from": "running", "to": "running", "equal": false,
        "total": 1, "counts": [{"aspect": "files", "added": 1, "removed": 0, "changed": 0}]});
    assert_eq!(*of_node(&diff, "db"), touched);
    assert_eq!((&diff["commands"][0]["node"], &diff["commands"][1]), (&json!("db"), &Value::Null));
    let between = &diff["cluster"];
    assert_eq!((&between["faults_differ"], &between["faults_on_both"]), (&json!(1), &json!(0)));
    let told = &between["faults"][0];
    assert_eq!((&told["side"], &told["label"]), (&json!("to"), &json!("split")));
    assert_eq!(told["handle_id"], fault["handle_id"]);
    let reach = &between["reachability"];
    assert_eq!((&reach["differ"], &reach["total"]), (&json!(2), &json!(4)), "{reach:#}");
    let first = (&reach["links"][0]["link"], &reach["links"][0]["from"], &reach["links"][0]["to"]);
    assert_eq!(first, (&json!("db>web"), &json!("yes"), &json!("no")));
    assert_eq!(between["one_node"], "from duo@main/NODE, to duo@left/NODE");
    let highlights = diff["highlights"].as_array().unwrap();
    assert!(highlights.contains(&json!("reachability db>web yes → no")), "{highlights:?}");

    // A crash in the other: its inside cannot be compared, the rest can.
    let down = json!({"cluster_name": "duo@right", "node": "web", "restart_after": false});
    bench.ok("node_crash", down).await;
    let diff = bench.ok("state_diff", json!({"from": "duo@left", "to": "duo@right"})).await;
    let web = of_node(&diff, "web");
    assert_eq!((&web["from"], &web["to"]), (&json!("running"), &json!("crashed")));
    assert_eq!(web["not_compared"], "on duo@right it is crashed (killed)");
    assert_eq!(differing(&diff), [r#"removed files:/srv/new on from by ["set-disk /srv/new 1"]"#]);
    assert_eq!(diff["cluster"]["faults"][0]["side"], "from");
    assert_eq!(diff["highlights"][0], "node web running → crashed");

    // What a branch of the faulty one inherits works on both sides.
    bench.ok("branch_create", json!({"from": "duo@left", "name": "child"})).await;
    let diff = bench.ok("state_diff", json!({"from": "duo@left", "to": "duo@child"})).await;
    let between = &diff["cluster"];
    assert_eq!((&between["faults_differ"], &between["faults_on_both"]), (&json!(0), &json!(1)));
    assert_eq!((&diff["equal"], &between["reachability"]["differ"]), (&json!(true), &json!(0)));

    // One that is stopped is told, with what its records say.
    bench.ok("vm_control", json!({"address": "duo@left", "action": "stop"})).await;
    let diff = bench.ok("state_diff", json!({"from": "duo@main", "to": "duo@left"})).await;
    assert_eq!(of_node(&diff, "db")["to"], "shut off");
    assert_eq!(diff["cluster"]["faults_differ"], 1);
    let observed = &diff["cluster"]["reachability"];
    assert_eq!(observed["not_observed"]["to"], "duo@left is stopped");
    assert_eq!((&observed["differ"], &observed["total"]), (&json!(0), &json!(4)));
    assert_eq!(
        diff["unknown"]["reachability"],
        "not observed on the side `to`: duo@left is stopped"
    );
    bench.assert_consistent("compared").await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_reaches_what_it_reached_when_it_was_cut() {
    let bench = Bench::with_cluster().await;
    let cut = json!({"cluster_name": "duo", "partition_a": ["db"], "partition_b": ["web"], "expires_s": 30});
    bench.ok("net_partition", cut).await;
    bench.ok("commit_create", json!({"branch": "duo", "tag": "split"})).await;
    bench.ok("net_heal_all", json!({"cluster_name": "duo"})).await;
    let before = looks(&bench).await;
    let diff = bench.ok("state_diff", json!({"from": "duo@split", "to": "duo@main"})).await;
    let between = &diff["cluster"];
    assert_eq!((&diff["equal"], &between["faults_differ"]), (&json!(false), &json!(1)), "{diff:#}");
    let links = between["reachability"]["links"].as_array().unwrap();
    let cut = links.iter().filter(|link| link["from"] == "no" && link["to"] == "yes").count();
    assert_eq!((cut, &between["reachability"]["differ"]), (2, &json!(2)), "{between:#}");
    bench.ok("state_diff", json!({"from": "duo@split", "to": "duo@main"})).await;
    assert_eq!(looks(&bench).await - before, 1, "what it reached is kept");
    bench.assert_consistent("after a look").await;
}

#[tokio::test(start_paused = true)]
async fn a_clusters_commit_is_looked_into_once_for_all_nodes() {
    let bench = Bench::with_cluster().await;
    bench.ok("commit_create", json!({"branch": "duo", "tag": "v1"})).await;
    let before = looks(&bench).await;
    let same = bench.ok("state_diff", json!({"from": "duo"})).await;
    assert_eq!((&same["total"], &same["equal"]), (&json!(0), &json!(true)), "{same:#}");
    assert_eq!(same["cluster"]["reachability"]["total"], 4, "{same:#}");
    let asked = json!({"from": "duo", "aspects": ["files"]});
    assert_eq!(bench.ok("state_diff", asked).await["equal"], true, "nobody asked who reaches whom");
    pass_time();
    bench.exec("duo/web", "set-disk /srv/early 1").await;
    pass_time();
    bench.exec("duo/db", "set-disk /srv/late 1").await;
    let diff = bench.ok("state_diff", json!({"from": "duo"})).await;
    let late = r#"added files:/srv/late on to by ["set-disk /srv/late 1"]"#;
    let early = r#"added files:/srv/early on to by ["set-disk /srv/early 1"]"#;
    assert_eq!(differing(&diff), [late, early]);
    assert_eq!(of_node(&diff, "db")["from"], "saved");
    let reach = &diff["cluster"]["reachability"];
    assert_eq!((reach.get("not_observed"), &reach["links"][0]["from"]), (None, &json!("yes")));
    assert_eq!((&reach["total"], &reach["differ"]), (&json!(4), &json!(0)));
    let again = bench.ok("state_diff", json!({"from": "duo@v1", "to": "duo@main"})).await;
    assert_eq!(differing(&again), [late, early]);
    assert_eq!(looks(&bench).await - before, 1);
    bench.assert_consistent("after a look").await;

    // From a command on one node, everywhere; one aspect, and then nobody is asked.
    let since = &diff["commands"].as_array().unwrap();
    let since = since.iter().find(|command| command["node"] == "db").unwrap()["id"].clone();
    let later = bench.ok("state_diff", json!({"from": "duo", "since": since})).await;
    assert_eq!(differing(&later), [late]);
    let other = bench.ok("state_diff", json!({"from": "duo", "aspects": ["packages"]})).await;
    assert_eq!(other["total"], 0);
    assert_eq!(other["cluster"]["reachability"]["total"], 0);

    // One node is compared as a machine is.
    for params in [
        json!({"from": "duo@v1/db", "to": "duo"}),
        json!({"from": "duo@v1", "to": "duo/db"}),
        json!({"from": "duo/db"}),
    ] {
        let one = bench.ok("state_diff", params).await;
        assert_eq!(differing(&one), [late]);
        assert_eq!((one.get("nodes"), one.get("cluster")), (None, None));
    }
    let lines = json!({"from": "duo", "hunks": "/etc/motd"});
    let refused = bench.fails("state_diff", lines).await;
    assert!(refused.hint.unwrap().contains("/NODE"));
    let nobody = json!({"from": "duo", "since": "jr_0123456789ab"});
    assert_eq!(bench.fails("state_diff", nobody).await.code.as_str(), "not_found");
}

#[tokio::test(start_paused = true)]
async fn nodes_of_one_side_only_are_told() {
    let bench = Bench::with_cluster().await;
    bench.ok("vm_create", json!({"name": "shop"})).await;
    let diff = bench.ok("state_diff", json!({"from": "duo", "to": "shop"})).await;
    let [db, shop] = ["db", "shop"].map(|name| of_node(&diff, name).clone());
    assert_eq!((&db["from"], db.get("to")), (&json!("running"), None));
    assert_eq!((shop.get("from"), &shop["to"]), (None, &json!("running")));
    assert_eq!(db["not_compared"], "it is on duo@main only");
    assert_eq!((&diff["equal"], &diff["total"]), (&json!(false), &json!(0)));
    assert_eq!(diff["highlights"][0], "node db only on duo@main");
}

#[tokio::test(start_paused = true)]
async fn results_of_clusters_are_bounded_and_read_on() {
    let bench = Bench::with_cluster().await;
    bench.ok("branch_create", json!({"from": "duo", "name": "other"})).await;
    for n in 0..40 {
        for node in ["db", "web"] {
            let set = format!("set-disk /etc/a-rather-long-name/of-a-file-{n:03} {n}");
            bench.exec(&format!("duo@other/{node}"), &set).await;
        }
    }
    for n in 0..20 {
        let label = format!("a fault with a label, number {n}");
        let cut = json!({"cluster_name": "duo@other", "partition_a": ["db"], "label": label});
        bench.ok("net_partition", cut).await;
    }
    // What the MCP server asks for, whose results are not longer than 8 KiB.
    const MAX_BYTES: usize = 6 * 1024;
    let params = json!({"from": "duo@main", "to": "duo@other", "max_bytes": MAX_BYTES});
    let mut page = bench.ok("state_diff", params).await;
    let mut seen = Vec::new();
    assert_eq!(page["cluster"]["faults_differ"], 20);
    assert_eq!(of_node(&page, "web")["total"], 40);
    loop {
        assert!(page.to_string().len() <= MAX_BYTES, "{}", page.to_string().len());
        assert_eq!((&page["total"], &page["nodes"].as_array().unwrap().len()), (&json!(80), &2));
        let own = page["differences"].as_array().unwrap().iter();
        seen.extend(own.map(|change| format!("{} {}", change["node"], change["id"])));
        let Some(cursor) = page["next_cursor"].as_str().map(str::to_owned) else { break };
        page = bench.ok("state_diff", json!({"cursor": cursor, "max_bytes": MAX_BYTES})).await;
    }
    let all: std::collections::BTreeSet<String> = seen.iter().cloned().collect();
    assert_eq!((seen.len(), all.len()), (80, 80));
}

/// A store that counts what is read.
struct Counted {
    inner: Arc<dyn Store>,
    /// Records of commits.
    commits: Arc<AtomicUsize>,
    /// Lists of branches.
    branches: Arc<AtomicUsize>,
}

#[async_trait::async_trait]
impl Store for Counted {
    async fn write(&self, transaction: &Transaction) -> Result<(), StoreError> {
        self.inner.write(transaction).await
    }

    async fn row(&self, table: Table, key: &str) -> Result<Option<String>, StoreError> {
        self.commits.fetch_add(usize::from(table == Table::Commits), Ordering::Relaxed);
        self.inner.row(table, key).await
    }

    async fn rows(&self, table: Table, query: &Query) -> Result<Vec<String>, StoreError> {
        self.branches.fetch_add(usize::from(table == Table::Branches), Ordering::Relaxed);
        self.inner.rows(table, query).await
    }

    async fn count(&self, table: Table, query: &Query) -> Result<u64, StoreError> {
        self.inner.count(table, query).await
    }

    async fn audit(&self, after_seq: u64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        self.inner.audit(after_seq, limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn reading_stops_where_lines_of_commits_meet_and_at_the_end_of_a_page() {
    let mut bench = Bench::with_vm().await;
    let (commits, branches) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&commits), Arc::clone(&branches));
    let over = |inner| {
        let (commits, branches) = counts;
        Arc::new(Counted { inner, commits, branches }) as Arc<dyn Store>
    };
    bench.restart_on(over).await;
    for _ in 0..40 {
        bench.ok("commit_create", json!({"branch": "shop"})).await;
    }
    for name in ["a", "b"] {
        bench.ok("branch_create", json!({"from": "shop", "name": name})).await;
    }
    bench.exec("shop@b", "set-disk /srv/new 1").await;
    bench.ok("commit_create", json!({"branch": "shop@b"})).await;
    bench.engine.idle().await;
    // The first one looks into the ancestor, whose memory lies on all before it.
    let both = json!({"from": "shop@a", "to": "shop@b"});
    bench.ok("state_diff", both.clone()).await;
    commits.store(0, Ordering::Relaxed);
    let diff = bench.ok("state_diff", both).await;
    let read = commits.load(Ordering::Relaxed);
    assert_eq!(diff["total"], 1, "{diff:#}");
    assert!(diff["base"].is_string() && read < 10, "{read} commits were read");

    for name in ["one", "two", "three"] {
        bench.ok("vm_create", json!({"name": name})).await;
    }
    bench.engine.idle().await;
    branches.store(0, Ordering::Relaxed);
    let page = bench.ok("cluster_list", json!({"limit": 1})).await;
    assert_eq!((&page["returned"], &page["total"]), (&json!(1), &json!(4)));
    assert_eq!(branches.load(Ordering::Relaxed), 1, "one cluster was asked for");
}
