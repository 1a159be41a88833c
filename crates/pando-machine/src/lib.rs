//! What a keeper needs of the world: one virtual machine process that can be started, loaded,
//! stopped for a cut, saved and ended. `pando-qemu` implements it; the keeper knows nothing else.
//!
//! Everything here is synchronous: a keeper has one thread per node for work that must overlap.
//! Every wait takes a deadline. A [`Machine`] is owned by one thread at a time.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use pando_model::disk::DiskRole;
use pando_model::fault::Fault;
use pando_model::machine::{Accelerator, MachineProfile, NodeShape};
pub use pando_model::network::{CaptureLimits, FrameCapture};
use pando_model::network::{NetworkObservation, NetworkSpec};
use pando_model::{ByteCount, Name};
use serde::{Deserialize, Serialize};

/// How a machine gets its first instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// The kernel is loaded by the hypervisor.
    Direct {
        /// Kernel image.
        kernel: PathBuf,
        /// Initial RAM disk.
        initrd: PathBuf,
        /// Whole kernel command line.
        cmdline: String,
    },
    /// UEFI.
    Uefi {
        /// Read-only firmware code.
        code: PathBuf,
        /// Writable variable store (qcow2), one per branch.
        vars: PathBuf,
    },
    /// SeaBIOS.
    Bios,
}

/// What a network interface is connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NicBackend {
    /// Nothing answers, and nothing of the host can be reached (user network with `restrict=on`).
    Isolated,
    /// The outside, but neither the host's loopback nor its link-local addresses: `passt` behind a
    /// filter.
    Nat,
    /// A port of a switch, given to [`Hypervisor::spawn`].
    Switch,
    /// A tap device of a bridge, given there in the same way.
    Tap,
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// MAC address, `52:54:00:…`. In a restored machine the saved one wins.
    pub mac: String,
    /// What it is connected to.
    pub backend: NicBackend,
}

/// All that is needed to start one machine. Equal plans give machines between which device state
/// can be moved; only paths may differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachinePlan {
    /// For messages and the process name.
    pub name: String,
    /// Hardware.
    pub shape: NodeShape,
    /// How guest code runs.
    pub accelerator: Accelerator,
    /// First instruction.
    pub firmware: Firmware,
    /// Flat memory image; mapped privately, never written. As long as the RAM.
    pub memory_image: PathBuf,
    /// Writable root disk (qcow2 overlay).
    pub disk: PathBuf,
    /// Writable extra disks (qcow2), one for each of the shape's.
    pub extra_disks: Vec<PathBuf>,
    /// Read-only seed disk (raw), such as a NoCloud ISO.
    pub seed: Option<PathBuf>,
    /// Whether disk flushes reach the host's disk (`durable_disk`), or only its page cache.
    pub durable_disk: bool,
    /// Network interfaces.
    pub nics: Vec<Nic>,
    /// File that the serial console is appended to.
    pub console: PathBuf,
    /// File that the hypervisor's own messages are appended to.
    pub log: PathBuf,
    /// Start by loading device state into a stopped machine instead of booting.
    pub restore: bool,
}

impl MachinePlan {
    /// Returns the disks that the machine writes, each of which needs an overlay in a cut.
    pub fn writable_disks(&self) -> impl Iterator<Item = (DiskRole, &Path)> {
        let vars = match &self.firmware {
            Firmware::Uefi { vars, .. } => Some((DiskRole::Firmware, vars.as_path())),
            Firmware::Direct { .. } | Firmware::Bios => None,
        };
        let extra = self.extra_disks.iter().map(PathBuf::as_path);
        let extra = (0u8..).map(DiskRole::Extra).zip(extra);
        std::iter::once((DiskRole::Root, self.disk.as_path())).chain(vars).chain(extra)
    }
}

/// Why a machine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The program could not be started.
    #[error("cannot start {program}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program that the plan needs is not installed.
    #[error("{tool} was not found (it is in the package {package})")]
    ToolMissing {
        /// The program.
        tool: &'static str,
        /// Debian's and Ubuntu's package that has it.
        package: &'static str,
    },
    /// The process ended by itself.
    #[error("the machine `{name}` ended: {detail}")]
    Ended {
        /// The machine.
        name: String,
        /// Exit status and the last lines of its log.
        detail: String,
    },
    /// The hypervisor refused a command.
    #[error("the machine `{name}` refused `{command}`: {detail}")]
    Refused {
        /// The machine.
        name: String,
        /// The command.
        command: String,
        /// The hypervisor's words.
        detail: String,
    },
    /// The hypervisor said something that is not its protocol.
    #[error("the machine `{name}` broke its protocol: {detail}")]
    Protocol {
        /// The machine.
        name: String,
        /// What was wrong.
        detail: String,
    },
    /// A wait passed its deadline.
    #[error("the machine `{name}` did not {what} within {waited:?}")]
    Deadline {
        /// The machine.
        name: String,
        /// What was waited for, as a verb phrase.
        what: &'static str,
        /// How long.
        waited: Duration,
    },
    /// A file could not be used.
    #[error("cannot use {path} for the machine `{name}`", path = path.display())]
    File {
        /// The machine.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Why a machine's process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The guest switched itself off.
    GuestShutdown,
    /// The guest rebooted; the keeper boots the branch's disk anew.
    GuestReset,
    /// The guest kernel panicked.
    GuestPanic,
    /// We ended it.
    Killed,
    /// The process crashed or was killed by somebody else.
    Crashed {
        /// Exit status and the last lines of its log.
        detail: String,
    },
}

/// The guest's RAM inside the machine's process: what a memory delta is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestRam {
    /// Process id of the machine.
    pub pid: u32,
    /// Address of guest-physical page 0's mapping in that process.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Starts machines. The process becomes a child of the *calling thread* and dies with it, so a
/// keeper calls this from its main thread only.
pub trait Hypervisor: Send + Sync {
    /// Starts the process of a machine and returns at once; [`Machine::wait_ready`] waits. `ports`
    /// are the machine's ends of its switch's ports, one for each interface whose backend is
    /// [`NicBackend::Switch`] or [`NicBackend::Tap`], in their order. Where a port's other end is
    /// closed, the guest sees no cable from then on.
    ///
    /// # Errors
    /// [`MachineError::Spawn`], [`MachineError::File`], [`MachineError::ToolMissing`].
    fn spawn(
        &self,
        plan: &MachinePlan,
        ports: Vec<OwnedFd>,
    ) -> Result<Box<dyn Machine>, MachineError>;

    /// Starts a node's way to the outside, and returns it with the end that is for
    /// [`Switch::attach_uplink`]; [`Uplink::wait_ready`] waits.
    ///
    /// # Errors
    /// [`MachineError::Spawn`], [`MachineError::ToolMissing`].
    fn spawn_uplink(
        &self,
        plan: &UplinkPlan,
    ) -> Result<(Box<dyn Uplink>, UnixStream), MachineError>;

    /// Returns what machines started now would record in a commit.
    fn profile(&self, accelerator: Accelerator) -> MachineProfile;
}

/// All that is needed to start a node's way to the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkPlan {
    /// For messages: the machine's name.
    pub name: String,
    /// The only address that may send to the outside.
    pub address: Ipv4Addr,
    /// Bits of its network's prefix.
    pub prefix_bits: u8,
    /// Where the node sends what is for the outside.
    pub gateway: Ipv4Addr,
    /// Networks that are not the outside, besides those that never are: address and prefix bits.
    pub inside: Vec<(Ipv4Addr, u8)>,
    /// File that its messages are appended to.
    pub log: PathBuf,
}

/// A node's way to the outside. Dropping it ends it.
pub trait Uplink: Send {
    /// Waits until it answers; until then it carries nothing.
    fn wait_ready(&mut self, deadline: Instant) -> Result<(), MachineError>;
}

/// An interface whose guest leaves no room for frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowded {
    /// Its number.
    pub nic: usize,
    /// How much it took in so far, modulo 2^16: if this stays as it is, it takes in nothing.
    pub taken: u16,
}

/// How a machine stands that was stopped for a cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stillness {
    /// Whether no device still has work under way that would write guest RAM.
    pub quiet: bool,
    /// As [`Machine::crowded`]: interfaces that frames may have been lost at.
    pub crowded: Vec<Crowded>,
}

/// One running machine process. Dropping it kills and reaps the process.
pub trait Machine: Send {
    /// Process id.
    fn pid(&self) -> u32;

    /// Takes the host's end of the guest channel, connected since before the machine started.
    /// `None` the second time.
    fn take_guest_port(&mut self) -> Option<UnixStream>;

    /// Waits until the hypervisor answers. A restored machine is then stopped and empty; any other
    /// is stopped before its first instruction until [`Machine::resume`].
    fn wait_ready(&mut self, deadline: Instant) -> Result<(), MachineError>;

    /// Loads device state saved by [`Machine::save_devices`] into a machine with `plan.restore`.
    fn load_devices(&mut self, from: &Path, deadline: Instant) -> Result<(), MachineError>;

    /// Lets the guest run.
    fn resume(&mut self, deadline: Instant) -> Result<(), MachineError>;

    /// Returns what stopped the guest without being asked to, in words, such as a full disk of the
    /// host. Nothing is lost: [`Machine::resume`] tries again.
    fn trouble(&mut self) -> Result<Option<String>, MachineError> {
        Ok(None)
    }

    /// Stops the guest; all its state stays.
    fn pause(&mut self, deadline: Instant) -> Result<(), MachineError>;

    /// Outside the pause: makes `overlay`, an existing empty qcow2 file, ready to become the top of
    /// the chain of `disk`. A cut needs one for each of [`MachinePlan::writable_disks`].
    fn prepare_overlay(
        &mut self,
        disk: DiskRole,
        overlay: &Path,
        deadline: Instant,
    ) -> Result<(), MachineError>;

    /// Outside the pause: gives up all overlays that were prepared and not used.
    fn discard_overlays(&mut self, deadline: Instant) -> Result<(), MachineError>;

    /// While stopped: saves device state to `to` (without RAM) and makes the prepared overlays the
    /// writable tops, all or none; the former tops are frozen and complete on return (in the page
    /// cache). A cut that only wants disks passes `None`.
    fn save_devices(&mut self, to: Option<&Path>, deadline: Instant) -> Result<(), MachineError>;

    /// While nothing is sent to it: returns its interfaces whose guest leaves no room for frames.
    /// The hypervisor may hold some back for them, and forgets those when it stops.
    fn crowded(&mut self, deadline: Instant) -> Result<Vec<Crowded>, MachineError>;

    /// Stops the guest for a cut and returns how it stands, in as few steps as can be, because
    /// other machines stand still meanwhile.
    fn stand_still(&mut self, deadline: Instant) -> Result<Stillness, MachineError>;

    /// Shortens the chain of `disk` while the guest runs: copies all layers between `keep` and the
    /// writable top into the top. Returns when done. A call that passes its deadline stops the copy
    /// cleanly and keeps what was copied, so that short slices between two cuts add up.
    fn flatten(
        &mut self,
        disk: DiskRole,
        keep: &Path,
        deadline: Instant,
    ) -> Result<(), MachineError>;

    /// Where the guest's RAM is in the process.
    fn ram(&self) -> Result<GuestRam, MachineError>;

    /// Presses the power button.
    fn power_button(&mut self, deadline: Instant) -> Result<(), MachineError>;

    /// Changes the link of a network interface (0-based).
    fn set_link(&mut self, nic: usize, link: Link, deadline: Instant) -> Result<(), MachineError>;

    /// Waits for the process to end, for at most `timeout` (zero: only asks). `None` while it runs.
    fn wait_end(&mut self, timeout: Duration) -> Result<Option<EndReason>, MachineError>;

    /// Kills the process and reaps it.
    fn kill(&mut self) -> EndReason;
}

/// State of a network interface's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The guest sees a cable.
    Up,
    /// The guest sees none.
    Down,
}

/// Makes disk layers.
pub trait DiskFormat: Send + Sync {
    /// Creates the empty layer `path` of `size` bytes (0: as large as what it lies on) over
    /// `backing`, a qcow2 file named relative to the layer's directory, or over nothing. A layer
    /// that is there already is success, and is left alone.
    ///
    /// # Errors
    /// [`MachineError::File`].
    fn create_layer(
        &self,
        path: &Path,
        backing: Option<&str>,
        size: ByteCount,
    ) -> Result<(), MachineError>;
}

/// Opens the switches of branches.
pub trait Switches: Send + Sync {
    /// Starts a branch's switch, holding, and returns it with the machines' ends of its ports, in
    /// the order of `spec.ports`: for a switch, unix stream sockets that carry frames, each behind
    /// its length as four bytes, big endian; for a bridge, tap devices. `state` is the file that a
    /// cut saved, if the branch continues from one.
    ///
    /// # Errors
    /// [`SwitchError::File`], [`SwitchError::Damaged`], [`SwitchError::System`].
    fn open(
        &self,
        spec: &NetworkSpec,
        state: Option<&Path>,
    ) -> Result<(Box<dyn Switch>, Vec<OwnedFd>), SwitchError>;
}

/// The network of one running branch: its own thread, which forwards frames and never waits for a
/// machine. Dropping it ends the thread.
///
/// A cut holds it, drains it outward, stops the machines, settles it, saves it, lets the machines
/// go on and releases it. While it is held nothing is forwarded, so the machines need not stop at
/// the same moment.
pub trait Switch: Send {
    /// Stops forwarding. Frames that machines send are still read, and kept in order. Its clock, by
    /// which delays run, stands still. Holding twice is holding once.
    fn hold(&mut self) -> Result<(), SwitchError>;

    /// While held: waits until every machine has read what was sent to it. Returns the ports whose
    /// machine has not by the deadline; what it has not read, [`Switch::save`] counts as dropped.
    /// From then on nothing is written to a machine until [`Switch::release`].
    fn drain(&mut self, deadline: Instant) -> Result<Vec<PortNumber>, SwitchError>;

    /// While held, with the machines stopped: reads what they sent before, until there is no more.
    /// Returns what came in since the hold, or since it was asked last. [`SwitchError::Misused`] if
    /// there was no room for all of it: nothing is lost, but such a cut must be given up.
    fn settle(&mut self) -> Result<Settled, SwitchError>;

    /// While held: writes tables, frames on their way, faults and counts to `to`, which is complete
    /// and not yet synced on return.
    fn save(&mut self, to: &Path) -> Result<SavedSwitch, SwitchError>;

    /// Goes on: first what was queued, then what came in while held, in order.
    fn release(&mut self) -> Result<(), SwitchError>;

    /// Makes these the faults that work, and returns once no frame is forwarded by the former ones.
    /// A fault that worked before keeps its place in its sequence of decisions.
    fn set_faults(&mut self, faults: Vec<Fault>) -> Result<(), SwitchError>;

    /// Returns what it does and did.
    fn observe(&mut self) -> Result<NetworkObservation, SwitchError>;

    /// Returns whether it still works, in less than [`Switch::observe`] takes.
    fn check(&mut self) -> Result<(), SwitchError> {
        self.observe().map(drop)
    }

    /// Gives a node whose machine ended new ports, and returns the new machine's ends of them, by
    /// number of the interface.
    fn replug(&mut self, node: &Name) -> Result<Vec<OwnedFd>, SwitchError>;

    /// Connects a node to the outside: `outside` carries its frames for the gateway that are not
    /// for the gateway itself, and what comes back.
    fn attach_uplink(&mut self, node: &Name, outside: UnixStream) -> Result<(), SwitchError>;

    /// Copies frames to `to` as a pcap file, each once as it was sent, before faults, until
    /// `limits` are reached or [`Switch::end_capture`].
    fn begin_capture(&mut self, to: File, limits: CaptureLimits) -> Result<(), SwitchError>;

    /// Ends the capture, and returns what it holds; `None` if there is none.
    fn end_capture(&mut self) -> Result<Option<FrameCapture>, SwitchError>;
}

/// A port of a switch, as an index into [`NetworkSpec::ports`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortNumber(pub usize);

/// What came in while a switch settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Frames.
    pub frames: u64,
    /// Ports at which a frame has begun and not ended: such a cut cannot be saved.
    pub partial: Vec<PortNumber>,
}

/// What a switch saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedSwitch {
    /// Frames on their way.
    pub frames: u64,
    /// The faults that work.
    pub faults: Vec<Fault>,
}

/// Why a switch could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// Its thread has ended.
    #[error("the switch has ended: {0}")]
    Ended(String),
    /// It did not answer in time.
    #[error("the switch did not answer within {0:?}")]
    Deadline(Duration),
    /// A saved state is not one.
    #[error("the network state {path} is damaged: {detail}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Something is asked of a port or node that it does not have, or in the wrong state.
    #[error("the switch cannot {0}")]
    Misused(String),
    /// A file could not be used.
    #[error("cannot use {path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The operating system refused something.
    #[error("the switch cannot {what}")]
    System {
        /// What, as a verb phrase.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
