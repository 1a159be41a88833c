//! What commits cost: how long guests stand still, and how much is written.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use pando_api::ApiError;
use pando_model::CommitId;

use super::{Bench, Figure, Figures, NAME, ms};

impl Bench<'_> {
    /// Pause and durability of commits, at two sizes of RAM.
    pub(super) async fn commit(&self) -> Figures {
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
    pub(super) async fn size(&self) -> Figures {
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
    pub(super) async fn history(&self) -> Figures {
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
}
