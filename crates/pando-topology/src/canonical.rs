//! The one way to write a topology: every default and every address spelt out, in the keys of
//! [`crate::input`], so that it reads back as the same topology.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use pando_model::fault::{Distribution, Impairment, PerMillion};
use pando_model::guest::Command;
use pando_model::{ByteCount, Uplink};

use crate::topology::{
    ExtraDisk, File, Forward, ImageRef, Interface, Network, Node, Restart, Service, Ssh, Topology,
};

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// A word, a number or an address: needs no quotes.
    Plain(String),
    /// A text.
    Text(String),
    /// A sequence.
    List(Vec<Tree>),
    /// A mapping.
    Map(Vec<(String, Tree)>),
}

impl Topology {
    /// Returns the topology as YAML, complete: no default and no address is left out.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        write(&mut text, &tree(self), 0);
        text
    }

    /// Returns the digest of what the topology means (BLAKE3, in hex): equal for texts that differ
    /// in layout, comments, order of nodes and networks, or defaults that are spelt out.
    pub fn digest(&self) -> String {
        let mut sorted = self.clone();
        sorted.nodes.sort_by(|one, other| one.name.cmp(&other.name));
        sorted.networks.sort_by(|one, other| one.name.cmp(&other.name));
        sorted
            .forwards
            .sort_by_key(|forward| (forward.node.clone(), forward.guest_port, forward.host_port));
        for node in &mut sorted.nodes {
            node.services.sort_by(|one, other| one.name.cmp(&other.name));
            node.files.sort_by(|one, other| one.path.cmp(&other.path));
        }
        blake3::hash(sorted.to_yaml().as_bytes()).to_hex().to_string()
    }
}

/// A mapping under construction.
#[derive(Default)]
struct Map(Vec<(String, Tree)>);

impl Map {
    fn plain(mut self, key: &str, value: &dyn Display) -> Self {
        self.0.push((key.to_owned(), Tree::Plain(value.to_string())));
        self
    }

    fn text(mut self, key: &str, value: &str) -> Self {
        self.0.push((key.to_owned(), Tree::Text(value.to_owned())));
        self
    }

    fn optional(self, key: &str, value: Option<&String>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self,
        }
    }

    fn list(mut self, key: &str, items: Vec<Tree>) -> Self {
        if !items.is_empty() {
            self.0.push((key.to_owned(), Tree::List(items)));
        }
        self
    }

    fn entries(mut self, key: &str, entries: Vec<(String, Tree)>) -> Self {
        if !entries.is_empty() {
            self.0.push((key.to_owned(), Tree::Map(entries)));
        }
        self
    }

    fn texts(self, key: &str, entries: &BTreeMap<String, String>) -> Self {
        let text = |(key, value): (&String, &String)| (key.clone(), Tree::Text(value.clone()));
        self.entries(key, entries.iter().map(text).collect())
    }

    fn done(self) -> Tree {
        Tree::Map(self.0)
    }
}

/// Returns the topology as it is written.
pub fn tree(topology: &Topology) -> Tree {
    let Topology { name, description, networks, nodes, forwards, ssh, snapshots, labels, notes: _ } =
        topology;
    let mut map = Map::default().text("name", name.as_str());
    if !description.is_empty() {
        map = map.text("description", description);
    }
    let snapshots =
        snapshots.iter().map(|(name, tag)| (name.to_string(), Tree::Text(tag.to_string())));
    map.list("networks", networks.iter().map(network).collect())
        .list("nodes", nodes.iter().map(node).collect())
        .list("forwards", forwards.iter().map(forward).collect())
        .entries("ssh", ssh_entries(ssh))
        .entries("snapshots", snapshots.collect())
        .texts("labels", labels)
        .done()
}

fn ssh_entries(ssh: &Ssh) -> Vec<(String, Tree)> {
    let Ssh { user, key_path, connect_timeout_s } = ssh;
    Map::default()
        .text("user", user)
        .optional("key_path", key_path.as_ref())
        .plain("connect_timeout_s", connect_timeout_s)
        .0
}

fn network(network: &Network) -> Tree {
    let Network { name, subnet, prefix_bits, gateway, ipv6, uplink, link, bridge } = network;
    let mut map = Map::default()
        .text("name", name.as_str())
        .plain("subnet", &format!("{subnet}/{prefix_bits}"))
        .plain("gateway", gateway);
    if let Some(ipv6) = ipv6 {
        map = map.text("subnet6", &format!("{}/{}", ipv6.subnet, ipv6.prefix_bits));
    }
    let uplink = match uplink {
        Uplink::None => "none",
        Uplink::Nat => "nat",
    };
    if let Some(bridge) = bridge {
        map = map.text("mode", "kernel").text("bridge", bridge.as_str());
    }
    let link = link.as_ref().map(link_entries).unwrap_or_default();
    map.plain("uplink", &uplink).entries("link", link).done()
}

fn link_entries(link: &Impairment) -> Vec<(String, Tree)> {
    let Impairment {
        latency_us,
        jitter_us,
        distribution,
        loss,
        burst,
        duplicate,
        corrupt,
        reorder,
        rate_bps,
    } = link;
    let mut map = Map::default();
    let times = [("latency_ms", *latency_us, 1000), ("jitter_ms", *jitter_us, 1000)];
    let shares = [
        ("loss_pct", *loss),
        ("duplicate_pct", *duplicate),
        ("corrupt_pct", *corrupt),
        ("reorder_pct", *reorder),
    ];
    let shares = shares.map(|(key, PerMillion(share))| (key, u64::from(share), 10_000));
    for (key, value, unit) in times.into_iter().chain(shares) {
        if value > 0 {
            map = map.plain(key, &decimal(value, unit));
        }
    }
    let distribution = match distribution {
        Distribution::Uniform => None,
        Distribution::Normal => Some("normal"),
        Distribution::Pareto => Some("pareto"),
    };
    if let Some(distribution) = distribution {
        map = map.plain("distribution", &distribution);
    }
    if let Some(burst) = burst {
        map = map.plain("burst_frames", &burst.mean_frames);
    }
    if let Some(rate) = rate_bps {
        map = map.plain("rate_kbit", &(rate / 1000));
    }
    map.0
}

/// Returns `value / unit` with as many digits as it needs.
fn decimal(value: u64, unit: u64) -> String {
    let (whole, mut rest) = (value / unit, value % unit);
    let mut text = whole.to_string();
    if rest > 0 {
        text.push('.');
    }
    let mut digit = unit / 10;
    while rest > 0 && digit > 0 {
        let _ = write!(text, "{}", rest / digit);
        rest %= digit;
        digit /= 10;
    }
    text
}

fn node(node: &Node) -> Tree {
    let Node {
        name,
        role,
        image,
        vcpus,
        memory,
        disk,
        extra_disks,
        interfaces,
        env,
        user_data,
        files,
        commands,
        services,
        labels,
    } = node;
    let ImageRef { name: image, file: image_file } = image;
    let mut map = Map::default()
        .text("name", name.as_str())
        .text("role", role)
        .text("image", image_file.as_ref().unwrap_or(image))
        .plain("vcpus", vcpus)
        .plain("memory", &size(*memory));
    if let Some(disk) = disk {
        map = map.plain("disk", &size(*disk));
    }
    // An empty list says that there are none; leaving it out would make one.
    map.0.push(("interfaces".to_owned(), Tree::List(interfaces.iter().map(interface).collect())));
    let disk = |disk: &ExtraDisk| {
        Map::default().text("name", disk.name.as_str()).plain("size", &size(disk.size)).done()
    };
    map.list("extra_disks", extra_disks.iter().map(disk).collect())
        .texts("env", env)
        .optional("user_data", user_data.as_ref())
        .list("files", files.iter().map(file).collect())
        .list("commands", commands.iter().map(command).collect())
        .list("services", services.iter().map(service).collect())
        .texts("labels", labels)
        .done()
}

/// Returns a size in the largest unit that writes it exactly.
fn size(size: ByteCount) -> String {
    for (unit, shift) in [("G", 30), ("M", 20), ("K", 10)] {
        if size.bytes().is_multiple_of(1 << shift) {
            return format!("{}{unit}", size.bytes() >> shift);
        }
    }
    size.bytes().to_string()
}

fn interface(interface: &Interface) -> Tree {
    let Interface { network, mac, address, address6 } = interface;
    let map = Map::default().text("network", network.as_str()).plain("ip", address);
    let address6 = address6.map(|address| address.to_string());
    map.optional("ip6", address6.as_ref()).text("mac", &mac.to_string()).done()
}

fn file(file: &File) -> Tree {
    let File { path, contents, mode, owner } = file;
    let map = Map::default().text("path", path).text("mode", &format!("{mode:04o}"));
    map.optional("owner", owner.as_ref()).text("contents", contents).done()
}

fn command(command: &Command) -> Tree {
    match command {
        Command::Shell(line) => Tree::Text(line.clone()),
        Command::Argv(argv) => Tree::List(argv.iter().cloned().map(Tree::Text).collect()),
    }
}

fn service(service: &Service) -> Tree {
    let Service { name, command: line, env, cwd, user, restart, after } = service;
    let mut map = Map::default().text("name", name.as_str());
    map.0.push(("command".to_owned(), command(line)));
    let restart = match restart {
        Restart::No => "no",
        Restart::OnFailure => "on-failure",
        Restart::Always => "always",
    };
    let after = after.iter().map(|name| Tree::Text(name.to_string())).collect();
    map.texts("env", env)
        .optional("cwd", cwd.as_ref())
        .optional("user", user.as_ref())
        .text("restart", restart)
        .list("after", after)
        .done()
}

fn forward(forward: &Forward) -> Tree {
    let Forward { host_port, node, guest_port } = forward;
    let mut map = Map::default();
    if let Some(port) = host_port {
        map = map.plain("host_port", port);
    }
    map.text("node", node.as_str()).plain("guest_port", guest_port).done()
}

/// Writes a value at the beginning of a line that has `indent` spaces before it.
fn write(out: &mut String, tree: &Tree, indent: usize) {
    match tree {
        Tree::Plain(text) => {
            out.push_str(text);
            out.push('\n');
        }
        Tree::Text(text) => write_text(out, text, indent),
        Tree::List(items) if items.is_empty() => out.push_str("[]\n"),
        Tree::Map(entries) if entries.is_empty() => out.push_str("{}\n"),
        Tree::List(items) => {
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    pad(out, indent);
                }
                out.push_str("- ");
                write(out, item, indent + 2);
            }
        }
        Tree::Map(entries) => {
            for (number, (key, value)) in entries.iter().enumerate() {
                if number > 0 {
                    pad(out, indent);
                }
                out.push_str(&scalar(key));
                out.push(':');
                let below = match value {
                    Tree::List(items) => !items.is_empty(),
                    Tree::Map(entries) => !entries.is_empty(),
                    Tree::Plain(_) | Tree::Text(_) => false,
                };
                if below {
                    out.push('\n');
                    pad(out, indent + 2);
                } else {
                    out.push(' ');
                }
                write(out, value, indent + 2);
            }
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn write_text(out: &mut String, text: &str, indent: usize) {
    let Some(style) = block_style(text) else {
        out.push_str(&scalar(text));
        out.push('\n');
        return;
    };
    out.push_str(style);
    out.push('\n');
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        if !line.is_empty() {
            pad(out, indent.max(2));
            out.push_str(line);
        }
        out.push('\n');
    }
}

/// Returns how a text of several lines is written as a block, if it can be.
fn block_style(text: &str) -> Option<&'static str> {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let plain = |c: char| c == '\n' || (!c.is_control() && !is_odd(c));
    let ends = body.ends_with(['\n', ' ']) || body.starts_with([' ', '\n']);
    if !body.contains('\n') || ends || body.is_empty() || !text.chars().all(plain) {
        return None;
    }
    Some(if text.ends_with('\n') { "|" } else { "|-" })
}

/// Line breaks and marks that YAML treats in a way of its own.
fn is_odd(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Words that other readers of YAML take for something else.
const WORDS: [&str; 11] =
    ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"];

/// Returns a text on one line, quoted unless every reader takes it for a text.
fn scalar(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let word = WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    if begins && !word && text.chars().all(safe) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() || is_odd(c) => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
