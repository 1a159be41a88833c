//! Every error that a topology can have, word for word.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in a helper")]

use std::fmt::Write;

use pando_model::cluster::SshDefaults;
use pando_topology::{Limits, parse, parse_bytes};

/// Returns a topology of one node with more lines below the node, and more at the end.
fn with(node: &str, rest: &str) -> String {
    let node: String = node.lines().map(|line| format!("    {line}\n")).collect();
    format!("name: a\nnodes:\n  - name: n1\n{node}{rest}\n")
}

fn told(cases: &[(&str, String)]) -> String {
    let mut told = String::new();
    for (what, text) in cases {
        let errors = parse(text, &Limits::default(), &SshDefaults::default()).unwrap_err();
        writeln!(told, "## {what}").unwrap();
        writeln!(told, "{errors}\n").unwrap();
    }
    told
}

#[test]
fn what_is_not_yaml() {
    let deep = format!("name: {}{}", "[".repeat(40), "]".repeat(40));
    let deep_block: String = (0..40).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let earlier = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{earlier}]").unwrap();
    }
    let fat = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 100].join(", "));
    let cases = [
        ("empty", String::new()),
        ("only a comment", "# nothing\n".to_owned()),
        ("null", "~\n".to_owned()),
        ("a list", "- a\n".to_owned()),
        ("a text", "hello\n".to_owned()),
        ("tabs", "name: a\nnodes:\n\t- name: b\n".to_owned()),
        ("tabs in a map", "name: a\nnetwork:\n\tname: b\n".to_owned()),
        ("two documents", "name: a\nnodes: [{name: b}]\n---\nname: c\n".to_owned()),
        ("an open bracket", "name: [a\n".to_owned()),
        ("an open quote", "name: \"a\n".to_owned()),
        ("bad indentation", "name: a\n  nodes: 3\n".to_owned()),
        ("an unknown alias", "name: *a\n".to_owned()),
        ("an alias in itself", "name: &a [*a]\n".to_owned()),
        ("a bomb of aliases", bomb),
        ("aliases of a long text", fat),
        ("deep", deep),
        ("deep blocks", deep_block),
        ("too long", "#".repeat((1 << 20) + 1)),
        ("a zero byte", "name: a\0\nnodes: []\n".to_owned()),
        ("an escape character", "name: \u{1b}[31m\n".to_owned()),
        ("a directive", "%YAML 1.1\n---\nname: a\n".to_owned()),
        ("a tag", "name: !!python/object:os.system a\n".to_owned()),
        ("a key twice", "name: a\nname: b\n".to_owned()),
        ("a key that is a list", "[a]: b\n".to_owned()),
        ("a null key", "~: b\n".to_owned()),
        ("a merge of a text", "<<: a\n".to_owned()),
    ];
    insta::assert_snapshot!(told(&cases));
    let bytes = parse_bytes(b"name: a\n# caf\xe9\n", &Limits::default(), &SshDefaults::default())
        .unwrap_err();
    assert_eq!(bytes.to_string(), "line 2, column 6: the text is not UTF-8; save it as UTF-8");
}

#[test]
fn what_has_the_wrong_form() {
    let cases = [
        ("nothing is there", "{}".to_owned()),
        ("an unknown key", with("vcpu: 2", "")),
        ("a key that nothing is near to", with("colour: green", "")),
        ("an unknown key at the top", with("", "cluster: a")),
        (
            "several errors at once",
            with("vcpus: two\nmemory: lots\nip: 10.20.0.300", "labels: [a]"),
        ),
        ("nodes is a map", "name: a\nnodes: {b: c}\n".to_owned()),
        ("a node is a text", "name: a\nnodes: [b]\n".to_owned()),
        ("a node without a name", "name: a\nnodes: [{vcpus: 1}]\n".to_owned()),
        ("names", "name: ../etc\nnodes: [{name: 'a b'}, {name: ''}, {name: A}]\n".to_owned()),
        ("a name that is too long", format!("name: {}\nnodes: [{{name: b}}]\n", "a".repeat(64))),
        ("a subnet without a prefix", with("", "network: {subnet: 10.0.0.0}")),
        ("an address with a prefix", with("ip: 10.0.0.1/24", "")),
        ("a MAC", with("interfaces: [{mac: 52-54-00-12-34-56}]", "")),
        ("an uplink", with("", "network: {uplink: maybe}")),
        ("a mode", with("files: [{path: /a, contents: b, mode: rw-r--r--}]", "")),
        ("a file without contents", with("files: [{path: /a}]", "")),
        ("a flag", with("", "network: {dhcp: perhaps}")),
        ("a number", with("", "network: {link: {loss_pct: a lot}}")),
        ("an infinite number", with("", "network: {link: {loss_pct: .inf, latency_ms: inf}}")),
        ("empty commands", with("commands: ['', []]", "")),
        ("a forward", with("forwards: ['80:http', 'a', '80:70000']", "")),
        ("a restart", with("services: [{name: s, command: x, restart: sometimes}]", "")),
        ("a long text", with(&format!("role: {}", "x".repeat(5000)), "")),
    ];
    insta::assert_snapshot!(told(&cases));
}

#[test]
fn what_makes_no_sense_of_machines() {
    let many: String = (0..65).map(|number| format!("  - name: n{number}\n")).collect();
    let nics = ["{}"; 9].join(", ");
    let cases = [
        ("no nodes", "name: a\nnodes: []\n".to_owned()),
        ("65 nodes", format!("name: a\nnodes:\n{many}")),
        ("1000 nodes", format!("name: a\nnodes: [{}]\n", vec!["{name: b}"; 1000].join(", "))),
        ("two names that are one host name", with("", "  - name: a_b\n  - name: a-b")),
        ("negative CPUs", with("vcpus: -2", "")),
        ("no CPUs", with("vcpus: 0", "")),
        ("too many CPUs", with("vcpus: 33", "")),
        ("memory", with("memory: 64M", "")),
        ("memory in MiB", with("memory_mb: 1000000", "")),
        ("negative memory", with("memory_mb: -512", "")),
        ("odd memory", with("memory_mb: 513", "")),
        ("memory twice", with("memory: 512M\nmemory_mb: 512", "")),
        ("a name twice", with("", "  - name: n1")),
        (
            "a reserved name",
            "name: a\nnodes: [{name: gateway}, {name: all}, {name: localhost}]\n".to_owned(),
        ),
        ("the cluster's name twice", with("", "cluster_name: b")),
        ("a disk", with("disk: 5000G", "")),
        ("no disk", with("disk: 0", "")),
        ("an odd disk", with("disk: 1000000000", "")),
        ("an extra disk without a size", with("extra_disks: [{path: /d}]", "")),
        ("a negative extra disk", with("extra_disks: [{size_gb: -1}]", "")),
        ("a user to log in as who is a number", with("", "ssh: {user: '1000'}")),
        ("a user to log in as who is no user", with("", "ssh: {user: 'a b; id'}")),
        (
            "an extra disk twice",
            with("extra_disks: [{name: d, size: 1G}, {name: d, size: 2G}]", ""),
        ),
        (
            "an extra disk with a default name twice",
            with("extra_disks: [{name: disk2, size: 1G}, {size: 2G}]", ""),
        ),
        (
            "an extra disk with a long name",
            with(
                "extra_disks: [{name: a-name-of-some-length, size: 1G}, {name: abcdefghijklmnopqrstu, size: 1G}]",
                "",
            ),
        ),
        ("an extra disk named as ours", with("extra_disks: [{name: pando-root, size: 1G}]", "")),
        ("nine extra disks", with(&format!("extra_disks: [{}]", ["{size: 1G}"; 9].join(", ")), "")),
        ("nine interfaces", with(&format!("interfaces: [{nics}]"), "")),
        ("an image's name", with("image: 'Debian 12'", "")),
        ("an image's path", with("image: ../../etc/shadow", "")),
        ("an image's path with dots", with("image: /var/../etc/shadow", "")),
        ("an image without a name", with("image: /images/.qcow2", "")),
        ("a file's path", with("files: [{path: etc/a, contents: b}]", "")),
        ("a file's path with dots", with("files: [{path: /etc/../a, contents: b}]", "")),
        ("a directory as a file", with("files: [{path: /etc/, contents: b}]", "")),
        ("a file twice", with("files: [{path: /a, contents: b}, {path: /a, contents: c}]", "")),
        ("an owner", with("files: [{path: /a, contents: b, owner: 'root; id'}]", "")),
        ("user data", with("user_data: apt-get update", "")),
        ("a variable", with("env: {'A B': c, 1X: d}", "")),
        ("a variable of several lines", with("env: {A: \"b\\nc\"}", "")),
        ("a label", with("", "labels: {'a=b': c}")),
        ("a role", with("role: two words", "")),
        ("a working directory", with("services: [{name: s, command: x, cwd: here}]", "")),
        ("a unit's name for a service", with("services: [{name: s.service, command: x}]", "")),
        ("a service twice", with("services: [{name: s, command: x}, {name: s, command: y}]", "")),
        ("an unknown service", with("services: [{name: s, command: x, after: [t]}]", "")),
        (
            "services in a circle",
            with(
                "services: [{name: s, command: x, after: [t]}, {name: t, command: x, after: [s]}]",
                "",
            ),
        ),
        ("a user to log in", with("", "ssh: {user: '-oProxyCommand=id'}")),
        ("a timeout", with("", "ssh: {connect_timeout_s: 0}")),
        ("a key's path", with("", "ssh: {key_path: keys/id_ed25519}")),
        ("a key's path with dots", with("", "ssh: {key_path: /keys/../id_ed25519}")),
        ("a snapshot", with("", "snapshots: {Base Line: b}")),
    ];
    insta::assert_snapshot!(told(&cases));
}

#[test]
fn what_makes_no_sense_of_networks() {
    let two = "networks: [{name: x, subnet: 10.1.0.0/24}, {name: y, subnet: 10.2.0.0/24}]";
    let cases = [
        ("outside of the subnet", with("ip: 10.21.0.5", "")),
        ("two ways to one port", with("forwards: ['8080:80', '8081:80']", "")),
        ("the network's address", with("ip: 10.20.0.0", "")),
        ("the broadcast address", with("ip: 10.20.0.255", "")),
        ("the gateway", with("ip: 10.20.0.1", "")),
        ("an address twice", with("ip: 10.20.0.5", "  - name: n2\n    ip: 10.20.0.5")),
        (
            "a MAC twice",
            with("interfaces: [{mac: 52:54:00:00:00:01}, {mac: 52:54:00:00:00:01}]", ""),
        ),
        ("a group MAC", with("interfaces: [{mac: 01:00:5e:00:00:01}]", "")),
        ("the gateway's MAC", with("interfaces: [{mac: 52:55:0a:00:02:02}]", "")),
        ("a machine's subnet", with("", "network: {subnet: 10.0.0.5/24}")),
        ("a subnet without room", with("", "network: {subnet: 10.0.0.0/31}")),
        ("loopback", with("", "network: {subnet: 127.0.0.0/8}")),
        ("multicast", with("", "network: {subnet: 224.0.0.0/24}")),
        ("link-local", with("", "network: {subnet: 169.254.0.0/16}")),
        ("a full network", with("", "  - name: n2\nnetwork: {subnet: 10.0.0.0/30}")),
        ("a gateway outside", with("", "network: {gateway: 10.9.0.1}")),
        ("a short IPv6 prefix", with("", "network: {subnet6: 'fd00::/48'}")),
        ("a machine's IPv6 subnet", with("", "network: {subnet6: 'fd00::1/64'}")),
        ("link-local IPv6", with("", "network: {subnet6: 'fe80::/64'}")),
        ("IPv6 without a network", with("interfaces: [{ip6: 'fd00::9'}]", "")),
        (
            "IPv6 outside, of the network, of the gateway",
            with(
                "interfaces: [{ip6: 'fd01::9'}, {ip6: 'fd00::'}, {ip6: 'fd00::1'}]",
                "network: {subnet6: 'fd00::/64'}",
            ),
        ),
        (
            "overlapping networks",
            with(
                "interfaces: []",
                "networks: [{name: x, subnet: 10.0.0.0/16}, {name: y, subnet: 10.0.5.0/24}]",
            ),
        ),
        (
            "the same IPv6 network",
            with(
                "interfaces: []",
                "networks: [{name: x, subnet6: 'fd00::/64'}, {name: y, subnet6: 'fd00::/64'}]",
            ),
        ),
        ("a network twice", with("interfaces: []", "networks: [{name: x}, {name: x}]")),
        ("networks without names", with("interfaces: []", "networks: [{}, {}]")),
        ("network and networks", with("interfaces: []", "network: {}\nnetworks: [{name: x}]")),
        ("which network", with("", two)),
        ("in none of the networks", with("ip: 10.3.0.1", two)),
        ("an interface of which network", with("interfaces: [{}]", two)),
        ("an unknown network", with("interfaces: [{network: z}]", two)),
        ("ip and interfaces", with("ip: 10.20.0.5\ninterfaces: []", "")),
        (
            "a port",
            with("forwards: ['0:80', {host_port: 65536, guest_port: 1}, {guest_port: -1}]", ""),
        ),
        ("a port twice", with("forwards: ['8080:80', '8080:81']", "")),
        ("a forward to nobody", with("", "forwards: [{node: n9, guest_port: 80}]")),
        ("a forward of no node", with("", "  - name: n2\nforwards: ['8080:80']")),
        ("a forward of another", with("forwards: [{node: n2, guest_port: 80}]", "  - name: n2")),
        ("latency", with("", "network: {link: {latency_ms: -1, jitter_ms: 60001}}")),
        ("per cent", with("", "network: {link: {loss_pct: 101, corrupt_pct: -0.1}}")),
        ("a rate", with("", "network: {link: {rate_kbit: 0}}")),
        ("no effect", with("", "network: {link: {reorder_pct: 5, burst_frames: 3}}")),
    ];
    insta::assert_snapshot!(told(&cases));
}

/// A text with very many errors is answered with the first ones.
#[test]
fn errors_have_a_limit() {
    let text = format!("name: a\nnodes: [{}]\n", vec!["{name: '!'}"; 60].join(", "));
    let errors = parse(&text, &Limits::default(), &SshDefaults::default()).unwrap_err();
    assert_eq!((errors.errors.len(), errors.more), (32, 28));
    assert!(errors.to_string().ends_with("and 28 more"), "{errors}");
}

#[test]
fn what_the_kernel_cannot_carry() {
    let two = |first: &str, second: &str| {
        with(
            "interfaces: []",
            &format!(
                "networks:\n  - {{name: x, {first}}}\n  - {{name: y, subnet: 10.9.0.0/24, {second}}}\n"
            ),
        )
    };
    let cases = [
        ("an unknown mode", with("", "network: {mode: fast}")),
        ("an uplink", with("", "network: {mode: kernel, uplink: nat}")),
        ("a bridge's name", with("", "network: {mode: kernel, bridge: \"br0; reboot\"}")),
        ("both modes", two("mode: kernel", "mode: switch")),
        ("one bridge twice", two("mode: kernel, bridge: br7", "mode: kernel, bridge: br7")),
    ];
    insta::assert_snapshot!(told(&cases));
}

/// vmcluster takes names with capitals and underscores.
#[test]
fn names_of_other_tools_are_read() {
    let topology = parse(
        "name: Shop_1\nnodes: [{name: Web_A}]\n",
        &Limits::default(),
        &SshDefaults::default(),
    )
    .unwrap();
    assert_eq!((topology.name.as_str(), topology.nodes[0].name.as_str()), ("shop_1", "web_a"));
    let notes: Vec<String> = topology.notes.iter().map(ToString::to_string).collect();
    assert!(notes.iter().any(|note| note.contains("`web_a`")), "{notes:?}");
}

#[test]
fn what_the_text_says_of_ssh_wins_over_what_holds_without_it() {
    let ssh = |text: &str, user: Option<&str>, key_path: Option<&str>| {
        let defaults =
            SshDefaults { user: user.map(str::to_owned), key_path: key_path.map(str::to_owned) };
        let text = with("", text);
        let ssh = parse(&text, &Limits::default(), &defaults).unwrap().ssh;
        (ssh.user, ssh.key_path.unwrap_or_default())
    };
    let says = |user: &str, key_path: &str| (user.to_owned(), key_path.to_owned());
    assert_eq!(ssh("", None, None), says("root", ""));
    assert_eq!(ssh("", Some("ops"), Some("/k")), says("ops", "/k"));
    assert_eq!(ssh("ssh: {user: root}", Some("ops"), Some("/k")), says("root", "/k"));
    assert_eq!(ssh("ssh: {key_path: /own}", Some("ops"), Some("/k")), says("ops", "/own"));
}
