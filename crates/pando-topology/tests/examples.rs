//! The topologies that are shipped: what they mean, word for word.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, also in a helper"
)]

use std::path::{Path, PathBuf};

use pando_model::cluster::SshDefaults;
use pando_topology::{Limits, Topology, diff, parse_bytes, schema};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/topologies")
}

fn examples() -> Vec<(String, Vec<u8>)> {
    let mut examples: Vec<(String, Vec<u8>)> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    examples.sort();
    assert!(examples.len() >= 3);
    examples
}

fn read(bytes: &[u8]) -> Topology {
    parse_bytes(bytes, &Limits::default(), &SshDefaults::default())
        .unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn every_example_means_what_is_recorded() {
    for (name, bytes) in examples() {
        let topology = read(&bytes);
        let notes: Vec<String> = topology.notes.iter().map(|note| format!("# {note}\n")).collect();
        let text = format!("{}# {}\n{}", topology.to_yaml(), topology.digest(), notes.concat());
        insta::assert_snapshot!(format!("example_{name}"), text);
    }
}

#[test]
fn every_example_reads_back_as_it_is_written() {
    for (name, bytes) in examples() {
        let mut topology = read(&bytes);
        let again = read(topology.to_yaml().as_bytes());
        assert_eq!(topology.digest(), again.digest(), "{name}");
        topology.notes.clear();
        assert_eq!(diff(&topology, &again), [], "{name}");
        assert_eq!(topology.to_yaml(), again.to_yaml(), "{name}");
    }
}

/// JSON is YAML, so what a program writes as JSON is read as well.
#[test]
fn a_topology_may_be_json() {
    let json = serde_json::json!({
        "name": "shop",
        "nodes": [{"name": "db", "memory_mb": 256, "ip": "10.20.0.5", "env": {"A": "b\u{e9}\t"}}],
    });
    let topology = read(json.to_string().as_bytes());
    let node = &topology.nodes[0];
    assert_eq!((node.memory.mib(), node.env["A"].as_str()), (256, "b\u{e9}\t"));
    assert_eq!(node.interfaces[0].address.to_string(), "10.20.0.5");
}

/// What the schema is compiled and asked with: values as an editor sees them.
fn valid(value: &serde_json::Value) -> Result<(), String> {
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("topology.json", schema()).unwrap();
    let index = compiler.compile("topology.json", &mut schemas).unwrap();
    schemas.validate(value, index).map_err(|error| error.to_string())
}

#[test]
fn the_schema_accepts_what_is_accepted_and_refuses_what_has_the_wrong_form() {
    use serde_json::json;
    let good = [
        json!({"name": "a", "nodes": [{"name": "b"}]}),
        json!({"cluster_name": "a", "base_image": "/i.qcow2", "overlay_dir": "/o",
            "network": {"name": "n", "bridge": "br0", "subnet": "10.0.0.0/24", "dhcp": false, "rdma": false},
            "nodes": [{"name": "b", "role": "r", "vcpus": 2, "memory_mb": 512, "ip": "10.0.0.9",
                "extra_disks": [{"path": "/d", "size_gb": 1, "bus": "virtio"}]}],
            "ssh": {"key_path": "/k", "user": "root", "connect_timeout_s": 30},
            "snapshots": {"baseline": "clean-boot"}}),
        json!({"name": "a", "nodes": [{"name": "b", "forwards": ["80:80", {"guest_port": 1}],
            "commands": ["ls", ["ls", "-l"]], "env": {"A": 1}}]}),
    ];
    for value in good {
        valid(&value).unwrap();
        read(value.to_string().as_bytes());
    }
    let bad = [
        json!({"name": "a"}),
        json!({"name": "a", "nodes": {}}),
        json!({"name": "a", "nodes": [{"name": "b", "vcpus": -1}]}),
        json!({"name": "a", "nodes": [{"name": "b", "vcpu": 1}]}),
        json!({"name": "A B", "nodes": [{"name": "b"}]}),
        json!({"name": "a", "nodes": [{"name": "b", "files": [{"path": "/a"}]}]}),
        json!({"name": "a", "network": {"uplink": "maybe"}, "nodes": [{"name": "b"}]}),
    ];
    for value in bad {
        assert!(valid(&value).is_err(), "{value}");
        assert!(
            parse_bytes(value.to_string().as_bytes(), &Limits::default(), &SshDefaults::default())
                .is_err(),
            "{value}"
        );
    }
}
