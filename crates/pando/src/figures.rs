//! `pando bench`: the figures that pando promises, measured on this machine through the same calls
//! that users make. Medians with spread; JSON for machines; SPECIFICATION.md quotes it.

mod agents;
mod diff;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pando_api::branch::{BranchCreateResult, BranchDeleteResult, BranchRollbackResult};
use pando_api::commit::{CommitCreateResult, CommitDeleteResult};
use pando_api::exec::{ExecFanoutResult, ExecRunResult};
use pando_api::machine::{VmCreateResult, VmDeleteResult, VmStatusResult};
use pando_api::{ApiError, Control};
use pando_model::CommitId;
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
    "crowd", "agents",
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
            _ => self.agents().await,
        }
    }

    async fn remove_all(&self) {
        for name in [NAME, BIG] {
            let params = json!({"name": name, "force": true, "remove_overlays": true});
            // Absent is fine: a scenario may not have come that far.
            let _: Result<VmDeleteResult, ApiError> = self.session.ask("vm_delete", params).await;
        }
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

    async fn exec(&self) -> Figures {
        self.vm(NAME, 512).await?;
        for _ in 0..20 {
            self.truth(NAME).await?;
        }
        let mut samples = Vec::new();
        for _ in 0..self.options.runs * 20 {
            samples.push(ms(self.truth(NAME).await?));
        }
        let figure = Figure::new("exec of `true`", "ms", Some(4.0), samples);
        let tail = Figure {
            name: "exec of `true`, 99th percentile".into(),
            promised: Some(8.0),
            median: figure.p99,
            ..figure.clone()
        };
        Ok(vec![figure, tail, self.floor().await?])
    }

    /// What the same command costs inside the guest, without pando: what this machine and its
    /// translator are worth.
    async fn floor(&self) -> Result<Figure, ApiError> {
        const TIMES: u32 = 200;
        let command = format!("i=0; while [ $i -lt {TIMES} ]; do /bin/true; i=$((i+1)); done");
        let mut samples = Vec::new();
        for _ in 0..self.options.runs {
            let began = Instant::now();
            self.sh(NAME, &command).await?;
            samples.push(ms(began.elapsed()) / f64::from(TIMES));
        }
        Ok(Figure::new(
            "the same, forked and executed by the guest's own shell",
            "ms",
            None,
            samples,
        ))
    }

    async fn create(&self) -> Figures {
        // The first one makes the ready state and is not counted.
        self.vm(NAME, 512).await?;
        self.delete_vm(NAME).await?;
        let mut warm = Vec::new();
        for _ in 0..self.options.runs {
            let began = Instant::now();
            self.vm(NAME, 512).await?;
            self.truth(NAME).await?;
            warm.push(ms(began.elapsed()));
            self.delete_vm(NAME).await?;
        }
        let (mut answered, mut ready) = (Vec::new(), Vec::new());
        for _ in 0..self.options.runs {
            let params = json!({"name": NAME, "image": self.options.image, "cold": true});
            let (vm, _): (VmCreateResult, _) = self.session.timed("vm_create", params).await?;
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of a boot")]
            let ms = [vm.answered_ms as f64, vm.ready_ms as f64];
            answered.push(ms[0]);
            ready.push(ms[1]);
            self.delete_vm(NAME).await?;
        }
        Ok(vec![
            Figure::new("vm_create from a ready state → first exec", "ms", Some(350.0), warm),
            Figure::new("first boot → guest answers", "ms", Some(4000.0), answered),
            Figure::new("first boot → all services started", "ms", None, ready),
        ])
    }

    /// Pause and durability of commits, at two sizes of RAM.
    async fn commit(&self) -> Figures {
        let mut figures = Vec::new();
        let (mut pause_of_ram, mut total_of_ram) = (Vec::new(), Vec::new());
        for ram in [512, 2048] {
            for (mib, promised) in [(20, 15.0), (100, 35.0)] {
                let (mut pauses, mut ratios, mut totals) = (vec![], vec![], vec![]);
                for _ in 0..self.options.runs {
                    self.vm(NAME, ram).await?;
                    self.dirty(NAME, mib).await?;
                    let (commit, time) = self.commit_of(NAME).await?;
                    pauses.push(commit.pause_ms);
                    totals.push(ms(time));
                    ratios.push(ms(time) / ms(self.write_and_sync(commit.size_bytes)?));
                    self.delete_vm(NAME).await?;
                }
                let label = |what: &str| format!("{what}, {mib} MB changed, {ram} MiB of RAM");
                let pause = Figure::new(&label("commit: pause"), "ms", Some(promised), pauses);
                if mib == 100 {
                    pause_of_ram.push(pause.median);
                    let promised = Some(2.0);
                    let ratio =
                        label("commit: acknowledged, against writing and syncing the bytes");
                    figures.push(Figure::new(&ratio, "x", promised, ratios));
                }
                let total = Figure::new(&label("commit: acknowledged"), "ms", None, totals);
                if mib == 100 {
                    total_of_ram.push(total.median);
                }
                figures.push(total);
                figures.push(pause);
            }
        }
        for (what, medians) in [("pause", pause_of_ram), ("acknowledged", total_of_ram)] {
            if let [small, big] = medians.as_slice() {
                let name = format!("commit: {what} at 2 GiB of RAM against 512 MiB");
                figures.push(Figure::new(&name, "x", Some(1.2), vec![big / small]));
            }
        }
        Ok(figures)
    }

    /// Times writing and syncing so many bytes on the home's file system.
    fn write_and_sync(&self, bytes: u64) -> Result<Duration, ApiError> {
        let path = self.options.scratch.join("bench.bytes");
        let write = || -> std::io::Result<Duration> {
            let chunk: Vec<u8> =
                (0..1u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            let began = Instant::now();
            let mut file = File::create(&path)?;
            let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
            while left > 0 {
                let now = left.min(chunk.len());
                file.write_all(&chunk[..now])?;
                left -= now;
            }
            file.sync_data()?;
            Ok(began.elapsed())
        };
        let result = write();
        let _ = std::fs::remove_file(&path);
        result.map_err(|error| {
            ApiError::new(
                pando_model::ErrorCode::Internal,
                format!("cannot write a baseline: {error}"),
            )
        })
    }

    /// Bytes that a commit adds, against those that changed.
    async fn size(&self) -> Figures {
        self.vm(NAME, 512).await?;
        self.commit_of(NAME).await?;
        let mut ratios = Vec::new();
        for _ in 0..self.options.runs.div_ceil(2) {
            self.dirty(NAME, 64).await?;
            let (commit, _) = self.commit_of(NAME).await?;
            #[expect(clippy::cast_precision_loss, reason = "well below 2^52 bytes")]
            ratios.push(commit.size_bytes as f64 / f64::from(64 << 20));
        }
        let name = "commit: bytes added against bytes changed (64 MB)";
        Ok(vec![Figure::new(name, "x", Some(1.1), ratios)])
    }

    /// Two hundred commits of one running branch.
    async fn history(&self) -> Figures {
        let commits = self.options.runs * 20;
        self.vm(NAME, 512).await?;
        let (mut early, mut late) = ((vec![], vec![]), (vec![], vec![]));
        let mut made = Vec::new();
        for number in 0..commits {
            self.sh(
                NAME,
                &format!("echo {number} > /root/number; head -c 300000 /dev/urandom > /dev/shm/n"),
            )
            .await?;
            let (commit, _) = self.commit_of(NAME).await?;
            made.push((number, commit.commit_id.clone()));
            let exec = ms(self.truth(NAME).await?);
            let window = if (5..15).contains(&number) {
                &mut early
            } else if number + 10 >= commits {
                &mut late
            } else {
                continue;
            };
            window.0.push(commit.pause_ms);
            window.1.push(exec);
        }
        for (number, commit) in made.iter().step_by(commits.div_ceil(20)) {
            self.must_hold(commit, *number).await?;
        }
        let ratio = |late: &[f64], early: &[f64]| {
            let median = |samples: &[f64]| Figure::new("", "", None, samples.to_vec()).median;
            vec![median(late) / median(early)]
        };
        let label =
            |what: &str| format!("{what} of the last of {commits} commits against the tenth");
        Ok(vec![
            Figure::new(&label("pause"), "x", Some(1.2), ratio(&late.0, &early.0)),
            Figure::new(&label("exec"), "x", Some(1.2), ratio(&late.1, &early.1)),
            Figure::new("pause of the last ten commits", "ms", None, late.0),
        ])
    }

    /// Restores a commit of `history` and looks whether it holds its number.
    async fn must_hold(&self, commit: &CommitId, number: usize) -> Result<(), ApiError> {
        self.branches(commit.as_str(), &["b".to_owned()]).await?;
        let address = format!("{NAME}@b");
        let found = self.sh(&address, "cat /root/number").await?;
        self.delete_branch(&address).await?;
        match found.stdout.trim() == number.to_string() {
            true => Ok(()),
            false => Err(ApiError::new(
                pando_model::ErrorCode::Corrupt,
                format!("{commit} holds {}, not {number}", found.stdout.trim()),
            )),
        }
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

    async fn branch(&self) -> Figures {
        self.vm(NAME, 512).await?;
        let (commit, _) = self.commit_of(NAME).await?;
        self.branch_to_exec(commit.commit_id.as_str()).await?;
        let mut cold = Vec::new();
        for _ in 0..self.options.runs {
            cold.push(self.branch_to_exec(commit.commit_id.as_str()).await?);
        }
        Ok(vec![Figure::new("branch → first exec, cold", "ms", Some(220.0), cold)])
    }

    async fn warm(&self) -> Figures {
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
    async fn wait_parked(&self, commit: &str) -> Result<(), ApiError> {
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

    async fn rollback(&self) -> Figures {
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
    async fn fleet(&self) -> Figures {
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
    async fn crowd(&self) -> Figures {
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

    async fn statuses(&self, addresses: &[&str]) -> Result<Vec<VmStatusResult>, ApiError> {
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
