//! One call of every verb, as somebody would make it: for the reference, for OpenAPI, and for tests
//! that make the same call over every front end.

use serde_json::{Map, Value};

use crate::verb::Verb;

/// Parameters by verb, as JSON. The machine is `shop`, with a branch `try-1` and a tag `clean`.
const EXAMPLES: &[(&str, &str)] = &[
    ("vm_create", r#"{"name": "shop", "memory_mib": 1024, "vcpus": 2}"#),
    ("vm_list", r#"{"state": "running"}"#),
    ("vm_status", r#"{"address": "shop@try-1", "verbose": true}"#),
    ("vm_usage", r#"{"cluster": "shop"}"#),
    ("vm_control", r#"{"address": "shop@try-1", "action": "pause"}"#),
    ("vm_delete", r#"{"name": "shop", "remove_overlays": true}"#),
    ("topology_validate", r#"{"topology": "{name: shop, nodes: [{name: web}, {name: db}]}"}"#),
    ("topology_list", "{}"),
    ("topology_show", r#"{"topology": "etcd"}"#),
    ("cluster_define", r#"{"topology_name": "shop"}"#),
    ("cluster_start", r#"{"cluster_name": "shop"}"#),
    ("cluster_stop", r#"{"cluster_name": "shop", "mode": "destroy"}"#),
    ("cluster_destroy", r#"{"cluster_name": "shop", "remove_overlays": true}"#),
    ("cluster_status", r#"{"cluster_name": "shop@try-1"}"#),
    ("cluster_handle", r#"{"cluster_name": "shop"}"#),
    ("cluster_list", "{}"),
    ("node_exec", r#"{"cluster_name": "shop", "node_name": "db", "command": "uname -r"}"#),
    ("node_exec_all", r#"{"cluster_name": "shop", "command": "df -h", "nodes": ["db", "web"]}"#),
    ("node_crash", r#"{"cluster_name": "shop", "node": "db", "restart_after": false}"#),
    ("snapshot_create", r#"{"cluster_name": "shop", "snapshot_name": "baseline"}"#),
    ("snapshot_list", r#"{"cluster_name": "shop"}"#),
    ("snapshot_revert", r#"{"cluster_name": "shop", "snapshot_name": "baseline"}"#),
    ("snapshot_delete", r#"{"cluster_name": "shop", "snapshot_name": "baseline"}"#),
    ("branch_create", r#"{"from": "shop", "count": 4}"#),
    ("branch_list", r#"{"cluster": "shop"}"#),
    ("branch_checkout", r#"{"branch": "shop@try-1"}"#),
    ("branch_rollback", r#"{"branch": "shop@try-1", "target": "clean"}"#),
    ("branch_delete", r#"{"branch": "shop@try-1"}"#),
    ("commit_create", r#"{"branch": "shop", "message": "before the upgrade", "tag": "clean"}"#),
    ("commit_list", r#"{"cluster": "shop"}"#),
    ("commit_show", r#"{"commit": "clean"}"#),
    ("commit_verify", r#"{"commit": "clean"}"#),
    ("commit_delete", r#"{"commit": "cm_0123456789ab"}"#),
    ("tag_set", r#"{"commit": "cm_0123456789ab", "tag": "clean"}"#),
    ("tag_delete", r#"{"tag": "clean"}"#),
    (
        "exec_run",
        r#"{"address": "shop", "argv": ["apt-get", "install", "-y", "nginx"], "timeout_s": 300}"#,
    ),
    ("exec_fanout", r#"{"branches": ["shop@try-1", "shop@try-2"], "command": "nginx -t"}"#),
    ("file_push", r#"{"address": "shop", "path": "/etc/motd", "content": "hello\n"}"#),
    ("file_pull", r#"{"address": "shop", "path": "/etc/os-release"}"#),
    ("connect_info", r#"{"address": "shop"}"#),
    ("console_read", r#"{"address": "shop", "tail_bytes": 4096}"#),
    ("image_build", r#"{"name": "web", "packages": ["nginx", "curl"]}"#),
    ("image_import", r#"{"name": "cloud", "path": "/srv/cloud.qcow2", "kind": "disk"}"#),
    ("image_list", "{}"),
    ("image_show", r#"{"image": "default"}"#),
    ("image_remove", r#"{"image": "web"}"#),
    ("state_capture", r#"{"address": "shop", "aspects": ["packages", "files"]}"#),
    ("state_diff", r#"{"from": "shop@clean", "to": "shop@try-1"}"#),
    ("journal_list", r#"{"address": "shop@try-1", "limit": 20}"#),
    (
        "net_partition",
        r#"{"cluster_name": "shop@try-1", "partition_a": ["db"], "partition_b": ["web", "cache"]}"#,
    ),
    (
        "net_impair",
        r#"{"cluster_name": "shop@try-1", "source_node": "db", "target_node": "web", "latency_ms": 50}"#,
    ),
    ("net_heal", r#"{"cluster_name": "shop@try-1", "fault_handle": "ft_0123456789ab"}"#),
    ("net_heal_all", r#"{"cluster_name": "shop@try-1"}"#),
    ("net_fault_list", r#"{"cluster_name": "shop@try-1", "links": true}"#),
    ("net_probe", r#"{"cluster_name": "shop@try-1"}"#),
    ("net_capture", r#"{"cluster_name": "shop@try-1", "action": "start"}"#),
    ("operation_list", r#"{"status": "running"}"#),
    ("operation_get", r#"{"id": "op_0123456789ab"}"#),
    ("operation_wait", r#"{"id": "op_0123456789ab", "timeout_s": 120}"#),
    ("operation_cancel", r#"{"id": "op_0123456789ab"}"#),
    ("gc", r#"{"dry_run": true}"#),
    ("system_status", "{}"),
];

impl Verb {
    /// Returns the parameters of an example call.
    pub fn example(&self) -> Value {
        EXAMPLES
            .iter()
            .find(|(name, _)| *name == self.name)
            .and_then(|(_, params)| serde_json::from_str(params).ok())
            .unwrap_or_else(|| Value::Object(Map::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, catalogue};

    #[test]
    fn every_verb_has_one_example_that_is_a_call() {
        assert_eq!(EXAMPLES.len(), catalogue().len());
        for (verb, (name, params)) in catalogue().iter().zip(EXAMPLES) {
            assert_eq!(verb.name, *name, "the catalogue's order");
            assert!(serde_json::from_str::<Value>(params).is_ok(), "{name}: {params}");
            assert!(Call::parse(name, verb.example()).is_ok(), "{name}: {params}");
        }
    }
}
