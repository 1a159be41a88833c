//! What people see of a comparison, whole.

use pando_api::page::Page;
use pando_api::state::CommandChanges;
use pando_model::JournalId;

use super::*;

fn id(number: usize) -> JournalId {
    format!("jr_{number:012}").parse().unwrap()
}

const COMMAND_LINES: &[&str] = &[
    "apt-get install -y curl",
    "for n in $(seq 3); do echo $n >/srv/many-$n; done",
    "systemctl start web; chmod 4755 /srv/tool",
];

fn change(
    (aspect, kind, severity): (Aspect, ChangeKind, Severity),
    subject: &str,
    (before, after): (&str, &str),
    cause: Option<(usize, bool)>,
) -> Change {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let cause = cause.map(|(number, certain)| Cause {
        id: id(number),
        command: COMMAND_LINES[number - 1].into(),
        certain,
    });
    Change {
        id: format!("{}:{subject}", aspect.as_str()),
        node: None,
        aspect,
        change: kind,
        subject: subject.into(),
        before: some(before),
        after: some(after),
        severity,
        side: Side::To,
        at: None,
        causes: cause.into_iter().collect(),
    }
}

fn view() -> StateDiffResult {
    use {Aspect::*, ChangeKind::*, Severity::*};
    let file = "2 B 0644 root:root";
    let mut differences = vec![
        change(
            (Services, Changed, High),
            "web.service",
            ("inactive", "failed (failed)"),
            Some((3, false)),
        ),
        change(
            (Files, Mode, High),
            "/srv/tool",
            ("9 B 0755 root:root 615c46b3", "9 B 4755 root:root 615c46b3"),
            Some((3, true)),
        ),
        change((Packages, Added, Medium), "curl", ("", "8.1, 12 files"), Some((1, true))),
        change(
            (Database, Changed, Low),
            "/srv/shop.db users rows",
            ("3 rows, 11111111", "4 rows, 44444444"),
            None,
        ),
        change((Files, Moved, Low), "/opt/old", ("/opt/old", "/opt/new"), None),
    ];
    for n in 1..=3 {
        let path = format!("/srv/many-{n}");
        differences.push(change((Files, Added, Low), &path, ("", file), Some((2, true))));
    }
    let count = |aspect, added, removed, changed| AspectCount { aspect, added, removed, changed };
    let command = |number: usize, changes| CommandChanges {
        id: id(number),
        act: "exec".into(),
        command: COMMAND_LINES[number - 1].into(),
        branch: "br_1".into(),
        node: "shop".parse().unwrap(),
        changes,
    };
    StateDiffResult {
        from: "shop@main".into(),
        to: "shop@try-1".into(),
        base: Some("cm_000000000001".into()),
        equal: false,
        counts: vec![
            count(Packages, 1, 0, 0),
            count(Files, 3, 0, 2),
            count(Services, 0, 0, 1),
            count(Database, 0, 0, 1),
        ],
        highlights: Vec::new(),
        commands: vec![command(1, 1), command(2, 3), command(3, 2)],
        unexplained: 2,
        differences,
        suppressed: BTreeMap::new(),
        unknown: BTreeMap::from([("env".to_owned(), "it cannot be read".to_owned())]),
        nodes: Vec::new(),
        cluster: None,
        hunks: Some("@@ -1,1 +1,1 @@\n-a\n+b\n".into()),
        duration_ms: 12,
        page: Page::default(),
    }
}

#[test]
fn the_first_lines_tell_what_one_wants_to_know() {
    let text = lines(&view(), Extent::All, Pen { width: None, colour: false }).join("\n");
    insta::assert_snapshot!(text);
}

#[test]
fn nothing_is_wider_than_the_terminal() {
    let narrow = Pen { width: Some(50), colour: false };
    let text = lines(&view(), Extent::All, narrow);
    assert!(text.iter().all(|line| line.chars().count() <= 50), "{text:#?}");
    let painted = lines(&view(), Extent::All, Pen { width: Some(50), colour: true });
    assert!(painted.iter().any(|line| line.contains("\u{1b}[32m")));
    let plain = |line: &String| {
        let mut codes = line.split('\u{1b}');
        let first = codes.next().unwrap_or_default().to_owned();
        codes.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
    };
    assert_eq!(painted.iter().map(plain).collect::<Vec<_>>(), text);
    assert_eq!(lines(&view(), Extent::Counts, narrow).len(), 6);
}
