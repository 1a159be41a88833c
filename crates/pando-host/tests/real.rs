//! The host and its keepers on real machines: booted from the shared default image, cut, branched,
//! rebooted, and gone without a trace.

mod common;

use std::time::{Duration, Instant};

use common::World;
use pando_driver::BranchHost;
use pando_driver::host::{AfterStart, Clock, NodeStart, StopMode};
use pando_driver::progress::Reporter;
use pando_model::BranchState;
use pando_model::commit::CommitKind;

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_branches_into_a_child_and_a_grandchild() {
    let world = World::new();
    let main = world.boot("main").await;
    assert_eq!(world.sh(&main, "uname -s").await.trim(), "Linux");
    world.sh(&main, "echo disk > /root/note; echo memory > /dev/shm/note; sync").await;

    let commit = world.cut(&main, CommitKind::Full).await;
    world.sh(&main, "echo changed > /root/note; echo changed > /dev/shm/note").await;
    let child = world.branch(&commit, AfterStart::Run).await;
    assert_eq!(world.sh(&child, "cat /root/note /dev/shm/note").await, "disk\nmemory\n");
    assert_eq!(world.sh(&main, "cat /root/note /dev/shm/note").await, "changed\nchanged\n");

    world.sh(&child, "head -c 8000000 /dev/zero | tr '\\0' x > /dev/shm/big").await;
    let filled = world.cut(&child, CommitKind::Full).await;
    world.sh(&child, "head -c 8000000 /dev/zero > /dev/shm/big").await;
    let zeroed = world.cut(&child, CommitKind::Full).await;
    let grandchild = world.branch(&zeroed, AfterStart::Run).await;
    let sum = "tr -d '\\0' < /dev/shm/big | wc -c";
    assert_eq!(world.sh(&grandchild, sum).await.trim(), "0", "zeroed pages stay zero");
    let other = world.branch(&filled, AfterStart::Run).await;
    assert_eq!(world.sh(&other, sum).await.trim(), "8000000");

    for branch in [&main, &child, &grandchild, &other] {
        world.host.stop(&branch.spec.branch, StopMode::Kill).await.unwrap();
        assert_eq!(world.host.observe(&branch.spec.branch).await.unwrap(), None);
        world.host.discard_branch(&branch.spec.branch).await.unwrap();
    }
    world.assert_nothing_runs();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_reboots_comes_back_on_its_disk() {
    let world = World::new();
    let main = world.boot("main").await;
    let first = world.sh(&main, "cat /proc/sys/kernel/random/boot_id").await;
    world.sh(&main, "echo kept > /root/note; sync").await;
    let commit = world.cut(&main, CommitKind::Full).await;
    let child = world.branch(&commit, AfterStart::Run).await;
    world.detach(&child, "systemctl reboot").await;
    let second = world.until_boot_changes(&child, &first).await;
    assert_ne!(first, second);
    assert_eq!(world.sh(&child, "cat /root/note").await.trim(), "kept");
    let again = world.cut(&child, CommitKind::Full).await;
    let grandchild = world.branch(&again, AfterStart::Run).await;
    assert_eq!(world.sh(&grandchild, "cat /proc/sys/kernel/random/boot_id").await, second);
    assert_eq!(world.sh(&main, "cat /proc/sys/kernel/random/boot_id").await, first);
    world.end(&[&main, &child, &grandchild]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_made_paused_answers_once_it_is_resumed_and_after_a_pause_amid_its_reboot() {
    let world = World::new();
    let main = world.boot("main").await;
    world.sh(&main, "echo memory > /dev/shm/note").await;
    let commit = world.cut(&main, CommitKind::Full).await;
    world.end(&[&main]).await;
    let held = world.held_branch(&commit).await;
    let branch = &held.spec.branch;
    let observed = world.host.observe(branch).await.unwrap().unwrap();
    assert_eq!((observed.state, observed.nodes[0].answers), (BranchState::Paused, false));
    world.host.facts(branch, &"db".parse().unwrap()).await.unwrap_err();

    world.host.resume(branch, Clock::Step).await.unwrap();
    let observed = world.host.observe(branch).await.unwrap().unwrap();
    assert_eq!((observed.state, observed.nodes[0].answers), (BranchState::Running, true));
    assert_eq!(world.sh(&held, "cat /dev/shm/note").await, "memory\n");
    world.host.pause(branch).await.unwrap();
    world.host.resume(branch, Clock::Step).await.unwrap();
    let first = world.sh(&held, "cat /proc/sys/kernel/random/boot_id").await;

    world.detach(&held, "systemctl reboot").await;
    let machine = observed.nodes[0].pid;
    let deadline = Instant::now() + Duration::from_secs(60);
    while world.host.observe(branch).await.unwrap().unwrap().nodes[0].pid == machine {
        assert!(Instant::now() < deadline, "it does not reboot");
    }
    world.host.pause(branch).await.unwrap();
    world.host.resume(branch, Clock::Step).await.unwrap();
    world.until_boot_changes(&held, &first).await;
    world.end(&[&held]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_cannot_work_leaves_nothing() {
    let world = World::new();
    let mut branch = world.new_branch("broken", NodeStart::Boot).await;
    branch.spec.nodes[0].image = pando_model::ImageId::random();
    let started = world.host.start(&branch.spec, &Reporter::silent()).await;
    assert!(started.is_err());
    assert_eq!(world.host.observe(&branch.spec.branch).await.unwrap(), None);
    world.assert_nothing_runs();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_whose_client_vanishes_is_adopted_by_the_next_host() {
    let world = World::new();
    let main = world.boot("main").await;
    world.sh(&main, "echo before > /dev/shm/note").await;
    let spec = world.cut_spec(&main, CommitKind::Full).await;
    {
        let silent = Reporter::silent();
        let cut = world.host.cut(&main.spec.branch, &spec, &silent);
        // Long enough for the request to be on its way, too short for the cut to end.
        let gave_up = tokio::time::timeout(Duration::from_millis(15), cut).await;
        assert!(gave_up.is_err(), "the cut was over before its client could vanish");
    }
    let next = world.another_host();
    let report = next.adopt_cut(&main.spec.branch, &spec.commit).await.unwrap().unwrap();
    assert_eq!(report.failed, None);
    assert_eq!(world.sh(&main, "cat /dev/shm/note").await, "before\n", "the guest went on");
    let cut = world.cut_from(report);
    let child = world.branch(&cut, AfterStart::Run).await;
    assert_eq!(world.sh(&child, "cat /dev/shm/note").await, "before\n");
    world.end(&[&main, &child]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_killed_during_a_cut_takes_its_machines_along_and_loses_no_disk() {
    let world = World::new();
    let mut main = world.boot("main").await;
    for (round, delay_ms) in [0u64, 8, 40, 120].into_iter().enumerate() {
        world.sh(&main, &format!("echo {round} > /root/round; sync")).await;
        let observed = world.host.observe(&main.spec.branch).await.unwrap().unwrap();
        let spec = world.cut_spec(&main, CommitKind::Full).await;
        let silent = Reporter::silent();
        let cut = world.host.cut(&main.spec.branch, &spec, &silent);
        let kill = async {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            common::kill(observed.keeper_pid);
        };
        let (result, ()) = tokio::join!(cut, kill);
        world.until_gone(observed.nodes[0].pid.unwrap()).await;
        assert_eq!(world.host.observe(&main.spec.branch).await.unwrap(), None);

        let adopted = world.host.adopt_cut(&main.spec.branch, &spec.commit).await.unwrap();
        println!("killed after {delay_ms} ms: {result:?} → {adopted:?}");
        let durable = adopted.as_ref().is_some_and(|report| report.failed.is_none());
        assert_eq!(world.layout.commit(&spec.commit).exists(), durable);
        if let Ok(report) = &result {
            assert_eq!(Some(report), adopted.as_ref(), "what was acknowledged is there");
        }
        let node = &mut main.spec.nodes[0];
        node.layers.root = match &adopted {
            Some(_) => spec.nodes[0].next.root.clone(),
            None => observed.nodes[0].layers.root.clone(),
        };
        main.spec.generation += 1;
        world.host.start(&main.spec, &Reporter::silent()).await.unwrap();
        assert_eq!(world.sh(&main, "cat /root/round").await.trim(), round.to_string());
    }
    world.end(&[&main]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_killed_ends_its_keeper_and_says_why() {
    let world = World::new();
    let main = world.boot("main").await;
    let observed = world.host.observe(&main.spec.branch).await.unwrap().unwrap();
    common::kill(observed.nodes[0].pid.unwrap());
    world.until_gone(observed.keeper_pid).await;
    assert_eq!(world.host.observe(&main.spec.branch).await.unwrap(), None);
    let why = std::fs::read_to_string(world.layout.branch(&main.spec.branch).join("ended.json"));
    assert!(why.unwrap().contains("crashed"));
    world.end(&[&main]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_state_becomes_nodes_with_identities_of_their_own() {
    let world = World::new();
    let template = world.boot("template").await;
    let wait = Duration::from_secs(60);
    let db = "db".parse().unwrap();
    world.host.make_anonymous(&template.spec.branch, &db, wait).await.unwrap();
    let ready = world.cut(&template, CommitKind::Full).await;
    world.end(&[&template]).await;

    let keys = world.ssh_keys();
    for name in ["one", "two"] {
        let identity = world.identity(name, &keys);
        let node = world.branch_as(&ready, identity).await;
        assert_eq!(world.sh(&node, "hostname").await.trim(), name);
        let facts = world.host.facts(&node.spec.branch, &db).await.unwrap();
        assert_eq!(facts.hostname, name);
        // Its kernel adds an IPv6 link-local address when it gets to it.
        assert_eq!(facts.interfaces[0].addresses[0], "10.0.2.15/24");
        assert_eq!(world.sh(&node, "cat /etc/machine-id").await.trim(), keys.machine_id(name));
        assert_eq!(world.sh(&node, "echo $COLOUR").await.trim(), "green");

        let port = world.host.forward(&node.spec.branch, &db, 22, None).await.unwrap();
        assert_eq!(world.host.forward(&node.spec.branch, &db, 22, None).await.unwrap(), port);
        assert_eq!(keys.ssh(port, "hostname").await.trim(), name);
        world.end(&[&node]).await;
    }
}
