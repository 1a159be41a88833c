//! Clusters of real machines on one switch: cuts under traffic, and what can go wrong at one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::cluster::{Counts, shape};
use common::{World, memory};
use pando_driver::BranchHost;
use pando_driver::host::{Clock, HostError, StopMode};
use pando_driver::progress::Reporter;
use pando_model::BranchState;
use pando_model::commit::CommitKind;
use rustix::process::{Pid, Signal, kill_process};

/// Runs `test`, of this name, with mounts of its own.
fn with_own_mounts(name: &str, test: impl Future<Output = ()>) {
    const INSIDE: &str = "PANDO_TEST_MOUNTS";
    if std::env::var_os(INSIDE).is_none() {
        let status = Command::new("unshare")
            .arg("--mount")
            .args((!rustix::process::geteuid().is_root()).then_some("--map-root-user"))
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(INSIDE, "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test);
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// Sends a signal to a machine of ours.
fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_through_cuts_in_the_parent_and_in_every_child() {
    let world = World::new();
    let ready = world.ready_state(shape(2, 256, 2)).await;
    let parent = world.cluster(&ready, &["web", "db"]).await;
    world.start_traffic(&parent, "").await;
    let mut counts = world.until_traffic_flows(&parent, &Counts::new(), 50).await;
    let mut cut = world.cut_cluster(&parent).await;
    for _ in 1..10 {
        counts = world.until_traffic_flows(&parent, &counts, 50).await;
        cut = world.cut_cluster(&parent).await;
    }
    let mut children = Vec::new();
    for _ in 0..3 {
        children.push(world.new_child(&cut, &parent).await);
    }
    let children: Vec<_> = children.iter().collect();
    world.start_all(&children).await;
    for (branch, who) in children.iter().zip(["first", "second", "third"]) {
        world.until_traffic_flows(branch, &counts, 50).await;
        world.check_traffic(branch, who).await;
    }
    world.until_traffic_flows(&parent, &counts, 50).await;
    world.check_traffic(&parent, "parent").await;
    world.stop_all(&children).await;
    world.end(&[&parent]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_and_their_pairs_go_on_in_three_children() {
    let world = World::new();
    let ready = world.ready_state(shape(1, 256, 1)).await;
    let parent = world.cluster(&ready, &["web", "db", "cache"]).await;
    // Twelve machines at once: more than this would be a test of how long a guest may starve.
    world.start_traffic(&parent, "tcp-us=16000 udp-us=8000").await;
    let mut counts = world.until_traffic_flows(&parent, &Counts::new(), 25).await;
    let mut cut = world.cut_cluster(&parent).await;
    for _ in 1..10 {
        counts = world.until_traffic_flows(&parent, &counts, 25).await;
        cut = world.cut_cluster(&parent).await;
    }
    let children = [
        world.new_child(&cut, &parent).await,
        world.new_child(&cut, &parent).await,
        world.new_child(&cut, &parent).await,
    ];
    let children: Vec<_> = children.iter().collect();
    world.start_all(&children).await;
    for (branch, who) in children.iter().zip(["first", "second", "third"]) {
        world.until_traffic_flows(branch, &counts, 25).await;
        world.check_traffic(branch, who).await;
    }
    world.until_traffic_flows(&parent, &counts, 25).await;
    world.check_traffic(&parent, "parent").await;
    world.stop_all(&children).await;
    world.end(&[&parent]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_commit_holds_the_memory_of_that_instant() {
    let world = World::new();
    let ready = world.ready_state(shape(1, 256, 1)).await;
    let parent = world.cluster(&ready, &["web", "db", "cache"]).await;
    let branch = &parent.spec.branch;
    world.start_traffic(&parent, "").await;
    let mut counts = Counts::new();
    for _ in 0..6 {
        counts = world.until_traffic_flows(&parent, &counts, 25).await;
        let cut = world.cut_and_hold(&parent).await;
        world.materialise_all(&cut).await;
        for node in world.host.observe(branch).await.unwrap().unwrap().nodes {
            let image = world.layout.flat_memory(&cut.report.commit, &node.name);
            memory::assert_same(node.pid.unwrap(), &image);
        }
        world.host.resume(branch, Clock::Step).await.unwrap();
    }
    world.check_traffic(&parent, "parent").await;
    world.end(&[&parent]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_datagram_is_lost_at_cuts_however_many_come() {
    let world = World::new();
    let ready = world.ready_state(shape(1, 256, 1)).await;
    let parent = world.cluster(&ready, &["web", "db"]).await;
    // Two thousand a second each way, or as many as a translated guest can send.
    world.start_traffic(&parent, "tcp-us=100000 udp-us=400").await;
    let mut counts = world.until_traffic_flows(&parent, &Counts::new(), 5).await;
    let (first, began) = (counts.clone(), Instant::now());
    let mut cut = world.cut_cluster(&parent).await;
    for _ in 1..10 {
        counts = world.until_traffic_flows(&parent, &counts, 5).await;
        cut = world.cut_cluster(&parent).await;
    }
    let datagrams = |counts: &Counts| -> u64 {
        let udp = counts.iter().filter(|((_, what), _)| what.starts_with("udp"));
        udp.map(|(_, counted)| counted.received).sum()
    };
    let rate = (datagrams(&counts) - datagrams(&first)) as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} datagrams a second, both ways");
    assert!(rate > 300.0, "that is no load");
    let child = world.new_child(&cut, &parent).await;
    world.start_all(&[&child]).await;
    world.until_traffic_flows(&child, &counts, 5).await;
    world.check_traffic(&child, "child").await;
    world.check_traffic(&parent, "parent").await;
    world.stop_all(&[&child]).await;
    world.end(&[&parent]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_are_cut_and_their_clocks_agree() {
    let world = World::new();
    let ready = world.ready_state(shape(1, 192, 1)).await;
    let parent = world.cluster(&ready, &["n1", "n2", "n3", "n4", "n5"]).await;
    world.start_traffic(&parent, "tcp-us=50000 udp-us=50000").await;
    let counts = world.until_traffic_flows(&parent, &Counts::new(), 20).await;
    let cut = world.cut_cluster(&parent).await;
    let child = world.new_child(&cut, &parent).await;
    world.start_all(&[&child]).await;
    for branch in [&parent, &child] {
        world.until_traffic_flows(branch, &counts, 20).await;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mut ahead = Vec::new();
            for node in &branch.spec.nodes {
                let capture = world.host.capture(&branch.spec.branch, &node.name, &[]);
                ahead.push(capture.await.unwrap().ahead_ns / 1_000_000);
            }
            println!("clocks ahead of the host's, in ms: {ahead:?}");
            // A machine that waits for a processor hears late what the time is, and is told again.
            if ahead.iter().all(|ms| ms.abs() < 500) {
                break;
            }
            assert!(Instant::now() < deadline, "{ahead:?}");
        }
    }
    world.check_traffic(&child, "child").await;
    world.check_traffic(&parent, "parent").await;
    world.stop_all(&[&child]).await;
    world.end(&[&parent]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_at_a_cut_harms_nobody() {
    let world = World::new();
    let ready = world.ready_state(shape(1, 256, 1)).await;
    let parent = world.cluster(&ready, &["web", "db", "cache"]).await;
    let branch = &parent.spec.branch;
    world.start_traffic(&parent, "").await;
    let counts = world.until_traffic_flows(&parent, &Counts::new(), 25).await;

    // A machine that does not answer.
    let observed = world.host.observe(branch).await.unwrap().unwrap();
    let db = observed.nodes.iter().find(|node| node.name.as_str() == "db").unwrap().pid.unwrap();
    signal(db, Signal::STOP);
    let mut spec = world.cluster_cut_spec(&parent, CommitKind::Full).await;
    spec.timeout = Duration::from_secs(4);
    let began = Instant::now();
    let refused = world.host.cut(branch, &spec, &Reporter::silent()).await.unwrap_err();
    println!("a machine that does not answer: {refused} ({:?})", began.elapsed());
    assert!(matches!(&refused, HostError::Machine { node, .. } if node == "db"), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(world.sh_on(&parent, "web", "echo on").await, "on\n");
    signal(db, Signal::CONT);
    world.until_traffic_flows(&parent, &counts, 25).await;
    let cut = world.cut_cluster(&parent).await;

    // A guest that does not read: with its interface down, nobody empties its receive queue.
    let stalled = world.new_child(&cut, &parent).await;
    world.start_all(&[&stalled]).await;
    world.sh_on(&stalled, "db", "ip link set eth0 down").await;
    let forever = "ip neigh replace 10.20.0.12 lladdr 52:54:00:00:02:00 dev eth0 nud permanent";
    world.sh_on(&stalled, "web", forever).await;
    world.sh_on(&stalled, "cache", forever).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let report = world.cut_cluster(&stalled).await.report;
        let ports = report.network.unwrap().stalled;
        if ports == [("db".parse().unwrap(), 0)] {
            break;
        }
        assert!(ports.is_empty() && Instant::now() < deadline, "{ports:?}");
    }
    world.check_frames(&stalled, "stalled").await;
    world.stop_all(&[&stalled]).await;

    // A machine that is dead.
    let node = "cache".parse().unwrap();
    world.check_traffic(&parent, "parent").await;
    world.sh_on(&parent, "cache", "echo kept > /root/note; sync").await;
    world.host.crash_node(branch, &node).await.unwrap();
    world.host.crash_node(branch, &node).await.unwrap();
    let refused = world.try_cut_cluster(&parent).await.unwrap_err();
    assert!(matches!(&refused, HostError::NodeDown { node } if node == "cache"), "{refused:?}");
    let observed = world.host.observe(branch).await.unwrap().unwrap();
    assert_eq!(observed.state, BranchState::Running);
    assert_eq!(observed.nodes[2].state, BranchState::Stopped);
    assert_eq!(world.answers(&parent, "web", "10.20.0.13").await, 0);

    let began = Instant::now();
    world.host.boot_node(branch, &node, Duration::from_secs(60)).await.unwrap();
    println!("boot_node: {:?}", began.elapsed());
    world.host.boot_node(branch, &node, Duration::from_secs(60)).await.unwrap();
    assert_eq!(world.sh_on(&parent, "cache", "cat /root/note; hostname").await, "kept\ncache\n");
    assert_eq!(world.answers(&parent, "web", "10.20.0.13").await, 3);
    world.cut_cluster(&parent).await;

    // All machines dead: the branch goes on, and so do its nodes.
    for node in &parent.spec.nodes {
        world.host.crash_node(branch, &node.name).await.unwrap();
    }
    assert_eq!(world.host.observe(branch).await.unwrap().unwrap().state, BranchState::Stopped);
    world.host.boot_node(branch, &node, Duration::from_secs(60)).await.unwrap();
    assert_eq!(world.sh_on(&parent, "cache", "cat /root/note").await, "kept\n");

    // A keeper that is killed in the middle.
    let observed = world.host.observe(branch).await.unwrap().unwrap();
    for node in ["web", "db"] {
        let node = node.parse().unwrap();
        world.host.boot_node(branch, &node, Duration::from_secs(60)).await.unwrap();
    }
    let cutting = world.try_cut_cluster(&parent);
    let kill = async {
        tokio::time::sleep(Duration::from_millis(60)).await;
        common::kill(observed.keeper_pid);
    };
    let (killed, ()) = tokio::join!(cutting, kill);
    println!("a keeper that is killed: {killed:?}");
    world.host.stop(branch, StopMode::Kill).await.unwrap();
    world.end(&[&parent]).await;
}

/// Returns the median and the largest of some times, in milliseconds.
fn summary(times_us: &[u64]) -> (f64, f64) {
    let mut sorted = times_us.to_vec();
    sorted.sort_unstable();
    let ms = |us: u64| us as f64 / 1000.0;
    (ms(sorted[sorted.len() / 2]), ms(*sorted.last().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_short_however_much_was_changed() {
    const SAMPLES: usize = 3;
    let world = World::new();
    let ready = world.ready_state(shape(1, 256, 1)).await;
    let names = ["web", "db", "cache"];
    let parent = world.cluster(&ready, &names).await;
    let mut medians = Vec::new();
    for mib in [0, 20, 100] {
        let fill = format!("head -c {mib}M /dev/urandom > /dev/shm/fill");
        let (mut pauses, mut restores) = (Vec::new(), Vec::new());
        for _ in 0..SAMPLES {
            for node in names {
                world.sh_on(&parent, node, &fill).await;
            }
            let cut = world.cut_cluster(&parent).await;
            pauses.push(cut.report.pause_us);
            let child = world.new_child(&cut, &parent).await;
            let began = Instant::now();
            world.host.pause(&parent.spec.branch).await.unwrap();
            world.start_all(&[&child]).await;
            let [a, b, c] = names.map(|node| world.sh_on(&child, node, "true"));
            tokio::join!(a, b, c);
            restores.push(u64::try_from(began.elapsed().as_micros()).unwrap());
            world.stop_all(&[&child]).await;
            let clock = Clock::Step;
            world.host.resume(&parent.spec.branch, clock).await.unwrap();
        }
        let (pause, worst) = summary(&pauses);
        let (restore, slowest) = summary(&restores);
        println!(
            "three nodes, {mib} MiB each: pause {pause} ms (worst {worst}), \
             branch to exec on all {restore} ms (worst {slowest})"
        );
        medians.push(pause);
    }
    // Elsewhere all that was changed is read in the pause.
    if pando_delta::tracking::try_out().is_ok() {
        assert!(medians[2] < 2.0 * medians[0] + 10.0, "{medians:?}");
    }
    world.end(&[&parent]).await;
}

#[test]
fn a_full_disk_at_a_cut_harms_nobody() {
    with_own_mounts("a_full_disk_at_a_cut_harms_nobody", async {
        let world = World::new();
        let ready = world.ready_state(shape(1, 256, 1)).await;
        let parent = world.cluster(&ready, &["web", "db"]).await;
        let branch = &parent.spec.branch;
        world.start_traffic(&parent, "").await;
        let mut counts = world.until_traffic_flows(&parent, &Counts::new(), 25).await;
        let spool = world.layout.branch(branch).join("spool");
        std::fs::create_dir_all(&spool).unwrap();
        let spool = spool.to_str().unwrap();
        // Too small for device states, which are written while the guests stand still; too small for
        // their memory, which is written afterwards.
        for size in ["size=64k", "size=3m"] {
            run("mount", &["-t", "tmpfs", "-o", size, "tmpfs", spool]);
            let spec = world.cluster_cut_spec(&parent, CommitKind::Full).await;
            let cut = world.host.cut(branch, &spec, &Reporter::silent()).await;
            println!("{size}: {cut:?}");
            assert!(cut.is_err() || cut.is_ok_and(|report| report.failed.is_some()));
            let adopted = world.host.adopt_cut(branch, &spec.commit).await.unwrap();
            assert!(adopted.is_none_or(|report| report.failed.is_some()));
            counts = world.until_traffic_flows(&parent, &counts, 25).await;
            // QEMU keeps a state file open that it could not write whole.
            run("umount", &["-l", spool]);
        }
        let cut = world.cut_cluster(&parent).await;
        let child = world.new_child(&cut, &parent).await;
        world.start_all(&[&child]).await;
        world.until_traffic_flows(&child, &counts, 25).await;
        world.check_traffic(&child, "child").await;
        world.check_traffic(&parent, "parent").await;
        world.stop_all(&[&child]).await;
        world.end(&[&parent]).await;
    });
}
