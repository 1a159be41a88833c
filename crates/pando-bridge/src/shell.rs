//! `Switches` and `Switch`: starts the worker, and asks it with a deadline.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pando_machine::{
    CaptureLimits, FrameCapture, PortNumber, SavedSwitch, Settled, Switch, SwitchError, Switches,
};
use pando_model::Name;
use pando_model::fault::Fault;
use pando_model::network::{NetworkObservation, NetworkSpec};

use crate::limits::{COMMAND_DEADLINE, COMMANDS, MAX_STATE_BYTES};
use crate::saved::Totals;
use crate::wiring::{Carries, Wiring};
use crate::worker::{Job, Worker, system};

/// Opens bridges of the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelSwitches;

impl Switches for KernelSwitches {
    fn open(
        &self,
        spec: &NetworkSpec,
        state: Option<&Path>,
    ) -> Result<(Box<dyn Switch>, Vec<OwnedFd>), SwitchError> {
        let wiring = Wiring::new(spec).map_err(SwitchError::Misused)?;
        let base = state.map(read_state).transpose()?.unwrap_or_default();
        let faults = spec.faults.clone();
        let (jobs, receiver) = sync_channel(COMMANDS);
        let (opened, is_open) = sync_channel(1);
        let work = move || match Worker::open(wiring, faults, base) {
            Ok((worker, ends)) => {
                let _ = opened.send(Ok(ends));
                worker.run(&receiver);
            }
            Err(error) => {
                let _ = opened.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("bridge".to_owned()).spawn(work);
        let thread = thread.map_err(system("start"))?;
        let mut switch = KernelSwitch { jobs: Some(jobs), thread: Some(thread) };
        let ends = switch.wait(|| is_open.recv_timeout(COMMAND_DEADLINE))??;
        Ok((Box::new(switch), ends))
    }
}

/// The bridges of a running branch.
#[derive(Debug)]
struct KernelSwitch {
    /// `None` when it shall end.
    jobs: Option<SyncSender<Job>>,
    /// `None` once it has ended.
    thread: Option<JoinHandle<()>>,
}

impl KernelSwitch {
    /// Lets the worker do something, and waits for what comes of it.
    fn ask<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Worker) -> Result<T, SwitchError> + Send + 'static,
    ) -> Result<T, SwitchError> {
        let (reply, answer) = sync_channel(1);
        let job: Job = Box::new(move |worker| {
            let _ = reply.send(work(worker));
        });
        match self.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Ok(())) => {}
            Some(Err(TrySendError::Full(_))) => return Err(SwitchError::Deadline(Duration::ZERO)),
            Some(Err(TrySendError::Disconnected(_))) | None => return Err(self.ended()),
        }
        self.wait(|| answer.recv_timeout(COMMAND_DEADLINE))?
    }

    fn wait<T>(
        &mut self,
        receive: impl FnOnce() -> Result<T, RecvTimeoutError>,
    ) -> Result<T, SwitchError> {
        receive().map_err(|error| match error {
            RecvTimeoutError::Timeout => SwitchError::Deadline(COMMAND_DEADLINE),
            RecvTimeoutError::Disconnected => self.ended(),
        })
    }

    fn ended(&mut self) -> SwitchError {
        let panicked = self.thread.take().is_some_and(|thread| thread.join().is_err());
        let why = if panicked { "its thread panicked" } else { "it was told to" };
        SwitchError::Ended(why.to_owned())
    }
}

impl Switch for KernelSwitch {
    fn hold(&mut self) -> Result<(), SwitchError> {
        self.ask(|worker| worker.set_bridges(Carries::Nothing))
    }

    fn drain(&mut self, _: Instant) -> Result<Vec<PortNumber>, SwitchError> {
        // What a machine has not read of its tap stays there for the parent, and no branch has it.
        Ok(Vec::new())
    }

    fn settle(&mut self) -> Result<Settled, SwitchError> {
        Ok(Settled::default())
    }

    fn save(&mut self, to: &Path) -> Result<SavedSwitch, SwitchError> {
        let (bytes, faults) = self.ask(|worker| Ok((worker.save()?, worker.working())))?;
        let written = File::create(to).and_then(|mut file| file.write_all(&bytes));
        written.map_err(|source| SwitchError::File { path: to.to_owned(), source })?;
        Ok(SavedSwitch { frames: 0, faults })
    }

    fn release(&mut self) -> Result<(), SwitchError> {
        self.ask(|worker| worker.set_bridges(Carries::Frames))
    }

    fn set_faults(&mut self, faults: Vec<Fault>) -> Result<(), SwitchError> {
        self.ask(|worker| worker.set_faults(faults))
    }

    fn observe(&mut self) -> Result<NetworkObservation, SwitchError> {
        self.ask(Worker::observe)
    }

    fn check(&mut self) -> Result<(), SwitchError> {
        self.ask(|_| Ok(()))
    }

    fn replug(&mut self, node: &Name) -> Result<Vec<OwnedFd>, SwitchError> {
        let node = node.clone();
        self.ask(move |worker| worker.replug(&node))
    }

    fn attach_uplink(&mut self, node: &Name, _: UnixStream) -> Result<(), SwitchError> {
        Err(SwitchError::Misused(format!("lead `{node}` to the outside: it is a bridge")))
    }

    fn begin_capture(&mut self, _: File, _: CaptureLimits) -> Result<(), SwitchError> {
        Err(SwitchError::Misused("capture frames: it is a bridge, which `tcpdump` can".to_owned()))
    }

    fn end_capture(&mut self) -> Result<Option<FrameCapture>, SwitchError> {
        Ok(None)
    }
}

impl Drop for KernelSwitch {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // What it ended with has nobody to be told to.
            let _ = thread.join();
        }
    }
}

fn read_state(path: &Path) -> Result<Totals, SwitchError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_STATE_BYTES).read_to_end(&mut bytes));
    read.map_err(|source| SwitchError::File { path: path.to_owned(), source })?;
    Totals::parse(&bytes).map_err(|detail| SwitchError::Damaged { path: path.to_owned(), detail })
}
