//! A cluster of three nodes, as the quick start of cluster tools has it: defined, started, used,
//! snapshotted, branched, rolled back, stopped and destroyed.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Home, text};

const TRIO: &str = "name: trio
image: default
network: {name: lan, subnet: 10.9.0.0/24, subnet6: 'fd00:9::/64'}
ssh: {user: ops}
nodes:
  - {name: a, memory: 256 MiB, commands: ['echo seeded >/srv/seed'], forwards: ['PORT:22']}
  - {name: b, memory: 256 MiB, extra_disks: [{name: data, size: 64 MiB}]}
  - {name: c, memory: 256 MiB}
";

const DISKED: &str = "name: disked
image: default
nodes: [{name: b, memory: 256 MiB, extra_disks: [{name: data, size: 64 MiB}]}]
";

/// Writes a word to the extra disk itself, and reads it from there: no cache is asked.
const WRITE: &str =
    "dd of=/dev/vdb bs=4096 conv=sync,fsync oflag=direct iflag=fullblock status=none";
const READ: &str = "dd if=/dev/vdb bs=4096 count=1 iflag=direct status=none | head -c 3";

/// What an SSH server on another node says first, asked for by name.
const GREET: &str = "bash -c 'exec 3<>/dev/tcp/b/22 && head -c 4 <&3'";

/// Changes one node's files and cuts it off in one branch, crashes another node in a second one,
/// and compares them with a third one and with the commit of them all.
fn differ(home: &Home) {
    let write = "mkdir /srv/only && echo here >/srv/only/here";
    home.ok(&["node", "exec", "trio@try-1", "a", write]);
    let cut = home.ok(&["net", "partition", "trio@try-1", "a", "--label", "split"]);
    home.ok(&["node", "crash", "trio@try-2", "b", "--no-restart-after"]);

    let of = |diff: &Value, name: &str| {
        let nodes = diff["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["node"] == name).unwrap().clone()
    };
    let began = Instant::now();
    let diff = home.ok(&["diff", "trio@try-3", "trio@try-1"]);
    println!("first: {:?}, {} ms of it compared", began.elapsed(), diff["duration_ms"]);
    let untouched = json!({"node": "c", "from": "running", "to": "running", "equal": true});
    assert_eq!(of(&diff, "c"), untouched, "{diff:#}");
    let found = diff["differences"].as_array().unwrap().iter();
    let found = found.filter(|change| change["node"] == "a" && change["aspect"] == "files");
    let found: Vec<&Value> = found.collect();
    assert!(found.iter().any(|change| change["subject"] == "/srv/only/here"), "{diff:#}");
    let by = |change: &&Value| change["causes"][0]["command"] == write;
    assert!(found.iter().all(by), "{diff:#}");
    let between = &diff["cluster"];
    assert_eq!((&between["faults_differ"], &between["faults_on_both"]), (&1.into(), &0.into()));
    assert_eq!(between["faults"][0]["handle_id"], cut["handle_id"]);
    let links = between["reachability"]["links"].as_array().unwrap();
    let cut_off: BTreeSet<&str> = links
        .iter()
        .filter(|link| link["from"] == "yes" && link["to"] == "no")
        .map(|link| text(link, "link"))
        .collect();
    let expected = BTreeSet::from(["a>b", "a>c", "b>a", "c>a"]);
    assert_eq!((cut_off, &between["reachability"]["differ"]), (expected, &4.into()), "{diff:#}");

    let began = Instant::now();
    let diff = home.ok(&["diff", "trio@try-3", "trio@try-2"]);
    println!("again: {:?}, {} ms of it compared", began.elapsed(), diff["duration_ms"]);
    let down = of(&diff, "b");
    assert_eq!((&down["from"], &down["to"]), (&"running".into(), &"crashed".into()), "{diff:#}");
    assert_eq!(of(&diff, "c"), untouched, "{diff:#}");
    assert_eq!(diff["cluster"]["faults_differ"], 0);

    let one = home.ok(&["diff", "trio@v1", "trio@try-1", "--node", "a"]);
    assert_eq!((one.get("nodes"), one["from"].as_str()), (None, diff["base"].as_str()));
    let began = Instant::now();
    home.ok(&["net", "probe", "trio@try-3", "--count", "1"]);
    println!("a probe: {:?}", began.elapsed());
    let shown = home.run(&["diff", "trio@try-3", "trio@try-1", "--exit-code"]);
    assert_eq!(shown.status.code(), Some(1));
    let shown = String::from_utf8(shown.stdout).unwrap();
    println!("{shown}");
    for line in ["faults 1 on one side only", "  c  running  nothing differs", "trio@try-1/a"] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
}

#[test]
fn a_cluster_is_defined_started_used_snapshotted_branched_and_destroyed() {
    let mut home = Home::new();
    // The ready state for a node with such a disk is its image's, and stays.
    home.define(DISKED);
    home.ok(&["cluster", "destroy", "disked", "--remove-overlays"]);
    home.remember();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let trio = TRIO.replace("PORT", &port.to_string());
    assert_eq!(home.define(&trio)["created"], true);
    assert_eq!(home.define(&trio)["created"], false);
    let refused = home.run(&["cluster", "start", "trio"]);
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
    drop(taken);
    let started = home.ok(&["cluster", "start", "trio"]);
    let at_port = || {
        let mut greeting = [0; 4];
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.read_exact(&mut greeting).map(|()| greeting)
    };
    assert_eq!(&at_port().unwrap(), b"SSH-");
    assert_eq!((&started["warm"], &started["set_up"]), (&true.into(), &1.into()));
    let reached = |status: &Value| {
        let nodes = status["nodes"].as_array().unwrap().clone();
        nodes.len() == 3 && nodes.iter().all(|node| node["ssh_reachable"] == true)
    };
    assert!(reached(&started), "{started}");
    assert!(reached(&home.ok(&["cluster", "status", "trio"])));
    let handle = home.ok(&["cluster", "handle", "trio"]);
    assert!(text(&handle, "kernel_version").starts_with(|c: char| c.is_ascii_digit()));
    let macs = home.ok(&["node", "exec-all", "trio", "cat /sys/class/net/e*/address"]);
    let mac = |node: &str| text(&macs["results"][node], "stdout").to_owned();
    assert!(mac("a") != mac("b") && mac("b") != mac("c"), "{macs}");
    let greeted = |branch: &str| {
        let ran = home.ok(&["node", "exec", branch, "a", GREET]);
        assert_eq!(ran["stdout"], "SSH-", "{branch}: {ran}");
    };
    greeted("trio");
    let on_b = |branch: &str, command: &str| {
        let ran = home.ok(&["node", "exec", branch, "b", command]);
        text(&ran, "stdout").to_owned()
    };
    assert_eq!(on_b("trio", "cat /sys/block/vdb/serial").trim(), "data");
    assert_eq!(on_b("trio", "cat /sys/block/vdb/size").trim(), "131072");
    let by_ssh = |address: &str| {
        let output = home.run(&["ssh", address, "--", "id -un; hostname"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(by_ssh("trio/a"), "ops\na\n");
    let ended = home.run(&["node", "exec", "trio", "b", "exit 7"]);
    assert_eq!(ended.status.code(), Some(7));

    home.ok(&["snapshot", "create", "trio", "baseline"]);
    home.ok(&["node", "exec-all", "trio", "echo one >/dev/shm/state"]);
    on_b("trio", &format!("echo one | {WRITE}"));
    home.ok(&["commit", "trio", "-t", "v1"]);
    home.ok(&["node", "exec-all", "trio", "echo two >/dev/shm/state"]);
    on_b("trio", &format!("echo two | {WRITE}"));
    assert_eq!(on_b("trio", READ), "two");
    home.ok(&["branch", "trio@v1", "-n", "3"]);
    for branch in ["trio@try-1", "trio@try-2", "trio@try-3"] {
        greeted(branch);
        let state = home.ok(&["node", "exec-all", branch, "cat /dev/shm/state"]);
        for node in ["a", "b", "c"] {
            assert_eq!(state["results"][node]["stdout"], "one\n", "{branch}/{node}");
        }
        assert_eq!(on_b(branch, READ), "one", "{branch}");
        assert_eq!(by_ssh(&format!("{branch}/b")), "ops\nb\n");
    }
    differ(&home);
    let back = home.ok(&["rollback", "trio@try-2", "v1"]);
    assert!(text(&back, "save_note").contains("`b` did not run"), "{back}");
    home.ok(&["verify", text(&back, "saved_as")]);
    assert_eq!(on_b("trio@try-2", READ), "one");
    home.ok(&["rollback", "trio", "v1"]);
    greeted("trio@main");
    assert_eq!(on_b("trio@main", READ), "one");
    // What the disk holds is there after a boot.
    on_b("trio@main", &format!("echo end | {WRITE}"));
    home.ok(&["node", "crash", "trio", "b"]);
    assert_eq!(on_b("trio", READ), "end");

    // The port is that of the branch that was defined, whatever became of it and of the daemon.
    home.kill_daemon();
    assert_eq!(&at_port().unwrap(), b"SSH-");
    let port_of = |branch: &str| {
        let handle = home.ok(&["cluster", "handle", branch]);
        handle["nodes"][0]["forwards"]["22"].as_u64().unwrap()
    };
    assert_eq!(port_of("trio@main"), u64::from(port));
    assert_ne!(port_of("trio@try-1"), u64::from(port));
    home.ok(&["cluster", "stop", "trio"]);
    assert!(at_port().is_err());
    home.ok(&["cluster", "destroy", "trio", "--remove-overlays"]);
    home.assert_nothing_left();
}

const QUIET: &str = "name: quiet
image: default
network: {name: lan, subnet: 10.9.1.0/24}
nodes:
  - {name: a, memory: 256 MiB}
  - {name: b, memory: 256 MiB}
  - {name: c, memory: 256 MiB}
";

#[test]
fn a_cluster_equals_its_commit_until_something_is_done() {
    let mut home = Home::new();
    home.define(QUIET);
    home.remember();
    home.ok(&["cluster", "start", "quiet"]);
    home.ok(&["commit", "quiet", "-t", "v1"]);
    let compare = |what: &str, arguments: &[&str]| {
        let began = Instant::now();
        let diff = home.ok(&[&["diff"], arguments].concat());
        println!("{what}: {:?}, {} ms of it compared", began.elapsed(), diff["duration_ms"]);
        diff
    };
    for what in ["with its commit, first", "with its commit, again"] {
        let diff = compare(what, &["quiet"]);
        assert_eq!((&diff["equal"], &diff["total"]), (&true.into(), &0.into()), "{diff:#}");
    }
    home.ok(&["branch", "quiet@v1", "-n", "2"]);
    for what in ["two branches, first", "two branches, again"] {
        let diff = compare(what, &["quiet@try-1", "quiet@try-2"]);
        assert_eq!((&diff["equal"], &diff["total"]), (&true.into(), &0.into()), "{diff:#}");
    }

    home.ok(&["node", "exec", "quiet@try-1", "b", "echo here >/srv/note"]);
    home.ok(&["net", "partition", "quiet@try-1", "a"]);
    let diff = compare("after a change", &["quiet@v1", "quiet@try-1"]);
    assert_eq!(diff["equal"], false);
    let changed = diff["differences"].as_array().unwrap().iter();
    let changed: Vec<&Value> = changed.filter(|change| change["aspect"] == "files").collect();
    assert!(changed.iter().any(|change| change["subject"] == "/srv/note"), "{diff:#}");
    let reach = &diff["cluster"]["reachability"];
    assert_eq!(reach["differ"], 4, "{reach:#}");
    home.ok(&["cluster", "destroy", "quiet", "--remove-overlays"]);
    home.assert_nothing_left();
}

const SET_UP: &str = "name: made
image: default
nodes:
  - name: a
    memory: 256 MiB
    files: [{path: /srv/file, contents: kept}]
    commands: ['echo kept >/srv/marker']
    services: [{name: beat, command: 'sleep 1', restart: always}]
";

#[test]
fn what_is_kept_of_a_disk_has_all_that_was_written_before() {
    let home = Home::new();
    home.define(SET_UP);
    home.ok(&["cluster", "start", "made"]);
    // At once: the set-up is not done again, so it must be on the disk.
    home.ok(&["node", "crash", "made", "a"]);
    let read = "cat /srv/file /srv/marker; systemctl is-active beat";
    let kept = home.ok(&["node", "exec", "made", "a", read]);
    assert_eq!(text(&kept, "stdout"), "keptkept\nactive\n", "{kept}");

    // A snapshot of disks has what was written before it, and a service that ends comes back
    // however often it does.
    home.ok(&["node", "exec", "made", "a", "echo late >/srv/late"]);
    let snapshot = home.ok(&["snapshot", "create", "made", "disks"]);
    assert_eq!(snapshot["kind"], "disk", "{snapshot}");
    home.ok(&["node", "exec", "made", "a", "rm /srv/late; sync"]);
    home.ok(&["snapshot", "revert", "made", "disks", "--no-save"]);
    let kept = home.ok(&["node", "exec", "made", "a", "cat /srv/late"]);
    assert_eq!(text(&kept, "stdout"), "late\n", "{kept}");
    let restarts = "until [ $(systemctl show -P NRestarts beat) -gt 6 ]; do sleep 1; done";
    home.ok(&["node", "exec", "made", "a", restarts]);

    // A word for the guest that looks like an option is none of the client's on this host.
    let made = home.path().join("made-on-the-host");
    let option = format!("-oProxyCommand=touch {}", made.display());
    home.run(&["ssh", "made/a", "--", &option, "true"]);
    assert!(!made.exists());
    home.ok(&["cluster", "destroy", "made", "--remove-overlays"]);
}
