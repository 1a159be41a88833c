//! Uplinks on real machines, in a network namespace of their own: one interface with an outside
//! address and a link-local one, servers on each of them and on the loopback, a name server.
//!
//! Each test starts itself again inside the namespaces, as keepers outlive whoever starts them and
//! must be inside from their first moment.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::cluster::shape;
use common::{Branch, Cut, World};
use pando_driver::BranchHost;
use pando_driver::host::{AfterStart, HostError, NodeStart};
use pando_driver::progress::Reporter;
use pando_model::Uplink;
use pando_model::commit::CommitKind;

const OUTSIDE: &str = "198.51.100.1";
const LINK_LOCAL: &str = "169.254.7.7";
/// Where Ubuntu's own resolver listens: on the loopback.
const RESOLVER: &str = "127.0.0.53";
const PORT: u16 = 8000;

/// Runs `test`, of this name, as root of its own network and mounts.
fn in_namespaces(name: &str, test: impl Future<Output = ()>) {
    const INSIDE: &str = "PANDO_TEST_NAMESPACE";
    if std::env::var_os(INSIDE).is_none() {
        let status = Command::new("unshare")
            .args(["--net", "--mount"])
            .args((!rustix::process::geteuid().is_root()).then_some("--map-root-user"))
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    std::fs::write(&resolv_conf, format!("nameserver {RESOLVER}\n")).unwrap();
    run("mount", &["--bind", resolv_conf.to_str().unwrap(), "/etc/resolv.conf"]);
    run("ip", &["link", "set", "lo", "up"]);
    run("ip", &["link", "add", "out", "type", "veth", "peer", "name", "far"]);
    for end in ["out", "far"] {
        run("ip", &["link", "set", end, "up"]);
    }
    run("ip", &["address", "add", &format!("{OUTSIDE}/24"), "dev", "out"]);
    run("ip", &["address", "add", &format!("{LINK_LOCAL}/16"), "dev", "out"]);
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test);
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// What one address of the host was sent. Its threads end with the test's process.
struct Server {
    address: &'static str,
    connections: Arc<AtomicUsize>,
    datagrams: Arc<AtomicUsize>,
}

impl Server {
    /// Says its name to every connection, and waits until that is closed.
    fn start(address: &'static str) -> Self {
        let server = Self { address, connections: Arc::default(), datagrams: Arc::default() };
        let listener = TcpListener::bind((address, PORT)).unwrap();
        let connections = Arc::clone(&server.connections);
        thread::spawn(move || {
            for connection in listener.incoming() {
                connections.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    let mut connection = connection.unwrap();
                    let mut line = [0; 64];
                    let _ = writeln!(connection, "this is {address}");
                    while let Ok(count @ 1..) = connection.read(&mut line) {
                        let _ = connection.write_all(&line[..count]);
                    }
                });
            }
        });
        let socket = UdpSocket::bind((address, PORT)).unwrap();
        let datagrams = Arc::clone(&server.datagrams);
        thread::spawn(move || {
            while socket.recv(&mut [0; 64]).is_ok() {
                datagrams.fetch_add(1, Ordering::SeqCst);
            }
        });
        server
    }

    fn seen(&self) -> (usize, usize) {
        (self.connections.load(Ordering::SeqCst), self.datagrams.load(Ordering::SeqCst))
    }
}

/// Answers every question for an address with 192.0.2.77, and any other with nothing.
fn start_name_server() {
    let socket = UdpSocket::bind((RESOLVER, 53)).unwrap();
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            // Header, one question: its name ends with an empty label; then type and class.
            let name = question[12..length].iter().position(|byte| *byte == 0).unwrap();
            let end = 12 + name + 5;
            let is_a = question[end - 4..end] == [0, 1, 0, 1];
            let mut answer = question[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            answer.extend(&question[12..end]);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 192, 0, 2, 77]);
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
}

/// A command of the guest: connects and returns the first line.
fn connect(address: &str) -> String {
    let script = format!("exec 3<>/dev/tcp/{address}/{PORT} && read -r line <&3 && echo $line");
    format!("timeout 10 bash -c '{script}' 2>&1")
}

/// A command of the guest: puts a TCP SYN and a UDP datagram for each address on the wire as they
/// are, whatever its kernel thinks of them.
fn send_raw(addresses: &[&str]) -> String {
    format!(
        r#"perl -MSocket -e '
        open(my $f, "<", "/sys/class/net/eth0/ifindex"); my $index = <$f>;
        open($f, "<", "/sys/class/net/eth0/address"); my $mac = <$f>;
        $mac =~ s/[:\n]//g;
        socket(my $s, 17, SOCK_RAW, 0) or die;
        my $to = pack("SnlSCCa8", 17, 0x0800, $index, 1, 0, 6, "");
        sub sum {{ my $sum = unpack("%32n*", $_[0] . (length($_[0]) % 2 ? "\0" : ""));
            $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16; 0xffff & ~$sum }}
        for my $address (qw({addresses})) {{
            for my $protocol (6, 17) {{
                my ($from, $dest) = (inet_aton("10.0.2.15"), inet_aton($address));
                my $l4 = $protocol == 6
                    ? pack("nnNNnnnn", 40000 + int(rand(20000)), {PORT}, 1, 0, 0x5002, 65535, 0, 0)
                    : pack("nnnna4", 40000 + int(rand(20000)), {PORT}, 12, 0, "hiya");
                my $check = sum($from . $dest . pack("nn", $protocol, length($l4)) . $l4);
                substr($l4, $protocol == 6 ? 16 : 6, 2) = pack("n", $check);
                my $ip = pack("CCnnnCCna4a4", 0x45, 0, 20 + length($l4), 1, 0, 64, $protocol, 0,
                    $from, $dest);
                substr($ip, 10, 2) = pack("n", sum($ip));
                my $frame = pack("H12H12n", "52550a000202", $mac, 0x0800) . $ip . $l4;
                send($s, $frame, 0, $to) or die "send: $!";
            }}
        }}'"#,
        addresses = addresses.join(" ")
    )
}

/// The `passt` processes of this namespace.
fn uplinks() -> Vec<u32> {
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let network = std::fs::read_link(entry.path().join("ns/net"));
        if name.starts_with("passt") && network.is_ok_and(|network| network == own) {
            found.push(pid);
        }
    }
    found
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns a ready state, made without an uplink as all are.
async fn ready_state(world: &World) -> Cut {
    let template = world.boot("template").await;
    let (branch, db) = (&template.spec.branch, "db".parse().unwrap());
    world.host.make_anonymous(branch, &db, Duration::from_secs(60)).await.unwrap();
    let ready = world.cut(&template, CommitKind::Full).await;
    world.end(&[&template]).await;
    ready
}

/// Returns a running node as `vm_create` makes it.
async fn node(world: &World, ready: &Cut) -> Branch {
    let mut identity = world.identity("db", &world.ssh_keys());
    identity.interfaces[0].dns = match world.uplink {
        Uplink::None => vec![],
        Uplink::Nat => vec!["10.0.2.3".into()],
    };
    world.branch_as(ready, identity).await
}

#[test]
fn an_uplink_reaches_the_outside_and_nothing_of_the_host() {
    in_namespaces("an_uplink_reaches_the_outside_and_nothing_of_the_host", async {
        let mut world = World::new();
        let ready = ready_state(&world).await;
        assert!(uplinks().is_empty());
        let outside = Server::start(OUTSIDE);
        let inside = ["127.0.0.1", RESOLVER, LINK_LOCAL].map(Server::start);
        start_name_server();

        world.uplink = Uplink::Nat;
        let main = node(&world, &ready).await;
        assert_eq!(uplinks().len(), 1);
        assert_eq!(world.sh(&main, &connect(OUTSIDE)).await, format!("this is {OUTSIDE}\n"));
        let found = world.sh(&main, "getent ahostsv4 answer.test").await;
        assert!(found.starts_with("192.0.2.77 "), "{found}");

        let before = outside.seen();
        let all = ["127.0.0.1", RESOLVER, "0.0.0.0", "10.0.2.2", LINK_LOCAL, OUTSIDE];
        world.sh(&main, &send_raw(&all)).await;
        eventually("the packets for the outside arrive", || {
            outside.seen().0 > before.0 && outside.seen().1 > before.1
        })
        .await;
        // What was sent before this has gone its way.
        world.sh(&main, &connect(OUTSIDE)).await;
        for server in &inside {
            assert_eq!(server.seen(), (0, 0), "{}", server.address);
        }

        // A conversation that is open at the cut goes on in the parent.
        let talk = format!(
            "mkfifo /run/say && (bash -c 'exec 3<>/dev/tcp/{OUTSIDE}/{PORT}; \
             cat <&3 > /run/heard & cat /run/say >&3; wait') > /dev/null 2>&1 & \
             until grep -qs this /run/heard; do sleep 0.01; done"
        );
        world.sh(&main, &talk).await;
        let cut = world.cut(&main, CommitKind::Full).await;
        let child = world.branch(&cut, AfterStart::Run).await;
        assert_eq!(uplinks().len(), 2, "each branch has its own");
        assert_eq!(world.sh(&child, &connect(OUTSIDE)).await, format!("this is {OUTSIDE}\n"));
        let heard = "echo again > /run/say; until grep -q again /run/heard; do sleep 0.01; done";
        world.sh(&main, heard).await;

        let observed = world.host.observe(&child.spec.branch).await.unwrap().unwrap();
        common::kill(observed.keeper_pid);
        eventually("passt ends with its keeper", || uplinks().len() == 1).await;
        world.sh(&main, &connect(OUTSIDE)).await;
        world.end(&[&main, &child]).await;
        assert!(uplinks().is_empty());
    });
}

#[test]
fn nodes_behind_a_switch_reach_the_outside_each_its_own_way() {
    in_namespaces("nodes_behind_a_switch_reach_the_outside_each_its_own_way", async {
        let mut world = World::new();
        let ready = world.ready_state(shape(1, 256, 1)).await;
        let outside = Server::start(OUTSIDE);
        let inside = Server::start(LINK_LOCAL);
        start_name_server();

        world.uplink = Uplink::Nat;
        let main = world.cluster(&ready, &["web", "db"]).await;
        assert_eq!(uplinks().len(), 2, "each node has its own");
        for node in ["web", "db"] {
            let said = world.sh_on(&main, node, &connect(OUTSIDE)).await;
            assert_eq!(said, format!("this is {OUTSIDE}\n"));
            let found = world.sh_on(&main, node, "getent ahostsv4 answer.test").await;
            assert!(found.starts_with("192.0.2.77 "), "{found}");
            let refused = connect(LINK_LOCAL).replace("timeout 10", "! timeout 1");
            world.sh_on(&main, node, &refused).await;
        }
        assert_eq!((outside.seen().0, inside.seen()), (2, (0, 0)));
        assert_eq!(world.answers(&main, "web", "10.20.0.12").await, 3);

        let cut = world.cut_cluster(&main).await;
        let child = world.new_child(&cut, &main).await;
        world.start_all(&[&child]).await;
        assert_eq!(uplinks().len(), 4, "and in each branch");
        for branch in [&main, &child] {
            let said = world.sh_on(branch, "db", &connect(OUTSIDE)).await;
            assert_eq!(said, format!("this is {OUTSIDE}\n"));
        }
        world.end(&[&main, &child]).await;
        eventually("passt ends with its keeper", || uplinks().is_empty()).await;
    });
}

#[test]
fn without_an_uplink_nothing_is_reached() {
    in_namespaces("without_an_uplink_nothing_is_reached", async {
        let world = World::new();
        let servers = ["127.0.0.1", RESOLVER, LINK_LOCAL, OUTSIDE].map(Server::start);
        let ready = ready_state(&world).await;
        let main = node(&world, &ready).await;
        world.sh(&main, &send_raw(&["127.0.0.1", "10.0.2.2", LINK_LOCAL, OUTSIDE])).await;
        let refused = connect(OUTSIDE).replace("timeout 10", "! timeout 1");
        world.sh(&main, &refused).await;
        for server in &servers {
            assert_eq!(server.seen(), (0, 0), "{}", server.address);
        }
        assert!(uplinks().is_empty());
        world.end(&[&main]).await;
    });
}

#[test]
fn a_missing_passt_is_named_with_its_package() {
    const INSIDE: &str = "PANDO_TEST_WITHOUT_PASST";
    if std::env::var_os(INSIDE).is_none() {
        let programs = tempfile::tempdir().unwrap();
        for path in std::env::split_paths(&std::env::var_os("PATH").unwrap()) {
            let qemu: PathBuf = path.join("qemu-system-x86_64");
            if qemu.exists() {
                let link = programs.path().join("qemu-system-x86_64");
                std::os::unix::fs::symlink(qemu, link).unwrap();
                break;
            }
        }
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_missing_passt_is_named_with_its_package", "--nocapture"])
            .env("PATH", programs.path())
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new();
        world.uplink = Uplink::Nat;
        let branch = world.new_branch("main", NodeStart::Boot).await;
        let error = world.host.start(&branch.spec, &Reporter::silent()).await.unwrap_err();
        let missing = HostError::ToolMissing { tool: "passt".into(), package: "passt".into() };
        assert_eq!(error, missing);
        world.assert_nothing_runs();
    });
}
