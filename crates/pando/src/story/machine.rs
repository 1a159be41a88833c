//! The machine's story: a Debian VM is started, changed, committed with its memory, branched four
//! ways at once, broken in one branch, and rolled back.

use std::io::Write;

use pando_api::branch::{BranchCreateResult, BranchRollbackResult};
use pando_api::commit::CommitCreateResult;
use pando_api::exec::ExecFanoutResult;
use pando_api::image::ImageView;
use pando_api::machine::{VmCreateResult, VmDeleteResult, VmStatusResult};
use serde_json::json;

use super::{Narrator, StoryError, StoryOptions, must, run_shell, shell};
use crate::session::Session;

/// How many branches the demo makes.
const BRANCHES: usize = 4;

/// A process that lives in memory only: nothing of it is on any disk.
const COUNTER: &str = "nohup sh -c 'n=0; while :; do n=$((n+1)); echo $n > /run/count; sleep 0.05; \
                       done' > /dev/null 2>&1 &";

/// Tells it.
pub(super) async fn chapters<W: Write>(
    session: &Session<'_>,
    options: &StoryOptions,
    narrator: &mut Narrator<W>,
) -> Result<(), StoryError> {
    let name = options.name.as_str();
    let main = format!("{name}@main");

    narrator.chapter("1. A real Debian machine", &format!("pando vm create {name}"))?;
    let params = json!({"name": name, "image": options.image});
    let image: ImageView = session.ask("image_show", json!({"image": options.image})).await?;
    if image.ready.is_empty() {
        let (_, time): (VmCreateResult, _) = session.timed("vm_create", params.clone()).await?;
        let text = "The image's first boot. What it came to is kept: machines start from there.";
        narrator.took("first boot, once for an image", time, text)?;
        let again = json!({"name": name, "force": true, "remove_overlays": true});
        session.ask::<VmDeleteResult>("vm_delete", again).await?;
    }
    let (vm, time): (VmCreateResult, _) = session.timed("vm_create", params).await?;
    narrator.took(
        "machine created",
        time,
        if vm.warm { "It runs, started from the image's ready state." } else { "It runs, booted." },
    )?;
    let (uname, time) =
        shell(session, &main, "uname -sr; . /etc/os-release; echo $PRETTY_NAME").await?;
    narrator.took("first command", time, &uname.lines().collect::<Vec<_>>().join(", "))?;
    let (_, time) = shell(session, &main, "true").await?;
    narrator.took(
        "next command",
        time,
        "Commands go through a channel into the guest, not SSH.",
    )?;

    let change = format!("echo precious > /root/note; {COUNTER}");
    narrator.chapter("2. State on disk and in memory", &format!("pando exec {name} -- sh -c …"))?;
    narrator.say(&change)?;
    shell(session, &main, &change).await?;
    let before = counter(session, &main, 1).await?;
    narrator.say(&format!("A file is written; a process counts, in memory only: {before} …"))?;

    narrator.chapter(
        "3. A commit, memory included",
        &format!("pando commit {name} -t base -m 'counter running'"),
    )?;
    let params = json!({"branch": main, "tag": "base", "message": "counter running"});
    let (commit, time): (CommitCreateResult, _) = session.timed("commit_create", params).await?;
    narrator.took(
        "commit, durable on disk",
        time,
        &format!(
            "{} holds {} KiB; the machine stood still for {:.1} ms and runs on.",
            commit.commit_id,
            commit.size_bytes / 1024,
            commit.pause_ms
        ),
    )?;

    narrator.chapter(
        "4. Four branches of the running machine, at once",
        &format!("pando branch {name}@base -n {BRANCHES}"),
    )?;
    let names: Vec<String> = (1..=BRANCHES).map(|number| format!("try-{number}")).collect();
    let params = json!({"from": format!("{name}@base"), "names": names});
    let (made, time): (BranchCreateResult, _) = session.timed("branch_create", params).await?;
    if let Some(error) = made.branches.iter().find_map(|branch| branch.error.clone()) {
        return Err(error.into());
    }
    narrator.took(
        "four branches, all answering",
        time,
        "Same memory, same addresses, own world:",
    )?;
    let addresses: Vec<&str> = made.branches.iter().map(|branch| branch.address.as_str()).collect();
    let params = json!({
        "branches": addresses,
        "command": "printf '%s, counter at %s, random %s' \"$(cat /root/note)\" \
                    \"$(cat /run/count)\" \"$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')\"",
    });
    let (fanout, time): (ExecFanoutResult, _) = session.timed("exec_fanout", params).await?;
    for row in &fanout.results {
        if let Some(error) = &row.error {
            return Err(error.clone().into());
        }
        narrator.say(&format!("{:<14} {}", row.branch, row.outcome.stdout))?;
        let counted = row.outcome.stdout.contains("precious, counter at ");
        must(counted, || format!("{} lost its state: {}", row.branch, row.outcome.stdout))?;
    }
    narrator.took(
        "one command in all four",
        time,
        "The counter went on from the commit in each.",
    )?;

    narrator.chapter(
        "5. Breaking one of them",
        &format!("pando exec {name}@try-1 -- rm -rf /usr/bin /root/note"),
    )?;
    shell(session, addresses[0], "rm -rf /usr/bin /root/note; echo gone").await?;
    // Without its shell, the guest cannot even start the command.
    let still_works =
        run_shell(session, addresses[0], "ls /").await.is_ok_and(|ls| ls.exit_code == Some(0));
    must(!still_works, || "`ls` still works in the broken branch".into())?;
    let (note, _) = shell(session, addresses[1], "cat /root/note").await?;
    must(note.trim() == "precious", || "another branch was touched".into())?;
    narrator.say("try-1 has no /usr/bin any more; try-2 and the others did not notice.")?;

    narrator
        .chapter("6. Rolling it back", &format!("pando rollback {name}@try-1 base --no-save"))?;
    let params = json!({"branch": addresses[0], "target": format!("{name}@base"), "save": false});
    let (_, time): (BranchRollbackResult, _) = session.timed("branch_rollback", params).await?;
    let (note, _) = shell(session, addresses[0], "cat /root/note").await?;
    must(note.trim() == "precious", || "the rollback did not bring the file back".into())?;
    let after = counter(session, addresses[0], before).await?;
    narrator.took(
        "rolled back, answering",
        time,
        &format!("The file is back, the process counts on from the commit: {after}."),
    )?;

    let status: VmStatusResult = session.ask("vm_status", json!({"address": main})).await?;
    must(status.branches as usize == BRANCHES + 1, || format!("{} branches", status.branches))?;
    Ok(())
}

/// Returns the counter's value once it is at least `least`.
async fn counter(session: &Session<'_>, address: &str, least: u64) -> Result<u64, StoryError> {
    let command = format!(
        "for i in $(seq 100); do n=$(cat /run/count 2>/dev/null || echo 0); \
         [ \"${{n:-0}}\" -ge {least} ] && break; sleep 0.05; done; echo $n"
    );
    let (text, _) = shell(session, address, &command).await?;
    let value = text.trim().parse().unwrap_or(0);
    must(value >= least, || format!("the counter in {address} is at {value}, not {least}"))?;
    Ok(value)
}
