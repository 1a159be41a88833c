//! Scripted machines, guests and a switch for tests of what the owner does with them. What each was
//! asked is in one log, in order.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read, Write};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pando_link::{GuestClock, GuestLink};
use pando_machine::{
    Crowded, EndReason, GuestRam, Hypervisor, Link, Machine, MachineError, MachinePlan, PortNumber,
    SavedSwitch, Settled, Stillness, Switch, SwitchError, Switches, Uplink, UplinkPlan,
};
use pando_model::commit::CommitKind;
use pando_model::fault::Fault;
use pando_model::host::{
    AfterCut, AfterStart, BranchSpec, Clock, CutNode, CutSpec, NodeSpec, NodeStart,
};
use pando_model::machine::{Accelerator, MachineProfile, NodeShape};
use pando_model::network::{CaptureLimits, FrameCapture, NetworkObservation, NetworkSpec, Port};
use pando_model::{
    BootMethod, BranchId, ByteCount, ClusterId, CommitId, DiskRole, ImageId, LayerId, Layout, Name,
    NodeLayers, Uplink as Reach,
};
use pando_wire::frame::{Decoder, Frame};
use pando_wire::guest::{GuestMessage, HostMessage, Welcome};
use pando_wire::limits::GUEST_PROTOCOL;

/// What the parts do when they are asked, until the script is over; then all goes well.
#[derive(Default)]
pub struct Script {
    /// Answers to `stand_still` by machine; `None` is an error.
    pub stillness: BTreeMap<String, VecDeque<Option<Stillness>>>,
    pub settled: VecDeque<Settled>,
    /// How many releases of the switch fail.
    pub failing_releases: u32,
    /// The machine whose process has ended.
    pub ended: Option<String>,
    /// What stopped the guests.
    pub trouble: Option<String>,
    /// Guests that say nothing.
    pub silent: bool,
}

/// A test's home, gone at its end, and the stage in it.
pub struct World {
    pub stage: Stage,
    _home: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path(), home.path().join("run"));
        for directory in [layout.layers(), layout.memory(), layout.branches()] {
            std::fs::create_dir_all(directory).unwrap();
        }
        let stage = Stage { layout, script: Arc::default(), log: Arc::default() };
        Self { stage, _home: home }
    }
}

impl Deref for World {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

/// The script and the log, as machines and guests have them, which may outlive the test's body.
#[derive(Clone)]
pub struct Stage {
    pub layout: Layout,
    script: Arc<Mutex<Script>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Stage {
    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    fn ask<T>(&self, what: String, answer: impl FnOnce(&mut Script) -> T) -> T {
        self.log.lock().unwrap().push(what);
        answer(&mut self.script.lock().unwrap())
    }

    /// Takes what was logged so far.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    /// Returns how often something was asked so far.
    pub fn count(&self, what: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|asked| *asked == what).count()
    }

    /// Waits until something was asked so often.
    pub fn until(&self, what: &str, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.count(what) < times {
            assert!(Instant::now() < deadline, "not {times} times `{what}`: {:?}", self.log);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn layer(&self) -> LayerId {
        let layer = LayerId::random();
        std::fs::write(self.layout.layer(&layer), b"layer").unwrap();
        layer
    }

    /// Returns a branch of these nodes, restored from a commit, on one switch.
    pub fn spec(&self, names: &[&str]) -> BranchSpec {
        let node = |name: &&str| NodeSpec {
            name: name.parse().unwrap(),
            shape: NodeShape {
                vcpus: 1,
                memory: ByteCount::from_mib(1),
                disk: ByteCount::from_mib(1),
                nics: 1,
                extra_disks: Vec::new(),
            },
            image: ImageId::random(),
            boot: BootMethod::Bios,
            init: "systemd".into(),
            layers: NodeLayers::of_root(self.layer()),
            start: NodeStart::Restore {
                commit: CommitId::random(),
                saved_as: name.parse().unwrap(),
            },
            macs: vec!["52:54:00:12:34:56".into()],
            uplink: Reach::None,
            identity: None,
            seed: None,
        };
        let port = |name: &&str| Port {
            node: name.parse().unwrap(),
            nic: 0,
            segment: "lan".parse().unwrap(),
            mac: "52:54:00:12:34:56".parse().unwrap(),
            address: None,
            address6: None,
        };
        BranchSpec {
            branch: BranchId::random(),
            cluster: ClusterId::random(),
            title: "test@main".into(),
            generation: 1,
            token: "0123456789abcdef0123456789abcdef".into(),
            accelerator: Accelerator::Tcg,
            nodes: names.iter().map(node).collect(),
            network: Some(NetworkSpec {
                ports: names.iter().map(port).collect(),
                ..NetworkSpec::default()
            }),
            clock: Clock::Step,
            after: AfterStart::Run,
            durable_disk: false,
            ready_timeout: Duration::from_secs(20),
        }
    }

    /// Returns a cut of a branch's disks.
    pub fn cut_spec(&self, branch: &BranchSpec) -> CutSpec {
        let node = |node: &NodeSpec| CutNode {
            name: node.name.clone(),
            next: NodeLayers::of_root(self.layer()),
        };
        CutSpec {
            commit: CommitId::random(),
            kind: CommitKind::Disk,
            nodes: branch.nodes.iter().map(node).collect(),
            then: AfterCut::Continue,
            timeout: Duration::from_secs(20),
        }
    }
}

impl Hypervisor for Stage {
    fn spawn(&self, plan: &MachinePlan, _: Vec<OwnedFd>) -> Result<Box<dyn Machine>, MachineError> {
        let name = plan.name.rsplit('/').next().unwrap_or_default().to_owned();
        let (host, guest) = UnixStream::pair().unwrap();
        self.ask(format!("{name} spawn"), |_| ());
        let (stage, guest_name) = (self.clone(), name.clone());
        std::thread::spawn(move || stage.be_guest(&guest_name, guest));
        Ok(Box::new(FakeMachine { name, stage: self.clone(), port: Some(host) }))
    }

    fn spawn_uplink(&self, _: &UplinkPlan) -> Result<(Box<dyn Uplink>, UnixStream), MachineError> {
        unreachable!("no test has an uplink")
    }

    fn profile(&self, accelerator: Accelerator) -> MachineProfile {
        MachineProfile {
            qemu_version: "0.0.0".into(),
            machine: "fake".into(),
            cpu: "fake".into(),
            accelerator,
        }
    }
}

impl Stage {
    /// Answers greetings, and logs them and the clock.
    fn be_guest(&self, name: &str, mut socket: UnixStream) {
        let (mut decoder, mut buffer) = (Decoder::new(), [0; 4096]);
        while let Ok(count @ 1..) = socket.read(&mut buffer) {
            let mut input = &buffer[..count];
            while let Some(frame) = decoder.next(&mut input) {
                match HostMessage::decode(frame.message).unwrap() {
                    HostMessage::Hello(_) => {
                        if self.ask(format!("{name} hello"), |script| script.silent) {
                            continue;
                        }
                        let welcome = GuestMessage::Welcome(Welcome {
                            protocol: GUEST_PROTOCOL,
                            guest_version: "fake".into(),
                            boot_id: "fake".into(),
                            inherited: Vec::new(),
                        });
                        let message = welcome.encode().unwrap();
                        let mut bytes = Vec::new();
                        let answer = Frame { epoch: frame.epoch, sequence: 0, message: &message };
                        answer.encode(&mut bytes).unwrap();
                        let _ = socket.write_all(&bytes);
                    }
                    HostMessage::Clock { .. } => self.ask(format!("{name} clock"), |_| ()),
                    _ => {}
                }
            }
        }
    }
}

/// Starts the real guest program in this process, and returns a link to it. Its commands run on this
/// machine.
pub fn real_guest() -> Arc<GuestLink> {
    let (host, guest) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let config = pando_guest::Config::embedded(Path::new("/"));
        pando_guest::serve(guest.into(), config).unwrap();
    });
    let link = GuestLink::new(host, "db").unwrap();
    link.hello(GuestClock::Keep, Instant::now() + Duration::from_secs(20)).unwrap();
    Arc::new(link)
}

struct FakeMachine {
    name: String,
    stage: Stage,
    port: Option<UnixStream>,
}

impl FakeMachine {
    fn ask<T>(&self, what: &str, answer: impl FnOnce(&mut Script) -> T) -> T {
        self.stage.ask(format!("{} {what}", self.name), answer)
    }

    fn did(&self, what: &str) -> Result<(), MachineError> {
        self.ask(what, |_| Ok(()))
    }
}

impl Machine for FakeMachine {
    /// This process: one that does not end.
    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn take_guest_port(&mut self) -> Option<UnixStream> {
        self.port.take()
    }

    fn wait_ready(&mut self, _: Instant) -> Result<(), MachineError> {
        Ok(())
    }

    fn load_devices(&mut self, _: &Path, _: Instant) -> Result<(), MachineError> {
        self.did("load")
    }

    fn resume(&mut self, _: Instant) -> Result<(), MachineError> {
        self.did("resume")
    }

    fn trouble(&mut self) -> Result<Option<String>, MachineError> {
        self.ask("trouble", |script| Ok(script.trouble.clone()))
    }

    fn pause(&mut self, _: Instant) -> Result<(), MachineError> {
        self.did("pause")
    }

    fn prepare_overlay(&mut self, _: DiskRole, _: &Path, _: Instant) -> Result<(), MachineError> {
        Ok(())
    }

    fn discard_overlays(&mut self, _: Instant) -> Result<(), MachineError> {
        self.did("discard")
    }

    fn save_devices(&mut self, _: Option<&Path>, _: Instant) -> Result<(), MachineError> {
        self.did("save")
    }

    fn crowded(&mut self, _: Instant) -> Result<Vec<Crowded>, MachineError> {
        Ok(Vec::new())
    }

    fn stand_still(&mut self, _: Instant) -> Result<Stillness, MachineError> {
        let next = self.ask("stand still", |script| {
            script.stillness.get_mut(&self.name).and_then(VecDeque::pop_front)
        });
        let quiet = Stillness { quiet: true, crowded: Vec::new() };
        next.unwrap_or(Some(quiet)).ok_or_else(|| MachineError::Deadline {
            name: self.name.clone(),
            what: "stop",
            waited: Duration::ZERO,
        })
    }

    fn flatten(&mut self, _: DiskRole, _: &Path, _: Instant) -> Result<(), MachineError> {
        Ok(())
    }

    fn ram(&self) -> Result<GuestRam, MachineError> {
        unreachable!("no test reads memory")
    }

    fn power_button(&mut self, _: Instant) -> Result<(), MachineError> {
        Ok(())
    }

    fn set_link(&mut self, _: usize, _: Link, _: Instant) -> Result<(), MachineError> {
        Ok(())
    }

    fn wait_end(&mut self, timeout: Duration) -> Result<Option<EndReason>, MachineError> {
        let ended = self.ask("end?", |script| script.ended.as_ref() == Some(&self.name));
        if ended {
            return Ok(Some(EndReason::GuestPanic));
        }
        std::thread::sleep(timeout);
        Ok(None)
    }

    fn kill(&mut self) -> EndReason {
        self.ask("kill", |_| EndReason::Killed)
    }
}

impl Switches for Stage {
    fn open(
        &self,
        spec: &NetworkSpec,
        _: Option<&Path>,
    ) -> Result<(Box<dyn Switch>, Vec<OwnedFd>), SwitchError> {
        let end = || UnixStream::pair().unwrap().0.into();
        Ok((Box::new(self.clone()), spec.ports.iter().map(|_| end()).collect()))
    }
}

impl Switch for Stage {
    fn hold(&mut self) -> Result<(), SwitchError> {
        self.ask("hold".into(), |_| Ok(()))
    }

    fn drain(&mut self, _: Instant) -> Result<Vec<PortNumber>, SwitchError> {
        Ok(Vec::new())
    }

    fn settle(&mut self) -> Result<Settled, SwitchError> {
        self.ask("settle".into(), |script| Ok(script.settled.pop_front().unwrap_or_default()))
    }

    fn save(&mut self, _: &Path) -> Result<SavedSwitch, SwitchError> {
        Ok(SavedSwitch::default())
    }

    fn release(&mut self) -> Result<(), SwitchError> {
        self.ask("release".into(), |script| match script.failing_releases.checked_sub(1) {
            Some(left) => {
                script.failing_releases = left;
                Err(SwitchError::Deadline(Duration::ZERO))
            }
            None => Ok(()),
        })
    }

    fn set_faults(&mut self, _: Vec<Fault>) -> Result<(), SwitchError> {
        Ok(())
    }

    fn observe(&mut self) -> Result<NetworkObservation, SwitchError> {
        Ok(NetworkObservation::default())
    }

    fn replug(&mut self, _: &Name) -> Result<Vec<OwnedFd>, SwitchError> {
        Ok(vec![UnixStream::pair().unwrap().0.into()])
    }

    fn attach_uplink(&mut self, _: &Name, _: UnixStream) -> Result<(), SwitchError> {
        Ok(())
    }

    fn begin_capture(&mut self, _: File, _: CaptureLimits) -> Result<(), SwitchError> {
        Ok(())
    }

    fn end_capture(&mut self) -> Result<Option<FrameCapture>, SwitchError> {
        Ok(None)
    }
}
