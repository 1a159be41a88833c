//! What faults do to real machines: each to its own links and to nothing else, to every protocol,
//! for as long as it was asked to, and the same again in each branch.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Home, envelope, finish, kill, processes_of, signal, text, until};

const TRIO: &str = "name: trio
image: default
network: {name: lan, subnet: 10.9.0.0/24, subnet6: 'fd00:9::/64'}
nodes:
  - {name: a, memory: 256 MiB, ip: 10.9.0.11, commands: [ip address add 172.31.0.1/24 dev eth0]}
  - {name: b, memory: 256 MiB, ip: 10.9.0.12, commands: [ip address add 172.31.0.2/24 dev eth0]}
  - {name: c, memory: 256 MiB, ip: 10.9.0.13, commands: [ip address add 172.31.0.3/24 dev eth0]}
";

/// Two nodes that share two networks, one of them slow.
const SHARED: &str = "name: shared
image: default
networks:
  - {name: front, subnet: 10.9.1.0/24, subnet6: 'fd00:91::/64'}
  - {name: back, subnet: 10.9.2.0/24, link: {latency_ms: 20}}
nodes:
  - {name: a, memory: 256 MiB, interfaces: [{network: front, ip: 10.9.1.11}, {network: back, ip: 10.9.2.11}]}
  - {name: b, memory: 256 MiB, interfaces: [{network: front, ip: 10.9.1.12}, {network: back, ip: 10.9.2.12}]}
";

/// The clocks of guests are this far from the host's, at most.
const CLOCKS: SignedDuration = SignedDuration::from_secs(1);

/// One branch of the cluster.
struct Trio<'a> {
    home: &'a Home,
    branch: &'static str,
}

impl Trio<'_> {
    fn start(home: &Home) -> Trio<'_> {
        home.define(TRIO);
        home.ok(&["cluster", "start", "trio"]);
        home.ok(&["node", "exec-all", "trio", "ip route add 224.0.0.0/4 dev eth0"]);
        Trio { home, branch: "trio@main" }
    }

    fn sh(&self, node: &str, line: &str) -> String {
        self.home.sh(&format!("{}/{node}", self.branch), line)
    }

    /// Calls a verb of the network, with options.
    fn net(&self, verb: &str, arguments: &[&str]) -> Value {
        self.home.ok(&[&["net", verb, self.branch], arguments].concat())
    }

    fn heal(&self, handle: &str) {
        let healed = self.net("heal", &[handle]);
        assert_eq!((&healed["count"], &healed["verified"]), (&1.into(), &"yes".into()), "{healed}");
    }

    fn faults(&self) -> Vec<Value> {
        self.net("faults", &[])["faults"].as_array().unwrap().clone()
    }

    /// Returns the frames that the only fault decided on, and how many of them it dropped.
    fn counters(&self) -> (u64, u64) {
        let faults = self.faults();
        let [fault] = faults.as_slice() else { panic!("{faults:#?}") };
        let number = |name: &str| fault["counters"][name].as_u64().unwrap();
        (number("frames"), number("dropped"))
    }

    /// Returns a link's count since the branch began.
    fn link(&self, from: &str, to: &str, what: &str) -> u64 {
        let all = self.net("faults", &["--links"]);
        let links = all["links"].as_array().unwrap();
        let link = links.iter().find(|link| link["from"] == from && link["to"] == to);
        link.and_then(|link| link.pointer(what)).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Returns the shortest round trip over each address, in milliseconds; `None` where nobody
    /// answers. By asker and asked.
    fn probe(&self) -> BTreeMap<(String, String), Vec<Option<f64>>> {
        let mut found = BTreeMap::<_, Vec<_>>::new();
        let probed = self.net("probe", &["--targets", "a", "--targets", "b", "--targets", "c"]);
        assert_eq!(probed["unknown"], 0, "{probed:#}");
        for row in probed["rows"].as_array().unwrap() {
            let ends = (text(row, "from").to_owned(), text(row, "to").to_owned());
            found.entry(ends).or_default().push(row["min_ms"].as_f64());
        }
        assert!(found.len() == 6 && found.values().all(|ways| ways.len() == 2), "{found:?}");
        found
    }

    /// Asserts that over each protocol every node reaches every other, but for these pairs, which
    /// do not reach one another over any.
    fn assert_apart(&self, pairs: &[(&str, &str)]) {
        for ((from, to), ways) in self.probe() {
            let apart = pairs.iter().any(|(x, y)| [(x, y), (y, x)].contains(&(&&*from, &&*to)));
            assert!(ways.iter().all(|way| way.is_some() != apart), "{from}>{to}: {ways:?}");
        }
    }

    /// Whether a node can talk to another by the addresses that pando knows nothing of, and what it
    /// knows of that one's hardware address afterwards.
    fn second_address(&self, from: &str, to: u8, patience_s: u8) -> (bool, String) {
        let talk = format!(
            "ip neigh flush to 172.31.0.{to} dev eth0; \
             timeout {patience_s} bash -c '</dev/tcp/172.31.0.{to}/22' && echo yes || echo no; \
             ip neigh show 172.31.0.{to}"
        );
        let said = self.sh(from, &talk);
        let (answered, neighbour) = said.split_once('\n').unwrap_or((&said, ""));
        (answered == "yes", neighbour.to_owned())
    }

    /// Sends so many datagrams to every node, each of which is one frame on each link.
    fn cast(&self, from: &str, number: u64) {
        let each = format!("for i in $(seq {number}); do printf x >&3; done");
        self.sh(from, &format!("bash -c 'exec 3>/dev/udp/224.0.0.1/9; {each}'"));
    }

    /// Returns how many multicast packets a node has had of others.
    fn heard(&self, node: &str) -> u64 {
        let tables = self.sh(node, "cat /proc/net/netstat");
        let mut rows = tables.lines().filter_map(|line| line.strip_prefix("IpExt: "));
        let (names, numbers) = (rows.next().unwrap(), rows.next().unwrap());
        let mut both = names.split(' ').zip(numbers.split(' '));
        both.find(|(name, _)| *name == "InMcastPkts").unwrap().1.parse().unwrap()
    }

    /// Sends datagrams, and returns how many of them each node had once it had this many.
    fn cast_and_count(&self, from: &str, number: u64, expected: [(&str, u64); 2]) {
        let before = expected.map(|(node, _)| self.heard(node));
        self.cast(from, number);
        for ((node, expected), before) in expected.into_iter().zip(before) {
            until("datagrams arrive", || (self.heard(node) - before >= expected).then_some(()));
            assert_eq!(self.heard(node) - before, expected, "{from}>{node}");
        }
    }
}

#[test]
fn faults_do_in_real_machines_what_they_say() {
    let home = Home::new();
    let trio = Trio::start(&home);
    trio.assert_apart(&[]);
    assert!(trio.second_address("a", 2, 20).0);
    trio.cast_and_count("a", 20, [("b", 20), ("c", 20)]);

    // Apart: over both protocols, addresses of their own making, ARP and multicast.
    let cut = trio.net("partition", &["a", "-b", "b", "--label", "apart"]);
    assert_eq!((&cut["verified"], &cut["label"]), (&"yes".into(), &"apart".into()), "{cut}");
    trio.assert_apart(&[("a", "b")]);
    let (reached, neighbour) = trio.second_address("a", 2, 1);
    assert!(!reached && !neighbour.contains("lladdr"), "{neighbour}");
    let (reached, neighbour) = trio.second_address("a", 3, 20);
    assert!(reached && neighbour.contains("lladdr"), "{neighbour}");
    trio.cast_and_count("a", 20, [("c", 20), ("b", 0)]);
    assert_eq!(trio.faults()[0]["label"], "apart");
    assert!(trio.counters().1 >= 20);
    trio.heal("apart");
    trio.assert_apart(&[]);

    // One way: what is said the other way is heard, and not answered.
    let cut = trio.net("partition", &["a", "-b", "b", "--direction", "a_to_b"]);
    assert_eq!((&cut["verified"], &cut["links"][1]), (&"yes".into(), &Value::Null), "{cut}");
    trio.assert_apart(&[("a", "b")]);
    trio.cast_and_count("a", 20, [("c", 20), ("b", 0)]);
    trio.cast_and_count("b", 20, [("c", 20), ("a", 20)]);
    trio.heal(text(&cut, "handle_id"));

    // Slow on one link: the others are not.
    let slow = trio.net("impair", &["a", "b", "--latency-ms", "150"]);
    assert_eq!(slow["links"], serde_json::json!(["a>b"]));
    for ((from, to), ways) in trio.probe() {
        let slow = from != "c" && to != "c";
        let right = |way: &Option<f64>| way.is_some_and(|ms| (ms > 149.0) == slow);
        assert!(ways.iter().all(right), "{from}>{to}: {ways:?}");
    }
    trio.heal(text(&slow, "handle_id"));

    // Everything twice, to one node.
    let twice = trio.net("impair", &["a", "b", "--duplicate-pct", "100"]);
    let before = trio.link("a", "b", "/duplicated");
    trio.cast_and_count("a", 50, [("b", 100), ("c", 50)]);
    assert!(trio.link("a", "b", "/duplicated") >= before + 50);
    assert_eq!(trio.link("a", "c", "/duplicated"), 0);
    trio.heal(text(&twice, "handle_id"));
    assert_eq!(trio.net("heal-all", &[])["count"], 0);
    losses_are_as_many_as_asked_for_and_the_same_in_each_branch(&trio);
    trio.net("heal-all", &[]);
    faults_end_by_themselves(&trio);
    home.ok(&["cluster", "destroy", "trio", "--remove-overlays"]);
    home.assert_nothing_left();
}

/// Sends as much as it takes for both branches' faults to have decided on equally many frames, and
/// returns what each dropped of them.
fn level(one: &Trio<'_>, other: &Trio<'_>) -> (u64, u64) {
    until("both have decided on equally many frames", || {
        let (of_one, of_other) = (one.counters(), other.counters());
        match of_one.0.cmp(&of_other.0) {
            std::cmp::Ordering::Less => one.cast("a", of_other.0 - of_one.0),
            std::cmp::Ordering::Greater => other.cast("a", of_one.0 - of_other.0),
            std::cmp::Ordering::Equal => return Some((of_one.1, of_other.1)),
        }
        None
    })
}

fn losses_are_as_many_as_asked_for_and_the_same_in_each_branch(trio: &Trio<'_>) {
    const SENT: u64 = 500;
    let before = (trio.link("a", "b", "/dropped/loss"), trio.link("a", "c", "/dropped/loss"));
    trio.net("impair", &["a", "b", "--loss-pct", "10", "--seed", "7", "--label", "lossy"]);
    trio.home.ok(&["commit", "trio", "-t", "lossy"]);
    trio.home.ok(&["branch", "trio@lossy", "one", "other"]);
    let branch = |branch| Trio { home: trio.home, branch };
    let (one, other) = (branch("trio@one"), branch("trio@other"));
    // Three times, because one number may be right by chance.
    for _ in 0..3 {
        for branch in [&one, &other, trio] {
            let heard = branch.heard("c");
            branch.cast("a", SENT);
            until("all of it arrives", || (branch.heard("c") - heard == SENT).then_some(()));
        }
        let (of_one, of_other) = level(&one, &other);
        assert_eq!(of_one, of_other, "the same seed, the same losses");
        let (of_one, of_main) = level(&one, trio);
        assert_eq!(of_one, of_main, "and the same in what was committed");
    }
    let (frames, dropped) = trio.counters();
    println!("loss of 10 %: {dropped} of {frames}");
    let (mean, deviation) = (frames as f64 * 0.1, (frames as f64 * 0.09).sqrt());
    assert!((dropped as f64 - mean).abs() < 5.0 * deviation, "{dropped} of {frames}");
    assert_eq!(trio.link("a", "b", "/dropped/loss") - before.0, dropped);
    assert_eq!(trio.link("a", "c", "/dropped/loss"), before.1);
    assert_eq!(trio.faults()[0]["seed"], 7);
    trio.home.ok(&["rm", "trio@one", "--force"]);
    trio.home.ok(&["rm", "trio@other", "--force"]);
}

fn faults_end_by_themselves(trio: &Trio<'_>) {
    let apart = ["a", "-b", "b", "--expires", "3s"];
    let cut = trio.net("partition", &apart);
    assert_eq!(cut["verified"], "yes", "{cut}");
    let time = |of: &Value, field| text(of, field).parse::<Timestamp>().unwrap();
    let lasts = time(&cut, "expires_at").duration_since(time(&cut, "created_at"));
    assert_eq!(lasts, SignedDuration::from_secs(3));
    until("it ends", || trio.faults().is_empty().then_some(()));
    assert!(Timestamp::now() >= time(&cut, "expires_at"));
    trio.assert_apart(&[]);

    // Nobody is there to end it.
    let cut = trio.net("partition", &apart);
    let ends = time(&cut, "expires_at");
    let talk =
        "timeout 1 bash -c \"</dev/tcp/10.9.0.12/22\" && date -u +%FT%T.%NZ >>/dev/shm/through";
    let talk = format!("setsid sh -c 'while :; do {talk}; done' >/dev/null 2>&1 </dev/null &");
    trio.sh("a", &format!("ip neigh flush dev eth0; {talk}"));
    trio.home.kill_daemon();
    until("its time is over", || (Timestamp::now() > ends + 4 * CLOCKS).then_some(()));
    let returns = Timestamp::now();
    assert_eq!(trio.faults(), Vec::<Value>::new());
    trio.assert_apart(&[]);
    let through: Timestamp = trio.sh("a", "head -n 1 /dev/shm/through").parse().unwrap();
    assert!(ends - CLOCKS < through && through < returns - CLOCKS, "{ends} {through} {returns}");
}

/// What the client of a struck call does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// It starts another daemon, and asks that one.
    Asks,
    /// It is killed as well.
    Dies,
}

impl Trio<'_> {
    /// Calls a verb of the network whose change the keeper does not take, kills the daemon, which
    /// has recorded it, and lets the keeper go on: it may find what it was told to do by a daemon
    /// that is gone. Returns the envelope, if anybody was there to get it.
    fn struck(&self, verb: &str, arguments: &[&str], client: Client) -> Option<Value> {
        let keeper = self.home.keeper(self.branch);
        signal(keeper.pid, Signal::STOP);
        let calling = [&["--json", "net", verb, self.branch], arguments].concat();
        let mut child = self.home.spawn(&calling);
        let verb = format!("net_{verb}");
        until("the fault is recorded, and the keeper told", || {
            let list = self.home.ok(&["operation", "list", "--verb", &verb, "--limit", "1"]);
            let last = &list["operations"][0];
            (last["status"] == "running" && last["steps"][0]["status"] == "started").then_some(())
        });
        let answer = match client {
            Client::Dies => {
                child.kill().unwrap();
                child.wait().unwrap();
                self.home.kill_daemon();
                signal(keeper.pid, Signal::CONT);
                None
            }
            Client::Asks => {
                let first = self.home.daemon().unwrap().pid;
                kill(first);
                until("the next daemon is there", || {
                    let next = self.home.daemon()?;
                    (next.pid != first).then_some(())
                });
                signal(keeper.pid, Signal::CONT);
                Some(envelope(&finish(child)))
            }
        };
        self.home.assert_consistent();
        answer
    }

    /// Asserts that exactly what is listed works.
    fn assert_listed_faults_work(&self, expected: bool) {
        let faults = self.faults();
        assert_eq!(faults.len(), usize::from(expected), "{faults:#?}");
        self.assert_apart(if expected { &[("a", "b")] } else { &[] });
    }
}

#[test]
fn a_daemon_killed_between_recording_a_fault_and_applying_it_leaves_both_or_neither() {
    let home = Home::new();
    let trio = Trio::start(&home);
    let apart = ["a", "-b", "b", "--label", "apart"];
    for client in [Client::Dies, Client::Asks] {
        // Undone, whatever the switch was told.
        let answer = trio.struck("partition", &apart, client);
        let failed = |answer: &Value| answer["success"] == false;
        assert!(answer.as_ref().is_none_or(failed), "{answer:?}");
        trio.assert_listed_faults_work(false);

        // A healing that was begun is finished.
        trio.net("partition", &apart);
        trio.assert_listed_faults_work(true);
        let answer = trio.struck("heal", &["apart"], client);
        assert!(answer.as_ref().is_none_or(|answer| answer["success"] == true), "{answer:?}");
        trio.assert_listed_faults_work(false);
    }
    assert!(processes_of(home.path()).iter().filter(|one| one.is_daemon()).count() == 1);
    home.ok(&["cluster", "destroy", "trio", "--remove-overlays"]);
    home.assert_nothing_left();
}

/// Returns the shortest round trip from `a` to each address of `b`, in milliseconds, of those that
/// answer.
fn asked_by_a(home: &Home, branch: &str) -> BTreeMap<String, f64> {
    let probed = home.ok(&["net", "probe", branch, "--sources", "a", "--targets", "b"]);
    let answer = |row: &Value| Some((text(row, "address").to_owned(), row["min_ms"].as_f64()?));
    probed["rows"].as_array().unwrap().iter().filter_map(answer).collect()
}

#[test]
fn a_fault_of_one_network_is_felt_on_that_one_alone() {
    let mut home = Home::new();
    home.define(SHARED);
    // Nodes with two interfaces have a ready state of their own.
    home.remember();
    home.ok(&["cluster", "start", "shared"]);
    let whole = asked_by_a(&home, "shared");
    assert_eq!(whole.keys().filter(|address| !address.starts_with("10.9.2.")).count(), 2);
    for (address, ms) in &whole {
        assert_eq!(*ms >= 20.0, address == "10.9.2.12", "{whole:?}");
    }
    let cut = ["net", "partition", "shared", "a", "--network", "front"];
    let made = home.ok(&cut);
    assert_eq!((&made["verified"], &made["network"]), (&"yes".into(), &"front".into()), "{made}");
    home.ok(&["branch", "shared@main", "try-1"]);
    for branch in ["shared@main", "shared@try-1"] {
        let left: Vec<String> = asked_by_a(&home, branch).into_keys().collect();
        assert_eq!(left, ["10.9.2.12"], "{branch}");
    }
    // So for what does not come from a probe.
    let connects = |to: &str| {
        home.sh(
            "shared/a",
            &format!("timeout 5 bash -c '</dev/tcp/{to}/22' && echo yes || echo no"),
        )
    };
    assert_eq!((connects("10.9.2.12"), connects("10.9.1.12")), ("yes".to_owned(), "no".to_owned()));
    let healed = home.ok(&["net", "heal", "shared@try-1", text(&made, "handle_id")]);
    assert_eq!(healed["verified"], "yes", "{healed}");
    assert_eq!(asked_by_a(&home, "shared@try-1").len(), 3);
    assert_eq!(asked_by_a(&home, "shared@main").len(), 1);
    home.ok(&["cluster", "destroy", "shared", "--remove-overlays"]);
    home.assert_nothing_left();
}
