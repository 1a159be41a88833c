//! Files, connections and the rest of the requests, with a real guest program.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use common::{soon, start, start_in, until};
use pando_link::{Booted, GuestClock, LinkError, RefusalKind};
use pando_model::guest::{FileKind, PushSpec};

fn spec(path: &Path, size: u64) -> PushSpec {
    PushSpec {
        path: path.to_str().unwrap().into(),
        mode: 0o640,
        owner: None,
        make_parents: false,
        size,
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, LinkError>) -> RefusalKind {
    match result {
        Err(LinkError::Refused { kind, .. }) => kind,
        other => panic!("{other:?}"),
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn files_are_pushed_whole_with_mode_and_owner_and_pulled_back() {
    let guest = start();
    let dir = tempfile::tempdir().unwrap();
    let contents: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 % 253) as u8).collect();
    let path = dir.path().join("new/deep/file");
    let mut push = PushSpec { make_parents: true, ..spec(&path, contents.len() as u64) };
    push.mode = 0o4751;
    push.owner = Some("4242".into());
    let facts = guest.link.push(&push, &mut contents.as_slice(), soon()).unwrap();
    assert_eq!((facts.kind, facts.mode, facts.size), (FileKind::File, 0o4751, 3_000_000));
    let real = std::fs::metadata(&path).unwrap();
    assert_eq!((real.mode() & 0o7777, real.uid(), real.gid()), (0o4751, 4242, 4242));
    assert_eq!(names(path.parent().unwrap()), ["file"]);

    let mut pulled = Vec::new();
    let facts = guest.link.pull(path.to_str().unwrap(), &mut pulled, soon()).unwrap();
    assert_eq!((facts.size, facts.uid), (3_000_000, 4242));
    assert_eq!(pulled, contents);
    assert_eq!(guest.link.stat(path.to_str().unwrap(), soon()).unwrap(), facts);
    // Files without a size of their own are read to their end.
    pulled.clear();
    guest.link.pull("/proc/self/status", &mut pulled, soon()).unwrap();
    assert!(pulled.starts_with(b"Name:"));
    let empty = dir.path().join("empty");
    guest.link.push(&spec(&empty, 0), &mut [].as_slice(), soon()).unwrap();
    assert_eq!(std::fs::metadata(&empty).unwrap().len(), 0);
}

#[test]
fn links_are_followed_as_the_guest_would() {
    let guest = start();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("target"), "old").unwrap();
    std::os::unix::fs::symlink("target", dir.path().join("link")).unwrap();
    let link = dir.path().join("link");
    guest.link.push(&spec(&link, 3), &mut b"new".as_slice(), soon()).unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::read(dir.path().join("target")).unwrap(), b"new");
    assert_eq!(std::fs::metadata(&link).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_transfer_that_breaks_leaves_what_was_there() {
    let guest = start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "before").unwrap();
    let before = || {
        until("the unfinished file is gone", || names(dir.path()) == ["file"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
    };
    // The host's file ends too early.
    let short = guest.link.push(&spec(&path, 100_000), &mut [1u8; 50_000].as_slice(), soon());
    assert!(matches!(short, Err(LinkError::Local { .. })), "{short:?}");
    before();
    // The epoch ends in the middle.
    struct Restored<'a>(&'a common::Guest, usize);
    impl Read for Restored<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.1 += 1;
            if self.1 == 4 {
                self.0.link.hello(GuestClock::Keep, soon()).unwrap();
            }
            Ok(buffer.len())
        }
    }
    let torn = guest.link.push(&spec(&path, 1_000_000), &mut Restored(&guest, 0), soon());
    assert!(matches!(torn, Err(LinkError::EpochEnded { .. })), "{torn:?}");
    before();
    // The link dies in the middle.
    let mut guest = guest;
    let link = guest.link;
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        struct Stuck(std::sync::mpsc::Receiver<()>, usize);
        impl Read for Stuck {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                self.1 += 1;
                if self.1 == 3 {
                    let _ = self.0.recv();
                    return Err(std::io::ErrorKind::BrokenPipe.into());
                }
                Ok(buffer.len())
            }
        }
        let process = &mut guest.process;
        let path = &path;
        let pusher = scope.spawn(move || {
            let _ = link.push(&spec(path, 1_000_000), &mut Stuck(receiver, 0), soon());
            drop(link);
        });
        until("the transfer has begun", || names(dir.path()).len() == 2);
        drop(sender);
        pusher.join().unwrap();
        assert!(process.0.wait().unwrap().success());
    });
    before();
}

#[test]
fn what_cannot_be_transferred_is_refused_with_its_reason() {
    let guest = start();
    let link = &guest.link;
    let dir = tempfile::tempdir().unwrap();
    let push = |path: &Path| link.push(&spec(path, 1), &mut b"x".as_slice(), soon());
    assert_eq!(kind(push(Path::new("relative"))), RefusalKind::Invalid);
    assert_eq!(kind(push(Path::new("/a\0b"))), RefusalKind::Invalid);
    assert_eq!(kind(push(dir.path())), RefusalKind::WrongFileType);
    assert_eq!(kind(push(Path::new("/"))), RefusalKind::WrongFileType);
    assert_eq!(kind(push(&dir.path().join("no/such"))), RefusalKind::NotFound);
    let owner = Some("nobody-here".into());
    let spec = PushSpec { owner, ..spec(&dir.path().join("x"), 1) };
    assert_eq!(kind(link.push(&spec, &mut b"x".as_slice(), soon())), RefusalKind::NotFound);
    assert_eq!(names(dir.path()), Vec::<String>::new());

    let pull = |path: &str| link.pull(path, &mut Vec::new(), soon());
    assert_eq!(kind(pull("/no/such")), RefusalKind::NotFound);
    assert_eq!(kind(pull("/etc")), RefusalKind::WrongFileType);
    assert_eq!(kind(pull("/dev/zero")), RefusalKind::WrongFileType);
    assert_eq!(kind(pull("etc/passwd")), RefusalKind::Invalid);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert_eq!(kind(pull(dir.path().join("pipe").to_str().unwrap())), RefusalKind::WrongFileType);
    assert_eq!(kind(link.list("/etc/passwd", soon())), RefusalKind::WrongFileType);
    assert_eq!(kind(link.stat("", soon())), RefusalKind::Invalid);
}

#[test]
fn directories_are_listed_in_order_and_within_bounds() {
    let guest = start();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("b")).unwrap();
    std::fs::write(dir.path().join("a"), "12345").unwrap();
    std::os::unix::fs::symlink("/no/where", dir.path().join("c")).unwrap();
    let listing = guest.link.list(dir.path().to_str().unwrap(), soon()).unwrap();
    let kinds: Vec<_> =
        listing.entries.iter().map(|entry| (entry.kind, entry.path.clone())).collect();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    assert_eq!(
        kinds,
        [
            (FileKind::File, path("a")),
            (FileKind::Directory, path("b")),
            (FileKind::Symlink, path("c")),
        ]
    );
    assert!(!listing.truncated);
    for n in 0..5000 {
        std::fs::write(dir.path().join(format!("f{n:0100}")), "").unwrap();
    }
    let listing = guest.link.list(dir.path().to_str().unwrap(), soon()).unwrap();
    assert!(listing.truncated && listing.entries.len() > 500, "{}", listing.entries.len());
}

#[test]
fn connections_are_relayed_with_half_close() {
    let guest = start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let total = 4 * 1024 * 1024;
    // The kernel completes the connection before anybody accepts it.
    let connection = guest.link.connect(port, soon()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut socket, _) = listener.accept().unwrap();
            let mut received = Vec::new();
            socket.read_to_end(&mut received).unwrap();
            assert_eq!(received.len(), total);
            // The other direction is still open after the end of the first.
            socket.write_all(&received).unwrap();
        });
        let connection = &connection;
        scope.spawn(move || {
            connection.write_all(&vec![9; total], soon()).unwrap();
            connection.shutdown_write(soon()).unwrap();
        });
        let mut buffer = [0; 10_000];
        let mut received = 0;
        loop {
            let count = connection.read(&mut buffer, soon()).unwrap();
            if count == 0 {
                break;
            }
            assert!(buffer[..count].iter().all(|&byte| byte == 9));
            received += count;
        }
        assert_eq!(received, total);
        // The end stays the end.
        assert_eq!(connection.read(&mut buffer, soon()).unwrap(), 0);
    });
    drop(listener);
    assert_eq!(kind(guest.link.connect(port, soon())), RefusalKind::ConnectionRefused);
}

#[test]
fn dropping_or_aborting_a_connection_closes_the_guests_socket() {
    let guest = start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connection = guest.link.connect(port, soon()).unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| connection.read(&mut [0; 10], soon()));
        connection.abort();
        assert!(matches!(reader.join().unwrap(), Err(LinkError::Closed { .. })));
    });
    assert_eq!(socket.read(&mut [0; 10]).unwrap(), 0);
    let connection = guest.link.connect(port, soon()).unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    drop(connection);
    assert_eq!(socket.read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn facts_sync_and_boot_are_answered_and_power_is_not_ours() {
    let guest = start();
    let facts = guest.link.facts(soon()).unwrap();
    assert_eq!(facts.guest_version, env!("CARGO_PKG_VERSION"));
    assert!(facts.memory_total.0 > 0);
    guest.link.sync(soon()).unwrap();
    if facts.services.is_empty() {
        assert_eq!(guest.link.wait_booted(soon()).unwrap(), Booted::Unmanaged);
    }
    // The guest program of a test does not own the machine.
    assert_eq!(kind(guest.link.power_off(soon())), RefusalKind::Unsupported);
    assert_eq!(kind(guest.link.reboot(soon())), RefusalKind::Unsupported);
}

#[test]
fn identity_and_scrub_reach_the_root_they_were_given() {
    let root = tempfile::tempdir().unwrap();
    let guest = start_in(root.path());
    let identity = pando_model::guest::Identity {
        hostname: "web".into(),
        machine_id: "f".repeat(32),
        ssh_host_key: "secret".into(),
        ssh_host_key_public: "public".into(),
        authorized_keys: vec![],
        interfaces: vec![],
        env: [("A".to_owned(), "1".to_owned())].into(),
    };
    guest.link.set_identity(&identity, soon()).unwrap();
    assert_eq!(std::fs::read_to_string(root.path().join("etc/hostname")).unwrap(), "web\n");
    guest.link.scrub(soon()).unwrap();
    assert_eq!(std::fs::read_to_string(root.path().join("etc/machine-id")).unwrap(), "");
    assert!(!root.path().join("etc/ssh/ssh_host_ed25519_key").exists());
}
