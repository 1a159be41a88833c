//! Clusters on one switch: nodes made from one ready state, with traffic between them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command as Process;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pando_driver::BranchHost;
use pando_driver::host::{
    AfterCut, AfterStart, BranchSpec, Clock, CutNode, CutReport, CutSpec, HostError, MemoryChain,
    MemoryLink, NodeSpec, NodeStart, StartReport, StopMode,
};
use pando_driver::progress::Reporter;
use pando_model::commit::{Below, CommitKind, Layer};
use pando_model::guest::{Identity, InterfaceConfig, PushSpec};
use pando_model::network::{NAME_SERVER, NetworkSpec, Port, ProbeMethod, ProbeTarget, Segment};
use pando_model::{
    Accelerator, BranchId, ByteCount, ClusterId, CommitId, LayerId, Name, NodeLayers, NodeShape,
    Uplink,
};
use tokio::sync::mpsc;

use super::{Branch, DISK, World, name};

/// Where the traffic program is in the guests.
const TRAFFIC: &str = "/usr/local/bin/traffic";
const TEMPLATE: &str = "template";
/// What a guest's kernel dropped itself, as numbers: before a full interface, before a full socket,
/// for want of a neighbour's address. Machines that wait for a processor do, and UDP repairs nothing.
const DROPPED: &str = "cat /sys/class/net/eth*/statistics/[rt]x_dropped
    tc -s qdisc | sed -n 's/.*(dropped \\([0-9]*\\),.*/\\1/p'
    awk '$1 == \"Udp:\" { n = $6 } END { print n }' /proc/net/snmp
    awk 'NR > 1 { print \"0x\" $12 }' /proc/net/stat/arp_cache";

/// A commit of a cluster, and the memory that each of its nodes lies on.
pub struct ClusterCut {
    pub report: CutReport,
    chains: BTreeMap<Name, MemoryChain>,
    shape: NodeShape,
}

/// What one node counted of one peer, or of its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    pub sent: u64,
    pub received: u64,
    /// Numbers missing, numbers that came again, wrong contents.
    pub bad: [u64; 3],
    pub error: Option<String>,
}

/// What the nodes of a cluster counted, by node and by what.
pub type Counts = BTreeMap<(String, String), Counted>;

pub fn shape(vcpus: u8, memory_mib: u64, nics: u8) -> NodeShape {
    NodeShape {
        vcpus,
        memory: ByteCount::from_mib(memory_mib),
        disk: DISK,
        nics,
        extra_disks: Vec::new(),
    }
}

/// Returns the MAC address of an interface; the template is node 0.
fn mac(node: usize, nic: usize) -> String {
    format!("52:54:00:00:{node:02x}:{nic:02x}")
}

fn address(node: usize, nic: usize) -> Ipv4Addr {
    let part = |number: usize| u8::try_from(number).unwrap();
    Ipv4Addr::new(10, 20 + part(nic), 0, 10 + part(node))
}

fn gateway(nic: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 20 + u8::try_from(nic).unwrap(), 0, 1)
}

/// Returns the address that a Linux kernel gives an interface by its MAC address (RFC 4291, A).
fn link_local(node: usize, nic: usize) -> String {
    format!("fe80::5054:ff:fe00:{:x}", node << 8 | nic)
}

fn traffic_program() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("traffic");
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/traffic/program.rs");
    let status = Process::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "-O", "-Cpanic=abort", "-Cstrip=symbols"])
        .args(["-Ctarget-feature=+crt-static", "--target=x86_64-unknown-linux-gnu"])
        .arg(source)
        .arg("-o")
        .arg(&program)
        .status();
    assert!(status.unwrap().success());
    std::fs::read(program).unwrap()
}

fn spec(title: &str, nodes: Vec<NodeSpec>, network: Option<NetworkSpec>) -> BranchSpec {
    BranchSpec {
        branch: BranchId::random(),
        cluster: ClusterId::random(),
        title: format!("test@{title}"),
        generation: 1,
        token: "0123456789abcdef0123456789abcdef".into(),
        accelerator: Accelerator::Tcg,
        nodes,
        network,
        clock: Clock::Step,
        after: AfterStart::Run,
        durable_disk: false,
        ready_timeout: Duration::from_secs(90),
    }
}

impl World {
    /// Returns a node's spec on a disk of its own.
    async fn node(&self, node: &str, shape: NodeShape, start: NodeStart, below: Below) -> NodeSpec {
        let macs = (0..usize::from(shape.nics)).map(|nic| mac(0, nic)).collect();
        NodeSpec {
            name: name(node),
            shape,
            image: self.image.id.clone(),
            boot: self.image.boot.clone(),
            init: self.image.init.clone(),
            layers: NodeLayers::of_root(self.layer(below, 1).await),
            start,
            macs,
            uplink: Uplink::None,
            identity: None,
            seed: None,
        }
    }

    /// Boots a node, gives it the traffic program, and returns its ready state.
    pub async fn ready_state(&self, shape: NodeShape) -> ClusterCut {
        let below = Below::Image(self.image.id.clone());
        let node = self.node(TEMPLATE, shape, NodeStart::Boot, below).await;
        let template = Branch { spec: spec(TEMPLATE, vec![node], None) };
        let began = Instant::now();
        self.host.start(&template.spec, &Reporter::silent()).await.unwrap();
        let program = traffic_program();
        let push = PushSpec {
            path: TRAFFIC.into(),
            mode: 0o755,
            owner: None,
            make_parents: true,
            size: program.len() as u64,
        };
        let (chunks, taken) = mpsc::channel(1);
        let branch = &template.spec.branch;
        let node = name(TEMPLATE);
        let pushed = self.host.push(branch, &node, &push, taken);
        let (pushed, sent) = tokio::join!(pushed, async move { chunks.send(program).await });
        pushed.unwrap();
        sent.unwrap();
        let wait = Duration::from_secs(60);
        self.host.make_anonymous(branch, &node, wait).await.unwrap();
        let ready = self.cut_cluster(&template).await;
        self.end(&[&template]).await;
        println!("ready state: {:?}", began.elapsed());
        ready
    }

    /// Starts a cluster of `names` on a switch, with a segment for each interface.
    pub async fn cluster(&self, ready: &ClusterCut, names: &[&str]) -> Branch {
        let branch = self.new_cluster(ready, names).await;
        let began = Instant::now();
        let report = self.host.start(&branch.spec, &Reporter::silent()).await.unwrap();
        println!("{} nodes: {:?}, ready {} us", names.len(), began.elapsed(), report.ready_us);
        branch
    }

    async fn new_cluster(&self, ready: &ClusterCut, names: &[&str]) -> Branch {
        self.materialise_all(ready).await;
        let saved = &ready.report.nodes[0];
        let keys = self.ssh_keys();
        let nat = self.uplink == Uplink::Nat;
        let nics = usize::from(ready.shape.nics);
        let (mut nodes, mut ports) = (Vec::new(), Vec::new());
        for (number, node) in (1..).zip(names) {
            let start = NodeStart::Restore {
                commit: ready.report.commit.clone(),
                saved_as: saved.name.clone(),
            };
            let below = Below::Layer(saved.layers.root.clone());
            let interface = |nic: usize| InterfaceConfig {
                mac: mac(number, nic),
                was: Some(mac(0, nic)),
                address: format!("{}/24", address(number, nic)),
                more: Vec::new(),
                gateway: (nat && nic == 0).then(|| gateway(nic).to_string()),
                dns: if nat { vec![NAME_SERVER.to_string()] } else { Vec::new() },
            };
            let identity = Identity {
                interfaces: (0..nics).map(interface).collect(),
                ..self.identity(node, &keys)
            };
            let made = self.node(node, ready.shape.clone(), start, below).await;
            let macs = (0..nics).map(|nic| mac(number, nic)).collect();
            nodes.push(NodeSpec { macs, identity: Some(identity), ..made });
            ports.extend((0..nics).map(|nic| Port {
                node: name(node),
                nic: u8::try_from(nic).unwrap(),
                segment: name(&format!("lan{nic}")),
                mac: mac(number, nic).parse().unwrap(),
                address: Some(address(number, nic)),
                address6: None,
            }));
        }
        let segment = |nic: usize| Segment {
            name: name(&format!("lan{nic}")),
            subnet: Ipv4Addr::new(10, 20 + u8::try_from(nic).unwrap(), 0, 0),
            prefix_bits: 24,
            gateway: gateway(nic),
            gateway6: None,
            uplink: self.uplink,
            bridge: None,
        };
        let network = NetworkSpec {
            domain: "test".into(),
            segments: (0..nics).map(segment).collect(),
            ports,
            faults: Vec::new(),
            restore: None,
        };
        Branch { spec: spec("main", nodes, Some(network)) }
    }

    pub async fn materialise_all(&self, cut: &ClusterCut) {
        for chain in cut.chains.values() {
            self.host.materialise(chain, &Reporter::silent()).await.unwrap();
        }
    }

    /// Returns a cut to ask for, its next layers made.
    pub async fn cluster_cut_spec(&self, branch: &Branch, kind: CommitKind) -> CutSpec {
        let observed = self.host.observe(&branch.spec.branch).await.unwrap().unwrap();
        let mut nodes = Vec::new();
        for node in observed.nodes {
            let next_layer = LayerId::random();
            let below = Below::Layer(node.layers.root);
            let layer = Layer { id: next_layer.clone(), below, size: DISK, depth: 2 };
            self.host.create_layer(&layer).await.unwrap();
            nodes.push(CutNode { name: node.name, next: NodeLayers::of_root(next_layer) });
        }
        CutSpec {
            commit: CommitId::random(),
            kind,
            nodes,
            then: AfterCut::Continue,
            timeout: Duration::from_secs(60),
        }
    }

    /// Cuts a cluster, whatever comes of it.
    pub async fn try_cut_cluster(&self, branch: &Branch) -> Result<CutReport, HostError> {
        let spec = self.cluster_cut_spec(branch, CommitKind::Full).await;
        self.host.cut(&branch.spec.branch, &spec, &Reporter::silent()).await
    }

    pub async fn cut_cluster(&self, branch: &Branch) -> ClusterCut {
        let report = self.try_cut_cluster(branch).await.unwrap();
        self.adopt_cluster_cut(branch, report).await
    }

    /// Cuts a cluster, which stays paused.
    pub async fn cut_and_hold(&self, branch: &Branch) -> ClusterCut {
        let mut spec = self.cluster_cut_spec(branch, CommitKind::Full).await;
        spec.then = AfterCut::StayPaused;
        let report = self.host.cut(&branch.spec.branch, &spec, &Reporter::silent()).await.unwrap();
        self.adopt_cluster_cut(branch, report).await
    }

    async fn adopt_cluster_cut(&self, branch: &Branch, report: CutReport) -> ClusterCut {
        assert_eq!(report.failed, None);
        let adopted = self.host.adopt_cut(&branch.spec.branch, &report.commit).await.unwrap();
        assert_eq!(adopted.as_ref(), Some(&report));
        let bytes: u64 =
            report.nodes.iter().flat_map(|node| &node.memory).map(|memory| memory.bytes.0).sum();
        println!(
            "cut: pause {} us, total {} us, {} MB of memory, {:?}",
            report.pause_us,
            report.total_us,
            bytes / 1_000_000,
            report.network.as_ref().map(|network| (
                network.frames,
                network.bytes,
                &network.stalled
            )),
        );
        assert_eq!(report.network.is_some(), branch.spec.network.is_some());
        if report.network.as_ref().is_some_and(|network| !network.stalled.is_empty()) {
            self.frames_lost.store(true, Ordering::Relaxed);
        }
        if let Some(network) = &report.network {
            self.host.verify_network(&report.commit, network).await.unwrap();
        }
        let shape = branch.spec.nodes[0].shape.clone();
        let chains = report
            .nodes
            .iter()
            .map(|node| (node.name.clone(), self.chain_of(&report, &node.name, shape.memory)))
            .collect();
        ClusterCut { report, chains, shape }
    }

    /// Follows a node's deltas down by what the commits' own reports say.
    fn chain_of(&self, report: &CutReport, node: &Name, size: ByteCount) -> MemoryChain {
        let mut links = Vec::new();
        let mut next = Some(report.clone());
        while let Some(report) = next {
            // A ready state has another name for the node.
            let own = report.nodes.iter().find(|saved| saved.name == *node);
            let saved = own.unwrap_or(&report.nodes[0]);
            let Some(memory) = saved.memory.clone() else { break };
            links.push(MemoryLink {
                commit: report.commit.clone(),
                node: saved.name.clone(),
                digest: memory.digest,
            });
            next = memory.base.map(|base| {
                let path = self.layout.commit(&base).join("report.json");
                serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
            });
        }
        MemoryChain { links, size }
    }

    /// Returns a branch of a commit that is not started.
    pub async fn new_child(&self, cut: &ClusterCut, of: &Branch) -> Branch {
        self.materialise_all(cut).await;
        let mut nodes = Vec::new();
        for (node, saved) in of.spec.nodes.iter().zip(&cut.report.nodes) {
            let start = NodeStart::Restore {
                commit: cut.report.commit.clone(),
                saved_as: saved.name.clone(),
            };
            let below = Below::Layer(saved.layers.root.clone());
            let layers = NodeLayers::of_root(self.layer(below, 3).await);
            nodes.push(NodeSpec { layers, start, identity: None, ..node.clone() });
        }
        let network = of
            .spec
            .network
            .clone()
            .map(|network| NetworkSpec { restore: Some(cut.report.commit.clone()), ..network });
        Branch { spec: spec("child", nodes, network) }
    }

    /// Starts branches of a commit at once, and returns how each start went.
    pub async fn start_all(&self, branches: &[&Branch]) -> Vec<StartReport> {
        let silent = Reporter::silent();
        let mut starts = tokio::task::JoinSet::new();
        for (number, branch) in branches.iter().enumerate() {
            let (host, spec, silent) = (self.another_host(), branch.spec.clone(), silent.clone());
            starts.spawn(async move { (number, host.start(&spec, &silent).await.unwrap()) });
        }
        let mut reports = starts.join_all().await;
        reports.sort_by_key(|(number, _)| *number);
        reports.into_iter().map(|(_, report)| report).collect()
    }

    /// Ends branches without a look at what else runs.
    pub async fn stop_all(&self, branches: &[&Branch]) {
        for branch in branches {
            self.host.stop(&branch.spec.branch, StopMode::Kill).await.unwrap();
        }
    }

    /// Starts traffic between all pairs of nodes: TCP and UDP over IPv4 on the first interface, TCP
    /// over IPv6 link-local addresses on the last; and writes to the disks.
    pub async fn start_traffic(&self, branch: &Branch, options: &str) {
        self.run_traffic(branch, options, false).await;
    }

    /// Starts what [`World::start_traffic`] does, and as much TCP as there is room for, between all
    /// pairs of nodes and both ways.
    pub async fn start_bulk(&self, branch: &Branch, options: &str) {
        self.run_traffic(branch, options, true).await;
    }

    /// Starts a bulk connection from one node of two to the other, and nothing else.
    pub async fn start_one_way(&self, branch: &Branch, from: &str, to: &str) {
        let number = branch.spec.nodes.iter().position(|node| node.name.as_str() == to).unwrap();
        let listen = "bulk-listen=0.0.0.0:7002";
        let call = format!("bulk={to}@{}:7002", address(number + 1, 0));
        for (node, arguments) in [(to, listen), (from, call.as_str())] {
            let start = format!("setsid {TRAFFIC} {node} {arguments} > /run/traffic.log 2>&1 &");
            self.sh_on(branch, node, &start).await;
        }
    }

    async fn run_traffic(&self, branch: &Branch, options: &str, bulk: bool) {
        let last = branch.spec.nodes[0].macs.len() - 1;
        for (number, node) in (1..).zip(&branch.spec.nodes) {
            let index = format!("cat /sys/class/net/eth{last}/ifindex");
            let scope = self.sh_on(branch, node.name.as_str(), &index).await;
            let mut arguments = format!(
                "{0} tcp-listen=0.0.0.0:7000 tcp-listen=[::]:7006 udp-listen=0.0.0.0:7001 bulk-listen=0.0.0.0:7002 disk=/var/tmp/traffic {options}",
                node.name
            );
            for (other, peer) in (1..).zip(&branch.spec.nodes) {
                let peer = &peer.name;
                if other != number {
                    arguments += &format!(" udp={peer}@{}:7001", address(other, 0));
                }
                if other != number && bulk {
                    arguments += &format!(" bulk={peer}@{}:7002", address(other, 0));
                }
                if other > number {
                    arguments += &format!(" tcp4={peer}@{}:7000", address(other, 0));
                    let v6 = link_local(other, last);
                    arguments += &format!(" tcp6={peer}@[{v6}%{}]:7006", scope.trim());
                }
            }
            let start = format!("setsid {TRAFFIC} {arguments} > /run/traffic.log 2>&1 &");
            self.sh_on(branch, node.name.as_str(), &start).await;
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.counts(branch).await.keys().filter(|(_, what)| what == "listens:").count()
            < branch.spec.nodes.len()
        {
            assert!(Instant::now() < deadline, "the traffic program does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for node in &branch.spec.nodes {
            self.sh_on(branch, node.name.as_str(), "touch /run/traffic.go").await;
        }
    }

    /// Returns what a branch's nodes counted so far.
    pub async fn counts(&self, branch: &Branch) -> Counts {
        let mut counts = Counts::new();
        for node in &branch.spec.nodes {
            let text =
                self.sh_on(branch, node.name.as_str(), "cat /run/traffic.status || true").await;
            for line in text.lines() {
                let words: Vec<&str> = line.split(' ').collect();
                let [what, numbers @ .., error] = words.as_slice() else { panic!("{line}") };
                let numbers: Vec<u64> = numbers.iter().map(|word| word.parse().unwrap()).collect();
                let [sent, received, gaps, again, wrong] = numbers[..] else { panic!("{line}") };
                counts.insert(
                    (node.name.to_string(), (*what).to_owned()),
                    Counted {
                        sent,
                        received,
                        bad: [gaps, again, wrong],
                        error: (*error != "-").then(|| (*error).to_owned()),
                    },
                );
            }
        }
        counts
    }

    /// Waits until every stream of a branch has got on by `records` since `since`.
    pub async fn until_traffic_flows(
        &self,
        branch: &Branch,
        since: &Counts,
        records: u64,
    ) -> Counts {
        let deadline = Instant::now() + Duration::from_secs(60);
        let pairs = branch.spec.nodes.len() * (branch.spec.nodes.len() - 1);
        loop {
            let counts = self.counts(branch).await;
            let flows = |(what, now): (&(String, String), &Counted)| {
                let before = since.get(what).map_or(0, |before| before.received);
                what.1.ends_with(':') || now.received >= before + records
            };
            // Of each ordered pair: UDP, TCP over IPv4 and IPv6, and bulk TCP if there is any.
            let streams = counts.keys().filter(|(_, what)| !what.ends_with(':')).count();
            let kinds = if is_bulk(&counts) { 4 } else { 3 };
            if streams == pairs * kinds && counts.iter().all(flows) {
                return counts;
            }
            assert!(Instant::now() < deadline, "no traffic: {since:#?}\n{counts:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Stops the traffic of a branch and checks that all of it arrived, once and in order.
    pub async fn check_traffic(&self, branch: &Branch, who: &str) {
        for node in &branch.spec.nodes {
            self.sh_on(branch, node.name.as_str(), "touch /run/traffic.stop").await;
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut before = Counts::new();
        let (counts, may_miss) = loop {
            let counts = self.counts(branch).await;
            let may_miss = match self.frames_lost.load(Ordering::Relaxed) {
                true => u64::MAX,
                false => self.dropped_by_guests(branch).await + self.dropped(branch, &counts).await,
            };
            // The same twice: nobody sends any more.
            if counts == before && unmatched(&counts, may_miss).is_empty() {
                break (counts, may_miss);
            }
            if Instant::now() > deadline {
                let network = self.host.network(&branch.spec.branch).await;
                let unmatched = unmatched(&counts, may_miss);
                panic!("{who}: {unmatched:#?}, {may_miss} dropped\n{network:?}");
            }
            before = counts;
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        for (what, counted) in &counts {
            let [missing, again, wrong] = counted.bad;
            let may_miss = if what.1.starts_with("udp") { may_miss } else { 0 };
            assert!(missing <= may_miss && again == 0 && wrong == 0, "{who}: {what:?} {counted:?}");
            assert_eq!(counted.error, None, "{who}: {what:?}");
        }
        let sum = |kind: &str| -> u64 {
            let of_kind = counts.iter().filter(|((_, what), _)| what.starts_with(kind));
            of_kind.map(|(_, counted)| counted.received).sum()
        };
        let lost: u64 = lost(&counts).map(|(.., lost)| lost).sum();
        println!(
            "{who}: {} records, {} datagrams, {lost} lost, of {may_miss} dropped",
            sum("tcp"),
            sum("udp")
        );
        self.check_frames(branch, who).await;
    }

    /// Returns how many of three echo requests from a node are answered.
    pub async fn answers(&self, branch: &Branch, node: &str, address: &str) -> u32 {
        let target = ProbeTarget {
            name: address.into(),
            address: address.parse().unwrap(),
            method: ProbeMethod::Icmp,
        };
        let (branch, wait) = (&branch.spec.branch, Duration::from_secs(5));
        let results = self.host.probe(branch, &name(node), &[target], 3, wait).await.unwrap();
        assert_eq!(results[0].sent, 3);
        results[0].received
    }

    /// Returns how many frames a branch's switch had no room for, under bulk traffic: without it, it
    /// has to have room.
    async fn dropped(&self, branch: &Branch, counts: &Counts) -> u64 {
        if !is_bulk(counts) {
            return 0;
        }
        let network = self.host.network(&branch.spec.branch).await.unwrap();
        network.links.iter().flat_map(|(_, counts)| counts.dropped.values()).sum()
    }

    /// Returns how many packets the kernels of a branch's guests say that they dropped.
    async fn dropped_by_guests(&self, branch: &Branch) -> u64 {
        let mut dropped = 0;
        for node in &branch.spec.nodes {
            for word in self.sh_on(branch, node.name.as_str(), DROPPED).await.split_whitespace() {
                dropped += match word.strip_prefix("0x") {
                    Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
                    None => word.parse::<u64>().unwrap(),
                };
            }
        }
        dropped
    }

    /// Checks that no frame is unaccounted for.
    pub async fn check_frames(&self, branch: &Branch, who: &str) {
        let network = self.host.network(&branch.spec.branch).await.unwrap();
        assert!(!network.links.is_empty());
        for (link, counts) in &network.links {
            let dropped: u64 = counts.dropped.values().sum();
            assert_eq!(
                counts.sent,
                counts.delivered + counts.held + dropped,
                "{who}: {link:?} {counts:?}"
            );
        }
    }

    pub async fn sh_on(&self, branch: &Branch, node: &str, command: &str) -> String {
        let (code, text) = self.run_on(branch, &name(node), command).await;
        assert_eq!(code, 0, "{node}: `{command}`: {text}");
        text
    }
}

fn is_bulk(counts: &Counts) -> bool {
    counts.keys().any(|(_, what)| what.starts_with("bulk"))
}

/// Returns what each node has of each peer's stream, and how much less than was sent.
fn lost(counts: &Counts) -> impl Iterator<Item = (&str, &str, u64)> {
    counts.iter().filter_map(|((node, what), counted)| {
        let (kind, peer) = what.split_once(':').unwrap();
        let there = counts.get(&(peer.to_owned(), format!("{kind}:{node}")));
        let sent = there.map_or(u64::MAX, |there| there.sent);
        (!peer.is_empty()).then(|| (node.as_str(), what.as_str(), sent.abs_diff(counted.received)))
    })
}

/// Returns the streams of which not all that was sent has arrived, but for so many datagrams.
fn unmatched(counts: &Counts, may_miss: u64) -> Vec<String> {
    let may_miss = |what: &str| if what.starts_with("udp") { may_miss } else { 0 };
    lost(counts)
        .filter(|(_, what, lost)| *lost > may_miss(what))
        .map(|(node, what, lost)| format!("{node} misses {lost} of {what}"))
        .collect()
}
