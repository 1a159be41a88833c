//! The cluster's story: three nodes of etcd are started, written to, committed at one instant and
//! branched three ways. One branch is left alone, in one a node is cut off, in one it is slowed;
//! what a client sees is shown side by side; then everything is rolled back.

use std::io::Write;

use pando_api::branch::{BranchCreateResult, BranchRollbackResult};
use pando_api::commit::CommitCreateResult;
use pando_api::exec::ExecRunResult;
use pando_api::image::ImageView;
use pando_api::network::NetFaultListResult;
use pando_api::state::StateDiffResult;
use pando_model::ErrorCode;
use pando_model::cluster::SshDefaults;
use pando_topology::{Limits, parse};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Narrator, StoryError, StoryOptions, must, shell};
use crate::output::table::printable;
use crate::session::Session;

/// What the cluster is made of.
const TOPOLOGY: &str = include_str!("../../../../docs/topologies/etcd.yaml");
/// Debian's packages in its image.
const PACKAGES: [&str; 2] = ["etcd-server", "etcd-client"];
/// The branches: what happens in each.
const BRANCHES: [&str; 3] = ["alone", "cut-off", "slowed"];
/// The node with the client, and the one that is cut off and slowed.
const CLIENT: &str = NODES[0];
/// A node of the majority.
const PEER: &str = NODES[1];
/// The nodes.
const NODES: [&str; 3] = ["etcd-1", "etcd-2", "etcd-3"];
/// Most differences that are shown.
const HIGHLIGHTS: usize = 3;
/// Latency of the slowed node's frames, each way, in milliseconds.
const LATENCY_MS: u32 = 100;
/// How long the client is watched, in seconds: longer than an election takes under emulation.
const WATCHED_S: u32 = 5;

/// The topology's client: writes to its own node's etcd one number after another, and keeps the
/// last one that was acknowledged.
const CLIENT_PROGRAM: &str = "nohup /usr/local/bin/count > /dev/null 2>&1 &";

/// Whether the node at hand leads, and its term: `true 4`. The environment names all three nodes.
const LEADS: &str = "ETCDCTL_ENDPOINTS=http://127.0.0.1:2379 \
    etcdctl --command-timeout=30s endpoint status | awk -F', ' '{print $5, $7}'";

/// Waits until the node at hand answers reads that a majority agrees on.
const HAS_LEADER: &str = "for i in $(seq 150); do \
    ETCDCTL_ENDPOINTS=http://127.0.0.1:2379 etcdctl endpoint health > /dev/null 2>&1 && exit 0; \
    sleep 0.2; done; systemctl status member >&2; exit 1";

/// The client's key, as a majority agrees on it.
const STORED: &str = "ETCDCTL_ENDPOINTS=http://127.0.0.1:2379 \
    etcdctl --command-timeout=30s get counter --print-value-only";

/// What a branch looks like to its client and its nodes.
#[derive(Serialize)]
struct View {
    branch: &'static str,
    /// Writes that were acknowledged while it was looked at.
    written: u64,
    /// The last one that was acknowledged, of all.
    acknowledged: u64,
    /// What the majority has for it, asked for afterwards.
    stored: u64,
    /// A round trip from the client's node to another, unless there is none.
    trip_ms: Option<f64>,
    members: Vec<Member>,
}

/// What a node says of itself.
#[derive(Serialize)]
struct Member {
    node: &'static str,
    /// Whether it leads; absent if it does not say.
    leads: Option<bool>,
    term: Option<u64>,
}

impl Member {
    fn spoken(&self) -> String {
        match (self.leads, self.term) {
            (Some(true), Some(term)) => format!("{} leads in term {term}", self.node),
            (Some(false), Some(term)) => format!("{} follows in term {term}", self.node),
            _ => format!("{} says nothing", self.node),
        }
    }
}

/// Tells it.
pub(super) async fn chapters<W: Write>(
    session: &Session<'_>,
    options: &StoryOptions,
    narrator: &mut Narrator<W>,
) -> Result<(), StoryError> {
    let name = options.name.as_str();
    image(session, narrator).await?;
    start(session, name, narrator).await?;
    let client = format!("{name}@main/{CLIENT}");
    write(session, &client, narrator).await?;
    commit(session, name, narrator).await?;
    branch(session, name, narrator).await?;
    break_networks(session, name, narrator).await?;
    compare(session, name, narrator).await?;
    roll_back(session, name, narrator).await
}

async fn image<W: Write>(
    session: &Session<'_>,
    narrator: &mut Narrator<W>,
) -> Result<(), StoryError> {
    match session.ask::<ImageView>("image_show", json!({"image": "etcd"})).await {
        Ok(_) => return Ok(()),
        Err(error) if error.code == ErrorCode::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let command = format!("pando image build etcd -p {}", PACKAGES.join(" -p "));
    narrator.chapter("0. An image with etcd, from Debian's packages", &command)?;
    let params = json!({"name": "etcd", "packages": PACKAGES});
    let (_, time): (ImageView, _) = session.timed("image_build", params).await?;
    narrator.took("image built, once", time, "Built without root; it is kept.")
}

async fn start<W: Write>(
    session: &Session<'_>,
    name: &str,
    narrator: &mut Narrator<W>,
) -> Result<(), StoryError> {
    narrator.chapter(
        "1. A cluster of three, from one file",
        &format!("pando cluster define docs/topologies/etcd.yaml; pando cluster start {name}"),
    )?;
    let mut topology = parse(TOPOLOGY, &Limits::default(), &SshDefaults::default())
        .map_err(|errors| StoryError::Untrue(errors.to_string()))?;
    topology.name = name.parse().map_err(|error| StoryError::Untrue(format!("{error}")))?;
    let params = json!({"topology": topology.to_yaml()});
    let (_, time): (Value, _) = session.timed("cluster_define", params).await?;
    narrator.took(
        "cluster defined",
        time,
        "Three nodes, one network, fixed addresses and names.",
    )?;
    let params = json!({"cluster_name": name, "wait_for_ssh": false});
    let (_, time): (Value, _) = session.timed("cluster_start", params).await?;
    narrator.took("three nodes started and set up", time, "All three answer; etcd is started.")
}

async fn write<W: Write>(
    session: &Session<'_>,
    client: &str,
    narrator: &mut Narrator<W>,
) -> Result<(), StoryError> {
    narrator.chapter("2. A client that writes", &format!("pando exec {client} -- count"))?;
    let (_, time) = shell(session, client, HAS_LEADER).await?;
    narrator.took("etcd has a leader", time, "It answers reads that a majority agrees on.")?;
    shell(session, client, CLIENT_PROGRAM).await?;
    let first = "for i in $(seq 100); do [ -s /run/acknowledged ] && break; sleep 0.1; done; \
                 cat /run/acknowledged";
    let (number, _) = shell(session, client, first).await?;
    narrator
        .say(&format!("It counts up, one acknowledged write after another: {} …", number.trim()))
}

async fn commit<W: Write>(
    session: &Session<'_>,
    name: &str,
    narrator: &mut Narrator<W>,
) -> Result<(), StoryError> {
    narrator.chapter(
        "3. A commit of all three, at one instant",
        &format!("pando commit {name} -t base -m 'three that agree'"),
    )?;
    let main = format!("{name}@main");
    narrator.saw("before_commit", json!(members(session, &main).await?));
    let params = json!({"branch": main, "tag": "base", "message": "three that agree"});
    let (commit, time): (CommitCreateResult, _) = session.timed("commit_create", params).await?;
    narrator.saw("after_commit", json!(members(session, &main).await?));
    let text = format!(
        "Memory, devices, disks and the frames between them; they stood still for {:.1} ms.",
        commit.pause_ms
    );
    narrator.took("commit of three nodes, durable on disk", time, &text)
}

async fn branch<W: Write>(
    session: &Session<'_>,
    name: &str,
    narrator: &mut Narrator<W>,
) -> Result<(), StoryError> {
    narrator.chapter(
        "4. Three worlds with the same addresses",
        &format!("pando branch {name}@base {}", BRANCHES.join(" ")),
    )?;
    let params = json!({"from": format!("{name}@base"), "names": BRANCHES});
    let (made, time): (BranchCreateResult, _) = session.timed("branch_create", params).await?;
    if let Some(error) = made.branches.iter().find_map(|branch| branch.error.clone()) {
        return Err(error.into());
    }
    let text = "Nine more machines; the client goes on writing in each.";
    narrator.took("three branches of the cluster, all answering", time, text)
}

async fn break_networks<W: Write>(
    session: &Session<'_>,
    name: &str,
    narrator: &mut Narrator<W>,
) -> Result<(), StoryError> {
    let [_, cut_off, slowed] = BRANCHES.map(|branch| format!("{name}@{branch}"));
    narrator.chapter(
        "5. Breaking two of the networks",
        &format!("pando net partition {cut_off} {CLIENT}; pando net impair {slowed} {CLIENT} …"),
    )?;
    let params = json!({"cluster_name": cut_off, "partition_a": [CLIENT]});
    let (_, time): (Value, _) = session.timed("net_partition", params).await?;
    narrator.took("partition, verified", time, "One node hears nobody, and is heard by nobody.")?;
    let params = json!({
        "cluster_name": slowed, "source_node": CLIENT, "both_directions": true,
        "latency_ms": LATENCY_MS,
    });
    let (_, time): (Value, _) = session.timed("net_impair", params).await?;
    let text = format!("Every frame to and from it takes {LATENCY_MS} ms longer.");
    narrator.took("latency", time, &text)
}

async fn compare<W: Write>(
    session: &Session<'_>,
    name: &str,
    narrator: &mut Narrator<W>,
) -> Result<(), StoryError> {
    let [alone, cut_off, _] = BRANCHES.map(|branch| format!("{name}@{branch}"));
    narrator.chapter(
        "6. The same client in three worlds",
        &format!("pando exec {alone}/{CLIENT} …; pando diff {alone} {cut_off}"),
    )?;
    let [one, two, three] = BRANCHES.map(|branch| view(session, name, branch));
    let views: [View; 3] = tokio::try_join!(one, two, three)?.into();
    for View { branch, written, trip_ms, members, .. } in &views {
        let written = format!("{written} writes in {WATCHED_S} s");
        let trip = trip_ms.map_or("no answer".to_owned(), |ms| format!("answers in {ms:.0} ms"));
        narrator.say(&format!("{branch:<8} {written:<18} {PEER} {trip}"))?;
        let members: Vec<String> = members.iter().map(Member::spoken).collect();
        narrator.say(&format!("{:<8} {}", "", members.join(" · ")))?;
    }
    narrator.saw("branches", json!(views));
    for View { branch, acknowledged, stored, .. } in &views {
        must(stored >= acknowledged, || {
            format!("{branch} lost writes: {acknowledged} acknowledged, {stored} there")
        })?;
    }
    let [left_alone, cut, slow] = &views;
    must(left_alone.written > 0, || "the client that was left alone does not write".into())?;
    must(cut.written == 0, || "a node without a majority acknowledged writes".into())?;
    must(cut.trip_ms.is_none(), || format!("{CLIENT} still reaches {PEER} over the partition"))?;
    // Guests measure it, and their clocks are not exact under emulation.
    let least = f64::from(2 * LATENCY_MS) * 0.9;
    must(slow.trip_ms.is_some_and(|ms| ms >= least), || "latency did not slow the way".into())?;
    let (diff, time): (StateDiffResult, _) =
        session.timed("state_diff", json!({"from": alone, "to": cut_off})).await?;
    let between = diff.cluster.as_ref();
    must(between.is_some_and(|between| between.faults_differ == 1), || {
        "the diff does not show the partition".into()
    })?;
    for highlight in diff.highlights.iter().take(HIGHLIGHTS) {
        narrator.say(&format!("differs: {}", printable(highlight)))?;
    }
    narrator.saw("diff", json!({"highlights": diff.highlights, "cluster": diff.cluster}));
    narrator.took(
        "diff of two clusters",
        time,
        "That is what differs: the network, then each node.",
    )
}

/// Returns what the client and the nodes of a branch see.
async fn view(session: &Session<'_>, name: &str, branch: &'static str) -> Result<View, StoryError> {
    let at = |node: &str| format!("{name}@{branch}/{node}");
    // A node of the majority: it may have to elect a new leader first.
    shell(session, &at(PEER), HAS_LEADER).await?;
    let command = format!(
        "a=$(cat /run/acknowledged); sleep {WATCHED_S}; b=$(cat /run/acknowledged); echo $((b - a))"
    );
    let (written, _) = shell(session, &at(CLIENT), &command).await?;
    let (acknowledged, _) = shell(session, &at(CLIENT), "cat /run/acknowledged").await?;
    let (stored, _) = shell(session, &at(PEER), STORED).await?;
    let params = json!({
        "cluster_name": format!("{name}@{branch}"), "sources": [CLIENT], "targets": [PEER],
        "count": 3, "timeout_ms": 2000,
    });
    let probe: Value = session.ask("net_probe", params).await?;
    let rows = probe.get("rows").and_then(Value::as_array);
    let trips = rows.into_iter().flatten().filter_map(|row| row.get("rtt_ms")?.as_f64());
    let trip_ms = trips.reduce(f64::min);
    let number = |text: &str| text.trim().parse().unwrap_or(0);
    Ok(View {
        branch,
        written: number(&written),
        acknowledged: number(&acknowledged),
        stored: number(&stored),
        trip_ms,
        members: members(session, &format!("{name}@{branch}")).await?,
    })
}

/// Returns what the nodes of a branch say of themselves.
async fn members(session: &Session<'_>, branch: &str) -> Result<Vec<Member>, StoryError> {
    let mut members = Vec::new();
    for node in NODES {
        let params = json!({"address": format!("{branch}/{node}"), "command": LEADS});
        let ran: ExecRunResult = session.ask("exec_run", params).await?;
        let mut words = ran.stdout.split_whitespace();
        let leads = words.next().and_then(|word| word.parse().ok());
        let term = words.next().and_then(|word| word.parse().ok());
        members.push(Member { node, leads, term });
    }
    Ok(members)
}

async fn roll_back<W: Write>(
    session: &Session<'_>,
    name: &str,
    narrator: &mut Narrator<W>,
) -> Result<(), StoryError> {
    let [_, cut_off, slowed] = BRANCHES.map(|branch| format!("{name}@{branch}"));
    narrator
        .chapter("7. Rolling them back", &format!("pando rollback {cut_off} base --no-save"))?;
    for address in [&cut_off, &slowed] {
        let params = json!({"branch": address, "target": format!("{name}@base"), "save": false});
        let (_, time): (BranchRollbackResult, _) = session.timed("branch_rollback", params).await?;
        narrator.took("rolled back, all three answering", time, &format!("{address} is whole."))?;
        let listed: NetFaultListResult =
            session.ask("net_fault_list", json!({"cluster_name": address})).await?;
        must(listed.faults.is_empty(), || format!("{address} is still broken after the rollback"))?;
    }
    let after = view(session, name, BRANCHES[1]).await?;
    must(after.written > 0, || "the client does not write after the rollback".into())?;
    narrator.saw("after_rollback", json!(after));
    narrator.say(&format!("Its client writes again: {} in {WATCHED_S} s.", after.written))
}
