//! What a cluster of three nodes costs: coming up, commands, one cut of all of it, copies, faults.

use std::time::{Duration, Instant};

use pando_api::ApiError;
use pando_api::branch::BranchRollbackResult;
use pando_api::cluster::ClusterStartResult;
use pando_api::commit::{CommitCreateResult, CommitDeleteResult};
use serde_json::{Value, json};

use super::machines::{FORKS, forks};
use super::{Bench, CLUSTER, Figure, Figures, ms};

const NODES: [&str; 3] = ["a", "b", "c"];

/// Between two commands of somebody who thinks: guests have prepared for the next one by then.
const THINKING: Duration = Duration::from_secs(4);

impl Bench<'_> {
    pub(super) async fn cluster(&self) -> Figures {
        let mut figures = vec![self.cluster_start().await?];
        figures.extend(self.cluster_exec().await?);
        figures.extend(self.cluster_faults().await?);
        for (mib, promised) in [(20, 25.0), (100, 50.0)] {
            figures.push(self.cluster_pause(mib, promised).await?);
        }
        figures.extend(self.cluster_copies().await?);
        figures.push(self.cluster_warm().await?);
        figures.push(self.cluster_idle().await?);
        Ok(figures)
    }

    /// Defines the cluster and starts it; returns how long the start took.
    async fn cluster_up(&self) -> Result<f64, ApiError> {
        let nodes: Vec<Value> =
            NODES.iter().map(|name| json!({"name": name, "memory": "256 MiB"})).collect();
        let topology = json!({
            "name": CLUSTER, "image": self.options.image, "nodes": nodes,
            "networks": [{"name": "lan", "subnet": "10.77.0.0/24"}],
        });
        let params = json!({"topology": topology.to_string()});
        self.session.ask::<Value>("cluster_define", params).await?;
        let params = json!({"cluster_name": CLUSTER, "wait_for_ssh": false});
        let (_, time): (ClusterStartResult, _) =
            self.session.timed("cluster_start", params).await?;
        Ok(ms(time))
    }

    pub(super) async fn cluster_down(&self) -> Result<(), ApiError> {
        let params = json!({"cluster_name": CLUSTER, "remove_overlays": true});
        self.session.ask::<Value>("cluster_destroy", params).await.map(drop)
    }

    async fn cluster_start(&self) -> Result<Figure, ApiError> {
        // The first one makes the ready state and is not counted.
        self.cluster_up().await?;
        let mut samples = Vec::new();
        for _ in 0..self.options.runs {
            self.cluster_down().await?;
            samples.push(self.cluster_up().await?);
        }
        let name = "cluster_start of three nodes from ready states → all answer";
        Ok(Figure::new(name, "ms", Some(600.0), samples))
    }

    /// Runs `true` on all nodes of a branch.
    async fn truth_everywhere(&self, address: &str) -> Result<f64, ApiError> {
        let params = json!({"cluster_name": address, "command": "true"});
        let (_, time): (Value, _) = self.session.timed("node_exec_all", params).await?;
        Ok(ms(time))
    }

    async fn cluster_exec(&self) -> Figures {
        let (mut one, mut all) = (Vec::new(), Vec::new());
        let node = format!("{CLUSTER}@main/{}", NODES[0]);
        for _ in 0..20 {
            self.truth_everywhere(CLUSTER).await?;
        }
        for _ in 0..self.options.runs * 10 {
            one.push(ms(self.truth(&node).await?));
            all.push(self.truth_everywhere(CLUSTER).await?);
        }
        let (mut idle_one, mut idle_all) = (Vec::new(), Vec::new());
        let (mut floor_one, mut floor_all) = (Vec::new(), Vec::new());
        for _ in 0..self.options.runs.div_ceil(2) {
            let params = json!({"address": node, "command": forks()});
            let (_, time): (Value, _) = self.session.timed("exec_run", params).await?;
            floor_one.push(ms(time) / f64::from(FORKS));
            let params = json!({"cluster_name": CLUSTER, "command": forks()});
            let (_, time): (Value, _) = self.session.timed("node_exec_all", params).await?;
            floor_all.push(ms(time) / f64::from(FORKS));
            tokio::time::sleep(THINKING).await;
            let params = json!({"address": node, "command": "true"});
            let (_, time): (Value, _) = self.session.timed("exec_run", params).await?;
            idle_one.push(ms(time));
            tokio::time::sleep(THINKING).await;
            idle_all.push(self.truth_everywhere(CLUSTER).await?);
        }
        Ok(vec![
            Figure::new("exec of `true` on one node of three", "ms", Some(4.0), one),
            Figure::new("exec of `true` on all three nodes", "ms", Some(9.0), all),
            Figure::new("the same, by one node's own shell", "ms", None, floor_one),
            Figure::new("the same, by all three nodes' own shells", "ms", None, floor_all),
            Figure::new("shell's `true` on one node, idle for 4 s", "ms", None, idle_one),
            Figure::new("shell's `true` on all three nodes, idle for 4 s", "ms", None, idle_all),
        ])
    }

    async fn cluster_faults(&self) -> Figures {
        let (mut part, mut heal) = (Vec::new(), Vec::new());
        for _ in 0..self.options.runs {
            let params = json!({"cluster_name": CLUSTER, "partition_a": [NODES[0]]});
            let (_, time): (Value, _) = self.session.timed("net_partition", params).await?;
            part.push(ms(time));
            let params = json!({"cluster_name": CLUSTER});
            let (_, time): (Value, _) = self.session.timed("net_heal_all", params).await?;
            heal.push(ms(time));
        }
        Ok(vec![
            Figure::new(
                "net_partition → verified from inside, its probe included",
                "ms",
                None,
                part,
            ),
            Figure::new("net_heal_all", "ms", Some(50.0), heal),
        ])
    }

    /// The pause of a commit with so much changed in each node since the commit before.
    async fn cluster_pause(&self, mib: u64, promised: f64) -> Result<Figure, ApiError> {
        let mut samples = Vec::new();
        for _ in 0..self.options.runs {
            self.cluster_down().await?;
            self.cluster_up().await?;
            for node in NODES {
                self.dirty(&format!("{CLUSTER}@main/{node}"), mib).await?;
            }
            let (commit, _) = self.commit_of(CLUSTER).await?;
            samples.push(commit.pause_ms);
        }
        let name = format!("commit of three nodes: pause, {mib} MB changed on each");
        Ok(Figure::new(&name, "ms", Some(promised), samples))
    }

    async fn cluster_copies(&self) -> Figures {
        self.cluster_down().await?;
        self.cluster_up().await?;
        let (commit, _) = self.commit_of(CLUSTER).await?;
        let (mut cold, mut back) = (Vec::new(), Vec::new());
        // The first one makes the commit's memory and is not counted.
        for number in 0..=self.options.runs {
            let time = self.copy_to_exec(commit.commit_id.as_str()).await?;
            if number > 0 {
                cold.push(time);
            }
        }
        for _ in 0..self.options.runs {
            let began = Instant::now();
            let params = json!({"branch": CLUSTER, "target": commit.commit_id, "save": false});
            self.session.ask::<BranchRollbackResult>("branch_rollback", params).await?;
            self.truth_everywhere(CLUSTER).await?;
            back.push(ms(began.elapsed()));
        }
        Ok(vec![
            Figure::new("branch of three nodes → exec on all, cold", "ms", Some(320.0), cold),
            Figure::new("rollback of three nodes → exec on all", "ms", Some(400.0), back),
        ])
    }

    /// Makes a branch, runs `true` on all its nodes, and deletes it; returns how long the first two
    /// took.
    async fn copy_to_exec(&self, commit: &str) -> Result<f64, ApiError> {
        let address = format!("{CLUSTER}@b");
        let began = Instant::now();
        self.branches(commit, &["b".to_owned()]).await?;
        self.truth_everywhere(&address).await?;
        let time = ms(began.elapsed());
        self.delete_branch(&address).await?;
        Ok(time)
    }

    async fn cluster_warm(&self) -> Result<Figure, ApiError> {
        let params = json!({"branch": CLUSTER, "message": "bench", "warm": 2});
        let commit: CommitCreateResult = self.session.ask("commit_create", params).await?;
        let mut warm = Vec::new();
        for _ in 0..self.options.runs {
            self.wait_parked(commit.commit_id.as_str()).await?;
            warm.push(self.copy_to_exec(commit.commit_id.as_str()).await?);
        }
        let params = json!({"commit": commit.commit_id, "force": true});
        self.session.ask::<CommitDeleteResult>("commit_delete", params).await?;
        let name = "branch of three nodes → exec on all, from a warm commit";
        Ok(Figure::new(name, "ms", Some(30.0), warm))
    }

    /// The memory of the nodes of four branches that did one command each.
    async fn cluster_idle(&self) -> Result<Figure, ApiError> {
        let (commit, _) = self.commit_of(CLUSTER).await?;
        let names: Vec<String> = (0..4).map(|number| format!("i{number}")).collect();
        let made = self.branches(commit.commit_id.as_str(), &names).await?;
        let mut samples = Vec::new();
        for branch in &made.branches {
            self.truth_everywhere(&branch.address).await?;
        }
        for branch in &made.branches {
            let nodes: Vec<String> =
                NODES.iter().map(|node| format!("{}/{node}", branch.address)).collect();
            let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
            let bytes = self.statuses(&nodes).await?;
            #[expect(clippy::cast_precision_loss, reason = "megabytes")]
            let memory = bytes
                .iter()
                .filter_map(|status| status.resources.host_memory_bytes)
                .map(|bytes| bytes as f64 / 1e6);
            samples.extend(memory);
        }
        for branch in &made.branches {
            self.delete_branch(&branch.address).await?;
        }
        let name = "memory of an idle node among fifteen (PSS)";
        Ok(Figure::new(name, "MB", Some(48.0), samples))
    }
}
