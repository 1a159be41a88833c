//! Hostile archives are refused; honest ones come through unchanged.

use std::ffi::OsStr;
use std::io::Write;

use super::*;

/// Builds an archive whose names and targets are put in raw, as an attacker would.
#[derive(Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn entry(mut self, kind: tar::EntryType, path: &[u8], target: &[u8], data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path);
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(5);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.entry(tar::EntryType::Regular, path.as_bytes(), b"", data.as_bytes())
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path.as_bytes(), target.as_bytes(), b"")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Link, path.as_bytes(), target.as_bytes(), b"")
    }

    fn read(mut self) -> Result<(Tree, Dropped), TreeError> {
        self.0.extend_from_slice(&[0; 1024]);
        read_bytes(&self.0)
    }
}

fn read_bytes(bytes: &[u8]) -> Result<(Tree, Dropped), TreeError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    io::Seek::rewind(&mut file).unwrap();
    read_tar(file)
}

fn text(tree: &Tree, path: &str) -> String {
    String::from_utf8(tree.read(path, 1 << 20).unwrap().unwrap()).unwrap()
}

#[test]
fn an_archive_cannot_leave_its_root() {
    let cases = [
        Raw::default().file("/etc/passwd", "x"),
        Raw::default().file("../etc/passwd", "x"),
        Raw::default().file("a/../../etc/passwd", "x"),
        Raw::default().symlink("a", "/etc").file("a/passwd", "x"),
        Raw::default().symlink("a", "..").symlink("a/b", "/").file("a/b/etc/passwd", "x"),
        Raw::default().file("a", "x").file("a/b", "y"),
        Raw::default().file("d/f", "x").symlink("d", "/etc"),
        Raw::default().link("a", "/etc/shadow"),
        Raw::default().link("a", "../../etc/shadow"),
        Raw::default().link("a", "etc/shadow"),
        Raw::default().entry(tar::EntryType::Directory, b"d", b"", b"").link("a", "d"),
        Raw::default().entry(tar::EntryType::Char, b"../dev/mem", b"", b""),
        Raw::default().entry(tar::EntryType::GNUSparse, b"s", b"", b""),
        Raw::default().file(&"d/".repeat(45), "x"),
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let read = case.read();
        if number == 13 {
            assert!(read.is_ok(), "a deep path is fine");
        } else {
            assert!(read.is_err(), "case {number} was taken: {read:?}");
        }
    }
}

#[test]
fn what_means_something_in_the_guest_only_is_kept() {
    let (tree, dropped) = Raw::default()
        .symlink("etc/localtime", "/usr/share/zoneinfo/UTC")
        .symlink("up", "../../../..")
        .entry(tar::EntryType::Char, b"dev/null", b"", b"")
        .entry(tar::EntryType::Fifo, b"run/initctl", b"", b"")
        .file("./a", "1")
        .read()
        .unwrap();
    assert_eq!(dropped.specials, 2);
    assert!(tree.get("dev/null").is_none());
    assert_eq!(text(&tree, "a"), "1");
    assert!(tree.get("up").is_some());
}

#[test]
fn a_truncated_archive_is_refused_at_every_length() {
    let whole = Raw::default().file("a", &"x".repeat(700)).file("b", "y").0;
    for length in [1, 100, 511, 513, 700, 1100, 1537, 1600, 2047, 2049] {
        assert!(read_bytes(&whole[..length]).is_err(), "{length}");
    }
}

#[test]
fn garbage_is_refused() {
    assert!(read_bytes(&[0xff; 4096]).is_err());
    let claimed = {
        let mut header = tar::Header::new_gnu();
        header.set_path("big").unwrap();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(u64::MAX / 2);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    assert!(read_bytes(&claimed).is_err());
}

#[test]
fn hard_links_name_what_was_there_when_they_were_made() {
    let (mut tree, _) =
        Raw::default().file("a", "old").link("b", "a").file("a", "new").read().unwrap();
    assert_eq!((text(&tree, "a").as_str(), text(&tree, "b").as_str()), ("new", "old"));
    assert_eq!(tree.bytes(), 6);
    tree.remove("a");
    assert_eq!(text(&tree, "b"), "old");
    assert_eq!(tree.bytes(), 3);
}

#[test]
fn paths_resolve_inside_the_tree_only() {
    let (tree, _) = Raw::default()
        .file("usr/lib/systemd/systemd", "init")
        .symlink("lib", "usr/lib")
        .symlink("sbin/init", "/lib/systemd/systemd")
        .symlink("escape", "../../../../usr/lib/systemd/systemd")
        .symlink("round", "round")
        .symlink("nowhere", "/etc/none")
        .read()
        .unwrap();
    let there = Some(PathBuf::from("usr/lib/systemd/systemd"));
    assert_eq!(tree.resolve("sbin/init"), there);
    assert_eq!(tree.resolve("/sbin/init"), there);
    assert_eq!(tree.resolve("escape"), there);
    assert_eq!(tree.resolve("round"), None);
    assert_eq!(tree.resolve("nowhere"), None);
}

#[test]
fn removing_takes_what_is_below_and_nothing_else() {
    let mut tree = Tree::default();
    for path in ["a/b/c", "a/b/d", "a/bc", "a.b", "ab"] {
        tree.add_text(path, 0o644, "x").unwrap();
    }
    tree.remove("a/b");
    let left: Vec<_> = tree.iter().map(|(path, _)| path.to_str().unwrap()).collect();
    assert_eq!(left, ["a", "a/bc", "a.b", "ab"]);
    assert_eq!(tree.bytes(), 3);
}

#[test]
fn children_are_direct_ones() {
    let mut tree = Tree::default();
    for path in ["a/b/c", "a/d", "ab/e"] {
        tree.add_text(path, 0o644, "x").unwrap();
    }
    let names: Vec<_> = tree.children(Path::new("a")).collect();
    assert_eq!(names, [Path::new("a/b"), Path::new("a/d")]);
}

#[test]
fn a_tree_written_and_read_is_the_same_tree() {
    let mut tree = Tree::default();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let target = format!("/{}", "t".repeat(300));
    tree.add_directory("etc", Meta { mode: 0o700, uid: 7, gid: 8, mtime: 9 }).unwrap();
    tree.add_file("etc/x", Meta { mode: 0o4755, uid: 1, gid: 2, mtime: 99 }, inline("hello"))
        .unwrap();
    tree.add_hard_link("etc/y", "etc/x").unwrap();
    tree.add_text(&long, 0o600, "long").unwrap();
    tree.add_symlink("l", Meta::root(0o777), &target).unwrap();
    tree.add_symlink("dots", Meta::root(0o777), ".././/x/").unwrap();
    tree.add_text(OsStr::from_bytes(b"latin-\xe9"), 0o600, "").unwrap();
    let mut archive = Vec::new();
    tree.write_tar(&mut archive, 50).unwrap();

    let (read, _) = read_bytes(&archive).unwrap();
    let paths = |tree: &Tree| tree.iter().map(|(path, _)| path.to_owned()).collect::<Vec<_>>();
    assert_eq!(paths(&read), paths(&tree));
    assert_eq!(read.get("etc").unwrap().meta, tree.get("etc").unwrap().meta);
    let expected = Meta { mode: 0o4755, uid: 1, gid: 2, mtime: 50 };
    assert_eq!(read.get("etc/y").unwrap().meta, expected);
    assert_eq!(text(&read, &long), "long");
    for (path, wanted) in [("l", target.as_str()), ("dots", ".././/x/")] {
        let Kind::Symlink { target } = &read.get(path).unwrap().kind else { panic!("{path}") };
        assert_eq!(target.as_os_str(), wanted);
    }
    let mut again = Vec::new();
    read.write_tar(&mut again, 50).unwrap();
    assert!(again == archive, "equal trees give equal archives");
}

fn inline(text: &str) -> Content {
    Content::Inline(text.as_bytes().into())
}

#[test]
fn a_directory_is_read_without_following_links() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    std::fs::create_dir(at("d")).unwrap();
    std::fs::write(at("d/f"), "text").unwrap();
    std::fs::hard_link(at("d/f"), at("g")).unwrap();
    std::os::unix::fs::symlink("/etc", at("out")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let own = rustix::process::getuid().as_raw();
    let (tree, dropped) = read_directory(root.path(), own).unwrap();
    let paths: Vec<_> = tree.iter().map(|(path, _)| path.to_str().unwrap()).collect();
    assert_eq!(paths, ["d", "d/f", "g", "out"]);
    assert_eq!(dropped.specials, 1);
    assert_eq!(text(&tree, "g"), "text");
    assert_eq!(tree.get("d/f").unwrap().meta.uid, 0);
    std::fs::write(at("d/f"), "other length").unwrap();
    assert!(tree.read("g", 100).is_err(), "a file that changed is noticed");
}
