//! Users and groups, read from the guest's own tables: a static program has no name service.

use std::io::{self, Read};
use std::path::Path;

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

    /// Looks up a user by name or number in the tables under `root`. A number without an entry is
    /// a user without a name.
    pub fn find(root: &Path, wanted: &str) -> io::Result<Option<Self>> {
        let table = read_table(&root.join("etc/passwd"))?;
        let number = wanted.parse::<u32>().ok();
        let entry = table.lines().filter_map(entry).find(|user| user.name == wanted);
        let entry = entry.or_else(|| table.lines().filter_map(entry_of(number?)).next());
        let mut user = match (entry, number) {
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
        let groups = read_table(&root.join("etc/group"))?;
        let also = groups.lines().filter_map(|line| membership(line, &user.name));
        user.groups.extend(also.filter(|&gid| gid != user.gid));
        Ok(Some(user))
    }
}

fn entry_of(uid: u32) -> impl Fn(&str) -> Option<User> {
    move |line| entry(line).filter(|user| user.uid == uid)
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

/// Reads a table of the guest; a missing one is empty.
pub fn read_table(path: &Path) -> io::Result<String> {
    let file = match std::fs::File::open(path) {
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
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/bash\n\nbroken\nbroken:x:y:z\n\
                      ann:x:1000:1000:Ann,,,:/home/ann:\nbob:x:1001:100::/home/bob:/bin/zsh\n";
        std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        let group = "root:x:0:\nann:x:1000:ann\ndocker:x:998:ann,bob\nx:x:oops:bob\nadm:x:4:bob\n";
        std::fs::write(root.path().join("etc/group"), group).unwrap();
        root
    }

    #[test]
    fn users_are_found_by_name_and_number_with_their_groups() {
        let root = tables();
        let ann = User::find(root.path(), "ann").unwrap().unwrap();
        assert_eq!((ann.uid, ann.groups, ann.shell.as_str()), (1000, vec![1000, 998], "/bin/sh"));
        let bob = User::find(root.path(), "1001").unwrap().unwrap();
        assert_eq!((bob.name.as_str(), bob.gid), ("bob", 100));
        assert_eq!((bob.groups, bob.home.as_str()), (vec![100, 998, 4], "/home/bob"));
        let nameless = User::find(root.path(), "4242").unwrap().unwrap();
        assert_eq!(
            (nameless.uid, nameless.groups, nameless.home.as_str()),
            (4242, vec![4242], "/")
        );
        assert_eq!(User::find(root.path(), "nobody-here").unwrap(), None);
        assert_eq!(User::find(root.path(), "broken").unwrap(), None);
        assert_eq!(User::find(root.path(), "").unwrap(), None);
    }

    #[test]
    fn without_tables_there_is_still_root() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(User::find(root.path(), "root").unwrap().unwrap().uid, 0);
        assert_eq!(User::find(root.path(), "ann").unwrap(), None);
    }
}
