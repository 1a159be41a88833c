//! What changed in a real machine, and because of what: everything that was done is found, nothing
//! is invented, and each change is attributed to its command.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::Value;

use crate::support::{Home, text};

/// Longest that a comparison may take, in milliseconds: ten times what it takes on a quiet machine,
/// for the tests that run beside this one.
const MAX_MS: u64 = 15_000;

/// What is done, and what is to be found for it.
const DEEDS: &[(&str, &[&str])] = &[
    ("echo new >/srv/added", &["added files:/srv/added"]),
    ("echo 2 >>/srv/longer", &["changed files:/srv/longer"]),
    ("echo B >/srv/rewritten", &["changed files:/srv/rewritten"]),
    ("rm /srv/gone", &["removed files:/srv/gone"]),
    ("chmod 4755 /srv/tool", &["mode files:/srv/tool"]),
    ("chown daemon:daemon /srv/given", &["owner files:/srv/given"]),
    ("ln -sfn /srv/longer /srv/link", &["changed files:/srv/link"]),
    ("mv /srv/tree /srv/wood", &["moved files:/srv/tree"]),
    ("for n in $(seq 10); do echo $n >/srv/many-$n; done", &[]),
    ("touch /srv/touched; echo x >/var/cache/x; echo x >/run/x; echo x >/var/lib/apt/x", &[]),
    ("echo 'set -o vi' >>/etc/profile", &["changed config:/etc/profile"]),
    ("dpkg -i /srv/a.deb", &["added packages:pando-test-a"]),
    ("dpkg -i /srv/b.deb", &["added packages:pando-test-b"]),
    ("useradd --no-create-home --shell /bin/sh eva", &["added users:eva"]),
    (
        "echo FLAVOUR=sweet >>/etc/environment",
        &["added env:login:FLAVOUR", "changed config:/etc/environment"],
    ),
    (
        "printf '[Service]\\nExecStart=/bin/sleep 7777\\n' >/etc/systemd/system/nap.service; \
         systemctl daemon-reload; systemctl start nap.service",
        &[
            "added config:/etc/systemd/system/nap.service",
            "changed services:nap.service",
            "added processes:/bin/sleep 7777",
        ],
    ),
    (
        "setsid perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 1, \
         LocalPort => 8080) or die; sleep 9999' </dev/null >/dev/null 2>&1 & \
         until grep -q :1F90 /proc/net/tcp; do sleep 0.05; done",
        &["added ports:tcp 0.0.0.0:8080", "added processes:perl"],
    ),
];

fn package(name: &str) -> String {
    let control = format!(
        "Package: {name}\\nVersion: 1.0\\nArchitecture: all\\nMaintainer: a <a@b>\\nDescription: a\\n"
    );
    let last = &name[name.len() - 1..];
    format!(
        "d=$(mktemp -d) && mkdir -p $d/DEBIAN $d/usr/share/{name} && \
         for n in 1 2 3; do echo $n >$d/usr/share/{name}/$n; done && \
         printf '{control}' >$d/DEBIAN/control && chmod 755 $d && \
         dpkg-deb -b $d /srv/{last}.deb >/dev/null && rm -r $d"
    )
}

#[test]
fn real_diff_finds_every_planted_change_and_its_command() {
    let home = Home::new();
    // Of the shape that the golden home has a ready state for.
    home.ok(&["vm", "create", "shop", "--memory", "256MiB"]);
    home.sh(
        "shop",
        "cd /srv; for f in longer gone tool given touched; do echo $f >$f; done; echo A >rewritten; \
         ln -s /srv/gone link; mkdir -p tree/deep; echo leaf >tree/deep/leaf; : >>/etc/environment",
    );
    home.sh("shop", &package("pando-test-a"));
    home.sh("shop", &package("pando-test-b"));
    home.ok(&["commit", "shop", "-t", "v1"]);
    let nothing = home.ok(&["diff", "shop@v1", "shop"]);
    assert_eq!(nothing["differences"].as_array().unwrap().len(), 0, "{nothing:#}");

    let mut expected: BTreeMap<String, &str> = BTreeMap::new();
    for (line, found) in DEEDS {
        home.sh("shop", line);
        expected.extend(found.iter().map(|found| ((*found).to_owned(), *line)));
    }
    for n in 1..=10 {
        expected.insert(format!("added files:/srv/many-{n}"), DEEDS[8].0);
    }
    let began = Instant::now();
    let diff = home.ok(&["diff", "shop@v1", "shop", "--hunks", "/etc/profile"]);
    let took = began.elapsed();
    println!("{} changes in {took:?}, {} ms of it compared", diff["total"], diff["duration_ms"]);

    let mut seen = BTreeSet::new();
    for change in diff["differences"].as_array().unwrap() {
        let told = format!("{} {}", text(change, "change"), text(change, "id"));
        let wanted = expected.iter().find(|(wanted, _)| {
            told == **wanted || wanted.ends_with(":perl") && told.starts_with(wanted.as_str())
        });
        let (wanted, line) = wanted.unwrap_or_else(|| panic!("{told} was not done:\n{change:#}"));
        let causes = change["causes"].as_array().map_or(&[][..], Vec::as_slice);
        let commands: Vec<&str> = causes.iter().map(|cause| text(cause, "command")).collect();
        let start: String = line.chars().take(100).collect();
        let right = commands.iter().any(|command| command.contains(start.trim_end()));
        assert!(right, "{told} by {commands:?}, not by {line}");
        assert_eq!((text(change, "side"), commands.len()), ("to", 1), "{change:#}");
        seen.insert(wanted.clone());
    }
    let missing: Vec<&String> = expected.keys().filter(|wanted| !seen.contains(*wanted)).collect();
    assert!(missing.is_empty(), "not found: {missing:#?}\n{diff:#}");
    assert_eq!((&diff["unexplained"], &diff["unknown"]), (&Value::from(0), &serde_json::json!({})));
    let suppressed = diff["suppressed"].as_object().unwrap();
    for why in ["caches", "files with other times only", "package manager's own files"] {
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
    assert!(shown.contains("+ pando-test-a"), "{shown}");
    let script = home.run(&["diff", "shop@v1", "shop", "--as-script"]);
    let script = String::from_utf8(script.stdout).unwrap();
    assert!(script.contains("\nmv /srv/tree /srv/wood\n"), "{script}");
    home.assert_nothing_left();
}
