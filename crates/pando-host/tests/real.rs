//! The host and its keepers on real machines: booted from the shared default image, cut, branched,
//! rebooted, and gone without a trace.

mod common;

use common::World;
use pando_driver::BranchHost;
use pando_driver::host::{AfterStart, NodeStart, StopMode};
use pando_driver::progress::Reporter;
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
async fn a_start_that_cannot_work_leaves_nothing() {
    let world = World::new();
    let mut branch = world.new_branch("broken", NodeStart::Boot).await;
    branch.spec.nodes[0].image = pando_model::ImageId::random();
    let started = world.host.start(&branch.spec, &Reporter::silent()).await;
    assert!(started.is_err());
    assert_eq!(world.host.observe(&branch.spec.branch).await.unwrap(), None);
    world.assert_nothing_runs();
}
