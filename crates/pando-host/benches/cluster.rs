//! What a cluster's network costs its guests, and what cuts do to it under load, on real machines:
//! `cargo build --release -p pando-host --examples && cargo bench -p pando-host --bench cluster`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement that cannot be taken ends here"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::cluster::{ClusterCut, Counts, shape};
use common::{Branch, World};

/// How long a rate is measured.
const MEASURED: Duration = Duration::from_secs(8);
/// How long a connection takes to come to its rate.
const WARM_UP: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
const CUTS: usize = 100;
/// A child is made of every so many cuts.
const CHILD_EACH: usize = 20;
/// What carries the bytes, for the keeper of this package's examples.
const NETWORK: &str = "PANDO_BENCH_NETWORK";
const BLOCK_BITS: f64 = (64 << 10) as f64 * 8.0;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if std::env::var_os(NETWORK).is_some() {
        println!("{}", runtime.block_on(rate()));
        return;
    }
    if std::env::args().nth(1).as_deref() != Some("cuts") {
        rates();
    }
    runtime.block_on(cuts());
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

async fn pair(world: &World) -> (ClusterCut, Branch) {
    let ready = world.ready_state(shape(1, 256, 1)).await;
    let branch = world.cluster(&ready, &["web", "db"]).await;
    (ready, branch)
}

/// Returns the rate of one TCP connection from guest to guest, in Mbit/s.
async fn rate() -> f64 {
    let world = World::new();
    let (_, branch) = pair(&world).await;
    world.start_one_way(&branch, "web", "db").await;
    tokio::time::sleep(WARM_UP).await;
    let taken = async || {
        let counts = world.counts(&branch).await;
        (counts[&("db".to_owned(), "bulk:web".to_owned())].received, Instant::now())
    };
    let (before, began) = taken().await;
    tokio::time::sleep(MEASURED).await;
    let (after, ended) = taken().await;
    world.end(&[&branch]).await;
    (after - before) as f64 * BLOCK_BITS / ended.duration_since(began).as_secs_f64() / 1e6
}

/// Measures each network in a process of its own, in turn.
fn rates() {
    const NETWORKS: [&str; 3] = ["wire", "relay", "switch"];
    let mut samples = [const { Vec::new() }; NETWORKS.len()];
    for _ in 0..ROUNDS {
        for (network, samples) in NETWORKS.iter().zip(&mut samples) {
            let mut measure = Command::new(std::env::current_exe().unwrap());
            let output = measure.env(NETWORK, network).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).unwrap();
            samples.push(text.lines().last().unwrap().parse().unwrap());
        }
    }
    println!("TCP from guest to guest, median of {ROUNDS}:");
    for (network, samples) in NETWORKS.iter().zip(&samples) {
        println!("  {network:7} {:7.1} Mbit/s  {samples:.0?}", median(samples));
    }
    let [wire, relay, switch] = samples.map(|samples| median(&samples));
    println!(
        "  the switch carries {:.3} of the relay, {:.3} of the wire",
        switch / relay,
        switch / wire
    );
}

/// Cuts a cluster again and again under load, and looks after every stream, here and in children.
async fn cuts() {
    let world = World::new();
    let (_, parent) = pair(&world).await;
    world.start_bulk(&parent, "").await;
    let mut counts = world.until_traffic_flows(&parent, &Counts::new(), 20).await;
    let mut pauses = Vec::new();
    for number in 1..=CUTS {
        let cut = world.cut_cluster(&parent).await;
        pauses.push(cut.report.pause_us as f64 / 1000.0);
        counts = world.until_traffic_flows(&parent, &counts, 5).await;
        if number % CHILD_EACH == 0 {
            let child = world.new_child(&cut, &parent).await;
            world.start_all(&[&child]).await;
            world.until_traffic_flows(&child, &counts, 1).await;
            world.check_traffic(&child, "child").await;
            world.stop_all(&[&child]).await;
        }
    }
    world.check_traffic(&parent, "parent").await;
    world.end(&[&parent]).await;
    let most = pauses.iter().copied().fold(0.0, f64::max);
    println!("{CUTS} cuts under bulk load: no reset, gap or duplicate on any TCP stream;");
    println!("  pause {:.1} ms, {most:.1} ms at most", median(&pauses));
}
