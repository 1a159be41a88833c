//! `pando demo` as whoever tries pando sees it: three nodes of etcd, from Debian's package, that
//! are committed, branched, broken and rolled back. It must tell the truth, and leave nothing.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

#[allow(dead_code, unused_imports, reason = "other journeys use the rest")]
mod real {
    pub mod support;
}

use std::time::Duration;

use serde_json::{Value, json};

use crate::real::support::{Base, Home, envelope, finish_within};

/// Fifteen machines under translation on a busy host, with elections among them.
const DEADLINE: Duration = Duration::from_secs(540);

/// Returns who leads among these members, in which term; exactly one of them does.
fn leader(members: &Value) -> (String, u64) {
    let members = members.as_array().unwrap();
    let mut leading = members.iter().filter(|member| member["leads"] == true);
    let (Some(one), None) = (leading.next(), leading.next()) else { panic!("{members:#?}") };
    (one["node"].as_str().unwrap().to_owned(), one["term"].as_u64().unwrap())
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no {field} in {value:#}"))
}

#[test]
fn the_demo_of_a_cluster_tells_the_truth_and_leaves_nothing() {
    let home = Home::on(Base::Etcd);
    let told = finish_within(home.spawn(&["demo", "--json"]), DEADLINE);
    let mut told = envelope(&told);
    assert_eq!(told["success"], true, "{told:#}\n{}", home.log());
    let told = told["result"].take();
    println!("{told:#}");
    let seen = &told["seen"];

    // The cut changes nothing in the branch that it is taken of.
    let before = leader(&seen["before_commit"]);
    assert_eq!(leader(&seen["after_commit"]), before, "{seen:#}");

    let branches = seen["branches"].as_array().unwrap();
    let names: Vec<&Value> = branches.iter().map(|branch| &branch["branch"]).collect();
    assert_eq!(names, ["alone", "cut-off", "slowed"]);
    for branch in branches {
        let (acknowledged, stored) = (number(branch, "acknowledged"), number(branch, "stored"));
        assert!(acknowledged > 0 && stored >= acknowledged, "{branch:#}");
    }
    let [alone, cut_off, slowed] = branches.as_slice() else { panic!("{branches:#?}") };

    // Who is left alone does not notice: the same leader in the same term, and writes go on.
    assert_eq!(leader(&alone["members"]), before, "{alone:#}");
    assert!(number(alone, "written") > 0, "{alone:#}");
    // The client's node is alone: nothing is acknowledged there, and the others have a leader.
    assert_eq!((number(cut_off, "written"), &cut_off["trip_ms"]), (0, &Value::Null), "{cut_off:#}");
    let others = json!(cut_off["members"].as_array().unwrap()[1..]);
    assert_ne!(leader(&others).0, "etcd-1", "{cut_off:#}");
    assert!(slowed["trip_ms"].as_f64().unwrap() >= 180.0, "{slowed:#}");

    // The diff is of the clusters: one fault, on one side, and who is not reached because of it.
    let between = &seen["diff"]["cluster"];
    assert_eq!((number(between, "faults_differ"), number(between, "faults_on_both")), (1, 0));
    assert_eq!(between["faults"][0]["fault_type"], "partition", "{between:#}");
    let shown = seen["diff"]["highlights"].to_string();
    assert!(shown.contains("only on demo@cut-off"), "{shown}");
    assert!(shown.contains("reachability etcd-1>etcd-2 yes"), "{shown}");

    assert!(number(&seen["after_rollback"], "written") > 0, "{seen:#}");
    assert_eq!(home.ok(&["vm", "list"])["vms"], json!([]));
    home.assert_nothing_left();
}
