//! Users and groups, read from the guest's own tables: a static program has no name service.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::limits::MAX_TABLE_BYTES;

/// A user of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name; the number where the table has none.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, the primary one first.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

impl User {
    /// Returns the superuser as it is where there are no tables at all.
    fn root() -> Self {
        let home = if Path::new("/root").is_dir() { "/root" } else { "/" };
        Self {
            name: "root".into(),
            uid: 0,
            gid: 0,
            groups: vec![0],
            home: home.into(),
            shell: "/bin/sh".into(),
        }
    }

    /// Looks up a user by name or number. A number without an entry is a user without a name.
    pub fn find(tables: &mut Tables, wanted: &str) -> io::Result<Option<Self>> {
        let table = tables.passwd.read()?;
        let number = wanted.parse::<u32>().ok();
        let is_named = |line: &&str| line.split(':').next() == Some(wanted);
        let found = table.lines().filter(is_named).find_map(entry);
        let found = found.or_else(|| table.lines().filter(has_uid(number?)).find_map(entry));
        let mut user = match (found, number) {
            (Some(user), _) => user,
            (None, _) if wanted == "root" || number == Some(0) => Self::root(),
            (None, Some(uid)) => Self {
                name: uid.to_string(),
                uid,
                gid: uid,
                groups: vec![uid],
                home: "/".into(),
                shell: "/bin/sh".into(),
            },
            (None, None) => return Ok(None),
        };
        if user.uid == 0 {
            // Its groups would give it nothing.
            return Ok(Some(user));
        }
        let groups = tables.group.read()?;
        let also = groups.lines().filter_map(|line| membership(line, &user.name));
        user.groups.extend(also.filter(|&gid| gid != user.gid));
        Ok(Some(user))
    }
}

fn has_uid(uid: u32) -> impl Fn(&&str) -> bool {
    move |line| line.split(':').nth(2).is_some_and(|field| field.parse() == Ok(uid))
}

/// Parses a line of `passwd(5)`.
fn entry(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let or = |value: Option<&str>, default: &str| match value {
        Some(value) if !value.is_empty() => value.to_owned(),
        _ => default.to_owned(),
    };
    let home = or(fields.nth(1), "/");
    let shell = or(fields.next(), "/bin/sh");
    Some(User { name, uid, gid, groups: vec![gid], home, shell })
}

/// Returns the group's id if the line of `group(5)` lists `name` as a member.
fn membership(line: &str, name: &str) -> Option<u32> {
    let mut fields = line.split(':');
    let gid = fields.nth(2)?.parse().ok()?;
    fields.next()?.split(',').any(|member| member.trim() == name).then_some(gid)
}

/// The guest's tables that every command needs. They are read again when they have changed.
#[derive(Debug)]
pub struct Tables {
    passwd: Table,
    group: Table,
    /// `/etc/environment`.
    pub environment: Table,
}

impl Tables {
    /// Returns the tables under `root`.
    pub fn new(root: &Path) -> Self {
        let table = |path| Table { path: root.join(path), stamp: None, text: String::new() };
        Self {
            passwd: table("etc/passwd"),
            group: table("etc/group"),
            environment: table("etc/environment"),
        }
    }
}

/// One table, as it was read last.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    stamp: Option<Stamp>,
    text: String,
}

/// What changes when a file does: its inode, size, and times of change.
type Stamp = (u64, u64, (i64, i64), (i64, i64));

impl Table {
    /// Returns its text; a missing table is empty.
    pub fn read(&mut self) -> io::Result<&str> {
        let stamp = match fs::metadata(&self.path) {
            Ok(facts) => Some((
                facts.ino(),
                facts.len(),
                (facts.mtime(), facts.mtime_nsec()),
                (facts.ctime(), facts.ctime_nsec()),
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if stamp != self.stamp || stamp.is_none() {
            // Forgotten first: a failure to read must not leave the old text under a new stamp.
            self.stamp = None;
            self.text = read_table(&self.path)?;
            self.stamp = stamp;
        }
        Ok(&self.text)
    }
}

/// Reads a table of the guest; a missing one is empty.
pub fn read_table(path: &Path) -> io::Result<String> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    // Most of them fit, and are read at once.
    let mut bytes = Vec::with_capacity(8 * 1024);
    file.take(MAX_TABLE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/bash\n\nbroken\nbroken:x:y:z\n\
                      ann:x:1000:1000:Ann,,,:/home/ann:\nbob:x:1001:100::/home/bob:/bin/zsh\n";
        fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        let group = "root:x:0:\nann:x:1000:ann\ndocker:x:998:ann,bob\nx:x:oops:bob\nadm:x:4:bob\n";
        fs::write(root.path().join("etc/group"), group).unwrap();
        root
    }

    #[test]
    fn users_are_found_by_name_and_number_with_their_groups() {
        let root = tables();
        let ann = User::find(&mut Tables::new(root.path()), "ann").unwrap().unwrap();
        assert_eq!((ann.uid, ann.groups, ann.shell.as_str()), (1000, vec![1000, 998], "/bin/sh"));
        let bob = User::find(&mut Tables::new(root.path()), "1001").unwrap().unwrap();
        assert_eq!((bob.name.as_str(), bob.gid), ("bob", 100));
        assert_eq!((bob.groups, bob.home.as_str()), (vec![100, 998, 4], "/home/bob"));
        let nameless = User::find(&mut Tables::new(root.path()), "4242").unwrap().unwrap();
        assert_eq!(
            (nameless.uid, nameless.groups, nameless.home.as_str()),
            (4242, vec![4242], "/")
        );
        assert_eq!(User::find(&mut Tables::new(root.path()), "nobody-here").unwrap(), None);
        assert_eq!(User::find(&mut Tables::new(root.path()), "broken").unwrap(), None);
        assert_eq!(User::find(&mut Tables::new(root.path()), "").unwrap(), None);
    }

    #[test]
    fn a_table_that_changes_is_read_again() {
        let root = tables();
        let mut tables = Tables::new(root.path());
        assert!(User::find(&mut tables, "ann").unwrap().is_some());
        let passwd = root.path().join("etc/passwd");
        fs::write(&passwd, "zoe:x:7:7::/:/bin/sh\n").unwrap();
        assert!(User::find(&mut tables, "ann").unwrap().is_none());
        assert_eq!(User::find(&mut tables, "zoe").unwrap().unwrap().uid, 7);
        fs::remove_file(&passwd).unwrap();
        assert!(User::find(&mut tables, "zoe").unwrap().is_none());
    }

    #[test]
    fn without_tables_there_is_still_root() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(User::find(&mut Tables::new(root.path()), "root").unwrap().unwrap().uid, 0);
        assert_eq!(User::find(&mut Tables::new(root.path()), "ann").unwrap(), None);
    }
}
