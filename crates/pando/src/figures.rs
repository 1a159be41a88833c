//! `pando bench`: the figures that pando promises, measured on this machine through the same calls
//! that users make. Medians with spread; JSON for machines; SPECIFICATION.md quotes it.

mod agents;
mod branches;
mod clusters;
mod commits;
mod diff;
mod machines;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pando_api::branch::{BranchCreateResult, BranchDeleteResult};
use pando_api::commit::CommitCreateResult;
use pando_api::exec::ExecRunResult;
use pando_api::machine::{VmCreateResult, VmDeleteResult};
use pando_api::{ApiError, Control};
use serde::Serialize;
use serde_json::{Value, json};

use crate::session::Session;

/// What is measured and how.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Names of scenarios to run; all if empty.
    pub only: Vec<String>,
    /// Repetitions of each; 200-fold ones are scaled with it.
    pub runs: usize,
    /// The image.
    pub image: String,
    /// Directory on the home's file system for the write-and-fsync baseline.
    pub scratch: PathBuf,
}

/// Samples of one figure, with what is promised.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// "ms", "MB", "%" or "x" (a ratio).
    pub unit: &'static str,
    /// What is promised: at most this.
    pub promised: Option<f64>,
    /// How many samples.
    pub n: usize,
    /// The least.
    pub min: f64,
    /// The median.
    pub median: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Figure {
    fn new(name: &str, unit: &'static str, promised: Option<f64>, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "an index below the number of samples"
            )]
            let index = (share * (samples.len().saturating_sub(1)) as f64).round() as usize;
            samples.get(index).copied().unwrap_or(f64::NAN)
        };
        Self {
            name: name.to_owned(),
            unit,
            promised,
            n: samples.len(),
            min: at(0.0),
            median: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }

    /// Returns whether the median keeps the promise.
    pub fn holds(&self) -> Option<bool> {
        self.promised.map(|promised| self.median <= promised)
    }
}

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// This program's version.
    pub version: &'static str,
    /// The figures, in the order in which they were measured.
    pub figures: Vec<Figure>,
}

type Figures = Result<Vec<Figure>, ApiError>;

/// The scenarios, in order.
pub const SCENARIOS: &[&str] = &[
    "exec", "create", "commit", "size", "history", "branch", "warm", "rollback", "diff", "fleet",
    "crowd", "agents", "cluster",
];

/// Runs the benchmark; `line` gets each figure as it is known.
///
/// # Errors
/// The first call that fails. The machine is removed in any case.
pub async fn run(
    control: &dyn Control,
    options: &BenchOptions,
    line: &mut dyn FnMut(&Figure),
) -> Result<Report, ApiError> {
    let mut bench = Bench { session: Session::new(control), options };
    let mut figures = Vec::new();
    for scenario in SCENARIOS {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == scenario) {
            continue;
        }
        let measured = bench.scenario(scenario).await;
        bench.remove_all().await;
        for figure in measured? {
            line(&figure);
            figures.push(figure);
        }
    }
    Ok(Report { version: env!("CARGO_PKG_VERSION"), figures })
}

struct Bench<'a> {
    session: Session<'a>,
    options: &'a BenchOptions,
}

const NAME: &str = "pando-bench";
const BIG: &str = "pando-bench-big";
const CLUSTER: &str = "pando-bench-cluster";

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Bench<'_> {
    async fn scenario(&mut self, name: &str) -> Figures {
        match name {
            "exec" => self.exec().await,
            "create" => self.create().await,
            "commit" => self.commit().await,
            "size" => self.size().await,
            "history" => self.history().await,
            "branch" => self.branch().await,
            "warm" => self.warm().await,
            "rollback" => self.rollback().await,
            "diff" => self.diff().await,
            "fleet" => self.fleet().await,
            "crowd" => self.crowd().await,
            "cluster" => self.cluster().await,
            _ => self.agents().await,
        }
    }

    async fn remove_all(&self) {
        for name in [NAME, BIG] {
            let params = json!({"name": name, "force": true, "remove_overlays": true});
            // Absent is fine: a scenario may not have come that far.
            let _: Result<VmDeleteResult, ApiError> = self.session.ask("vm_delete", params).await;
        }
        let _: Result<(), ApiError> = self.cluster_down().await;
    }

    async fn vm(
        &self,
        name: &str,
        memory_mib: u64,
    ) -> Result<(VmCreateResult, Duration), ApiError> {
        let params = json!({"name": name, "image": self.options.image, "memory_mib": memory_mib});
        self.session.timed("vm_create", params).await
    }

    async fn delete_vm(&self, name: &str) -> Result<VmDeleteResult, ApiError> {
        let params = json!({"name": name, "force": true, "remove_overlays": true});
        self.session.ask("vm_delete", params).await
    }

    async fn sh(&self, address: &str, command: &str) -> Result<ExecRunResult, ApiError> {
        self.session.ask("exec_run", json!({"address": address, "command": command})).await
    }

    async fn truth(&self, address: &str) -> Result<Duration, ApiError> {
        let params = json!({"address": address, "argv": ["true"]});
        let (_, time): (ExecRunResult, _) = self.session.timed("exec_run", params).await?;
        Ok(time)
    }

    async fn commit_of(&self, address: &str) -> Result<(CommitCreateResult, Duration), ApiError> {
        self.session.timed("commit_create", json!({"branch": address, "message": "bench"})).await
    }

    /// Makes the guest hold `mib` MiB of fresh random bytes in memory.
    async fn dirty(&self, address: &str, mib: u64) -> Result<(), ApiError> {
        let command = format!(
            "mount -o remount,size=90% /dev/shm 2>/dev/null; \
             dd if=/dev/urandom of=/dev/shm/dirty bs=1M count={mib} 2>/dev/null"
        );
        self.sh(address, &command).await.map(drop)
    }

    async fn branches(&self, from: &str, names: &[String]) -> Result<BranchCreateResult, ApiError> {
        let made: BranchCreateResult =
            self.session.ask("branch_create", json!({"from": from, "names": names})).await?;
        match made.branches.iter().find_map(|branch| branch.error.clone()) {
            Some(error) => Err(error),
            None => Ok(made),
        }
    }

    async fn delete_branch(&self, address: &str) -> Result<(), ApiError> {
        let params = json!({"branch": address, "force": true});
        self.session.ask::<BranchDeleteResult>("branch_delete", params).await.map(drop)
    }

    /// From a request for a branch of `from` until its first command has run.
    async fn branch_to_exec(&self, from: &str) -> Result<f64, ApiError> {
        let began = Instant::now();
        let made = self.branches(from, &["b".to_owned()]).await?;
        self.truth(&made.branches[0].address).await?;
        let time = ms(began.elapsed());
        self.delete_branch(&format!("{NAME}@b")).await?;
        Ok(time)
    }
}

/// Returns a figure as a line of the table.
pub fn row(figure: &Figure) -> String {
    let verdict = match figure.holds() {
        Some(true) => "kept",
        Some(false) => "MISSED",
        None => "",
    };
    let promised = figure.promised.map_or(String::new(), |promised| format!("≤ {promised}"));
    format!(
        "{:<66} {:>9.2} {:<3} [{:.2} … {:.2}] n={:<4} {promised:>8} {verdict}",
        figure.name, figure.median, figure.unit, figure.min, figure.max, figure.n
    )
}

/// Returns a report as a JSON value.
pub fn to_json(report: &Report) -> Value {
    serde_json::to_value(report).unwrap_or(Value::Null)
}
