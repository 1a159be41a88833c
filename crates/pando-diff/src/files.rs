//! Files: added, removed, changed, moved, with other rights. Whether contents differ is told by
//! size, and by digests where a cheap look leaves it open ([`candidates`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pando_model::capture::{Aspect, Capture, FileState};
use pando_model::change::{ChangeKind, Severity, Side};
use pando_model::guest::FileKind;

use crate::compare::{Comparison, Material, Subject, Time, When, side, when};
use crate::database;
use crate::noise;

/// Entries of a new or removed directory above which it is told as one.
const FOLDED: usize = 32;

/// Returns whether nothing can have happened to a file between two looks at it.
fn untouched(a: &FileState, b: &FileState) -> bool {
    a == b
}

fn both_regular(a: &FileState, b: &FileState) -> bool {
    a.kind == FileKind::File && b.kind == FileKind::File
}

/// Returns the regular files whose contents must be digested on both sides before they can be
/// compared: of equal size, and touched.
pub fn candidates(from: &Capture, to: &Capture) -> Vec<String> {
    let open = |path: &&String| {
        let (Some(a), Some(b)) = (from.files.get(*path), to.files.get(*path)) else { return false };
        let touched = both_regular(a, b) && a.size == b.size && !untouched(a, b);
        touched && a.size > 0 && noise::path(path).is_none()
    };
    from.files.keys().filter(open).cloned().collect()
}

/// What is known about contents.
#[derive(PartialEq, Eq)]
enum Contents {
    Same,
    Other,
    Unknown,
}

fn contents(material: &Material<'_>, path: &str, a: &FileState, b: &FileState) -> Contents {
    if a.size != b.size {
        return Contents::Other;
    }
    if a.size == 0 {
        return Contents::Same;
    }
    match (material.from.digests.get(path), material.to.digests.get(path)) {
        (Some(a), Some(b)) if a == b => Contents::Same,
        (Some(_), Some(_)) => Contents::Other,
        _ => Contents::Unknown,
    }
}

fn aspect_of(path: &str) -> Aspect {
    if path.starts_with("/etc/") { Aspect::Config } else { Aspect::Files }
}

/// Returns a file in words: `12 B 0644 root:root`.
fn words(capture: &Capture, path: &str, file: &FileState) -> String {
    let user = capture.users.values().find(|user| user.uid == file.uid);
    let group = capture.groups.values().find(|group| group.gid == file.gid);
    let user = user.map_or_else(|| file.uid.to_string(), |user| user.name.clone());
    let group = group.map_or_else(|| file.gid.to_string(), |group| group.name.clone());
    let rights = format!("{:04o} {user}:{group}", file.mode);
    match (&file.kind, &file.target) {
        (FileKind::Symlink, target) => format!("-> {}", target.as_deref().unwrap_or_default()),
        (FileKind::Directory, _) => format!("directory {rights}"),
        (FileKind::Other, _) => format!("special {rights}"),
        (FileKind::File, _) => match capture.digests.get(path).and_then(|digest| digest.get(..8)) {
            Some(digest) => format!("{} B {rights} {digest}", file.size),
            None => format!("{} B {rights}", file.size),
        },
    }
}

fn severity(path: &str, before: Option<&FileState>, after: Option<&FileState>) -> Severity {
    const SENSITIVE: &[&str] = &[
        "/etc/sudoers",
        "/etc/shadow",
        "/etc/pam.d/",
        "/etc/ssh/",
        "/etc/cron",
        "/etc/ld.so.preload",
        "/root/.ssh/",
        "/boot/",
    ];
    const SYSTEM: &[&str] = &["/etc/", "/usr/", "/bin/", "/sbin/", "/lib", "/opt/"];
    let special = |file: Option<&FileState>| {
        file.is_some_and(|file| file.kind == FileKind::File && file.mode & 0o6000 != 0)
    };
    if special(after) && !special(before) || SENSITIVE.iter().any(|start| path.starts_with(start)) {
        return Severity::High;
    }
    match SYSTEM.iter().any(|start| path.starts_with(start)) {
        true => Severity::Medium,
        false => Severity::Low,
    }
}

/// A comparison of files under way.
struct Walk<'a, 'b> {
    material: &'b Material<'a>,
    out: &'b mut Comparison,
}

/// Compares the files.
pub(crate) fn files(material: &Material<'_>, aspects: &[Aspect], out: &mut Comparison) {
    let paths: BTreeSet<&String> =
        material.from.files.keys().chain(material.to.files.keys()).collect();
    let mut of_packages: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    // A change of the tables that is none of users or groups is one of passwords.
    let users_told = out.found.iter().any(|found| found.change.aspect == Aspect::Users);
    let databases_told = material.aspects.contains(&Aspect::Database);
    let mut walk = Walk { material, out };
    for path in paths {
        let (a, b) = (material.from.files.get(path), material.to.files.get(path));
        if let (Some(a), Some(b)) = (a, b)
            && untouched(a, b)
        {
            continue;
        }
        if !aspects.contains(&aspect_of(path)) {
            continue;
        }
        if let Some(why) = noise::path(path) {
            walk.out.suppress(why);
            continue;
        }
        if users_told && noise::is_users_table(path) {
            walk.out.suppress("tables of users");
            continue;
        }
        if databases_told && same_rights(a, b) && database::holds(material, path) {
            walk.out.suppress("files of databases");
            continue;
        }
        if let Some(package) = material.owners.get(path)
            && (a.is_none() || b.is_none() || !is_directory(a))
        {
            *of_packages.entry(package).or_default() += 1;
            continue;
        }
        match (a, b) {
            (Some(a), Some(b)) => walk.both(path, a, b),
            (Some(_), None) => removed.push(path.as_str()),
            (None, Some(_)) => added.push(path.as_str()),
            (None, None) => {}
        }
    }
    walk.moves(&mut removed, &mut added);
    walk.alone(&removed, ChangeKind::Removed);
    walk.alone(&added, ChangeKind::Added);
    for found in &mut out.found {
        let change = &mut found.change;
        if change.aspect == Aspect::Packages
            && let Some(files) = of_packages.get(change.subject.as_str())
        {
            let told = if change.after.is_some() { &mut change.after } else { &mut change.before };
            if let Some(text) = told {
                text.push_str(&format!(", {files} files"));
            }
        }
    }
}

/// Returns whether at most the contents of a file differ.
fn same_rights(a: Option<&FileState>, b: Option<&FileState>) -> bool {
    let rights = |file: &FileState| (file.kind, file.mode, file.uid, file.gid);
    a.zip(b).is_none_or(|(a, b)| rights(a) == rights(b))
}

fn is_directory(file: Option<&FileState>) -> bool {
    file.is_some_and(|file| file.kind == FileKind::Directory)
}

impl Walk<'_, '_> {
    fn side(&self, path: &str) -> Side {
        let material = self.material;
        let base = material.base.map(|base| base.files.get(path));
        side(base, material.from.files.get(path), material.to.files.get(path), untouched)
    }

    /// Returns what a command may call a file: its path, its name, or a directory that came or went
    /// with it.
    fn names(&self, path: &str) -> Vec<String> {
        let (from, to) = (&self.material.from.files, &self.material.to.files);
        let mut names = vec![path.to_owned()];
        // A name like `1` says nothing.
        let telling = |name: &&str| name.len() > 2 && name.contains(char::is_alphabetic);
        let name = path.rsplit_once('/').map(|(_, name)| name).filter(telling);
        names.extend(name.map(str::to_owned));
        let mut rest = path;
        while let Some((above, _)) = rest.rsplit_once('/')
            && from.contains_key(above) != to.contains_key(above)
        {
            names.push(above.to_owned());
            rest = above;
        }
        names
    }

    /// Returns when a path was changed, on each side where it was.
    fn when(&self, path: &str, side: Side) -> Vec<When> {
        let of = |side: Side, capture: &Capture| match capture.files.get(path) {
            // One command may have written it and another given it its rights.
            Some(file) if file.kind == FileKind::File && file.mtime_ns != file.ctime_ns => {
                [file.mtime_ns, file.ctime_ns]
                    .map(|at| when(side, capture, at, Time::Exact))
                    .to_vec()
            }
            Some(file) => vec![when(side, capture, file.ctime_ns, Time::Exact)],
            // The directory that it was in was changed then, or later.
            None => {
                let parent = path.rsplit_once('/').map_or("/", |(parent, _)| parent);
                let parent = capture.files.get(parent).map(|parent| parent.mtime_ns);
                parent.map(|at| when(side, capture, at, Time::Latest)).into_iter().collect()
            }
        };
        let (from, to) = (of(Side::From, self.material.from), of(Side::To, self.material.to));
        match side {
            Side::From => from.into_iter().collect(),
            Side::To | Side::Unknown => to.into_iter().collect(),
            Side::Both => from.into_iter().chain(to).collect(),
        }
    }

    fn add(
        &mut self,
        path: &str,
        change: ChangeKind,
        before: Option<String>,
        after: Option<String>,
    ) {
        let material = self.material;
        let side = self.side(path);
        let (a, b) = (material.from.files.get(path), material.to.files.get(path));
        let subject = Subject {
            aspect: aspect_of(path),
            change,
            name: path.to_owned(),
            before,
            after,
            side,
            names: self.names(path),
        };
        let when = self.when(path, side);
        self.out.add(subject, severity(path, a, b), when);
    }

    fn both(&mut self, path: &str, a: &FileState, b: &FileState) {
        let material = self.material;
        let mut before = words(material.from, path, a);
        let mut after = words(material.to, path, b);
        let contents = match (a.kind == b.kind, both_regular(a, b)) {
            (false, _) => Contents::Other,
            (true, true) => contents(material, path, a, b),
            (true, false) if a.target == b.target => Contents::Same,
            (true, false) => Contents::Other,
        };
        let rights = a.kind != FileKind::Symlink && a.mode != b.mode;
        let owner = (a.uid, a.gid) != (b.uid, b.gid);
        let change = match (contents, rights, owner) {
            (Contents::Unknown, ..) => {
                before.push_str(", contents not compared");
                after.push_str(", contents not compared");
                ChangeKind::Changed
            }
            (Contents::Other, ..) => ChangeKind::Changed,
            (Contents::Same, true, _) => ChangeKind::Mode,
            (Contents::Same, false, true) => ChangeKind::Owner,
            (Contents::Same, false, false) => {
                return self.out.suppress(match a.kind {
                    FileKind::Directory => "directories whose entries changed",
                    _ => "files with other times only",
                });
            }
        };
        self.add(path, change, Some(before), Some(after));
    }

    /// Takes what only moved out of what is only on one side.
    fn moves(&mut self, removed: &mut Vec<&str>, added: &mut Vec<&str>) {
        let material = self.material;
        let key = |file: &FileState| {
            let kind = file.kind as u8;
            (kind, file.inode, file.size, file.mtime_ns)
        };
        let mut places: HashMap<_, &str> = HashMap::new();
        for path in added.iter().copied() {
            if let Some(file) = material.to.files.get(path) {
                places.insert(key(file), path);
            }
        }
        let mut moved: BTreeMap<&str, &str> = BTreeMap::new();
        let mut told = Vec::new();
        for path in removed.iter().copied() {
            let Some(file) = material.from.files.get(path) else { continue };
            // The same file in a world that never met this one has the same number by chance.
            if material.from.boot_id != material.to.boot_id && material.base.is_none() {
                continue;
            }
            let Some(to) = places.remove(&key(file)) else { continue };
            moved.insert(path, to);
            let went_along = match (path.rsplit_once('/'), to.rsplit_once('/')) {
                (Some((from, name)), Some((to, same))) => {
                    name == same && moved.get(from) == Some(&to)
                }
                _ => false,
            };
            if !went_along {
                told.push((path, to));
            }
        }
        let arrived: BTreeSet<&str> = moved.values().copied().collect();
        removed.retain(|path| !moved.contains_key(path));
        added.retain(|path| !arrived.contains(path));
        for (path, to) in told {
            let side = self.side(to);
            let subject = Subject {
                aspect: aspect_of(path),
                change: ChangeKind::Moved,
                name: path.to_owned(),
                before: Some(path.to_owned()),
                after: Some(to.to_owned()),
                side,
                names: self.names(path),
            };
            let when = self.when(if side == Side::From { path } else { to }, side);
            let weight = severity(to, None, material.to.files.get(to));
            self.out.add(subject, weight, when);
        }
    }

    /// Tells what is on one side only; a directory with much in it as one.
    fn alone(&mut self, paths: &[&str], change: ChangeKind) {
        let material = self.material;
        let capture = if change == ChangeKind::Added { material.to } else { material.from };
        let mut at = 0;
        while let Some(&path) = paths.get(at) {
            at += 1;
            let Some(file) = capture.files.get(path) else { continue };
            let mut text = words(capture, path, file);
            if file.kind == FileKind::Directory {
                // Sorted by bytes, what is in a directory does not always follow it at once.
                let inside = format!("{path}/");
                let rest = paths.get(at..).unwrap_or_default();
                let first = rest.partition_point(|other| *other < inside.as_str());
                let tail = rest.get(first..).unwrap_or_default();
                let count = tail.iter().take_while(|other| other.starts_with(&inside)).count();
                if count > FOLDED {
                    text.push_str(&format!(", {count} entries"));
                    let between = rest.get(..first).unwrap_or_default().to_vec();
                    self.tell(path, change, text);
                    self.alone(&between, change);
                    at += first + count;
                    continue;
                }
            }
            self.tell(path, change, text);
        }
    }

    fn tell(&mut self, path: &str, change: ChangeKind, text: String) {
        match change {
            ChangeKind::Added => self.add(path, change, None, Some(text)),
            _ => self.add(path, change, Some(text), None),
        }
    }
}
