//! Kill -9 of the daemon while it does something to all nodes of a cluster: all of them are there, or
//! none, and what one of them holds the others hold, too.

use serde_json::{Value, json};

use crate::kills::at_instants;
use crate::support::{Home, until};

const INSTANTS: u32 = 5;

const PAIR: &str = "name: pair
image: default
network: {name: lan, subnet: 10.9.0.0/24}
nodes:
  - {name: a, memory: 256 MiB}
  - {name: b, memory: 256 MiB}
";

const START: [&str; 3] = ["cluster", "start", "pair"];
const DESTROY: [&str; 4] = ["cluster", "destroy", "pair", "--remove-overlays"];

fn define(home: &Home) {
    home.define(PAIR);
}

/// Writes a word to the memory and the disk of both nodes.
fn write(home: &Home, word: &str) {
    let line = format!("echo {word} | tee /dev/shm/state >/srv/state");
    home.ok(&["node", "exec-all", "pair@main", &line]);
}

/// Returns the word, which both nodes hold, in memory and on disk.
fn read(home: &Home, address: &str) -> String {
    let read = home.ok(&["node", "exec-all", address, "cat /dev/shm/state /srv/state"]);
    let said = ["a", "b"].map(|node| read["results"][node]["stdout"].as_str().unwrap().to_owned());
    let words: Vec<&str> = said.iter().flat_map(|said| said.lines()).collect();
    assert!(words.len() == 4 && words.iter().all(|word| *word == words[0]), "{words:?}");
    words[0].to_owned()
}

/// Asserts that the nodes of a branch reach one another, once they have found the time to answer.
fn assert_connected(home: &Home, address: &str) {
    until("all reach one another", || {
        let probed = home.ok(&["net", "probe", address]);
        (probed["unreachable"] == 0 && probed["unknown"] == 0).then_some(())
    });
}

fn of_cluster(home: &Home, verb: &str, list: &str) -> Vec<Value> {
    home.ok(&[verb, "pair"])[list].as_array().unwrap().clone()
}

#[test]
fn a_daemon_killed_while_a_cluster_starts_or_goes_leaves_all_of_it_or_nothing() {
    let home = Home::new();
    define(&home);
    at_instants(
        INSTANTS,
        &home,
        || drop(home.ok(&START)),
        |struck| {
            home.ok(&DESTROY);
            define(&home);
            if struck.call(&START).is_none() {
                home.ok(&START);
            }
            assert_connected(&home, "pair@main");
        },
    );
    at_instants(
        INSTANTS,
        &home,
        || drop(home.ok(&DESTROY)),
        |struck| {
            define(&home);
            home.ok(&START);
            write(&home, "kept");
            if struck.call(&DESTROY).is_none() {
                assert_eq!(read(&home, "pair@main"), "kept");
                home.ok(&DESTROY);
            }
            assert_eq!(home.ok(&["cluster", "list"])["clusters"], json!([]));
        },
    );
    home.assert_nothing_left();
}

#[test]
fn a_daemon_killed_amid_the_history_of_a_cluster_leaves_the_old_state_or_the_new_on_all_nodes() {
    let home = Home::new();
    define(&home);
    home.ok(&START);
    write(&home, "one");
    home.ok(&["commit", "pair", "-t", "v1"]);

    let commits = || of_cluster(&home, "log", "commits").len();
    at_instants(
        INSTANTS,
        &home,
        || drop(home.ok(&["commit", "pair"])),
        |struck| {
            let known = commits();
            let made = struck.call(&["commit", "pair"]);
            assert_eq!(commits(), known + usize::from(made.is_some()), "{made:?}");
            assert_connected(&home, "pair@main");
        },
    );

    let two = ["branch", "pair@v1", "-n", "2"];
    let branches = || of_cluster(&home, "branches", "branches");
    at_instants(
        INSTANTS,
        &home,
        || drop(home.ok(&two)),
        |struck| {
            for branch in branches().iter().filter(|branch| branch["address"] != "pair@main") {
                home.ok(&["rm", branch["address"].as_str().unwrap(), "--force"]);
            }
            let made = struck.call(&two).map_or(0, |made| made["succeeded"].as_u64().unwrap());
            assert_eq!(branches().len() as u64, 1 + made);
            for branch in branches() {
                let address = branch["address"].as_str().unwrap();
                assert_eq!(read(&home, address), "one");
                assert_connected(&home, address);
            }
        },
    );

    let back = ["rollback", "pair@main", "v1"];
    at_instants(
        INSTANTS,
        &home,
        || drop(home.ok(&back)),
        |struck| {
            write(&home, "two");
            let state = if struck.call(&back).is_some() { "one" } else { "two" };
            assert_eq!(read(&home, "pair@main"), state);
            assert_connected(&home, "pair@main");
        },
    );
    home.assert_nothing_left();
}
