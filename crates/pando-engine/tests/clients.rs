//! What clients do to one another and to the engine: race, repeat, give up, go away, ask for too
//! much.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::Bench;
use pando_api::{AttachIo, AttachRequest, Call, Caller, Control, Role};
use pando_driver::store::Decision;
use pando_engine::TurnedAway;
use pando_model::guest::{Command, ExecInput, ExecStatus};
use pando_model::operation::OperationStatus;
use pando_model::{ByteCount, ErrorCode, OperationId};
use serde_json::{Value, json};
use tokio::sync::mpsc;

fn parsed(verb: &str, params: Value) -> Call {
    Call::parse(verb, params).unwrap()
}

#[tokio::test(start_paused = true)]
async fn two_clients_doing_opposite_things_to_one_branch_take_turns() {
    let bench = Arc::new(Bench::with_vm().await);
    bench.exec("shop", "set-mem a 1").await;
    bench.ok("commit_create", json!({"branch": "shop", "tag": "v1"})).await;
    let mut clients = tokio::task::JoinSet::new();
    for round in 0..12 {
        let bench = Arc::clone(&bench);
        clients.spawn(async move {
            let (verb, params) = match round % 4 {
                0 => ("branch_rollback", json!({"branch": "shop@main", "target": "v1"})),
                1 => ("commit_create", json!({"branch": "shop@main"})),
                2 => ("vm_control", json!({"address": "shop@main", "action": "pause"})),
                _ => ("vm_control", json!({"address": "shop@main", "action": "resume"})),
            };
            bench.call(verb, params).await
        });
    }
    for result in clients.join_all().await {
        // Each is done or says why it cannot be; none is half done.
        if let Err(error) = result {
            assert!(matches!(error.code, ErrorCode::Busy | ErrorCode::WrongState), "{error:?}");
        }
    }
    bench.assert_consistent("after the race").await;
    bench.ok("vm_control", json!({"address": "shop@main", "action": "resume"})).await;
    assert_eq!(bench.mem("shop@main", "a").await, "1");
}

#[tokio::test(start_paused = true)]
async fn one_of_two_machines_with_one_name_wins() {
    let bench = Bench::new().await;
    let create = || bench.call("vm_create", json!({"name": "shop"}));
    let results = tokio::join!(create(), create(), create());
    let results = [results.0, results.1, results.2];
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.code, ErrorCode::AlreadyExists, "{error:?}");
    }
    bench.assert_consistent("one name").await;
}

#[tokio::test(start_paused = true)]
async fn machines_of_a_new_shape_wait_for_one_ready_state() {
    let bench = Bench::new().await;
    let create = |name| bench.call("vm_create", json!({"name": name, "memory_mib": 128}));
    let results = tokio::join!(create("a"), create("b"), create("c"));
    assert!(results.0.is_ok() && results.1.is_ok() && results.2.is_ok());
    let image = bench.ok("image_show", json!({"image": "default"})).await;
    assert_eq!(image["ready"].as_array().unwrap().len(), 1);
    bench.assert_consistent("one ready state").await;
}

#[tokio::test(start_paused = true)]
async fn the_same_key_is_the_same_request() {
    let mut bench = Bench::with_vm().await;
    bench.caller.idempotency_key = Some("k1".into());
    let params = json!({"from": "shop", "name": "copy"});
    let (first, second) = tokio::join!(
        bench.call("branch_create", params.clone()),
        bench.call("branch_create", params.clone())
    );
    assert_eq!(first.unwrap(), second.unwrap());
    let third = bench.ok("branch_create", params).await;
    assert_eq!(third["branches"][0]["name"], "copy");
    let other = bench.fails("branch_create", json!({"from": "shop", "name": "other"})).await;
    assert_eq!(other.code, ErrorCode::KeyReused);
    let verb = bench.fails("commit_create", json!({"branch": "shop"})).await;
    assert_eq!(verb.code, ErrorCode::KeyReused);
    bench.restart().await;
    let params = json!({"from": "shop", "name": "copy"});
    assert_eq!(bench.ok("branch_create", params).await, third, "after a restart");
    bench.caller.idempotency_key = Some("k2".into());
    let failed = bench.fails("branch_create", json!({"from": "shop", "name": "copy"})).await;
    assert_eq!(failed.code, ErrorCode::AlreadyExists);
    bench.assert_consistent("keys").await;
}

#[tokio::test(start_paused = true)]
async fn a_command_with_a_key_runs_once() {
    let mut bench = Bench::with_vm().await;
    bench.caller.idempotency_key = Some("once".into());
    let params = json!({"address": "shop", "command": "echo hello"});
    let first = bench.ok("exec_run", params.clone()).await;
    assert_eq!(first["stdout"], "hello\n");
    let calls = bench.world.faults().calls().len();
    assert_eq!(bench.ok("exec_run", params).await, first);
    assert_eq!(bench.world.faults().calls().len(), calls, "nothing was done again");
}

#[tokio::test(start_paused = true)]
async fn commands_on_several_nodes_run_once_with_a_key_too() {
    let mut bench = Bench::with_cluster().await;
    for (verb, params) in [
        ("node_exec", json!({"cluster_name": "duo", "node_name": "db", "command": "echo hello"})),
        ("node_exec_all", json!({"cluster_name": "duo", "command": "echo hello"})),
        ("exec_fanout", json!({"branches": ["duo"], "command": "echo hello"})),
    ] {
        bench.caller.idempotency_key = Some(format!("once-{verb}"));
        let first = bench.ok(verb, params.clone()).await;
        assert!(first["operation_id"].is_string(), "{first}");
        let calls = bench.world.faults().calls().len();
        assert_eq!(bench.ok(verb, params.clone()).await, first);
        assert_eq!(bench.world.faults().calls().len(), calls, "nothing was done again");
        let mut other = params;
        other["command"] = json!("true");
        assert_eq!(bench.fails(verb, other).await.code, ErrorCode::KeyReused, "{verb}");
    }
    bench.caller.idempotency_key = None;

    // What is taken back is killed everywhere, and has no result.
    let call = parsed("node_exec_all", json!({"cluster_name": "duo", "command": "sleep-forever"}));
    let id = bench.engine.start(&bench.caller, call).await.unwrap();
    bench.ok("operation_cancel", json!({"id": id})).await;
    let view = bench.ok("operation_wait", json!({"id": id})).await;
    assert_eq!(view["status"], "cancelled", "{view}");
    bench.assert_consistent("commands").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_changes_nothing() {
    let bench = Bench::with_vm().await;
    let steps = 40;
    for polls in 0..steps {
        let name = format!("copy-{polls}");
        {
            let call = bench.call("branch_create", json!({"from": "shop", "name": name}));
            let mut call = std::pin::pin!(call);
            // The client hangs up after being polled so many times.
            for _ in 0..polls {
                let once = std::future::poll_fn(|cx| {
                    std::task::Poll::Ready(call.as_mut().poll(cx).is_ready())
                });
                if once.await {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        bench.assert_consistent(&format!("gone after {polls} polls")).await;
    }
    let list = bench.ok("branch_list", json!({"limit": 500})).await;
    let made = list["total"].as_u64().unwrap() - 1;
    assert!(made > 0 && made < steps, "{made} of {steps} were made");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_operation_is_undone() {
    let bench = Bench::with_vm().await;
    let call =
        parsed("exec_run", json!({"address": "shop", "command": "sleep-forever", "detach": true}));
    let running = bench.engine.call(&bench.caller, call).await.unwrap();
    let id = running["operation_id"].as_str().unwrap();
    let view = bench.ok("operation_wait", json!({"id": id, "timeout_s": 1})).await;
    assert_eq!(view["status"], "running");
    bench.ok("operation_cancel", json!({"id": id})).await;
    let view = bench.ok("operation_wait", json!({"id": id})).await;
    assert_eq!(view["status"], "cancelled", "{view}");
    assert_eq!(view["error"]["code"], "cancelled");

    // Every operation, cancelled right after it was recorded.
    let call = parsed("branch_create", json!({"from": "shop", "count": 2}));
    let id = bench.engine.start(&bench.caller, call).await.unwrap();
    bench.ok("operation_cancel", json!({"id": id})).await;
    let view = bench.ok("operation_wait", json!({"id": id})).await;
    assert_eq!(view["status"], "cancelled", "{view}");
    assert_eq!(bench.ok("branch_list", json!({})).await["total"], 1);
    bench.assert_consistent("cancelled").await;
}

#[tokio::test(start_paused = true)]
async fn an_operation_past_its_deadline_is_undone() {
    let bench = Bench::with_vm().await;
    let params = json!({"address": "shop", "command": "sleep-forever", "detach": true, "timeout_s": 100_000});
    let call = Call::parse("exec_run", params);
    assert_eq!(call.unwrap_err().code, ErrorCode::InvalidParameter);
    // A command that outlives its own timeout is the guest's to kill; the engine's limit is a
    // margin later and only reached when the guest does not.
    let ran = bench
        .ok("exec_run", json!({"address": "shop", "command": "sleep-forever", "timeout_s": 3}))
        .await;
    assert_eq!(ran["timed_out"], true);

    bench.world.hang("host.start");
    let call = parsed("branch_create", json!({"from": "shop", "name": "late"}));
    let id = bench.engine.start(&bench.caller, call).await.unwrap();
    let view = bench.ok("operation_wait", json!({"id": id, "timeout_s": 3600})).await;
    bench.world.hang("");
    assert_eq!(view["status"], "failed", "{view}");
    assert_eq!(view["error"]["code"], "deadline_exceeded");
    bench.assert_consistent("late").await;
    bench.ok("branch_create", json!({"from": "shop", "name": "late"})).await;
}

#[tokio::test(start_paused = true)]
async fn a_branch_that_is_being_made_is_left_alone() {
    let mut bench = Bench::with_vm().await;
    bench.ok("commit_create", json!({"branch": "shop", "tag": "v1"})).await;
    bench.watch_every(Duration::from_secs(1)).await;
    bench.world.hang("host.start");
    let call = parsed("branch_create", json!({"from": "shop@v1", "name": "slow"}));
    let id = bench.engine.start(&bench.caller, call).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    // It starts, and its record does not say so yet.
    bench.world.hang("store.write");
    tokio::time::sleep(Duration::from_secs(5)).await;
    bench.world.hang("");
    let view = bench.ok("operation_wait", json!({"id": id})).await;
    assert_eq!(view["status"], "succeeded", "{view}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    bench.exec("shop@slow", "set-mem a 1").await;
    bench.restart().await;
    bench.assert_consistent("slow").await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_branch_names_its_holder() {
    let bench = Bench::with_vm().await;
    bench.world.hang("host.cut");
    let call = parsed("commit_create", json!({"branch": "shop"}));
    bench.engine.start(&bench.caller, call).await.unwrap();
    let error = bench.fails("vm_control", json!({"address": "shop", "action": "stop"})).await;
    assert_eq!(error.code, ErrorCode::Busy);
    assert!(error.message.contains("commit_create"), "{error:?}");
    bench.world.hang("");
    bench.assert_consistent("busy").await;
}

#[tokio::test(start_paused = true)]
async fn a_read_only_caller_reads_and_is_audited_when_refused() {
    let mut bench = Bench::with_vm().await;
    bench.caller.read_only = true;
    bench.ok("vm_list", json!({})).await;
    for (verb, params) in [
        ("vm_delete", json!({"name": "shop"})),
        ("exec_run", json!({"address": "shop", "command": "true"})),
        ("commit_create", json!({"branch": "shop"})),
    ] {
        assert_eq!(bench.fails(verb, params).await.code, ErrorCode::Forbidden, "{verb}");
    }
    bench.caller = Caller { role: Role::Viewer, ..Caller::local(7) };
    assert_eq!(bench.fails("gc", json!({})).await.code, ErrorCode::Forbidden);
    bench.engine.shutdown().await;
    let rows = bench.world.connect().store().audit(0, 1000).await.unwrap();
    let refused: Vec<&str> = rows
        .iter()
        .filter(|row| row.entry.decision == Decision::Refused)
        .map(|row| row.entry.verb.as_str())
        .collect();
    assert_eq!(refused, ["vm_delete", "exec_run", "commit_create", "gc"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_turned_away_at_the_door_is_audited() {
    let bench = Bench::new().await;
    bench.engine.audit_turned_away(TurnedAway {
        session: "http:127.0.0.1:9".to_owned(),
        request: json!({"request": "GET /v1/vm_list", "unreported": 3}),
        error: ErrorCode::Unauthenticated,
    });
    bench.engine.shutdown().await;
    let rows = bench.world.connect().store().audit(0, 1000).await.unwrap();
    let last = &rows.last().unwrap().entry;
    assert_eq!((last.verb.as_str(), last.decision), ("authenticate", Decision::Refused));
    assert_eq!(last.error.as_deref(), Some("unauthenticated"));
    assert_eq!(last.session.as_deref(), Some("http:127.0.0.1:9"));
    assert_eq!(last.principal, "unknown");
}

#[tokio::test(start_paused = true)]
async fn every_call_leaves_exactly_one_audit_row() {
    let bench = Bench::with_vm().await;
    bench.engine.shutdown().await;
    let before = bench.world.connect().store().audit(0, 1000).await.unwrap().len();
    let bench = bench.fork().await;
    bench.exec("shop", "true").await;
    bench.ok("vm_status", json!({})).await;
    bench.fails("vm_status", json!({"address": "nobody"})).await;
    bench.ok("commit_create", json!({"branch": "shop", "tag": "v1"})).await;
    bench.fails("branch_create", json!({"from": "shop@nothing"})).await;
    bench.ok("tag_set", json!({"commit": "shop@v1", "tag": "v2"})).await;
    bench.engine.shutdown().await;
    let rows = bench.world.connect().store().audit(before as u64, 1000).await.unwrap();
    let verbs: Vec<_> = rows.iter().map(|row| row.entry.verb.clone()).collect();
    let mut sorted = verbs.clone();
    sorted.sort();
    let expected =
        ["branch_create", "commit_create", "exec_run", "tag_set", "vm_status", "vm_status"];
    assert_eq!(sorted, expected);
    let commit = rows.iter().find(|row| row.entry.verb == "commit_create").unwrap();
    assert!(commit.entry.operation.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_output_is_bounded_and_its_ends_are_kept() {
    let bench = Bench::with_vm().await;
    let params = json!({"address": "shop", "command": "flood 5000000", "max_output_bytes": 1000});
    let ran = bench.ok("exec_run", params).await;
    assert_eq!(ran["stdout_bytes"], 5_000_000);
    assert_eq!(ran["stdout_truncated"], true);
    assert!(ran["stdout"].as_str().unwrap().len() < 1100);
}

#[tokio::test(start_paused = true)]
async fn usage_is_of_what_runs_and_counts_commands_that_are_waited_for() {
    let bench = Bench::with_vm().await;
    bench.ok("branch_create", json!({"from": "shop", "names": ["a", "b"]})).await;
    bench.ok("vm_control", json!({"address": "shop@b", "action": "stop"})).await;
    let usage = bench.ok("vm_usage", json!({})).await;
    let rows = usage["nodes"].as_array().unwrap();
    let addresses: Vec<&str> = rows.iter().map(|row| row["address"].as_str().unwrap()).collect();
    assert_eq!(addresses, ["shop@a/shop", "shop@main/shop"]);
    let status = bench.ok("vm_status", json!({"address": "shop@a"})).await;
    for name in ["cpu_ms", "host_memory_bytes", "host_disk_bytes", "keeper_cpu_ms"] {
        assert_eq!(rows[0][name], status["resources"][name], "{name}");
    }
    let one = bench.ok("vm_usage", json!({"cluster": "shop", "limit": 1})).await;
    assert_eq!((&one["total"], &one["returned"]), (&json!(2), &json!(1)));
    let rest = bench.ok("vm_usage", json!({"limit": 1, "cursor": one["next_cursor"]})).await;
    assert_eq!(rest["nodes"][0]["address"], "shop@main/shop");
    assert_eq!(bench.fails("vm_usage", json!({"cluster": "web"})).await.code.as_str(), "not_found");

    // One command is attached; it counts until it has ended.
    let (input, input_end) = mpsc::channel(4);
    let (output_end, mut output) = mpsc::channel(4);
    let request = AttachRequest {
        address: "shop@a".parse().unwrap(),
        command: Some(Command::Argv(vec!["cat".into()])),
        env: Default::default(),
        cwd: None,
        user: None,
        timeout_s: None,
        terminal: None,
        no_stdin: false,
    };
    let io = AttachIo { input: input_end, output: output_end };
    let commands = async || {
        let usage = bench.ok("vm_usage", json!({})).await;
        let rows = usage["nodes"].as_array().unwrap();
        rows.iter().map(|row| row["commands"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let client = async {
        input.send(ExecInput::Data(b"ping".to_vec())).await.unwrap();
        output.recv().await.unwrap();
        assert_eq!(commands().await, [1, 0]);
        input.send(ExecInput::Signal(15)).await.unwrap();
    };
    let (ended, ()) = tokio::join!(bench.engine.attach(&bench.caller, request, io), client);
    ended.unwrap();
    assert_eq!(commands().await, [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_attached_command_streams_both_ways() {
    let bench = Bench::with_vm().await;
    let (input, input_end) = mpsc::channel(4);
    let (output_end, mut output) = mpsc::channel(4);
    let request = AttachRequest {
        address: "shop".parse().unwrap(),
        command: Some(Command::Argv(vec!["cat".into()])),
        env: Default::default(),
        cwd: None,
        user: None,
        timeout_s: None,
        terminal: None,
        no_stdin: false,
    };
    let io = AttachIo { input: input_end, output: output_end };
    let client = async {
        input.send(ExecInput::Data(b"ping".to_vec())).await.unwrap();
        let answer = output.recv().await.unwrap().bytes;
        input.send(ExecInput::Signal(15)).await.unwrap();
        answer
    };
    let (ended, answer) = tokio::join!(bench.engine.attach(&bench.caller, request, io), client);
    assert_eq!(answer, b"ping");
    assert_eq!(ended.unwrap().status, ExecStatus::Signaled(15));
}

#[tokio::test(start_paused = true)]
async fn a_lost_keeper_is_noticed_and_recorded() {
    let mut bench = Bench::with_vm().await;
    let status = bench.ok("vm_status", json!({})).await;
    let id = status["branch_id"].as_str().unwrap().to_owned();
    bench.world.kill_keeper(&bench.host_id(&id).await);
    let status = bench.ok("vm_status", json!({})).await;
    assert_eq!((&status["state"], &status["intended"]), (&json!("stopped"), &json!("running")));
    bench.engine.idle().await;
    let error = bench.fails("exec_run", json!({"command": "true"})).await;
    assert_eq!(error.code, ErrorCode::WrongState);
    assert!(error.message.contains("keeper was lost"), "{error:?}");
    bench.assert_consistent("after the loss").await;
    bench.ok("vm_control", json!({"address": "shop", "action": "start"})).await;
    bench.exec("shop", "true").await;
    bench.world.reboot();
    bench.restart().await;
    bench.assert_consistent("after a reboot of the host").await;
    assert_eq!(bench.ok("vm_list", json!({})).await["vms"][0]["state"], "stopped");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_or_memory_is_refused_before_anything_happens() {
    let bench = Bench::with_vm().await;
    bench.ok("commit_create", json!({"branch": "shop", "tag": "v1"})).await;
    bench.engine.idle().await;
    let calls = bench.world.faults().calls().len();
    bench.world.set_free(ByteCount::from_gib(8), ByteCount::from_mib(10));
    for (verb, params) in [
        ("vm_create", json!({"name": "b"})),
        ("branch_create", json!({"from": "shop"})),
        ("commit_create", json!({"branch": "shop"})),
    ] {
        assert_eq!(bench.fails(verb, params).await.code, ErrorCode::DiskFull, "{verb}");
    }
    bench.world.set_free(ByteCount::from_mib(100), ByteCount::from_gib(8));
    for (verb, params) in [
        ("vm_create", json!({"name": "b"})),
        ("branch_create", json!({"from": "shop@v1", "count": 20})),
        ("branch_rollback", json!({"branch": "shop", "target": "v1"})),
    ] {
        assert_eq!(bench.fails(verb, params).await.code, ErrorCode::MemoryFull, "{verb}");
    }
    let after = bench.world.faults().calls();
    let acts: Vec<&String> = after[calls..].iter().filter(|call| *call != "store.write").collect();
    assert!(acts.is_empty(), "{acts:?}");
}

#[tokio::test(start_paused = true)]
async fn operations_of_a_verb_are_counted_apart_and_listed_page_by_page() {
    let bench = Bench::with_vm().await;
    for round in ["round-1", "round-2", "round-3"] {
        bench.ok("branch_create", json!({"from": "shop", "name": round})).await;
        bench.ok("commit_create", json!({"branch": "shop", "tag": format!("{round}-tag")})).await;
    }
    let all = bench.ok("operation_list", json!({"limit": 2})).await;
    assert!(all["total"].as_u64() >= Some(7), "{all:#}");
    let mut page = json!({"verb": "branch_create", "limit": 2});
    let first = bench.ok("operation_list", page.clone()).await;
    assert_eq!((&first["total"], &first["returned"]), (&json!(3), &json!(2)), "{first:#}");
    page["cursor"] = first["next_cursor"].clone();
    let last = bench.ok("operation_list", page).await;
    assert_eq!((&last["total"], &last["returned"]), (&json!(3), &json!(1)), "{last:#}");
    assert_eq!((&last["truncated"], last.get("next_cursor")), (&json!(false), None), "{last:#}");
    let none = bench.ok("operation_list", json!({"verb": "gc"})).await;
    assert_eq!((&none["total"], &none["truncated"]), (&json!(0), &json!(false)), "{none:#}");
}

#[tokio::test(start_paused = true)]
async fn an_operation_can_be_watched_to_its_end_and_found_again() {
    let bench = Bench::with_vm().await;
    let call = parsed("branch_create", json!({"from": "shop", "name": "copy"}));
    let id: OperationId = bench.engine.start(&bench.caller, call).await.unwrap();
    let mut updates = bench.engine.watch_operation(&bench.caller, &id).await.unwrap();
    let ended = updates.wait_for(|view| view.status.is_final()).await.unwrap().clone();
    assert_eq!(ended.status, OperationStatus::Succeeded);
    assert!(ended.steps.iter().all(|step| step.duration_ms.is_some()));
    let found = bench.ok("operation_get", json!({"id": id})).await;
    assert_eq!(found["result"]["branches"][0]["name"], "copy");
    let list = bench.ok("operation_list", json!({"verb": "branch_create", "limit": 1})).await;
    assert_eq!(list["operations"][0]["operation_id"], json!(id));
    assert_eq!((&list["total"], &list["truncated"]), (&json!(1), &json!(false)), "{list:#}");
    let direct = bench.engine.start(&bench.caller, parsed("vm_list", json!({}))).await;
    assert_eq!(direct.unwrap_err().code, ErrorCode::InvalidParameter);
    let unknown = bench.fails("operation_get", json!({"id": "op_0123456789ab"})).await;
    assert_eq!(unknown.code, ErrorCode::NotFound);
    tokio::time::timeout(Duration::from_secs(1), bench.engine.idle()).await.unwrap();
}
