//! Nodes: their hardware, what is in them and what runs in them. Addresses come later.

use std::collections::BTreeMap;

use pando_model::guest::Command;
use pando_model::limits::{
    MAX_ARGV_BYTES, MAX_DISK, MAX_DISK_NAME, MAX_MEMORY, MAX_VCPUS, MEMORY_STEP, MIN_MEMORY,
};
use pando_model::{ByteCount, Name};

use crate::input::{DiskInput, FileInput, ForwardInput, InterfaceInput, NodeInput, ServiceInput};
use crate::record::List;
use crate::report::{At, Report};
use crate::resolve::networks::{Planned, is_host_of};
use crate::resolve::{Taken, either, limited, ranged, texts};
use crate::scalar::{CommandLine, Integer, Mac, Named, Size, V4, V6};
use crate::topology::{ExtraDisk, File, ImageRef, Node, Restart, Service};

/// A node's role when nothing is said.
const DEFAULT_ROLE: &str = "node";
/// RAM when nothing is said.
const DEFAULT_MEMORY: ByteCount = ByteCount::from_mib(512);
/// A file's permission bits when nothing is said.
const DEFAULT_MODE: u32 = 0o644;
/// How the serial numbers of disks begin that every machine may have.
const OUR_DISKS: &str = "pando-";
/// How systemd's names of services end.
const UNIT_SUFFIX: &str = ".service";
/// Names that stand for something else where nodes are named.
const RESERVED: [&str; 3] = ["gateway", "all", "localhost"];

/// A node whose addresses are not decided.
pub struct Draft {
    /// The node, without interfaces.
    pub node: Node,
    /// Its interfaces.
    pub interfaces: Vec<DraftNic>,
    /// Its own forwards.
    pub forwards: Vec<At<ForwardInput>>,
}

/// An interface whose addresses are not decided.
pub struct DraftNic {
    /// Where it is written.
    pub at: At<()>,
    /// Which network, by its number.
    pub network: usize,
    /// The address that is written.
    pub address: Option<At<V4>>,
    /// The IPv6 address that is written.
    pub address6: Option<At<V6>>,
    /// The MAC address that is written.
    pub mac: Option<At<Mac>>,
}

/// Returns the nodes without their addresses.
pub fn nodes(
    report: &mut Report<'_>,
    inputs: At<List<NodeInput>>,
    image: &ImageRef,
    networks: &[Planned],
) -> Vec<Draft> {
    let at = inputs.with(());
    if inputs.value.0.is_empty() {
        report.wrong(&at, "there are no nodes", "add `- name: …`");
        return Vec::new();
    }
    let most = report.limits.nodes;
    let (mut names, mut host_names) = (Taken::default(), Taken::default());
    let mut drafts = Vec::new();
    for input in limited(report, Some(inputs), most, "nodes") {
        let name = &input.value.name;
        let Named(text) = &name.value;
        if RESERVED.contains(&text.as_str()) {
            let message = format!("`{text}` has a meaning of its own where nodes are named");
            report.wrong(name, message, "choose another");
        }
        if names.take(report, name, "the node", text.as_str()) {
            host_names.take(report, name, "the node's host name", &text.host_name());
        }
        drafts.push(draft(report, input, image, networks));
    }
    drafts
}

fn draft(
    report: &mut Report<'_>,
    input: At<NodeInput>,
    image: &ImageRef,
    networks: &[Planned],
) -> Draft {
    let at = input.with(());
    let mut input = input.value;
    let forwards = input.forwards.take().map(|at| at.value.0).unwrap_or_default();
    let interfaces = interfaces(report, &at, &mut input, networks);
    let limits = report.limits;
    let own_image = input.image.and_then(|at| texts::image(report, &at));
    let node = Node {
        name: input.name.value.0,
        role: input
            .role
            .and_then(|at| texts::word(report, &at))
            .unwrap_or_else(|| DEFAULT_ROLE.to_owned()),
        image: own_image.unwrap_or_else(|| image.clone()),
        vcpus: vcpus(report, input.vcpus),
        memory: memory(report, input.memory, input.memory_mb),
        disk: input.disk.and_then(|at| disk_size(report, &at)),
        extra_disks: extra_disks(report, input.extra_disks),
        interfaces: Vec::new(),
        env: texts::environment(report, input.env, &['\n', '\0']),
        user_data: input.user_data.and_then(|at| texts::user_data(report, &at)),
        files: files(report, input.files),
        commands: limited(report, input.commands, limits.commands, "commands")
            .into_iter()
            .filter_map(|at| command(report, &at))
            .collect(),
        services: services(report, input.services),
        labels: texts::labels(report, input.labels),
    };
    Draft { node, interfaces, forwards }
}

fn vcpus(report: &mut Report<'_>, at: Option<At<Integer>>) -> u8 {
    let most = i64::from(MAX_VCPUS);
    at.and_then(|at| ranged(report, &at, 1..=most, "write how many virtual CPUs it has"))
        .unwrap_or(1)
}

fn memory(report: &mut Report<'_>, size: Option<At<Size>>, mib: Option<At<Integer>>) -> ByteCount {
    let mib = mib.and_then(|at| {
        let (least, most) = (MIN_MEMORY.mib(), MAX_MEMORY.mib());
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let least = i64::try_from(least).unwrap_or(0);
        let mib: Option<u64> = ranged(report, &at, least..=most, "write MiB of RAM");
        mib.map(|mib| at.with(Size(ByteCount::from_mib(mib))))
    });
    let Some(at) = either(report, size, mib) else { return DEFAULT_MEMORY };
    let Size(memory) = at.value;
    if !(MIN_MEMORY..=MAX_MEMORY).contains(&memory) {
        let message = format!("{memory} is out of range: {MIN_MEMORY} to {MAX_MEMORY}");
        report.wrong(&at, message, "write RAM with its unit: 512M");
        return DEFAULT_MEMORY;
    }
    let over = memory.bytes() % MEMORY_STEP.bytes();
    if over > 0 {
        let whole = over.is_multiple_of(ByteCount::from_mib(1).bytes());
        let shown = if whole {
            format!("{} MiB", memory.mib())
        } else {
            format!("{} bytes", memory.bytes())
        };
        let less = ByteCount(memory.bytes() - over).mib();
        let message = format!("{shown} is not a multiple of {MEMORY_STEP}");
        report.wrong(&at, message, format!("take {less} MiB"));
        return DEFAULT_MEMORY;
    }
    memory
}

fn disk_size(report: &mut Report<'_>, at: &At<Size>) -> Option<ByteCount> {
    let Size(size) = at.value;
    let least = ByteCount::from_mib(1);
    if !(least..=MAX_DISK).contains(&size) {
        let message = format!("{size} is out of range: {least} to {MAX_DISK}");
        report.wrong(at, message, "write a size with its unit: 10G");
        return None;
    }
    // Disks are addressed in sectors, and a size in whole MiB suits every sector size.
    if !size.bytes().is_multiple_of(least.bytes()) {
        let message = format!("{} bytes are not whole MiB", size.bytes());
        report.wrong(at, message, format!("write {}M", size.mib().saturating_add(1)));
        return None;
    }
    Some(size)
}

/// Returns what a disk is called: what is written, or its number.
fn disk_name(
    report: &mut Report<'_>,
    whole: &At<()>,
    name: Option<At<Named>>,
    number: usize,
) -> Option<Name> {
    let Some(at) = name else {
        let name = format!("disk{number}").parse();
        return name.map_err(|_| report.wrong(whole, "`name` is missing", "add `name: data`")).ok();
    };
    let name = at.value.0.clone();
    if name.as_str().len() > MAX_DISK_NAME {
        let message = format!("`{name}` is {} bytes long", name.as_str().len());
        report.wrong(&at, message, format!("write at most {MAX_DISK_NAME} bytes"));
        return None;
    }
    if name.as_str().starts_with(OUR_DISKS) {
        let message = format!("`{name}` begins as the disks that pando adds do");
        report.wrong(&at, message, "choose another");
        return None;
    }
    Some(name)
}

fn extra_disks(report: &mut Report<'_>, input: Option<At<List<DiskInput>>>) -> Vec<ExtraDisk> {
    let most = report.limits.extra_disks;
    let mut disks = Vec::new();
    let mut names = Taken::default();
    for (number, at) in (1..).zip(limited(report, input, most, "extra disks")) {
        let whole = at.with(());
        let DiskInput { name, size, size_gb, path, bus } = at.value;
        let Some(name) = disk_name(report, &whole, name, number) else { continue };
        if !names.take(report, &whole, "the disk", name.as_str()) {
            continue;
        }
        let given = size.is_some() || size_gb.is_some();
        if let Some(at) = path {
            report.note(&at, "not used: pando keeps disks in its home");
        }
        if let Some(at) = bus.filter(|at| at.value.0 != "virtio") {
            report.note(&at, "not used: every disk is on virtio");
        }
        let most = i64::try_from(MAX_DISK.gib()).unwrap_or(i64::MAX);
        let size_gb = size_gb.and_then(|at| {
            let gib: Option<u64> = ranged(report, &at, 1..=most, "write GiB");
            Some(at.with(Size(ByteCount::from_gib(gib?))))
        });
        match either(report, size, size_gb) {
            Some(at) => disks.extend(disk_size(report, &at).map(|size| ExtraDisk { name, size })),
            None if !given => report.wrong(&whole, "`size` is missing", "add `size: 10G`"),
            None => {}
        }
    }
    disks
}

fn interfaces(
    report: &mut Report<'_>,
    node: &At<()>,
    input: &mut NodeInput,
    networks: &[Planned],
) -> Vec<DraftNic> {
    let ip = input.ip.take();
    let Some(list) = input.interfaces.take() else {
        return only_interface(report, node, ip, networks).into_iter().collect();
    };
    if let Some(at) = ip {
        let message = "`ip` is for a node without `interfaces`";
        report.wrong(&at, message, "write it as the `ip` of an interface");
    }
    let most = report.limits.nics;
    let mut nics = Vec::new();
    for at in limited(report, Some(list), most, "interfaces") {
        let place = at.with(());
        let InterfaceInput { network, ip, ip6, mac } = at.value;
        let Some(network) = network_of(report, &place, network, networks) else { continue };
        nics.push(DraftNic { at: place, network, address: ip, address6: ip6, mac });
    }
    nics
}

/// A node that names no interfaces has one: in the only network, or in the one of its address.
fn only_interface(
    report: &mut Report<'_>,
    node: &At<()>,
    ip: Option<At<V4>>,
    networks: &[Planned],
) -> Option<DraftNic> {
    let at = ip.as_ref().map_or_else(|| node.clone(), |at| at.with(()));
    let network = match (networks.len(), &ip) {
        (..=1, _) => 0,
        (_, Some(ip)) => {
            let V4(address) = ip.value;
            let has = |planned: &Planned| is_host_of(&planned.network, address).is_ok();
            let Some(network) = networks.iter().position(has) else {
                let message = format!("{address} is in none of the networks");
                report.wrong(ip, message, known_networks(networks));
                return None;
            };
            network
        }
        (_, None) => {
            let message = "there are several networks, and the node says none";
            let fix = "add `interfaces: [{network: …}]`, or `interfaces: []` for none";
            report.wrong(node, message, fix);
            return None;
        }
    };
    Some(DraftNic { at, network, address: ip, address6: None, mac: None })
}

fn network_of(
    report: &mut Report<'_>,
    at: &At<()>,
    name: Option<At<Named>>,
    networks: &[Planned],
) -> Option<usize> {
    let Some(name) = name else {
        if networks.len() > 1 {
            let fix = format!("add `network: …`; {}", known_networks(networks));
            report.wrong(at, "`network` is missing", fix);
            return None;
        }
        return Some(0);
    };
    let found = networks.iter().position(|planned| planned.network.name == name.value.0);
    if found.is_none() {
        let message = format!("there is no network `{}`", name.value.0);
        report.wrong(&name, message, known_networks(networks));
    }
    found
}

fn known_networks(networks: &[Planned]) -> String {
    let known: Vec<String> = networks
        .iter()
        .map(|planned| &planned.network)
        .map(|network| format!("{} ({}/{})", network.name, network.subnet, network.prefix_bits))
        .collect();
    format!("the networks are: {}", known.join(", "))
}

fn files(report: &mut Report<'_>, input: Option<At<List<FileInput>>>) -> Vec<File> {
    let most = report.limits.files;
    let mut paths = Taken::default();
    let mut files = Vec::new();
    for At { value: input, .. } in limited(report, input, most, "files") {
        let FileInput { path, contents, mode, owner } = input;
        let Some(text) = texts::path(report, &path) else { continue };
        paths.take(report, &path, "the file", &text);
        files.push(File {
            path: text,
            contents: contents.value.0,
            mode: mode.map_or(DEFAULT_MODE, |at| at.value.0),
            owner: owner.and_then(|at| texts::user(report, &at)),
        });
    }
    files
}

fn command(report: &mut Report<'_>, at: &At<CommandLine>) -> Option<Command> {
    let CommandLine(command) = &at.value;
    let bytes = match command {
        Command::Shell(line) => line.len(),
        Command::Argv(argv) => argv.iter().map(|word| word.len() + 1).sum(),
    };
    if bytes > MAX_ARGV_BYTES {
        let message =
            format!("the command has {bytes} bytes, at most {MAX_ARGV_BYTES} are allowed");
        report.wrong(at, message, "write a script into `files` and run that");
        return None;
    }
    Some(command.clone())
}

fn services(report: &mut Report<'_>, input: Option<At<List<ServiceInput>>>) -> Vec<Service> {
    let most = report.limits.services;
    let mut names = Taken::default();
    let mut after: BTreeMap<Name, Vec<At<Named>>> = BTreeMap::new();
    let mut services = Vec::new();
    for At { value: input, .. } in limited(report, input, most, "services") {
        let name = input.name.value.0.as_str();
        names.take(report, &input.name, "the service", name);
        if let Some(bare) = name.strip_suffix(UNIT_SUFFIX) {
            let message = format!("`{name}` would be the unit `{name}{UNIT_SUFFIX}`");
            report.wrong(&input.name, message, format!("write `{bare}`"));
        }
        let earlier = input.after.map(|at| at.value.0).unwrap_or_default();
        let Some(command) = command(report, &input.command) else { continue };
        services.push(Service {
            name: input.name.value.0.clone(),
            command,
            env: texts::environment(report, input.env, &['\0']),
            cwd: input.cwd.and_then(|at| texts::path(report, &at)),
            user: input.user.and_then(|at| texts::user(report, &at)),
            restart: input.restart.map_or(Restart::OnFailure, |at| at.value.0),
            after: earlier.iter().map(|at| at.value.0.clone()).collect(),
        });
        after.insert(input.name.value.0, earlier);
    }
    refuse_bad_order(report, &after);
    services
}

/// Every service that another waits for exists, and none waits for itself.
fn refuse_bad_order(report: &mut Report<'_>, after: &BTreeMap<Name, Vec<At<Named>>>) {
    for at in after.values().flatten() {
        let Named(name) = &at.value;
        if !after.contains_key(name) {
            let known: Vec<&str> = after.keys().map(Name::as_str).collect();
            let fix = format!("the node's services are: {}", known.join(", "));
            report.wrong(at, format!("there is no service `{name}`"), fix);
            return;
        }
    }
    // Kahn's algorithm: what is left has a circle.
    let mut left: Vec<(&Name, &Vec<At<Named>>)> = after.iter().collect();
    loop {
        let waits_for = |at: &At<Named>| left.iter().any(|(name, _)| **name == at.value.0);
        let stuck: Vec<(&Name, &Vec<At<Named>>)> =
            left.iter().filter(|(_, earlier)| earlier.iter().any(waits_for)).copied().collect();
        if stuck.len() == left.len() {
            break;
        }
        left = stuck;
    }
    if let Some(at) = left.first().and_then(|(_, earlier)| earlier.first()) {
        let names: Vec<&str> = left.iter().map(|(name, _)| name.as_str()).collect();
        let message = format!("the services wait for one another: {}", names.join(", "));
        report.wrong(at, message, "remove one `after`");
    }
}
