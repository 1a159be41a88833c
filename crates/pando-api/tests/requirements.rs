//! Names that others gave to what pando does: each is a verb or another name of one, with the
//! parameters of its origin, or is written down as belonging to work that is yet to come.

#![allow(clippy::expect_used, reason = "a test ends where it fails")]

use std::collections::BTreeSet;

use pando_api::{Verb, catalogue};

/// A name, and what there is of it.
enum Is {
    /// This verb, with these parameters of its origin.
    Verb(&'static str, &'static [&'static str]),
    /// Part of this, later.
    Later(&'static str),
}

use Is::{Later, Verb as V};

const SERVICES: Is = Later("services inside machines");
const DEPLOYMENT: Is = Later("environments and deployments");
const PREVIEW: Is = Later("preview environments");
const CATALOG: Is = Later("published stacks");
const ARTIFACTS: Is = Later("build artifacts");
const KERNEL: Is = Later("kernel logs across nodes");
const FORGE: Is = Later("projects, issues and merge requests");
const PIPELINES: Is = Later("pipelines");
const OBSERVING: Is = Later("logs, traces, metrics and alerts");
const POLICY: Is = Later("policies");

/// Every tool name of the acceptance map.
const NAMES: &[(&str, Is)] = &[
    ("vers_status", V("vm_status", &["verbose"])),
    ("vers_branch_create", V("branch_create", &["alias", "from"])),
    ("vers_branch_list", V("branch_list", &[])),
    ("vers_branch_checkout", V("branch_checkout", &["branch"])),
    ("vers_branch_delete", V("branch_delete", &["branch", "force"])),
    ("vers_commit", V("commit_create", &["tag", "message"])),
    ("vers_rollback", V("branch_rollback", &["target"])),
    ("vers_diff", V("state_diff", &["branch1", "branch2", "aspects"])),
    ("vers_snapshot_state", V("state_capture", &["aspects"])),
    ("vers_execute", V("exec_run", &["command", "timeout"])),
    ("vers_connect_info", V("connect_info", &[])),
    ("vers_parallel_execute", V("exec_fanout", &["branches", "command"])),
    ("new_root", V("vm_create", &["vm_id", "image_name", "vcpu_count", "mem_size_mib"])),
    ("branch_vm", V("branch_create", &["vm_id", "alias"])),
    ("commit_vm", V("commit_create", &["vm_id"])),
    ("from_commit_vm", V("branch_create", &["commit_id"])),
    ("update_state", V("vm_control", &["vm_id", "state"])),
    ("delete_vm", V("vm_delete", &["vm_id"])),
    ("vm.create", V("vm_create", &["name", "vcpus", "memory_mb", "disk_gb", "image", "metadata"])),
    ("vm.control", V("vm_control", &["id", "operation"])),
    ("vm.status", V("vm_status", &["id"])),
    ("vm.list", V("vm_list", &[])),
    ("vm.delete", V("vm_delete", &["id", "force"])),
    ("operation_get", V("operation_get", &["id"])),
    ("operation_list", V("operation_list", &["status"])),
    ("operation_wait", V("operation_wait", &["id"])),
    ("operation_cancel", V("operation_cancel", &["id"])),
    ("state_capture", V("state_capture", &["aspects"])),
    ("state_diff", V("state_diff", &["aspects"])),
    ("journal_list", V("journal_list", &["address"])),
    ("cluster_destroy", V("cluster_destroy", &["cluster_name", "remove_overlays"])),
    ("topology_validate", V("topology_validate", &["topology"])),
    ("topology_list", V("topology_list", &[])),
    ("topology_show", V("topology_show", &["topology"])),
    ("snapshot_list", V("snapshot_list", &["cluster_name"])),
    ("vers_service_start", SERVICES),
    ("vers_service_stop", SERVICES),
    ("vers_service_status", SERVICES),
    ("vers_service_logs", SERVICES),
    ("vers_healthcheck", SERVICES),
    ("vers_wait_healthy", SERVICES),
    ("vers_deploy", DEPLOYMENT),
    ("vers_deployment_status", DEPLOYMENT),
    ("vers_deployment_rollback", DEPLOYMENT),
    ("vers_preview_create", PREVIEW),
    ("vers_preview_delete", PREVIEW),
    ("vers_publish", CATALOG),
    ("vers_import", CATALOG),
    ("vers_search", CATALOG),
    ("cluster_define", V("cluster_define", &["topology_name"])),
    ("cluster_start", V("cluster_start", &["cluster_name", "wait_for_ssh", "ssh_timeout_s"])),
    ("cluster_stop", V("cluster_stop", &["cluster_name", "mode"])),
    ("cluster_status", V("cluster_status", &["cluster_name"])),
    ("cluster_handle", V("cluster_handle", &["cluster_name"])),
    ("snapshot_create", V("snapshot_create", &["cluster_name", "snapshot_name", "include_memory"])),
    (
        "snapshot_revert",
        V(
            "snapshot_revert",
            &["cluster_name", "snapshot_name", "restart_after", "wait_for_ssh", "ssh_timeout_s"],
        ),
    ),
    ("snapshot_delete", V("snapshot_delete", &["cluster_name", "snapshot_name"])),
    ("node_exec", V("node_exec", &["cluster_name", "node_name", "command", "timeout_s"])),
    (
        "node_exec_all",
        V("node_exec_all", &["cluster_name", "command", "nodes", "require_all", "timeout_s"]),
    ),
    (
        "node_crash",
        V(
            "node_crash",
            &["cluster_name", "node", "restart_after", "wait_for_ssh", "ssh_timeout_s"],
        ),
    ),
    ("net_partition", V("net_partition", &["cluster_name", "partition_a", "partition_b"])),
    (
        "net_impair",
        V(
            "net_impair",
            &[
                "cluster_name",
                "source_node",
                "target_node",
                "latency_ms",
                "jitter_ms",
                "loss_pct",
                "corrupt_pct",
                "reorder_pct",
            ],
        ),
    ),
    ("net_heal", V("net_heal", &["cluster_name", "fault_handle"])),
    ("net_heal_all", V("net_heal_all", &["cluster_name"])),
    ("net_fault_list", V("net_fault_list", &["cluster_name"])),
    ("dmesg_mark", KERNEL),
    ("dmesg_collect", KERNEL),
    ("artifact_register", ARTIFACTS),
    ("artifact_list", ARTIFACTS),
    ("artifact_diff", ARTIFACTS),
    ("artifact_sync", ARTIFACTS),
    ("artifact_install", ARTIFACTS),
    ("get_project", FORGE),
    ("list_projects", FORGE),
    ("git_tree", FORGE),
    ("git_blob", FORGE),
    ("git_log", FORGE),
    ("git_diff", FORGE),
    ("search_code", FORGE),
    ("list_issues", FORGE),
    ("get_issue", FORGE),
    ("create_issue", FORGE),
    ("update_issue", FORGE),
    ("add_issue_comment", FORGE),
    ("list_merge_requests", FORGE),
    ("create_merge_request", FORGE),
    ("get_merge_request", FORGE),
    ("add_mr_comment", FORGE),
    ("review_merge_request", FORGE),
    ("merge_mr", FORGE),
    ("list_pipelines", PIPELINES),
    ("get_pipeline", PIPELINES),
    ("get_step_logs", PIPELINES),
    ("trigger_pipeline", PIPELINES),
    ("cancel_pipeline", PIPELINES),
    ("list_artifacts", PIPELINES),
    ("list_deployments", DEPLOYMENT),
    ("get_deployment", DEPLOYMENT),
    ("create_deployment", DEPLOYMENT),
    ("update_deployment", DEPLOYMENT),
    ("rollback_deploy", DEPLOYMENT),
    ("get_deploy_history", DEPLOYMENT),
    ("list_previews", PREVIEW),
    ("get_preview", PREVIEW),
    ("search_logs", OBSERVING),
    ("get_trace", OBSERVING),
    ("query_metrics", OBSERVING),
    ("list_alerts", OBSERVING),
    ("policy_list", POLICY),
    ("policy_get", POLICY),
    ("policy_put", POLICY),
    ("policy_delete", POLICY),
    ("policy_validate", POLICY),
    ("policy_test", POLICY),
];

#[test]
fn every_asked_for_name_is_a_verb_or_comes_later() {
    let mut seen = BTreeSet::new();
    for (name, is) in NAMES {
        assert!(seen.insert(*name), "{name} is there twice");
        match is {
            Later(what) => {
                assert!(Verb::find(name).is_none(), "{name} is there: it is not {what} any more");
            }
            V(expected, parameters) => {
                let (verb, alias) = Verb::resolve(name).expect(name);
                assert_eq!(verb.name, *expected, "{name}");
                for parameter in *parameters {
                    let renames = alias.map_or(&[][..], |alias| alias.renames);
                    let ours = renames.iter().find(|(theirs, _)| theirs == parameter);
                    let ours = ours.map_or(*parameter, |(_, ours)| *ours);
                    let known = verb.properties().is_some_and(|known| known.contains_key(ours));
                    assert!(known, "{name} takes no {parameter}");
                }
            }
        }
    }
    // And the other way round: no alias without an origin.
    for alias in catalogue().iter().flat_map(|verb| verb.aliases) {
        assert!(seen.contains(alias.name), "nobody asked for {}", alias.name);
    }
}
