//! What the system keeps in text files: packages, users, groups, environment.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use pando_model::capture::{Aspect, CaptureRecord, Coverage, Group, Package, User};

use super::{Teller, Told, short};
use crate::limits::{MAX_CAPTURED_ITEMS, MAX_PACKAGES_BYTES, MAX_TABLE_BYTES};

/// Opens a table; what is not UTF-8 in it is replaced.
fn lines(path: &Path, most: u64) -> Option<impl Iterator<Item = String>> {
    let mut table = BufReader::new(File::open(path).ok()?.take(most));
    let mut line = Vec::new();
    Some(std::iter::from_fn(move || {
        line.clear();
        match table.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned()),
        }
    }))
}

fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_TABLE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Names of the fields of a package manager's table.
struct Fields {
    table: &'static str,
    name: &'static str,
    version: &'static str,
    status: &'static str,
    /// Field that says whether several architectures can be installed.
    several: &'static str,
    architecture: &'static str,
}

const DPKG: Fields = Fields {
    table: "var/lib/dpkg/status",
    name: "Package: ",
    version: "Version: ",
    status: "Status: ",
    several: "Multi-Arch: same",
    architecture: "Architecture: ",
};

const APK: Fields = Fields {
    table: "lib/apk/db/installed",
    name: "P:",
    version: "V:",
    status: "s:",
    several: "\0",
    architecture: "A:",
};

/// Tells the installed packages.
pub fn packages(root: &Path, teller: &mut Teller<'_>) -> Told {
    for fields in [&DPKG, &APK] {
        if let Some(lines) = lines(&root.join(fields.table), MAX_PACKAGES_BYTES) {
            return told_packages(fields, lines, teller);
        }
    }
    let why = if root.join("var/lib/rpm").exists() || root.join("usr/lib/sysimage/rpm").exists() {
        "the packages are rpm's, whose table is not read"
    } else {
        "there is no table of packages"
    };
    teller.covered(Aspect::Packages, Coverage::Absent(why.to_owned()))
}

fn told_packages(
    fields: &Fields,
    lines: impl Iterator<Item = String>,
    teller: &mut Teller<'_>,
) -> Told {
    let mut package = Read1::default();
    for line in lines.chain([String::new()]) {
        if line.is_empty() {
            if let Some(package) = std::mem::take(&mut package).package() {
                teller.tell(&CaptureRecord::Package(package))?;
            }
            continue;
        }
        let mut field = |name: &str, into: fn(&mut Read1) -> &mut String| {
            if let Some(value) = line.strip_prefix(name) {
                *into(&mut package) = short(value);
            }
        };
        field(fields.name, |package| &mut package.name);
        field(fields.version, |package| &mut package.version);
        field(fields.status, |package| &mut package.status);
        field(fields.architecture, |package| &mut package.architecture);
        package.several |= line == fields.several;
    }
    teller.covered(Aspect::Packages, Coverage::Complete)
}

/// A paragraph of the table.
#[derive(Default)]
struct Read1 {
    name: String,
    version: String,
    status: String,
    architecture: String,
    several: bool,
}

impl Read1 {
    fn package(self) -> Option<Package> {
        // A package that was removed leaves its configuration, and a line that says so.
        let gone = self.status.ends_with("not-installed") || self.status.ends_with("config-files");
        if self.name.is_empty() || gone {
            return None;
        }
        let name = match self.several {
            true => format!("{}:{}", self.name, self.architecture),
            false => self.name,
        };
        let status = match self.status.as_str() {
            "" | "install ok installed" => "installed".to_owned(),
            other => other.to_owned(),
        };
        Some(Package { name, version: self.version, status })
    }
}

/// Tells users and groups.
pub fn users(root: &Path, teller: &mut Teller<'_>) -> Told {
    let Some(users) = text(&root.join("etc/passwd")) else {
        let why = "there is no table of users".to_owned();
        return teller.covered(Aspect::Users, Coverage::Absent(why));
    };
    for line in users.lines().take(MAX_CAPTURED_ITEMS) {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields.as_slice() else { continue };
        let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else { continue };
        let (name, home, shell) = (short(name), short(home), short(shell));
        teller.tell(&CaptureRecord::User(User { name, uid, gid, home, shell }))?;
    }
    for line in text(&root.join("etc/group")).iter().flat_map(|groups| groups.lines()) {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, members] = fields.as_slice() else { continue };
        let Ok(gid) = gid.parse() else { continue };
        let group = Group { name: short(name), gid, members: short(members) };
        teller.tell(&CaptureRecord::Group(group))?;
    }
    teller.covered(Aspect::Users, Coverage::Complete)
}

/// Tells the environment of the first process, and that of logins.
pub fn env(root: &Path, teller: &mut Teller<'_>) -> Told {
    let variables = |scope: &'static str, text: String, end: char| {
        let texts: Vec<String> = text.split(end).map(str::to_owned).collect();
        texts.into_iter().filter_map(move |line| {
            let line = line.trim();
            let line = line.strip_prefix("export ").unwrap_or(line);
            let (name, value) = line.split_once('=')?;
            let usable = !name.is_empty() && !name.starts_with('#');
            let value = value.trim_matches(['"', '\'']);
            usable.then(|| CaptureRecord::Variable(scope.to_owned(), short(name), short(value)))
        })
    };
    let init = text(Path::new("/proc/1/environ"));
    let coverage = match &init {
        Some(_) => Coverage::Complete,
        None => Coverage::Partial("that of the first process cannot be read".to_owned()),
    };
    let login = text(&root.join("etc/environment")).unwrap_or_default();
    let all =
        variables("init", init.unwrap_or_default(), '\0').chain(variables("login", login, '\n'));
    for variable in all.take(MAX_CAPTURED_ITEMS) {
        teller.tell(&variable)?;
    }
    teller.covered(Aspect::Env, coverage)
}
