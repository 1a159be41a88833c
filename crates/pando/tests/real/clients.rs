//! Clients that work against one another, or go away.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Home, envelope, finish, text};

/// Rounds of each race.
const ROUNDS: usize = 6;

#[test]
fn opposite_wishes_for_one_branch_are_done_one_by_one_or_refused() {
    let home = Home::with_shop();
    let before = home.guest("shop");
    home.sh("shop", "echo one >/srv/state");
    home.ok(&["commit", "shop", "-t", "v1"]);
    let others: [&[&str]; 4] = [
        &["exec", "shop@main", "-n", "-c", "cat /srv/state"],
        &["commit", "shop@main"],
        &["rollback", "shop@main", "v1", "--no-save"],
        &["branch", "shop@main", "-n", "1"],
    ];
    for round in 0..ROUNDS {
        let back = home.spawn(&["rollback", "shop@main", "v1", "--json"]);
        let racing: Vec<_> = others
            .iter()
            .cycle()
            .skip(round)
            .take(2)
            .map(|other| home.spawn(&[&["--json"], *other].concat()))
            .collect();
        for child in racing.into_iter().chain([back]) {
            let envelope = envelope(&finish(child));
            if envelope["success"] != true {
                let code = text(&envelope["error"], "code");
                let fair =
                    ["busy", "wrong_state", "guest_unreachable", "keeper_lost", "machine_failed"];
                assert!(fair.contains(&code), "{envelope:#}\n{}", home.log());
                assert!(envelope["error"]["hint"].is_string(), "{envelope}");
            }
        }
        home.assert_consistent();
        assert_eq!(home.sh("shop@main", "cat /srv/state"), "one");
        home.assert_goes_on("shop@main", &before);
    }
    home.assert_nothing_left();
}

#[test]
fn a_machine_that_is_deleted_while_others_use_it_goes_whole() {
    let home = Home::new();
    for _ in 0..ROUNDS / 2 {
        home.create_shop();
        let users: [&[&str]; 3] = [
            &["commit", "shop"],
            &["branch", "shop", "-n", "2"],
            &["exec", "shop", "-n", "--", "sleep", "1"],
        ];
        let mut racing: Vec<_> = Vec::new();
        for user in users {
            racing.push(home.spawn(&[&["--json"], user].concat()));
        }
        racing.push(home.spawn(&["rm", "shop", "--force", "--disks", "--json"]));
        let ended: Vec<Value> = racing.into_iter().map(|child| envelope(&finish(child))).collect();
        for one in ended.iter().filter(|one| one["success"] != true) {
            let code = text(&one["error"], "code");
            let fair = [
                "busy",
                "wrong_state",
                "not_found",
                "guest_unreachable",
                "keeper_lost",
                "machine_failed",
            ];
            assert!(fair.contains(&code), "{one:#}\n{}", home.log());
        }
        if ended.last().unwrap()["success"] != true {
            home.remove("shop");
        }
        home.assert_consistent();
        assert_eq!(home.ok(&["vm", "list"])["total"], 0);
    }
    home.assert_nothing_left();
}

#[test]
fn what_a_client_began_ends_without_it() {
    let home = Home::with_shop();
    for (arguments, verb) in [
        (vec!["commit", "shop"], "commit_create"),
        (vec!["branch", "shop", "-n", "2"], "branch_create"),
    ] {
        for after in [0, 20, 100, 300] {
            let mut client = home.spawn(&arguments);
            std::thread::sleep(Duration::from_millis(after));
            client.kill().unwrap();
            client.wait().unwrap();
            home.assert_consistent();
        }
        let list = home.ok(&["operation", "list", "--verb", verb]);
        let all = list["operations"].as_array().unwrap();
        assert!(!all.is_empty(), "no client came far enough");
        for operation in all {
            assert_eq!(operation["status"], "succeeded", "{operation:#}");
        }
    }
    home.assert_nothing_left();
}
