//! What the README shows a newcomer, and the same without any rights.

use serde_json::{Value, json};

use crate::support::{Home, text};

fn addresses(result: &Value) -> Vec<String> {
    let branches = result["branches"].as_array().unwrap();
    branches.iter().map(|branch| text(branch, "address").to_owned()).collect()
}

#[test]
fn a_machine_is_created_worked_in_committed_branched_rolled_back_and_deleted() {
    let home = Home::with_shop();
    let created = home.ok(&["vm", "status", "shop"]);
    assert_eq!(created["vms"][0]["state"].as_str().or(created["state"].as_str()), Some("running"));

    // What a command is given and gives back.
    let run = home.ok(&[
        "exec",
        "shop",
        "-n",
        "-e",
        "A=1 2",
        "-w",
        "/etc",
        "-c",
        "echo $A $PWD; echo no >&2; hostname",
    ]);
    assert_eq!(run["stdout"], "1 2 /etc\nshop\n");
    assert_eq!((&run["stderr"], &run["exit_code"]), (&json!("no\n"), &json!(0)));
    assert_eq!(
        home.run(&["exec", "shop", "-n", "--", "sh", "-c", "exit 7"]).status.code(),
        Some(7)
    );
    assert_eq!(home.run(&["exec", "shop", "-n", "-c", "kill -TERM $$"]).status.code(), Some(143));

    // Files, with their modes, and back.
    let (file, back) = (home.path().with_extension("in"), home.path().with_extension("out"));
    let contents: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&file, &contents).unwrap();
    let (file, back) = (file.to_str().unwrap(), back.to_str().unwrap());
    home.ok(&["cp", "--mode", "640", "--parents", file, "shop:/srv/new/data"]);
    assert_eq!(home.sh("shop", "stat -c '%a %U %s' /srv/new/data"), "640 root 1200000");
    home.ok(&["cp", "shop:/srv/new/data", back]);
    assert!(std::fs::read(back).unwrap() == contents);

    // A commit holds memory and disk; its tag names it.
    home.sh("shop", "echo one >/srv/state; echo one >/dev/shm/state");
    let commit = home.ok(&["commit", "shop", "-t", "v1", "-m", "before the change"]);
    assert_eq!((&commit["tag"], &commit["kind"]), (&json!("v1"), &json!("full")));
    home.fails(&["show", "v9"], "not_found");
    assert_eq!(home.ok(&["verify", "v1"])["intact"], true);

    // Four branches, different work in each, none sees another's.
    let before = home.guest("shop");
    let four = addresses(&home.ok(&["branch", "shop", "-n", "4"]));
    assert_eq!(four.len(), 4);
    for address in &four {
        let inherited = home.guest(address);
        assert_eq!(inherited.boot, before.boot);
        assert!(inherited.count >= before.count);
        home.sh(address, &format!("echo {address} >/srv/state; echo {address} >/dev/shm/state"));
    }
    let command = ["fanout", "--all", "shop", "-c", "cat /srv/state /dev/shm/state; hostname"];
    let fanned = home.ok(&command);
    assert_eq!((&fanned["succeeded"], &fanned["failed"]), (&json!(5), &json!(0)));
    for row in fanned["results"].as_array().unwrap() {
        let branch = text(row, "branch");
        let state = if branch == "shop@main" { "one" } else { branch };
        assert_eq!(row["stdout"], format!("{state}\n{state}\nshop\n"));
    }
    let partial = home.json(&["fanout", "--all", "shop", "-c", "grep -q try-2 /srv/state"]);
    assert_eq!(
        (&partial["result"]["succeeded"], &partial["result"]["failed"]),
        (&json!(1), &json!(4))
    );

    // The graph names tag and branches.
    let graph = home.run(&["log", "shop", "--graph"]);
    let graph = String::from_utf8(graph.stdout).unwrap();
    for word in ["v1", "main", "try-1", "try-4", "before the change"] {
        assert!(graph.contains(word), "{word} in\n{graph}");
    }

    // Rolled back in place; what was there before is kept.
    home.sh("shop", "echo two >/srv/state; echo two >/dev/shm/state");
    let rolled = home.ok(&["rollback", "shop", "v1"]);
    assert_eq!(rolled["rolled_back_to"], commit["commit_id"]);
    assert_eq!(home.sh("shop", "cat /srv/state /dev/shm/state"), "one\none");
    let saved = home.ok(&["branch", text(&rolled, "saved_as"), "--name", "saved"]);
    assert_eq!(addresses(&saved), ["shop@saved"]);
    assert_eq!(home.sh("shop@saved", "cat /srv/state /dev/shm/state"), "two\ntwo");

    // The latest commit of a running machine may go: what comes after it holds everything.
    let gone = home.ok(&["commit", "shop"]);
    home.ok(&["rm", text(&gone, "commit_id"), "--force"]);
    home.sh("shop", "echo three >/srv/state; echo three >/dev/shm/late");
    let kept = home.ok(&["commit", "shop", "-t", "kept"]);
    assert_eq!(home.ok(&["verify", text(&kept, "commit_id")])["intact"], true);
    home.ok(&["branch", "shop@kept", "--name", "late"]);
    let held = home.sh("shop@late", "cat /srv/state /dev/shm/state /dev/shm/late");
    assert_eq!(held, "three\none\nthree");
    assert_eq!(home.guest("shop@late").boot, before.boot);
    home.ok(&["rm", "shop@late", "--force"]);

    // The current branch is another one now; the one before stands still.
    let checked_out = home.ok(&["checkout", "shop@try-3"]);
    assert_eq!(
        (&checked_out["current_branch"], &checked_out["previous_paused"]),
        (&json!("shop@try-3"), &json!(true))
    );
    assert_eq!(home.sh("shop", "cat /srv/state"), "shop@try-3");
    home.fails(&["exec", "shop@main", "-n", "--", "true"], "wrong_state");

    home.assert_consistent();
    home.fails(&["rm", "shop", "--disks"], "in_use");
    home.ok(&["rm", "shop@try-1", "--force"]);
    home.assert_nothing_left();
}

#[test]
fn a_user_without_rights_does_it_all() {
    let home = Home::of_user(65534);
    home.create_shop();
    let owners: std::collections::BTreeSet<u32> = home.owners();
    assert_eq!(owners.into_iter().collect::<Vec<_>>(), [65534]);
    let commit = home.ok(&["commit", "shop", "-t", "v1"]);
    let made = home.ok(&["branch", "shop", "-n", "2"]);
    assert_eq!(made["succeeded"], 2, "{made}");
    for address in addresses(&made) {
        assert_eq!(home.guest(&address).boot, home.guest("shop").boot);
    }
    let rolled = home.ok(&["rollback", "shop", text(&commit, "commit_id")]);
    assert_eq!(rolled["state"], "running");
    home.assert_nothing_left();
}

#[test]
fn an_unknown_name_says_what_there_is() {
    let home = Home::with_shop();
    let error = home.fails(&["exec", "shpo", "-n", "--", "true"], "not_found");
    assert!(text(&error, "hint").contains("shop"), "{error}");
    let error = home.fails(&["vm", "create", "shop"], "already_exists");
    assert!(error["hint"].is_string(), "{error}");
    let output = home.run(&["rollback", "shop", "nothing"]);
    assert_eq!(output.status.code(), Some(3));
    home.assert_nothing_left();
}
