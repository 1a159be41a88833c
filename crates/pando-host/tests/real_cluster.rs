//! Clusters of real machines on one switch: cuts under traffic, and what can go wrong at one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::World;
use common::cluster::{Counts, shape};

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
