//! The state that a guest tells, with a real guest program on files made for it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use common::{soon, start_in};
use pando_link::GuestLink;
use pando_model::capture::{Aspect, Capture, Coverage};
use pando_model::guest::FileKind;
use pando_wire::capture::Assembler;
use pando_wire::guest::Request;

fn ask(link: &GuestLink, request: &Request) -> Capture {
    let mut records = Vec::new();
    let end = link.capture(request, &mut records, soon()).unwrap();
    let mut assembler = Assembler::new();
    assembler.push(&records).unwrap();
    assembler.finish(end).unwrap()
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn every_aspect_is_told_or_said_to_be_absent() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    put(
        path,
        "etc/passwd",
        "root:x:0:0:r:/root:/bin/sh\nbroken\neva:x:7:8:Eva:/home/eva:/bin/sh\n",
    );
    put(path, "etc/group", "root:x:0:\nstaff:x:8:eva,root\n");
    put(path, "etc/environment", "# a comment\nexport A=\"1 2\"\nB=3\n");
    let status = "Package: curl\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\n\
                  Version: 7.88\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                  Package: half\nStatus: install ok half-configured\nVersion: 2\n";
    put(path, "var/lib/dpkg/status", status);
    put(path, "srv/data", "hello");
    fs::set_permissions(path.join("srv/data"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("data", path.join("srv/link")).unwrap();
    for n in 0..3000 {
        put(path, &format!("srv/many/{n}"), "");
    }
    let guest = start_in(path);
    let capture = ask(&guest.link, &Request::Capture { aspects: Aspect::ALL.to_vec() });
    assert_eq!(capture.boot_id.len(), 36);
    assert!(capture.guest_ns > 0 && capture.up_ms > 0);
    let file = &capture.files["/srv/data"];
    assert_eq!((file.kind, file.mode, file.size), (FileKind::File, 0o640, 5));
    assert_eq!(capture.files["/srv/link"].target.as_deref(), Some("data"));
    assert_eq!(capture.files.keys().filter(|path| path.starts_with("/srv/many/")).count(), 3000);
    let packages: Vec<_> =
        capture.packages.values().map(|p| (p.name.as_str(), p.status.as_str())).collect();
    assert_eq!(packages, [("curl:amd64", "installed"), ("half", "install ok half-configured")]);
    assert_eq!((capture.users.len(), capture.users["eva"].uid), (2, 7));
    assert_eq!(capture.groups["staff"].members, "eva,root");
    assert_eq!(capture.env["login:A"], "1 2");
    assert!(capture.processes.iter().any(|process| process.name == "pando-guest"));
    assert_eq!(capture.coverage.len(), Aspect::ALL.len());
    assert_eq!(capture.coverage[&Aspect::Files], Coverage::Complete);
    assert!(matches!(capture.coverage[&Aspect::Services], Coverage::Absent(_)));

    // Only what was asked for.
    let few = ask(&guest.link, &Request::Capture { aspects: vec![Aspect::Config] });
    let paths: Vec<&str> = few.files.keys().map(String::as_str).collect();
    assert_eq!(paths, ["/etc/environment", "/etc/group", "/etc/passwd"]);
    assert_eq!(few.coverage.len(), 1);
}

#[test]
fn contents_are_digested_where_they_are_named() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "srv/data", "hello");
    symlink("data", root.path().join("srv/link")).unwrap();
    let guest = start_in(root.path());
    let paths = ["/srv/data", "/srv/link", "/srv", "/nothing"].map(str::to_owned).to_vec();
    let capture = ask(&guest.link, &Request::Digest { paths });
    let hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(capture.digests["/srv/data"], hello);
    for path in ["/srv/link", "/srv", "/nothing"] {
        assert_eq!(capture.digests[path], "", "{path}");
    }
    let mut nothing = Vec::new();
    let relative = Request::Digest { paths: vec!["etc".into()] };
    assert!(guest.link.capture(&relative, &mut nothing, soon()).is_err());
}
