//! Everything but files and databases: packages, services, users, sockets, network, processes,
//! environment, kernel.

use std::collections::{BTreeMap, BTreeSet};

use pando_model::capture::{Aspect, Capture, Package, Port, Process, Service};
use pando_model::change::{ChangeKind, Severity, Side};

use crate::compare::{Comparison, Material, Subject, Time, When, side, since_boot, when};
use crate::noise;

/// Kernel messages of this level and worse are told.
const WARNING: u8 = 4;

/// One thing that is not the same on both sides.
pub(crate) struct Pair<'a, V> {
    pub name: &'a str,
    pub from: Option<&'a V>,
    pub to: Option<&'a V>,
    pub side: Side,
}

impl<V> Pair<'_, V> {
    const fn kind(&self) -> ChangeKind {
        match (self.from, self.to) {
            (None, _) => ChangeKind::Added,
            (Some(_), None) => ChangeKind::Removed,
            (Some(_), Some(_)) => ChangeKind::Changed,
        }
    }

    pub fn subject(&self, aspect: Aspect, name: String, words: impl Fn(&V) -> String) -> Subject {
        Subject {
            names: vec![name.clone()],
            aspect,
            change: self.kind(),
            name,
            before: self.from.map(&words),
            after: self.to.map(&words),
            side: self.side,
        }
    }
}

/// Returns what differs between two maps.
pub(crate) fn pairs<'a, V>(
    base: Option<&BTreeMap<String, V>>,
    from: &'a BTreeMap<String, V>,
    to: &'a BTreeMap<String, V>,
    same: impl Fn(&V, &V) -> bool,
) -> Vec<Pair<'a, V>> {
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let pair = |name: &'a String| {
        let (a, b) = (from.get(name), to.get(name));
        if let (Some(a), Some(b)) = (a, b)
            && same(a, b)
        {
            return None;
        }
        let side = side(base.map(|base| base.get(name)), a, b, &same);
        Some(Pair { name, from: a, to: b, side })
    };
    names.into_iter().filter_map(pair).collect()
}

/// Returns a time on each side that changed, as `of` knows it there.
pub(crate) fn times(
    material: &Material<'_>,
    on: Side,
    of: impl Fn(Side, &Capture) -> Option<When>,
) -> Vec<When> {
    let (from, to) = (|| of(Side::From, material.from), || of(Side::To, material.to));
    match on {
        Side::From => from().into_iter().collect(),
        Side::To | Side::Unknown => to().into_iter().collect(),
        Side::Both => from().into_iter().chain(to()).collect(),
    }
}

/// Returns when a file was changed.
fn file_time(side: Side, capture: &Capture, path: &str, time: Time) -> Option<When> {
    capture.files.get(path).map(|file| when(side, capture, file.ctime_ns, time))
}

pub(crate) fn packages(material: &Material<'_>, out: &mut Comparison) {
    let words = |package: &Package| match package.status.as_str() {
        "installed" => package.version.clone(),
        status => format!("{} ({status})", package.version),
    };
    let base = material.base.map(|base| &base.packages);
    for pair in pairs(base, &material.from.packages, &material.to.packages, |a, b| a == b) {
        // The list of its files is written when it is unpacked.
        let list = format!("/var/lib/dpkg/info/{}.list", pair.name);
        let when = times(material, pair.side, |side, capture| {
            let table = || file_time(side, capture, "/var/lib/dpkg/status", Time::Latest);
            file_time(side, capture, &list, Time::Exact).or_else(table)
        });
        let broken = pair.to.is_some_and(|package| package.status != "installed");
        let severity = if broken { Severity::High } else { Severity::Medium };
        out.add(pair.subject(Aspect::Packages, pair.name.to_owned(), words), severity, when);
    }
}

pub(crate) fn services(material: &Material<'_>, out: &mut Comparison) {
    // A unit that is not loaded and one that is loaded and dead are the same.
    let awake = |capture: &Capture| -> BTreeMap<String, Service> {
        let all = capture.services.iter();
        let awake = all.filter(|(_, service)| service.active != "inactive");
        awake.map(|(name, service)| (name.clone(), service.clone())).collect()
    };
    let (from, to) = (awake(material.from), awake(material.to));
    let base = material.base.map(awake);
    for pair in pairs(base.as_ref(), &from, &to, |a, b| a == b) {
        if noise::service(pair.name) {
            out.suppress("services that come and go by themselves");
            continue;
        }
        let words = |service: &Service| format!("{} ({})", service.active, service.sub);
        let mut subject = pair.subject(Aspect::Services, pair.name.to_owned(), words);
        subject.names.extend(pair.name.rsplit_once('.').map(|(name, _)| name.to_owned()));
        subject.change = ChangeKind::Changed;
        for told in [&mut subject.before, &mut subject.after] {
            told.get_or_insert_with(|| "inactive".to_owned());
        }
        let when = times(material, pair.side, |side, capture| {
            let own = capture.processes.iter().filter(|process| process.service == pair.name);
            let started = own.map(|process| process.started_ms).min()?;
            Some(since_boot(side, capture, started, Time::Near))
        });
        let failed = pair.to.is_some_and(|service| service.active == "failed");
        let severity = if failed { Severity::High } else { Severity::Medium };
        out.add(subject, severity, when);
    }
}

pub(crate) fn users(material: &Material<'_>, out: &mut Comparison) {
    let base = material.base.map(|base| &base.users);
    for pair in pairs(base, &material.from.users, &material.to.users, |a, b| a == b) {
        let when = times(material, pair.side, |side, capture| {
            file_time(side, capture, "/etc/passwd", Time::Latest)
        });
        let subject = pair.subject(Aspect::Users, pair.name.to_owned(), |user| {
            format!("uid {}, gid {}, {}, {}", user.uid, user.gid, user.home, user.shell)
        });
        let root = pair.to.is_some_and(|user| user.uid == 0);
        let severity = if root { Severity::High } else { Severity::Medium };
        out.add(subject, severity, when);
    }
    let base = material.base.map(|base| &base.groups);
    for pair in pairs(base, &material.from.groups, &material.to.groups, |a, b| a == b) {
        // A user's own group says nothing new.
        let users = if pair.to.is_some() { &material.to.users } else { &material.from.users };
        let other = if pair.to.is_some() { &material.from.users } else { &material.to.users };
        let changed = users.get(pair.name) != other.get(pair.name);
        if changed && pair.kind() != ChangeKind::Changed {
            out.suppress("groups of new and removed users");
            continue;
        }
        let when = times(material, pair.side, |side, capture| {
            file_time(side, capture, "/etc/group", Time::Latest)
        });
        let name = format!("group {}", pair.name);
        let mut subject = pair.subject(Aspect::Users, name, |group| match group.members.as_str() {
            "" => format!("gid {}", group.gid),
            members => format!("gid {}, {members}", group.gid),
        });
        subject.names.push(pair.name.to_owned());
        out.add(subject, Severity::Medium, when);
    }
}

pub(crate) fn ports(material: &Material<'_>, out: &mut Comparison) {
    let named = |capture: &Capture| -> BTreeMap<String, Port> {
        let name = |port: &Port| match port.address.contains(':') {
            true => format!("{} [{}]:{}", port.protocol, port.address, port.port),
            false => format!("{} {}:{}", port.protocol, port.address, port.port),
        };
        capture.ports.iter().map(|port| (name(port), port.clone())).collect()
    };
    let (from, to) = (named(material.from), named(material.to));
    let base = material.base.map(named);
    for pair in pairs(base.as_ref(), &from, &to, |a, b| a.process == b.process) {
        let port = pair.to.or(pair.from);
        if port.is_some_and(|port| noise::process(&port.process)) {
            out.suppress("sockets that come and go by themselves");
            continue;
        }
        let when = times(material, pair.side, |side, capture| {
            let pid = named(capture).get(pair.name)?.pid;
            let owner = capture.processes.iter().find(|process| process.pid == pid)?;
            Some(since_boot(side, capture, owner.started_ms, Time::Near))
        });
        let mut subject =
            pair.subject(Aspect::Ports, pair.name.to_owned(), |port| match port.process.as_str() {
                "" => "listens".to_owned(),
                process => format!("{process} listens"),
            });
        subject.names = port.map(|port| port.port.to_string()).into_iter().collect();
        let local =
            port.is_some_and(|port| port.address.starts_with("127.") || port.address == "::1");
        let severity = match (pair.kind(), local) {
            (ChangeKind::Added, false) => Severity::High,
            _ => Severity::Medium,
        };
        out.add(subject, severity, when);
    }
}

pub(crate) fn network(material: &Material<'_>, out: &mut Comparison) {
    let base = material.base.map(|base| &base.network);
    for pair in pairs(base, &material.from.network, &material.to.network, |a, b| a == b) {
        let file = if pair.name == "resolver" { "/etc/resolv.conf" } else { "" };
        let when = times(material, pair.side, |side, capture| {
            file_time(side, capture, file, Time::Latest)
        });
        let mut subject = pair.subject(Aspect::Network, pair.name.to_owned(), Clone::clone);
        let own = pair.name.split_once(' ').map_or(pair.name, |(_, own)| own);
        let value = pair.to.or(pair.from).cloned().unwrap_or_default();
        subject.names = vec![own.to_owned(), own.replace('.', "/")];
        // An address is often given without the length of its prefix, a route comes with its link.
        subject.names.extend(own.split_once('/').map(|(address, _)| address.to_owned()));
        subject.names.extend(value.rsplit_once("on ").map(|(_, link)| link.to_owned()));
        subject.names.extend([value, file.to_owned()]);
        out.add(subject, Severity::Medium, when);
    }
}

pub(crate) fn processes(material: &Material<'_>, out: &mut Comparison) {
    // Numbers differ in every boot: how many there are of each is compared.
    fn counted(capture: &Capture) -> BTreeMap<String, Vec<Process>> {
        let mut counted: BTreeMap<String, Vec<Process>> = BTreeMap::new();
        for process in &capture.processes {
            let user = capture.users.values().find(|user| user.uid == process.uid);
            let user = user.map_or_else(|| process.uid.to_string(), |user| user.name.clone());
            let name = match process.uid {
                0 => process.command.clone(),
                _ => format!("{} ({user})", process.command),
            };
            counted.entry(name).or_default().push(process.clone());
        }
        counted
    }
    let (from, to) = (counted(material.from), counted(material.to));
    let base = material.base.map(counted);
    for pair in pairs(base.as_ref(), &from, &to, |a, b| a.len() == b.len()) {
        let all = pair.to.or(pair.from).into_iter().flatten();
        if all.clone().all(|one| noise::process(&one.name) || noise::command(&one.command)) {
            out.suppress("processes that come and go by themselves");
            continue;
        }
        let when = times(material, pair.side, |side, capture| {
            let own = counted(capture);
            let newest = own.get(pair.name)?.iter().map(|process| process.started_ms).max()?;
            Some(since_boot(side, capture, newest, Time::Exact))
        });
        let mut subject = pair.subject(Aspect::Processes, pair.name.to_owned(), |all| {
            match (all.len(), all.first().map(|process| process.service.as_str())) {
                (1, Some("") | None) => "runs".to_owned(),
                (1, Some(service)) => format!("runs in {service}"),
                (count, _) => format!("runs {count} times"),
            }
        });
        // Started by its path or by its service, it may have been ended by its name.
        let first = pair.name.split(' ').next().unwrap_or_default();
        let name = first.rsplit('/').next().unwrap_or_default().to_owned();
        let services = pair.to.or(pair.from).into_iter().flatten();
        let services = services.map(|process| process.service.as_str());
        subject.names.push(pair.name.replacen(first, &name, 1));
        subject.names.extend(services.map(|name| name.trim_end_matches(".service").to_owned()));
        subject.names.push(name);
        out.add(subject, Severity::Low, when);
    }
}

pub(crate) fn env(material: &Material<'_>, out: &mut Comparison) {
    let base = material.base.map(|base| &base.env);
    for pair in pairs(base, &material.from.env, &material.to.env, |a, b| a == b) {
        let when = times(material, pair.side, |side, capture| {
            let login = pair.name.starts_with("login:");
            login.then(|| file_time(side, capture, "/etc/environment", Time::Latest)).flatten()
        });
        let hidden = noise::secret(pair.name);
        let mut subject = pair.subject(Aspect::Env, pair.name.to_owned(), |value| match hidden {
            true => format!("({} bytes)", value.len()),
            false => value.clone(),
        });
        subject.names.extend(pair.name.split_once(':').map(|(_, name)| name.to_owned()));
        out.add(subject, Severity::Medium, when);
    }
}

pub(crate) fn kernel(material: &Material<'_>, out: &mut Comparison) {
    let known = |capture: &Capture| -> BTreeSet<(u64, String)> {
        capture.kernel.iter().map(|line| (line.sequence, line.text.clone())).collect()
    };
    let (from, to) = (known(material.from), known(material.to));
    for (side, capture, other, change) in [
        (Side::To, material.to, &from, ChangeKind::Added),
        (Side::From, material.from, &to, ChangeKind::Removed),
    ] {
        // In another boot everything was said again; and a log's beginning is overwritten.
        let again = material.from.boot_id != material.to.boot_id;
        let first = other.first().map_or(0, |(sequence, _)| *sequence);
        for line in &capture.kernel {
            if other.contains(&(line.sequence, line.text.clone())) {
                continue;
            }
            if line.sequence < first || again && other.iter().any(|(_, text)| *text == line.text) {
                continue;
            }
            if line.level > WARNING {
                out.suppress("kernel messages below a warning");
                continue;
            }
            if noise::kernel(&line.text) {
                out.suppress("kernel messages about its own timing");
                continue;
            }
            let text = Some(line.text.clone());
            let added = change == ChangeKind::Added;
            let subject = Subject {
                aspect: Aspect::Kernel,
                change,
                name: format!("#{} {}", line.sequence, line.text),
                before: text.clone().filter(|_| !added),
                after: text.filter(|_| added),
                side,
                names: vec![line.text.clone()],
            };
            let severity = if line.level < WARNING { Severity::High } else { Severity::Medium };
            let when = since_boot(side, capture, line.at_us / 1000, Time::Logged);
            out.add(subject, severity, vec![when]);
        }
    }
}
