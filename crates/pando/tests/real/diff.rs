//! What changed in a real machine, and because of what: everything that was done is found, nothing
//! is invented, and each change is attributed to its command.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::Value;

use crate::support::{Base, Home, SHAPE, text};

mod deeds;

use deeds::{BEFORE, DEEDS};

/// Longest that a comparison may take, in milliseconds: many times what it takes on a quiet
/// machine, for the tests that run beside this one.
const MAX_MS: u64 = 60_000;
/// Fewest changes that are planted.
const PLANTED: usize = 100;

/// What is to be found: `KIND ASPECT:SUBJECT`, in which `*` stands for anything.
struct Wanted {
    told: String,
    line: &'static str,
}

/// Returns the texts that one with `{A..B}` in it stands for.
fn expanded(text: &str) -> Vec<String> {
    let Some((start, rest)) = text.split_once('{') else { return vec![text.to_owned()] };
    let (range, end) = rest.split_once('}').unwrap();
    let (first, last) = range.split_once("..").unwrap();
    let numbers = first.parse::<u32>().unwrap()..=last.parse().unwrap();
    numbers.map(|number| format!("{start}{number}{end}")).collect()
}

fn wanted() -> Vec<Wanted> {
    let of = |(line, found): &(&'static str, &[&str])| {
        let line = *line;
        let all = found.iter().flat_map(|text| expanded(text));
        all.map(|told| Wanted { told, line }).collect::<Vec<_>>()
    };
    DEEDS.iter().flat_map(of).collect()
}

impl Wanted {
    fn is(&self, told: &str) -> bool {
        match self.told.split_once('*') {
            Some((start, end)) => told.starts_with(start) && told.ends_with(end),
            None => told == self.told,
        }
    }
}

/// Returns a shell's line that makes a package of three files.
fn package(name: &str, version: &str) -> String {
    let control = format!(
        "Package: {name}\\nVersion: {version}\\nArchitecture: all\\nMaintainer: a <a@b>\\n\
         Description: a\\n"
    );
    format!(
        "d=$(mktemp -d) && mkdir -p $d/DEBIAN $d/usr/share/{name} && \
         for n in 1 2 3; do echo {version} $n >$d/usr/share/{name}/$n; done && \
         printf '{control}' >$d/DEBIAN/control && chmod 755 $d && \
         dpkg-deb -b $d /srv/{name}-{version}.deb >/dev/null && rm -r $d"
    )
}

/// Asserts that a comparison tells of all deeds, of nothing else, and because of which.
fn assert_found(diff: &Value) {
    let wanted = wanted();
    assert!(wanted.len() >= PLANTED, "{}", wanted.len());
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for change in diff["differences"].as_array().unwrap() {
        let told = format!("{} {}", text(change, "change"), text(change, "id"));
        let Some(index) = wanted.iter().position(|wanted| wanted.is(&told)) else {
            wrong.push(format!("invented: {told}: {change}"));
            continue;
        };
        seen.insert(index);
        let causes = change["causes"].as_array().map_or(&[][..], Vec::as_slice);
        let commands: Vec<&str> = causes.iter().map(|cause| text(cause, "command")).collect();
        let line = wanted[index].line;
        let start: String = line.chars().take(100).collect();
        let right = commands.len() == 1 && commands[0].contains(start.trim_end());
        if !right || text(change, "side") != "to" {
            wrong.push(format!("{told} by {commands:?}, not by {line}: {change}"));
        }
    }
    let missing = wanted.iter().enumerate().filter(|(index, _)| !seen.contains(index));
    wrong.extend(missing.map(|(_, wanted)| format!("not found: {}", wanted.told)));
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), diff["unknown"]);
}

#[test]
fn real_diff_finds_every_planted_change_and_its_command() {
    let home = Home::on(Base::Databases);
    home.ok(&[&["vm", "create", "shop", "--image", Base::Databases.image()], SHAPE].concat());
    for (name, version) in [("a", "1.0"), ("b", "1.0"), ("c", "1.0"), ("c", "2.0"), ("d", "1.0")] {
        home.sh("shop", &package(&format!("pando-test-{name}"), version));
    }
    for line in BEFORE {
        home.sh("shop", line);
    }
    home.ok(&["commit", "shop", "-t", "v1"]);
    let nothing = home.ok(&["diff", "shop@v1", "shop"]);
    assert_eq!(nothing["differences"].as_array().unwrap().len(), 0, "{nothing:#}");

    for (line, _) in DEEDS {
        home.sh("shop", line);
    }
    let began = Instant::now();
    let diff = home.ok(&["diff", "shop@v1", "shop", "--hunks", "/etc/profile"]);
    let took = began.elapsed();
    println!("{} changes in {took:?}, {} ms of it compared", diff["total"], diff["duration_ms"]);
    assert_found(&diff);
    let unknown: BTreeMap<String, String> =
        serde_json::from_value(diff["unknown"].clone()).unwrap();
    let only = "postgresql:5432/shop: the rows of public.big are only counted";
    assert_eq!(unknown, BTreeMap::from([("database".to_owned(), only.to_owned())]));
    assert_eq!(diff["unexplained"], 0);
    let suppressed = diff["suppressed"].as_object().unwrap();
    for why in [
        "caches",
        "files with other times only",
        "package manager's own files",
        "files of databases",
        "tables of users",
    ] {
        assert!(suppressed.contains_key(why), "{why} in {suppressed:?}");
    }
    assert!(text(&diff, "hunks").ends_with("+set -o vi\n"), "{}", diff["hunks"]);
    assert!(diff["duration_ms"].as_u64().unwrap() < MAX_MS, "{}", diff["duration_ms"]);

    // The same from a branch: what one did, the other did not.
    home.ok(&["branch", "shop@v1", "--name", "before"]);
    let between = home.ok(&["diff", "shop@before", "shop@main"]);
    assert_eq!(between["total"], diff["total"], "{between:#}");
    assert_eq!(between["base"], diff["base"]);
    let shown = home.run(&["diff", "shop@before", "shop@main"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    let first: Vec<&str> = shown.lines().take(10).collect();
    assert!(first[1].starts_with("packages +2 -1 ~1 · config "), "{first:#?}");
    assert!(first.iter().any(|line| line.starts_with("! ") && line.contains("  ← ")), "{first:#?}");
    assert!(first.contains(&"because of"), "{first:#?}");
    let script = home.run(&["diff", "shop@v1", "shop", "--as-script"]);
    let script = String::from_utf8(script.stdout).unwrap();
    assert!(script.contains("\nmv /srv/tree /srv/wood\n"), "{script}");
    home.assert_nothing_left();
}
