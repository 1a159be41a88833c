//! What branches cost: one, many at once, and going back.

use std::time::{Duration, Instant};

use pando_api::ApiError;
use pando_api::branch::BranchRollbackResult;
use pando_api::commit::{CommitCreateResult, CommitDeleteResult};
use pando_api::exec::ExecFanoutResult;
use pando_api::machine::VmStatusResult;
use serde_json::json;

use super::{Bench, Figure, Figures, NAME, ms};

impl Bench<'_> {
    pub(super) async fn branch(&self) -> Figures {
        self.vm(NAME, 512).await?;
        let (commit, _) = self.commit_of(NAME).await?;
        self.branch_to_exec(commit.commit_id.as_str()).await?;
        let mut cold = Vec::new();
        for _ in 0..self.options.runs {
            cold.push(self.branch_to_exec(commit.commit_id.as_str()).await?);
        }
        Ok(vec![Figure::new("branch → first exec, cold", "ms", Some(220.0), cold)])
    }

    pub(super) async fn warm(&self) -> Figures {
        self.vm(NAME, 512).await?;
        let params = json!({"branch": NAME, "message": "bench", "warm": 2});
        let commit: CommitCreateResult = self.session.ask("commit_create", params).await?;
        let mut warm = Vec::new();
        for _ in 0..self.options.runs {
            self.wait_parked(commit.commit_id.as_str()).await?;
            warm.push(self.branch_to_exec(commit.commit_id.as_str()).await?);
        }
        let params = json!({"commit": commit.commit_id, "force": true});
        self.session.ask::<CommitDeleteResult>("commit_delete", params).await?;
        Ok(vec![Figure::new("branch → first exec, from a warm commit", "ms", Some(30.0), warm)])
    }

    /// Waits until the commit has all its parked copies.
    pub(super) async fn wait_parked(&self, commit: &str) -> Result<(), ApiError> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let show: pando_api::commit::CommitShowResult =
                self.session.ask("commit_show", json!({"commit": commit})).await?;
            if show.warm_ready >= show.warm {
                return Ok(());
            }
            if Instant::now() > deadline {
                let code = pando_model::ErrorCode::DeadlineExceeded;
                return Err(ApiError::new(code, "the warm copies are not there after 30 s"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) async fn rollback(&self) -> Figures {
        self.vm(NAME, 512).await?;
        let (commit, _) = self.commit_of(NAME).await?;
        let mut figures = Vec::new();
        for (save, promised) in [(false, 250.0), (true, 400.0)] {
            let mut samples = Vec::new();
            for _ in 0..self.options.runs {
                let began = Instant::now();
                let params = json!({"branch": NAME, "target": commit.commit_id, "save": save});
                self.session.ask::<BranchRollbackResult>("branch_rollback", params).await?;
                self.truth(NAME).await?;
                samples.push(ms(began.elapsed()));
            }
            let name = if save {
                "rollback → first exec, saving the state before"
            } else {
                "rollback → first exec"
            };
            figures.push(Figure::new(name, "ms", Some(promised), samples));
        }
        Ok(figures)
    }

    /// Twenty branches, one command each, gone again.
    pub(super) async fn fleet(&self) -> Figures {
        self.vm(NAME, 512).await?;
        let (commit, _) = self.commit_of(NAME).await?;
        let names: Vec<String> = (0..20).map(|number| format!("f{number}")).collect();
        self.branch_to_exec(commit.commit_id.as_str()).await?;
        let mut samples = Vec::new();
        for _ in 0..self.options.runs.div_ceil(3) {
            let began = Instant::now();
            let made = self.branches(commit.commit_id.as_str(), &names).await?;
            let addresses: Vec<&str> =
                made.branches.iter().map(|branch| branch.address.as_str()).collect();
            let params = json!({"branches": addresses, "argv": ["true"]});
            self.session.ask::<ExecFanoutResult>("exec_fanout", params).await?;
            for address in addresses {
                self.delete_branch(address).await?;
            }
            samples.push(ms(began.elapsed()));
        }
        Ok(vec![Figure::new(
            "20 branches, one command each, gone again",
            "ms",
            Some(2600.0),
            samples,
        )])
    }

    /// Fifty branches alive on one commit.
    pub(super) async fn crowd(&self) -> Figures {
        self.vm(NAME, 512).await?;
        let (commit, _) = self.commit_of(NAME).await?;
        let names: Vec<String> = (0..50).map(|number| format!("c{number}")).collect();
        let made = self.branches(commit.commit_id.as_str(), &names).await?;
        let addresses: Vec<&str> =
            made.branches.iter().map(|branch| branch.address.as_str()).collect();
        let params = json!({"branches": addresses, "argv": ["true"]});
        let mut fanout = Vec::new();
        for _ in 0..self.options.runs.div_ceil(2) {
            let (_, time): (ExecFanoutResult, _) =
                self.session.timed("exec_fanout", params.clone()).await?;
            fanout.push(ms(time));
        }
        let statuses = self.statuses(&addresses).await?;
        let idle = self.idle_share(&addresses, &statuses).await?;
        #[expect(clippy::cast_precision_loss, reason = "megabytes")]
        let megabytes = |bytes: fn(&VmStatusResult) -> Option<u64>| {
            statuses.iter().filter_map(bytes).map(|bytes| bytes as f64 / 1e6).collect()
        };
        let memory = megabytes(|status| status.resources.host_memory_bytes);
        let keepers = megabytes(|status| status.resources.keeper_memory_bytes);
        Ok(vec![
            Figure::new("`true` in 50 branches", "ms", Some(700.0), fanout),
            Figure::new("memory of an idle branch among 50 (PSS)", "MB", Some(42.0), memory),
            Figure::new("memory of its keeper (PSS)", "MB", Some(8.0), keepers),
            Figure::new(
                "idle CPU of a branch and its keeper, share of a core",
                "%",
                Some(1.0),
                idle,
            ),
        ])
    }

    pub(super) async fn statuses(
        &self,
        addresses: &[&str],
    ) -> Result<Vec<VmStatusResult>, ApiError> {
        let mut statuses = Vec::new();
        for address in addresses {
            statuses.push(self.session.ask("vm_status", json!({"address": address})).await?);
        }
        Ok(statuses)
    }

    /// Processor time used over ten idle seconds, in percent of one core.
    async fn idle_share(
        &self,
        addresses: &[&str],
        before: &[VmStatusResult],
    ) -> Result<Vec<f64>, ApiError> {
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let after = self.statuses(addresses).await?;
        let elapsed = ms(began.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of processor time")]
        let share = |before: &VmStatusResult, after: &VmStatusResult| {
            let used = |status: &VmStatusResult| {
                let resources = &status.resources;
                (resources.cpu_ms.unwrap_or(0) + resources.keeper_cpu_ms.unwrap_or(0)) as f64
            };
            (used(after) - used(before)) / elapsed * 100.0
        };
        Ok(before.iter().zip(&after).map(|(before, after)| share(before, after)).collect())
    }
}
