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

/// The same of a cluster: everything is of one node; another is as it was, a third one crashed.
fn cluster_view() -> StateDiffResult {
    use pando_api::network::FaultType;
    use pando_api::state::{
        ClusterDiff, FaultDiff, LinkDiff, NodeDiff, NodeState, Reach, ReachDiff,
    };
    let one = view();
    let node = |name: &str, to, not_compared: Option<&str>| NodeDiff {
        node: name.parse().unwrap(),
        from: Some(NodeState::Running),
        to,
        equal: to == Some(NodeState::Running) && name != "shop",
        total: 0,
        counts: Vec::new(),
        unexplained: 0,
        not_compared: not_compared.map(str::to_owned),
    };
    let fault = |side, fault_type, parameters, label: Option<&str>| FaultDiff {
        side,
        handle_id: "ft_000000000001".parse().unwrap(),
        fault_type,
        parameters,
        label: label.map(str::to_owned),
    };
    let cut = serde_json::json!({
        "partition_a": ["shop"], "partition_b": ["web", "gateway"], "direction": "both",
    });
    let slow = serde_json::json!({
        "source_node": "web", "target_node": "db", "both_directions": false, "latency_ms": 50.0,
    });
    let link = |link: &str, to| LinkDiff {
        link: link.into(),
        from: Some(Reach::Yes),
        to: Some(to),
        from_ms: Some(1.5),
        to_ms: None,
    };
    let own = |change| Change { node: Some("shop".parse().unwrap()), ..change };
    StateDiffResult {
        from: "trio@main".into(),
        to: "trio@try-1".into(),
        unknown: BTreeMap::from([("shop/env".to_owned(), "it cannot be read".to_owned())]),
        nodes: vec![
            NodeDiff {
                total: 8,
                counts: one.counts.clone(),
                unexplained: 2,
                ..node("shop", Some(NodeState::Running), None)
            },
            node("web", Some(NodeState::Running), None),
            node("db", Some(NodeState::Crashed), Some("on trio@try-1 it is crashed (killed)")),
        ],
        cluster: Some(ClusterDiff {
            faults: vec![
                fault(Side::From, FaultType::Impairment, slow, None),
                fault(Side::To, FaultType::Partition, cut, Some("split")),
            ],
            faults_differ: 3,
            faults_on_both: 1,
            reachability: ReachDiff {
                differ: 1,
                total: 2,
                links: vec![link("shop>web", Reach::No), link("web>db", Reach::Yes)],
                not_observed: BTreeMap::new(),
            },
            one_node: String::new(),
        }),
        differences: one.differences.into_iter().map(own).collect(),
        hunks: None,
        ..view()
    }
}

#[test]
fn a_cluster_is_told_from_outside_and_then_node_by_node() {
    let text = lines(&cluster_view(), Extent::All, Pen { width: None, colour: false }).join("\n");
    insta::assert_snapshot!(text);
    let short = lines(&cluster_view(), Extent::Counts, Pen { width: Some(60), colour: false });
    assert!(short.iter().all(|line| line.chars().count() <= 60), "{short:#?}");
    assert!(short.len() < text.lines().count());
}
