//! What each verb does when nothing goes wrong, and what it refuses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Bench, config};
use pando_driver::sim::SimWorld;
use pando_engine::{Drivers, Engine};
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn a_machine_is_committed_branched_and_rolled_back_with_its_memory() {
    let bench = Bench::new().await;
    let created = bench.ok("vm_create", json!({"name": "shop"})).await;
    assert_eq!(created["state"], "running");
    assert_eq!(created["warm"], true);
    assert_eq!(bench.mem("shop", "hostname").await, "shop");

    bench.exec("shop", "set-mem price 1").await;
    let commit = bench.ok("commit_create", json!({"branch": "shop", "tag": "v1"})).await;
    bench.exec("shop", "set-mem price 2").await;
    let made = bench.ok("branch_create", json!({"from": "shop@v1", "count": 3})).await;
    assert_eq!(made["succeeded"], 3);
    for branch in made["branches"].as_array().unwrap() {
        let address = branch["address"].as_str().unwrap();
        assert_eq!(bench.mem(address, "price").await, "1");
        bench.exec(address, "set-mem price 3").await;
    }
    assert_eq!(bench.mem("shop@main", "price").await, "2");

    let back = bench.ok("branch_rollback", json!({"branch": "shop", "target": "v1"})).await;
    assert_eq!(back["rolled_back_to"], commit["commit_id"]);
    assert_eq!(bench.mem("shop@main", "price").await, "1");
    let saved = back["saved_as"].as_str().unwrap();
    bench.ok("branch_create", json!({"from": saved, "name": "saved"})).await;
    assert_eq!(bench.mem("shop@saved", "price").await, "2");
    bench.assert_consistent("journey").await;

    let refused = bench.fails("vm_delete", json!({"name": "shop", "remove_overlays": true})).await;
    assert_eq!(refused.code.as_str(), "in_use");
    bench.ok("vm_delete", json!({"name": "shop", "remove_overlays": true, "force": true})).await;
    assert_eq!(bench.ok("vm_list", json!({})).await["total"], 0);
    bench.assert_consistent("after the end").await;
}

/// A database that was lost, or never there: images say themselves what they are. One that only a
/// crash can have left is not taken up.
#[tokio::test(start_paused = true)]
async fn images_are_taken_up_by_a_new_database_and_by_no_other() {
    let bench = Bench::new().await;
    let image = bench.ok("image_show", json!({"image": "default"})).await;
    let (images, fresh) = (bench.world.connect(), SimWorld::new());
    let home = tempfile::tempdir().unwrap();
    let start = async || {
        let connection = fresh.connect();
        let drivers = Drivers {
            host: connection.host(),
            images: images.images(),
            store: connection.store(),
            journal: connection.journal(),
        };
        let engine = Engine::start(drivers, config(home.path())).await.unwrap();
        let (world, caller) = (fresh.clone(), bench.caller.clone());
        Bench { world, engine, home: tempfile::tempdir().unwrap(), caller }
    };
    let other = start().await;
    assert_eq!(other.ok("image_show", json!({"image": "default"})).await, image);

    bench.ok("image_build", json!({"name": "later", "packages": ["nginx"]})).await;
    let again = start().await;
    assert_eq!(again.ok("image_list", json!({})).await["total"], 1);
}
