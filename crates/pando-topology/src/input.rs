//! What may be written in a topology, key by key. The keys of existing vmcluster files are among
//! them; those that mean nothing without a privileged host are accepted and noted.

use pando_model::Uplink;
use pando_model::fault::Distribution;

use crate::record::{Entries, List, Read, record};
use crate::report::{At, Report};
use crate::scalar::{
    CommandLine, Contents, Flag, Ignored, Integer, Mac, Mode, Named, Net4, Net6, Number, OneOf,
    Size, Text, V4, V6, Word,
};
use crate::topology::Restart;
use crate::yaml::{Kind, Value};

record! {
    /// A cluster of virtual machines: its networks, its nodes and what runs in them.
    TopologyInput, "topology" {
        /// The cluster's name.
        name: Option<At<Named>>,
        /// The same as `name`.
        cluster_name: Option<At<Named>>,
        /// What the cluster is for.
        description: Option<At<Text>>,
        /// The image of nodes that name none: its name or id; `default` if left out.
        image: Option<At<Text>>,
        /// The same as `image`; may be the path of a disk file, which then is imported once with
        /// `pando image import`.
        base_image: Option<At<Text>>,
        /// Accepted and not used: pando keeps disks in its home.
        overlay_dir: Option<At<Ignored>>,
        /// The only network.
        network: Option<At<NetworkInput>>,
        /// Several networks.
        networks: Option<At<List<NetworkInput>>>,
        /// The virtual machines, at least one.
        nodes: At<List<NodeInput>>,
        /// Ports of this host that lead to nodes.
        forwards: Option<At<List<ForwardInput>>>,
        /// How people and programs log in.
        ssh: Option<At<SshInput>>,
        /// Names that stand for tags: `baseline: clean-boot`.
        snapshots: Option<At<Entries<Named>>>,
        /// Free labels, for filters.
        labels: Option<At<Entries<Text>>>,
    }
}

record! {
    /// One layer-2 network. The switch answers at its gateway: ARP, ping, DHCP, DNS.
    NetworkInput, "network" {
        /// Its name; `net` if it is the only one and has none.
        name: Option<At<Named>>,
        /// Its IPv4 network; `10.20.N.0/24` if left out.
        subnet: Option<At<Net4>>,
        /// Its IPv6 network, a /64; none if left out.
        subnet6: Option<At<Net6>>,
        /// The switch's own address; the first of the subnet if left out.
        gateway: Option<At<V4>>,
        /// Whether its nodes reach the outside: `none` (the default) or `nat`.
        uplink: Option<At<OneOf<Uplink>>>,
        /// What every frame between two of its nodes suffers.
        link: Option<At<LinkInput>>,
        /// Who carries its frames: `switch`, pando's own (the default), or `kernel`, a bridge, which
        /// needs privileges and offers no DHCP, DNS or uplink. The same for all networks.
        mode: Option<At<OneOf<Carrier>>>,
        /// What its bridge is called, with `mode: kernel`; `br0`, `br1` … if left out. Not used
        /// otherwise.
        bridge: Option<At<Text>>,
        /// Accepted and not used: nodes have fixed addresses, which DHCP offers as well.
        dhcp: Option<At<Flag>>,
        /// Accepted and not used: the switch carries Ethernet only.
        rdma: Option<At<Flag>>,
    }
}

record! {
    /// How frames get through worse.
    LinkInput, "link" {
        /// Delay of every frame, in milliseconds.
        #[schemars(range(min = 0, max = 60_000))]
        latency_ms: Option<At<Number>>,
        /// Its variation, in milliseconds.
        #[schemars(range(min = 0, max = 60_000))]
        jitter_ms: Option<At<Number>>,
        /// The form of the variation: `uniform` (the default), `normal` or `pareto`.
        distribution: Option<At<OneOf<Distribution>>>,
        /// Frames lost, in per cent.
        #[schemars(range(min = 0, max = 100))]
        loss_pct: Option<At<Number>>,
        /// Mean number of frames lost in a row.
        #[schemars(range(min = 1, max = 1_000_000))]
        burst_frames: Option<At<Integer>>,
        /// Frames delivered twice, in per cent.
        #[schemars(range(min = 0, max = 100))]
        duplicate_pct: Option<At<Number>>,
        /// Frames with one bit changed, in per cent.
        #[schemars(range(min = 0, max = 100))]
        corrupt_pct: Option<At<Number>>,
        /// Frames that skip the delay, in per cent.
        #[schemars(range(min = 0, max = 100))]
        reorder_pct: Option<At<Number>>,
        /// Most bits a second, in thousands.
        #[schemars(range(min = 1))]
        rate_kbit: Option<At<Integer>>,
    }
}

record! {
    /// One virtual machine.
    NodeInput, "node" {
        /// Its name; also its host name, and its name in DNS.
        name: At<Named>,
        /// What it is for, in one word.
        role: Option<At<Text>>,
        /// What it starts from: an image's name or id.
        image: Option<At<Text>>,
        /// Virtual CPUs; 1 if left out.
        #[schemars(range(min = 1, max = pando_model::limits::MAX_VCPUS))]
        vcpus: Option<At<Integer>>,
        /// RAM, such as `512M` (the default).
        memory: Option<At<Size>>,
        /// RAM, in MiB.
        #[schemars(range(min = pando_model::limits::MIN_MEMORY.mib(), max = pando_model::limits::MAX_MEMORY.mib()))]
        memory_mb: Option<At<Integer>>,
        /// Size of its root disk; the image's own if left out.
        disk: Option<At<Size>>,
        /// Disks beside the root disk, empty at first.
        extra_disks: Option<At<List<DiskInput>>>,
        /// The address of its only interface; a free one of the network if left out.
        ip: Option<At<V4>>,
        /// Its interfaces, where one in the only network is not what it needs.
        interfaces: Option<At<List<InterfaceInput>>>,
        /// Environment of every command run in it, and of its services.
        env: Option<At<Entries<Text>>>,
        /// A script (`#!…`) run once after the first start, or cloud-config.
        user_data: Option<At<Contents>>,
        /// Files written before anything runs.
        files: Option<At<List<FileInput>>>,
        /// Commands run once after the first start, in order; the first that fails ends the set-up.
        commands: Option<At<List<CommandLine>>>,
        /// What runs in it, started after the commands.
        services: Option<At<List<ServiceInput>>>,
        /// Ports of this host that lead to it.
        forwards: Option<At<List<ForwardInput>>>,
        /// Free labels.
        labels: Option<At<Entries<Text>>>,
    }
}

record! {
    /// A disk beside the root disk.
    DiskInput, "disk" {
        /// Its name, which the guest sees as its serial number; `disk1`, `disk2` … if left out.
        name: Option<At<Named>>,
        /// Its size.
        size: Option<At<Size>>,
        /// Its size, in GiB.
        #[schemars(range(min = 1, max = pando_model::limits::MAX_DISK.gib()))]
        size_gb: Option<At<Integer>>,
        /// Accepted and not used: pando keeps disks in its home.
        path: Option<At<Text>>,
        /// `virtio`, whatever is written.
        bus: Option<At<Text>>,
    }
}

record! {
    /// One interface of a node.
    InterfaceInput, "interface" {
        /// The network that it is plugged into; the only one if left out.
        network: Option<At<Named>>,
        /// Its address; a free one of the network if left out.
        ip: Option<At<V4>>,
        /// Its IPv6 address; made of the IPv4 address if left out.
        ip6: Option<At<V6>>,
        /// Its MAC address; made of the IPv4 address if left out.
        mac: Option<At<Mac>>,
    }
}

record! {
    /// A file of a node.
    FileInput, "file" {
        /// Absolute path; missing directories are made.
        path: At<Text>,
        /// What is in it.
        contents: At<Contents>,
        /// Permission bits; 0644 if left out.
        mode: Option<At<Mode>>,
        /// Owner, as user name or number; root if left out.
        owner: Option<At<Text>>,
    }
}

record! {
    /// A program that runs in a node as long as the node does.
    ServiceInput, "service" {
        /// Its name.
        name: At<Named>,
        /// What runs: a line for the shell, or a list of a program and its arguments.
        command: At<CommandLine>,
        /// Environment, over the node's.
        env: Option<At<Entries<Text>>>,
        /// Working directory.
        cwd: Option<At<Text>>,
        /// User name or number; root if left out.
        user: Option<At<Text>>,
        /// When it is started again: `no`, `on-failure` (the default) or `always`.
        restart: Option<At<OneOf<Restart>>>,
        /// Services of the same node that are started before it.
        after: Option<At<List<Named>>>,
    }
}

record! {
    /// How people and programs log in.
    SshInput, "ssh" {
        /// The user; that of the settings, or root, if left out.
        user: Option<At<Text>>,
        /// Absolute path of a private key on this host that logs in, beside the key that pando
        /// makes for each cluster; that of the settings if left out.
        key_path: Option<At<Text>>,
        /// How long a connection may take, in seconds; 30 if left out.
        #[schemars(range(min = 1, max = 3600))]
        connect_timeout_s: Option<At<Integer>>,
    }
}

record! {
    /// A port of this host's loopback address that leads to a node.
    ForwardRecord, "forward" {
        /// The port on this host; a free one if left out.
        #[schemars(range(min = 1, max = 65535))]
        host_port: Option<At<Integer>>,
        /// The node; below a node, that one.
        node: Option<At<Named>>,
        /// The port in the guest.
        #[schemars(range(min = 1, max = 65535))]
        guest_port: At<Integer>,
    }
}

/// A forward as a record, or as `HOST:GUEST` or `GUEST`.
#[derive(Debug, Clone)]
pub struct ForwardInput(pub ForwardRecord);

impl Read for ForwardInput {
    fn read(report: &mut Report<'_>, path: &str, value: &Value) -> Option<Self> {
        let Kind::Scalar { text, .. } = &value.kind else {
            return ForwardRecord::read(report, path, value).map(Self);
        };
        let at = At { path: path.to_owned(), place: value.place, value: () };
        let (host, guest) = match text.split_once(':') {
            Some((host, guest)) => (Some(host), guest),
            None => (None, text.as_str()),
        };
        let port = |text: &str| text.parse::<u16>().ok().map(i64::from);
        let numbers = (host.map(port), port(guest));
        let (host, guest) = match numbers {
            (None, Some(guest)) => (None, guest),
            (Some(Some(host)), Some(guest)) => (Some(host), guest),
            _ => {
                let message = format!("{} is no forward", crate::record::describe(value));
                report.wrong(&at, message, "write HOST_PORT:GUEST_PORT, such as \"8080:80\"");
                return None;
            }
        };
        let number = |number| at.with(Integer(number));
        Some(Self(ForwardRecord {
            host_port: host.map(number),
            node: None,
            guest_port: number(guest),
        }))
    }
}

impl schemars::JsonSchema for ForwardInput {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ForwardInput".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let record = generator.subschema_for::<ForwardRecord>();
        schemars::json_schema!({"anyOf": [
            {"type": ["string", "integer"], "examples": ["8080:80"],
             "description": "HOST_PORT:GUEST_PORT, or the guest's port alone."},
            record,
        ]})
    }
}

/// Who carries the frames of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// A user-space switch.
    Switch,
    /// A bridge of the kernel.
    Kernel,
}

impl Word for Carrier {
    const WORDS: &'static [(&'static str, Self)] =
        &[("switch", Self::Switch), ("kernel", Self::Kernel)];
}

impl Word for Uplink {
    const WORDS: &'static [(&'static str, Self)] = &[("none", Self::None), ("nat", Self::Nat)];
}

impl Word for Distribution {
    const WORDS: &'static [(&'static str, Self)] =
        &[("uniform", Self::Uniform), ("normal", Self::Normal), ("pareto", Self::Pareto)];
}

impl Word for Restart {
    const WORDS: &'static [(&'static str, Self)] =
        &[("no", Self::No), ("on-failure", Self::OnFailure), ("always", Self::Always)];
}
