//! What a single machine costs: commands, and coming into being.

use std::time::Instant;

use pando_api::ApiError;
use pando_api::machine::VmCreateResult;
use serde_json::json;

use super::{Bench, Figure, Figures, NAME, ms};

/// How often [`forks`] does it.
pub(super) const FORKS: u32 = 200;

/// Returns a line by which a guest's own shell forks and executes `true`.
pub(super) fn forks() -> String {
    format!("i=0; while [ $i -lt {FORKS} ]; do /bin/true; i=$((i+1)); done")
}

impl Bench<'_> {
    pub(super) async fn exec(&self) -> Figures {
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
        let mut samples = Vec::new();
        for _ in 0..self.options.runs {
            let began = Instant::now();
            self.sh(NAME, &forks()).await?;
            samples.push(ms(began.elapsed()) / f64::from(FORKS));
        }
        Ok(Figure::new(
            "the same, forked and executed by the guest's own shell",
            "ms",
            None,
            samples,
        ))
    }

    pub(super) async fn create(&self) -> Figures {
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
}
