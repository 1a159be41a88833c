//! What makes a new node itself: names, keys, addresses. Each step may be done again and changes
//! nothing then; each file is replaced whole. No child processes: this is on the way of every
//! warm start.

pub mod remembered;

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Instant;

use pando_model::guest::{Identity, InterfaceConfig};
use pando_model::network::MacAddress;
use pando_wire::guest::{Answer, Refusal, RefusalKind, Reply};
use rustix::process::{Pid, Signal, kill_process};

use crate::config::{Authority, Config};
use crate::limits::{SSH_SERVER_POLL, SSH_SERVER_TIMEOUT};
use crate::netlink::{Interface, Netlink, Prefixed, Up, interfaces};
use crate::users::read_table;

/// The address under which Debian's `/etc/hosts` names the machine itself.
const OWN_ADDRESS: &str = "127.0.1.1";

/// Makes the node what `identity` says.
pub fn set(config: &Config, identity: &Identity) -> Answer {
    check(identity)?;
    let root = config.root.as_path();
    let object = |what: &'static str| move |error: io::Error| Refusal::from_io(what, &error);
    set_hostname(config, &identity.hostname).map_err(object("the host name"))?;
    set_machine_id(root, &identity.machine_id).map_err(object("the machine id"))?;
    set_host_key(root, identity).map_err(object("the SSH host key"))?;
    set_authorized_keys(root, &identity.authorized_keys).map_err(object("the authorized keys"))?;
    set_environment(root, identity).map_err(object("the environment"))?;
    set_resolvers(root, &identity.interfaces).map_err(object("the name servers"))?;
    remembered::write(root, &identity.interfaces).map_err(object("the addresses"))?;
    if config.authority == Authority::Machine {
        // A power failure from here on finds the node that the others have heard of.
        sync(root).map_err(object("the file system"))?;
        let present = interfaces().map_err(object("the network interfaces"))?;
        let plan = plan_network(&present, &identity.interfaces)?;
        apply_network(&plan).map_err(object("the network"))?;
        reload_ssh_server(root);
    }
    Ok(Reply::Done)
}

/// Writes the file system that `root` is on to its disk.
fn sync(root: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(root)?)?)
}

fn check(identity: &Identity) -> Result<(), Refusal> {
    let invalid = |what: &str| Err(Refusal::new(RefusalKind::Invalid, what));
    let name = &identity.hostname;
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(inner)
            && !label.starts_with('-')
    };
    if name.len() > 64 || !name.split('.').all(is_label) {
        return invalid("the host name is not one");
    }
    let id = &identity.machine_id;
    if id.len() != 32 || !id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return invalid("the machine id is not 32 lower-case hexadecimal digits");
    }
    let lines = identity.authorized_keys.iter().chain([&identity.ssh_host_key_public]);
    if lines.into_iter().any(|line| line.contains(['\n', '\0'])) {
        return invalid("a public key is longer than a line");
    }
    let is_variable = |(name, value): (&String, &String)| {
        !name.is_empty() && !name.contains(['=', '\n', '\0', ' ']) && !value.contains(['\n', '\0'])
    };
    if !identity.env.iter().all(is_variable) {
        return invalid("a variable cannot be written to the environment");
    }
    Ok(())
}

fn set_hostname(config: &Config, name: &str) -> io::Result<()> {
    if config.authority == Authority::Machine {
        rustix::system::sethostname(name.as_bytes())?;
    }
    replace(&config.root.join("etc/hostname"), &format!("{name}\n"), 0o644)?;
    let hosts = config.root.join("etc/hosts");
    let before = read_table(&hosts)?;
    replace(&hosts, &hosts_with(&before, name), 0o644)
}

/// Returns `/etc/hosts` in which this machine's own line names it.
fn hosts_with(before: &str, name: &str) -> String {
    let is_own = |line: &str| line.split_whitespace().next() == Some(OWN_ADDRESS);
    let mut hosts = String::new();
    for line in before.lines().filter(|line| !is_own(line)) {
        hosts.push_str(line);
        hosts.push('\n');
    }
    if !before.lines().any(|line| line.split_whitespace().next() == Some("127.0.0.1")) {
        hosts.push_str("127.0.0.1\tlocalhost\n");
    }
    let short = name.split('.').next().unwrap_or(name);
    let names = if short == name { name.to_owned() } else { format!("{name} {short}") };
    // Writing to a string does not fail.
    let _ = writeln!(hosts, "{OWN_ADDRESS}\t{names}");
    hosts
}

fn set_machine_id(root: &Path, id: &str) -> io::Result<()> {
    replace(&root.join("etc/machine-id"), &format!("{id}\n"), 0o444)
}

fn set_host_key(root: &Path, identity: &Identity) -> io::Result<()> {
    let ssh = root.join("etc/ssh");
    fs::create_dir_all(&ssh)?;
    let line = |text: &str| format!("{}\n", text.trim_end());
    replace(&ssh.join("ssh_host_ed25519_key"), &line(&identity.ssh_host_key), 0o600)?;
    replace(&ssh.join("ssh_host_ed25519_key.pub"), &line(&identity.ssh_host_key_public), 0o644)
}

fn set_authorized_keys(root: &Path, keys: &[String]) -> io::Result<()> {
    let directory = root.join("root/.ssh");
    fs::create_dir_all(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
    let file = directory.join("authorized_keys");
    let mut lines = read_table(&file)?;
    if !lines.is_empty() && !lines.ends_with('\n') {
        lines.push('\n');
    }
    for key in keys.iter().map(|key| key.trim()) {
        if !lines.lines().any(|line| line.trim() == key) {
            lines.push_str(key);
            lines.push('\n');
        }
    }
    replace(&file, &lines, 0o600)
}

fn set_environment(root: &Path, identity: &Identity) -> io::Result<()> {
    let file = root.join("etc/environment");
    let before = read_table(&file)?;
    let name_of = |line: &str| {
        let line = line.trim();
        line.strip_prefix("export ")
            .unwrap_or(line)
            .split('=')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let kept = before.lines().filter(|line| !identity.env.contains_key(&name_of(line)));
    let mut lines: String = kept.flat_map(|line| [line, "\n"]).collect();
    for (name, value) in &identity.env {
        // Writing to a string does not fail.
        let _ = writeln!(lines, "{name}={value}");
    }
    if lines == before { Ok(()) } else { replace(&file, &lines, 0o644) }
}

fn set_resolvers(root: &Path, interfaces: &[InterfaceConfig]) -> io::Result<()> {
    let mut lines = String::new();
    for server in interfaces.iter().flat_map(|interface| &interface.dns) {
        let server: IpAddr = server.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
        // Writing to a string does not fail.
        let _ = writeln!(lines, "nameserver {server}");
    }
    if lines.is_empty() {
        return Ok(());
    }
    replace(&root.join("etc/resolv.conf"), &lines, 0o644)
}

/// Gives `path` the contents `text`: under its name there is always a whole file. Where another
/// file is mounted over it, as systemd does with the machine id, it is written in place.
fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let unfinished = path.with_file_name(format!(".{name}.pando"));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&unfinished, path));
    if let Err(error) = written {
        // What counts is the error that was.
        let _ = fs::remove_file(&unfinished);
        if error.kind() == io::ErrorKind::ResourceBusy {
            return fs::write(path, text);
        }
        return Err(error);
    }
    Ok(())
}

/// What is to be done to one interface.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    index: u32,
    /// The MAC address that it must be given first.
    mac: Option<[u8; 6]>,
    addresses: Vec<Prefixed>,
    gateway: Option<IpAddr>,
}

/// Finds each interface by its MAC address, before anything is changed.
fn plan_network(present: &[Interface], wanted: &[InterfaceConfig]) -> Result<Vec<Step>, Refusal> {
    let mut plan = Vec::new();
    for config in wanted {
        let has = |mac: &str| {
            let mac = mac.to_ascii_lowercase();
            present.iter().find(move |interface| interface.mac == mac)
        };
        let earlier = || config.was.as_deref().and_then(has);
        let found = has(&config.mac).or_else(earlier).ok_or_else(|| {
            let message = format!("no interface has the address {}", config.mac);
            Refusal::new(RefusalKind::NotFound, message)
        })?;
        let invalid = |what: &str| {
            Refusal::new(
                RefusalKind::Invalid,
                format!("{}: `{what}` is not an address", config.mac),
            )
        };
        let mac = match found.mac == config.mac.to_ascii_lowercase() {
            true => None,
            false => {
                let mac: MacAddress = config.mac.parse().map_err(|_| invalid(&config.mac))?;
                Some(mac.0)
            }
        };
        let parse = |text: &String| text.parse().map_err(|_| invalid(text));
        let addresses = [&config.address].into_iter().chain(&config.more).map(parse);
        let addresses = addresses.collect::<Result<_, _>>()?;
        let gateway = match &config.gateway {
            Some(gateway) => Some(gateway.parse().map_err(|_| invalid(gateway))?),
            None => None,
        };
        plan.push(Step { index: found.index, mac, addresses, gateway });
    }
    Ok(plan)
}

fn apply_network(plan: &[Step]) -> io::Result<()> {
    let netlink = Netlink::open()?;
    if let Some(loopback) = interfaces()?.iter().find(|interface| interface.name == "lo") {
        netlink.set_up(loopback.index, Up::Yes)?;
    }
    for step in plan {
        if let Some(mac) = step.mac {
            // Its IPv6 address of this link follows from it when it comes up.
            netlink.set_up(step.index, Up::No)?;
            netlink.set_mac(step.index, mac)?;
        }
        netlink.set_up(step.index, Up::Yes)?;
        for address in &step.addresses {
            netlink.add_address(step.index, *address)?;
        }
        if let Some(gateway) = step.gateway {
            netlink.set_default_route(step.index, gateway)?;
        }
    }
    Ok(())
}

/// Has a running SSH server read its new host key. It starts anew for that, and refuses connections
/// until it has: this waits until it listens, within bounds.
fn reload_ssh_server(root: &Path) {
    let file = root.join("run/sshd.pid");
    let pid = read_table(&file).ok();
    let pid = pid.and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
    let Some(pid) = pid.filter(|pid| is_ssh_server(*pid)) else { return };
    // It removes the file at once, and writes it again when it listens (OpenSSH, sshd.c).
    let written = || fs::metadata(&file).and_then(|facts| facts.modified()).ok();
    let (before, deadline) = (written(), Instant::now() + SSH_SERVER_TIMEOUT);
    let listens = || written().is_some_and(|time| Some(time) != before);
    // It may end this instant.
    let _ = kill_process(pid, Signal::HUP);
    while !listens() && is_ssh_server(pid) && Instant::now() < deadline {
        std::thread::sleep(SSH_SERVER_POLL);
    }
}

fn is_ssh_server(pid: Pid) -> bool {
    let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()));
    name.is_ok_and(|name| name.trim() == "sshd")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn identity() -> Identity {
        Identity {
            hostname: "db.shop".into(),
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            ssh_host_key: "-----BEGIN\nkey\n-----END".into(),
            ssh_host_key_public: "ssh-ed25519 AAAA db".into(),
            authorized_keys: vec!["ssh-ed25519 BBBB me".into()],
            interfaces: vec![InterfaceConfig {
                mac: "52:54:00:00:00:01".into(),
                was: None,
                address: "10.0.2.15/24".into(),
                more: Vec::new(),
                gateway: Some("10.0.2.2".into()),
                dns: vec!["10.0.2.3".into()],
            }],
            env: BTreeMap::from([("COLOUR".into(), "green".into())]),
        }
    }

    /// Whatever a node may be called, its guest takes the host name that is made of it.
    #[test]
    fn the_host_name_of_every_name_is_one() {
        let mut texts = vec![String::new()];
        let mut names = vec!["a".repeat(63), "my_db_1".to_owned()];
        for _ in 0..5 {
            let longer = |text: &String| ["a", "1", "-", "_", "."].map(|c| format!("{text}{c}"));
            texts = texts.iter().flat_map(longer).collect();
            names.extend(texts.iter().cloned());
        }
        let names: Vec<pando_model::Name> =
            names.iter().filter_map(|text| text.parse().ok()).collect();
        assert!(names.len() > 500 && names.iter().any(|name| name.as_str() == "a_-1"));
        for name in names {
            let identity = Identity { hostname: name.host_name(), ..identity() };
            assert!(check(&identity).is_ok(), "{name}: {}", identity.hostname);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn identity_is_written_and_writing_it_again_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n127.0.1.1 image\n::1 ip6\n")
            .unwrap();
        fs::write(root.join("etc/environment"), "KEPT=1\nCOLOUR=red\n").unwrap();
        std::os::unix::fs::symlink("../run/stub.conf", root.join("etc/resolv.conf")).unwrap();
        fs::create_dir_all(root.join("root/.ssh")).unwrap();
        fs::write(root.join("root/.ssh/authorized_keys"), "ssh-rsa CCCC image").unwrap();
        let config = Config::embedded(root);
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        for _ in 0..2 {
            assert_eq!(set(&config, &identity()), Ok(Reply::Done));
            assert_eq!(read("etc/hostname"), "db.shop\n");
            assert_eq!(read("etc/hosts"), "127.0.0.1 localhost\n::1 ip6\n127.0.1.1\tdb.shop db\n");
            assert_eq!(read("etc/machine-id"), "0123456789abcdef0123456789abcdef\n");
            assert_eq!(read("etc/environment"), "KEPT=1\nCOLOUR=green\n");
            assert_eq!(read("etc/resolv.conf"), "nameserver 10.0.2.3\n");
            assert_eq!(
                read("root/.ssh/authorized_keys"),
                "ssh-rsa CCCC image\nssh-ed25519 BBBB me\n"
            );
            assert_eq!(read("etc/ssh/ssh_host_ed25519_key"), "-----BEGIN\nkey\n-----END\n");
            assert_eq!(mode(&root.join("etc/ssh/ssh_host_ed25519_key")), 0o600);
            assert_eq!(mode(&root.join("etc/machine-id")), 0o444);
            assert_eq!(mode(&root.join("root/.ssh")), 0o700);
            assert_eq!(mode(&root.join("root/.ssh/authorized_keys")), 0o600);
        }
        let hidden = fs::read_dir(root.join("etc"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
        assert_eq!(hidden.count(), 0);
    }

    #[test]
    fn an_identity_that_would_break_files_is_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::embedded(dir.path());
        let broken: [fn(&mut Identity); 8] = [
            |identity| identity.hostname = "a b".into(),
            |identity| identity.hostname = "x\n127.0.0.1 bank".into(),
            |identity| identity.hostname = String::new(),
            |identity| identity.hostname = "-x".into(),
            |identity| identity.machine_id = "0123".into(),
            |identity| identity.authorized_keys.push("a\nb".into()),
            |identity| drop(identity.env.insert("A\nB".into(), "1".into())),
            |identity| drop(identity.env.insert("A".into(), "1\nLD_PRELOAD=x".into())),
        ];
        for (at, change) in broken.into_iter().enumerate() {
            let mut identity = identity();
            change(&mut identity);
            assert_eq!(set(&config, &identity).unwrap_err().kind, RefusalKind::Invalid, "{at}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn interfaces_are_found_by_mac_before_anything_is_changed() {
        let mac = "52:54:00:00:00:01".to_owned();
        let present = [Interface { name: "ens3".into(), index: 2, mac, up: false }];
        let mut wanted = identity().interfaces;
        wanted[0].mac = "52:54:00:00:00:01".to_uppercase();
        let plan = plan_network(&present, &wanted).unwrap();
        let address = "10.0.2.15/24".parse().unwrap();
        let gateway = Some([10, 0, 2, 2].into());
        let step = |mac, addresses| Step { index: 2, mac, addresses, gateway };
        assert_eq!(plan, [step(None, vec![address])]);
        // In a node that was restored from its image's ready state.
        wanted[0].was = Some(wanted[0].mac.clone());
        wanted[0].mac = "52:54:00:00:00:02".into();
        wanted[0].more = vec!["fd00::2/64".into()];
        let plan = plan_network(&present, &wanted).unwrap();
        let both = vec![address, "fd00::2/64".parse().unwrap()];
        assert_eq!(plan, [step(Some([0x52, 0x54, 0, 0, 0, 2]), both)]);
        assert_eq!(plan_network(&[], &wanted).unwrap_err().kind, RefusalKind::NotFound);
        wanted[0].address = "10.0.2.15".into();
        assert_eq!(plan_network(&present, &wanted).unwrap_err().kind, RefusalKind::Invalid);
    }
}
