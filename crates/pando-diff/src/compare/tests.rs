use std::collections::BTreeMap;

use pando_model::capture::{
    Database, FileState, KernelLine, Package, Port, Process, Service, Table, User,
};
use pando_model::guest::FileKind;
use proptest::prelude::*;

use super::*;
use crate::candidates;

fn file(inode: u64, at: i64, size: u64) -> FileState {
    FileState {
        kind: FileKind::File,
        inode,
        ctime_ns: at,
        mtime_ns: at,
        size,
        mode: 0o644,
        uid: 0,
        gid: 0,
        target: None,
    }
}

fn directory(inode: u64, at: i64) -> FileState {
    FileState { kind: FileKind::Directory, mode: 0o755, ..file(inode, at, 4096) }
}

fn capture(files: &[(&str, FileState)]) -> Capture {
    let mut capture = Capture { boot_id: "b".into(), ..Capture::default() };
    for aspect in Aspect::ALL {
        capture.coverage.insert(*aspect, Coverage::Complete);
    }
    for (path, file) in files {
        capture.files.insert((*path).to_owned(), file.clone());
    }
    capture
}

fn compared(base: Option<&Capture>, from: &Capture, to: &Capture) -> Comparison {
    let owners = BTreeMap::new();
    compare(&Material { from, to, base, owners: &owners, aspects: Aspect::ALL })
}

fn told(comparison: &Comparison) -> Vec<String> {
    let told = |found: &Found| format!("{}{}", found.change.change.sign(), found.change.id);
    comparison.found.iter().map(told).collect()
}

#[test]
fn files_are_told_by_what_happened_to_them() {
    let same = ("/srv/same", file(1, 1, 5));
    let before = capture(&[
        same.clone(),
        ("/srv", directory(2, 1)),
        ("/srv/gone", file(3, 1, 5)),
        ("/srv/longer", file(4, 1, 5)),
        ("/srv/rewritten", file(5, 1, 5)),
        ("/srv/touched", file(6, 1, 5)),
        ("/srv/rights", file(7, 1, 5)),
        ("/srv/given", file(8, 1, 5)),
        ("/srv/old-name", file(9, 1, 5)),
        (
            "/srv/link",
            FileState { kind: FileKind::Symlink, target: Some("a".into()), ..file(10, 1, 1) },
        ),
        ("/etc/conf", file(11, 1, 5)),
        ("/var/cache/x", file(12, 1, 5)),
        ("/srv/d", directory(13, 1)),
        ("/srv/d/in", file(14, 1, 5)),
    ]);
    let mut after = capture(&[
        same,
        ("/srv", directory(2, 9)),
        ("/srv/new", file(30, 9, 5)),
        ("/srv/longer", file(4, 9, 6)),
        ("/srv/rewritten", file(5, 9, 5)),
        ("/srv/touched", file(6, 9, 5)),
        ("/srv/rights", FileState { mode: 0o4755, ctime_ns: 9, ..file(7, 1, 5) }),
        ("/srv/given", FileState { uid: 7, ctime_ns: 9, ..file(8, 1, 5) }),
        ("/srv/new-name", FileState { ctime_ns: 9, ..file(9, 1, 5) }),
        (
            "/srv/link",
            FileState { kind: FileKind::Symlink, target: Some("b".into()), ..file(10, 9, 1) },
        ),
        ("/etc/conf", file(11, 9, 7)),
        ("/var/cache/x", file(12, 9, 7)),
        ("/srv/e", FileState { ctime_ns: 9, ..directory(13, 1) }),
        ("/srv/e/in", file(14, 1, 5)),
    ]);
    let mut before = before;
    assert_eq!(
        candidates(&before, &after),
        ["/srv/given", "/srv/rewritten", "/srv/rights", "/srv/touched"]
    );
    let unknown = compared(None, &before, &after);
    assert!(told(&unknown).contains(&"~files:/srv/touched".to_owned()), "unknown is not equal");
    for path in ["/srv/given", "/srv/rights", "/srv/touched", "/srv/rewritten"] {
        before.digests.insert(path.into(), "11111111aa".into());
        after.digests.insert(path.into(), "11111111aa".into());
    }
    after.digests.insert("/srv/rewritten".into(), "22222222aa".into());
    let comparison = compared(Some(&before), &before, &after);
    assert_eq!(
        told(&comparison),
        [
            "mfiles:/srv/rights",
            "~config:/etc/conf",
            ">files:/srv/d",
            "ofiles:/srv/given",
            "-files:/srv/gone",
            "~files:/srv/link",
            "~files:/srv/longer",
            "+files:/srv/new",
            ">files:/srv/old-name",
            "~files:/srv/rewritten",
        ]
    );
    assert!(comparison.found.iter().all(|found| found.change.side == Side::To));
    let suppressed: Vec<_> = comparison.suppressed.into_iter().collect();
    assert_eq!(
        suppressed,
        [
            ("caches", 1),
            ("directories whose entries changed", 1),
            ("files with other times only", 1)
        ]
    );
}

#[test]
fn the_rest_of_a_system_is_told_without_numbers_that_always_differ() {
    let package = |version: &str| Package {
        name: "curl".into(),
        version: version.into(),
        status: "installed".into(),
    };
    let process = |pid: u32, command: &str| Process {
        pid,
        parent: 1,
        uid: 0,
        started_ms: 5,
        name: "x".into(),
        command: command.into(),
        service: String::new(),
    };
    let port = |port: u16, pid: u32| Port {
        protocol: "tcp".into(),
        address: "0.0.0.0".into(),
        port,
        process: "nginx".into(),
        pid,
    };
    let service = |active: &str| Service {
        name: "web.service".into(),
        active: active.into(),
        sub: "x".into(),
    };
    let user =
        User { name: "eva".into(), uid: 7, gid: 7, home: "/".into(), shell: "/bin/sh".into() };
    let (mut before, mut after) = (capture(&[]), capture(&[]));
    before.packages.insert("curl".into(), package("1"));
    after.packages.insert("curl".into(), package("2"));
    before.processes.insert(process(10, "cron"));
    after.processes.insert(process(99, "cron"));
    after.processes.insert(process(100, "nginx"));
    before.ports.insert(port(22, 1));
    after.ports.insert(port(22, 2));
    after.ports.insert(port(80, 2));
    before.services.insert("web.service".into(), service("inactive"));
    after.services.insert("web.service".into(), service("failed"));
    after.users.insert("eva".into(), user);
    after.env.insert("login:API_TOKEN".into(), "hunter2".into());
    for (sequence, level) in [(1, 3), (2, 6)] {
        after.kernel.push(KernelLine { sequence, level, at_us: 1, text: "oh".into() });
    }
    let comparison = compared(None, &before, &after);
    assert_eq!(
        told(&comparison),
        [
            "~services:web.service",
            "+ports:tcp 0.0.0.0:80",
            "+kernel:#1 oh",
            "~packages:curl",
            "+users:eva",
            "+env:login:API_TOKEN",
            "+processes:nginx",
        ]
    );
    let secret = &comparison.found[5].change;
    assert_eq!(secret.after.as_deref(), Some("(7 bytes)"));
}

#[test]
fn a_package_stands_for_its_files_and_a_large_directory_for_what_is_in_it() {
    let mut after = capture(&[("/usr/bin/curl", file(1, 5, 5)), ("/opt/app", directory(2, 5))]);
    let package = Package { name: "curl".into(), version: "1".into(), status: "installed".into() };
    after.packages.insert("curl".into(), package);
    for n in 0..40u64 {
        after.files.insert(format!("/opt/app/{n}"), file(100 + n, 5, 5));
    }
    after.files.insert("/opt/app-2".into(), file(3, 5, 5));
    let before = capture(&[]);
    let owners = BTreeMap::from([("/usr/bin/curl".to_owned(), "curl".to_owned())]);
    let material =
        Material { from: &before, to: &after, base: None, owners: &owners, aspects: Aspect::ALL };
    let comparison = compare(&material);
    assert_eq!(told(&comparison), ["+packages:curl", "+files:/opt/app", "+files:/opt/app-2"]);
    assert_eq!(comparison.found[0].change.after.as_deref(), Some("1, 1 files"));
    let folded = comparison.found[1].change.after.as_deref();
    assert!(folded.unwrap().ends_with("40 entries"), "{folded:?}");
}

fn table(parts: &[(&str, &str)], rows: Option<u64>, digest: Option<&str>) -> Table {
    let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    Table {
        kind: "table".into(),
        parts: parts.iter().map(owned).collect(),
        rows,
        digest: digest.map(str::to_owned),
    }
}

fn database(place: &str, tables: &[(&str, Table)]) -> Database {
    let owned = |(name, table): &(&str, Table)| ((*name).to_owned(), table.clone());
    Database { place: place.into(), unknown: None, tables: tables.iter().map(owned).collect() }
}

#[test]
fn databases_are_told_by_their_tables_and_not_by_their_files() {
    let id = ("column id", "INT");
    let (mut before, mut after) = (capture(&[]), capture(&[]));
    for (capture, at) in [(&mut before, 1), (&mut after, 9)] {
        capture.files.insert("/srv/shop.db".into(), file(1, at, 4096 * at as u64));
        capture.files.insert("/var/lib/pg/base/1".into(), file(2, at, 4096 * at as u64));
    }
    after.files.insert("/srv/shop.db-wal".into(), file(3, 9, 100));
    let old = [
        ("users", table(&[id, ("column name", "TEXT")], Some(3), Some("11111111aa"))),
        ("orders", table(&[id], Some(7), Some("22222222aa"))),
        ("big", table(&[id], Some(900), None)),
        ("same", table(&[id], Some(1), Some("33333333aa"))),
        ("gone", table(&[id], Some(1), Some("33333333aa"))),
    ];
    let new = [
        (
            "users",
            table(
                &[id, ("column name", "TEXT not null"), ("index n", "INDEX n")],
                Some(4),
                Some("44444444aa"),
            ),
        ),
        ("orders", table(&[id], Some(7), Some("55555555aa"))),
        ("big", table(&[id], Some(900), None)),
        ("same", table(&[id], Some(1), Some("33333333aa"))),
    ];
    before.databases.insert("/srv/shop.db".into(), database("/srv/shop.db", &old));
    after.databases.insert("/srv/shop.db".into(), database("/srv/shop.db", &new));
    let server = "postgresql:5432/shop".to_owned();
    before.databases.insert(server.clone(), database("/var/lib/pg", &[]));
    after.databases.insert(server, database("/var/lib/pg", &[("public.a", old[0].1.clone())]));
    let comparison = compared(Some(&before), &before, &after);
    assert_eq!(
        told(&comparison),
        [
            "-database:/srv/shop.db gone",
            "~database:/srv/shop.db users column name",
            "+database:/srv/shop.db users index n",
            "+database:postgresql:5432/shop public.a",
            "~database:/srv/shop.db orders rows",
            "~database:/srv/shop.db users rows",
        ]
    );
    let rows = &comparison.found[5].change;
    let told = (rows.before.as_deref(), rows.after.as_deref());
    assert_eq!(told, (Some("3 rows, 11111111"), Some("4 rows, 44444444")));
    assert_eq!(comparison.suppressed, BTreeMap::from([("files of databases", 3)]));
    // A database that only one side tells of does not hide its files.
    before.databases.clear();
    let comparison = compared(None, &before, &after);
    let files = comparison.found.iter().filter(|found| found.change.aspect == Aspect::Files);
    assert_eq!((files.count(), comparison.suppressed.len()), (3, 0));
}

#[test]
fn the_network_is_told_and_what_names_it() {
    let (mut before, mut after) = (capture(&[]), capture(&[]));
    before.network.insert("route default".into(), "via 10.0.0.1 on eth0".into());
    after.network.insert("route default".into(), "via 10.0.0.2 on eth0".into());
    after.network.insert("setting net.ipv4.ip_forward".into(), "1".into());
    let comparison = compared(Some(&before), &before, &after);
    assert_eq!(
        told(&comparison),
        ["~network:route default", "+network:setting net.ipv4.ip_forward"]
    );
    let names = &comparison.found[1].names;
    assert!(names.contains(&"net/ipv4/ip_forward".to_owned()), "{names:?}");
}

#[test]
fn a_change_of_passwords_only_is_not_hidden_among_users() {
    let before = capture(&[("/etc/shadow", file(1, 1, 5)), ("/etc/passwd", file(2, 1, 5))]);
    let mut after = capture(&[("/etc/shadow", file(1, 9, 6)), ("/etc/passwd", file(2, 1, 5))]);
    assert_eq!(told(&compared(None, &before, &after)), ["~config:/etc/shadow"]);
    let eva = User { name: "eva".into(), uid: 7, gid: 7, home: "/".into(), shell: "/".into() };
    after.users.insert("eva".into(), eva);
    assert_eq!(told(&compared(None, &before, &after)), ["+users:eva"]);
}

#[test]
fn what_was_not_captured_is_unknown() {
    let before = capture(&[]);
    let mut after = capture(&[]);
    after.coverage.insert(Aspect::Packages, Coverage::Absent("no table".into()));
    after.coverage.insert(Aspect::Files, Coverage::Partial("too many".into()));
    after.coverage.remove(&Aspect::Ports);
    let comparison = compared(None, &before, &after);
    let unknown: Vec<Aspect> = comparison.unknown.keys().copied().collect();
    assert_eq!(unknown, [Aspect::Packages, Aspect::Files, Aspect::Ports]);
}

fn any_file() -> impl Strategy<Value = FileState> {
    (0u64..6, 0i64..3, 0u64..3, 0u32..2, 0u32..2, 0u8..3).prop_map(
        |(inode, at, size, mode, uid, kind)| FileState {
            kind: [FileKind::File, FileKind::Directory, FileKind::Symlink][usize::from(kind)],
            mode,
            uid,
            target: (kind == 2).then(|| size.to_string()),
            ..file(inode, at, size)
        },
    )
}

fn any_capture() -> impl Strategy<Value = Capture> {
    let path = "/(srv|etc|var/cache|tmp)/[ab](/[ab])?";
    let files = proptest::collection::btree_map(path, any_file(), 0..12);
    let packages = proptest::collection::btree_map("[ab]", "[12]", 0..3);
    (files, packages).prop_map(|(files, packages)| {
        let mut all = capture(&[]);
        all.files = files;
        let package = |(name, version): (String, String)| {
            (name.clone(), Package { name, version, status: "installed".into() })
        };
        all.packages = packages.into_iter().map(package).collect();
        all
    })
}

proptest! {
    #[test]
    fn nothing_differs_from_itself(one in any_capture()) {
        let comparison = compared(Some(&one), &one, &one);
        prop_assert_eq!(comparison, Comparison::default());
    }

    #[test]
    fn the_other_way_round_everything_is_the_other_way_round(
        one in any_capture(), other in any_capture()
    ) {
        let mirrored = |kind: ChangeKind| match kind {
            ChangeKind::Added => ChangeKind::Removed,
            ChangeKind::Removed => ChangeKind::Added,
            kind => kind,
        };
        let (there, back) = (compared(None, &one, &other), compared(None, &other, &one));
        let key = |found: &Found, turn: bool| {
            let change = found.change.clone();
            let kind = if turn { mirrored(change.change) } else { change.change };
            (change.aspect, kind, change.subject)
        };
        // Which of two equal files one moved to is a matter of taste; that all are told is not.
        let moved = |found: &&Found| found.change.change == ChangeKind::Moved;
        if !there.found.iter().any(|found| moved(&found)) {
            let mut a: Vec<_> = there.found.iter().map(|found| key(found, false)).collect();
            let mut b: Vec<_> = back.found.iter().map(|found| key(found, true)).collect();
            a.sort();
            b.sort();
            prop_assert_eq!(a, b);
        }
        prop_assert_eq!(&there.suppressed, &back.suppressed);
    }

    #[test]
    fn nothing_that_differs_disappears(one in any_capture(), other in any_capture()) {
        let comparison = compared(None, &one, &other);
        let paths: std::collections::BTreeSet<&String> =
            one.files.keys().chain(other.files.keys()).collect();
        let differing = paths.into_iter().filter(|path| one.files.get(*path) != other.files.get(*path));
        let of_files = |found: &&Found| {
            matches!(found.change.aspect, Aspect::Files | Aspect::Config)
        };
        let files: Vec<&Found> = comparison.found.iter().filter(of_files).collect();
        // A move tells of two paths, and of whatever went along.
        if !files.iter().any(|found| found.change.change == ChangeKind::Moved) {
            let counted: u64 = comparison.suppressed.values().sum();
            prop_assert_eq!(differing.count() as u64, files.len() as u64 + counted);
        }
    }
}
