//! What the whole design leans on, on a real kernel: commit → branch → grandchild → reboot, with
//! one and two CPUs, as an ordinary user, and with firmware that has a disk of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pando_delta::format::{ZERO_PAGE, digest_page};
use pando_delta::{
    Capture, DeltaHeader, DeltaReader, DeltaWriter, LiveMemory, PageDigests, written_pages,
};
use pando_machine::{
    DiskRole, EndReason, Firmware, Hypervisor as _, Link, Machine, MachinePlan, Nic, NicBackend,
};
use pando_model::ByteCount;
use pando_model::machine::{Accelerator, NodeShape};
use pando_qemu::Qemu;
use pando_qemu::probe::ConsolePipe;
use pando_qemu::qcow2::{BackingFormat, create_empty, create_overlay, inspect};

use crate::assets::Assets;
use crate::support::{copy_program, qemu, soon, wrapped};

const MEMORY: ByteCount = ByteCount::from_mib(192);
const DISK: ByteCount = ByteCount::from_mib(64);
/// The guest's page that is zeroed in the child: its third.
const PAGE: usize = 2 * 4096;

/// Machines of one shape, their files, and the commits made of them.
struct World {
    qemu: Qemu,
    directory: tempfile::TempDir,
    firmware: Firmware,
    vcpus: u8,
}

/// A full commit of one node.
struct Commit {
    memory: PathBuf,
    state: PathBuf,
    /// The frozen layer of each writable disk, as a name in the world's directory.
    layers: Vec<(DiskRole, String)>,
}

struct Node {
    machine: Box<dyn Machine>,
    port: BufReader<UnixStream>,
    console: ConsolePipe,
    /// The flat memory that the machine maps.
    base: PathBuf,
    /// The top layer of each writable disk.
    tops: Vec<(DiskRole, String)>,
    /// Memory was zero when the machine started.
    is_root: bool,
}

impl World {
    fn new(firmware: Firmware, vcpus: u8) -> Self {
        Self::with(qemu(), firmware, vcpus)
    }

    fn with(qemu: Qemu, firmware: Firmware, vcpus: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let world = Self { qemu, directory, firmware, vcpus };
        pando_delta::flat::zero(&world.path("zero.ram"), MEMORY.bytes()).unwrap();
        create_empty(&world.path("image"), DISK).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn overlay(&self, name: &str, below: &str) -> PathBuf {
        let path = self.path(name);
        let size = inspect(&self.path(below)).unwrap().virtual_size;
        create_overlay(&path, below, BackingFormat::Qcow2, size).unwrap();
        path
    }

    /// Starts a node on overlays of its own over `layers`, from `memory`.
    fn start(
        &self,
        name: &str,
        memory: &Path,
        layers: &[(DiskRole, String)],
        state: Option<&Path>,
    ) -> Node {
        let tops: Vec<(DiskRole, String)> =
            layers.iter().map(|(role, _)| (*role, format!("{name}-{role:?}"))).collect();
        for ((_, below), (_, top)) in layers.iter().zip(&tops) {
            self.overlay(top, below);
        }
        let mut firmware = self.firmware.clone();
        if let Firmware::Uefi { vars, .. } = &mut firmware {
            *vars = self.path(&tops[1].1);
        }
        let mac = "52:54:00:00:00:01".to_owned();
        let plan = MachinePlan {
            name: name.to_owned(),
            shape: NodeShape {
                vcpus: self.vcpus,
                memory: MEMORY,
                disk: DISK,
                nics: 1,
                extra_disks: Vec::new(),
            },
            accelerator: Accelerator::Tcg,
            firmware,
            memory_image: memory.to_owned(),
            disk: self.path(&tops[0].1),
            extra_disks: Vec::new(),
            seed: None,
            durable_disk: false,
            nics: vec![Nic { mac, backend: NicBackend::Isolated }],
            console: self.path(&format!("{name}.console")),
            log: self.path(&format!("{name}.log")),
            restore: state.is_some(),
        };
        let console = ConsolePipe::create(&plan.console).unwrap();
        let started = Instant::now();
        let mut machine = self.qemu.spawn(&plan, Vec::new()).unwrap();
        machine.wait_ready(soon()).unwrap();
        let ready = started.elapsed();
        if let Some(state) = state {
            machine.load_devices(state, soon()).unwrap();
        }
        machine.resume(soon()).unwrap();
        eprintln!("{name}: ready after {ready:?}, resumed after {:?}", started.elapsed());
        let port = machine.take_guest_port().unwrap();
        port.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Node {
            machine,
            port: BufReader::new(port),
            console,
            base: memory.to_owned(),
            tops,
            is_root: state.is_none(),
        }
    }

    fn boot(&self, name: &str, layers: &[(DiskRole, String)]) -> Node {
        self.start(name, &self.path("zero.ram"), layers, None)
    }

    fn branch(&self, name: &str, commit: &Commit) -> Node {
        self.start(name, &commit.memory, &commit.layers, Some(&commit.state))
    }

    /// Commits a running node; it runs again afterwards, on new overlays.
    fn commit(&self, name: &str, node: &mut Node) -> Commit {
        let machine = &mut node.machine;
        let layers = node.tops.clone();
        for (role, top) in &mut node.tops {
            let next = format!("{name}-next-{role:?}");
            let overlay = self.overlay(&next, top);
            machine.prepare_overlay(*role, &overlay, soon()).unwrap();
            *top = next;
        }
        let state = self.path(&format!("{name}.state"));
        let ram = machine.ram().unwrap();
        let expected = written_pages(ram.pid, ram.address, ram.length).unwrap();
        let mut capture =
            Capture::prepare(pando_delta::runs::page_count(&expected) + 4096).unwrap();

        let started = Instant::now();
        while !machine.stand_still(soon()).unwrap().quiet {
            machine.resume(soon()).unwrap();
        }
        let saving = Instant::now();
        machine.save_devices(Some(&state), soon()).unwrap();
        let saved = saving.elapsed();
        let runs = written_pages(ram.pid, ram.address, ram.length).unwrap();
        let left = capture.take(ram.pid, ram.address, &runs).unwrap();
        assert!(left.is_empty());
        machine.resume(soon()).unwrap();
        eprintln!(
            "{name}: paused for {:?} (devices and disks {saved:?}, {} pages)",
            started.elapsed(),
            pando_delta::runs::page_count(&runs)
        );

        let delta = self.path(&format!("{name}.pages"));
        let header = DeltaHeader { ram: ram.length };
        let nothing = PageDigests::default();
        let mut writer = DeltaWriter::create(&delta, header, &nothing, node.is_root).unwrap();
        writer.append(capture.pieces(), capture.data()).unwrap();
        let summary = writer.finish().unwrap();
        let memory = self.path(&format!("{name}.ram"));
        let reader = DeltaReader::open(&delta, Some(&summary.digest)).unwrap();
        pando_delta::flat::flatten(&memory, ram.length, &[reader], Some(&node.base)).unwrap();
        Commit { memory, state, layers }
    }
}

impl Node {
    fn ask(&mut self, question: &str) -> String {
        self.tell(question);
        self.read()
    }

    fn read(&mut self) -> String {
        let mut line = String::new();
        let read = self.port.read_line(&mut line);
        if !matches!(read, Ok(count) if count > 0) {
            self.console.read().unwrap();
            panic!("{read:?}; the console says: {}", self.console.text());
        }
        line.trim().to_owned()
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.port.get_mut(), "{line}").unwrap();
    }

    fn end(&mut self) -> EndReason {
        self.machine.wait_end(Duration::from_secs(60)).unwrap().expect("it did not end")
    }
}

fn direct() -> Firmware {
    let assets = Assets::get();
    Firmware::Direct {
        kernel: assets.kernel,
        initrd: assets.initrd,
        cmdline: "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check random.trust_cpu=on"
            .to_owned(),
    }
}

fn commit_branch_grandchild_reboot(vcpus: u8) {
    const RESEEDED: &str = "logged crng reseeded due to virtual machine fork";
    let world = World::new(direct(), vcpus);
    let image = [(DiskRole::Root, "image".to_owned())];

    let mut parent = world.boot("parent", &image);
    let boot_id = parent.ask("boot-id");
    let cpus = vcpus.to_string();
    assert_eq!(parent.ask("cpus"), cpus);
    parent.ask("fill 0 65536 171");
    parent.ask("disk-write 0 17");
    let sum = parent.ask("sum");
    assert_eq!(parent.ask("carrier 1"), "1");
    parent.machine.set_link(0, Link::Down, soon()).unwrap();
    assert_eq!(parent.ask("carrier 0"), "0");
    let first = world.commit("first", &mut parent);

    let mut child = world.branch("child", &first);
    assert_eq!(child.ask("boot-id"), boot_id, "it is the same boot");
    assert_eq!(child.ask("cpus"), cpus, "all CPUs run on");
    assert_eq!(child.ask("sum"), sum);
    assert_eq!(child.ask("disk-read 0"), "[17, 17, 17, 17]");
    assert_eq!(child.ask("carrier 0"), "0", "a link that was down stays down");
    child.machine.set_link(0, Link::Up, soon()).unwrap();
    assert_eq!(child.ask("carrier 1"), "1");
    let reseeds = child.ask("reseeds") == "true";
    assert_eq!(child.ask(RESEEDED), if reseeds { "1" } else { "0" });
    child.ask(&format!("fill {PAGE} 4096 0"));
    child.ask("disk-write 0 34");
    let child_sum = child.ask("sum");
    assert_ne!(child_sum, sum);
    let second = world.commit("second", &mut child);

    // What the parent does after its commit is in no branch, and the other way round.
    parent.ask("fill 0 65536 205");
    parent.ask("disk-write 0 51");
    let mut grandchild = world.branch("grandchild", &second);
    assert_eq!(grandchild.ask("boot-id"), boot_id);
    assert_eq!(grandchild.ask("carrier 1"), "1");
    assert_eq!(grandchild.ask("cpus"), cpus);
    assert_eq!(grandchild.ask("sum"), child_sum);
    assert_eq!(grandchild.ask(&format!("bytes {} 3", PAGE - 1)), "[171, 0, 0]");
    assert_eq!(grandchild.ask("disk-read 0"), "[34, 34, 34, 34]");
    assert_eq!(grandchild.ask(RESEEDED), if reseeds { "2" } else { "0" });
    assert_eq!(parent.ask(&format!("bytes {PAGE} 1")), "[205]");
    assert_eq!(parent.ask("disk-read 0"), "[51, 51, 51, 51]");

    grandchild.tell("reboot");
    assert_eq!(grandchild.end(), EndReason::GuestReset);
    let mut rebooted = world.boot("rebooted", &grandchild.tops);
    assert_ne!(rebooted.ask("boot-id"), boot_id);
    assert_eq!(rebooted.ask("disk-read 0"), "[34, 34, 34, 34]");
    rebooted.tell("panic");
    assert_eq!(rebooted.end(), EndReason::GuestPanic);

    child.tell("power-off");
    assert_eq!(child.end(), EndReason::GuestShutdown);
    assert_eq!(parent.ask("boot-id"), boot_id);
}

#[test]
fn one_cpu() {
    commit_branch_grandchild_reboot(1);
}

/// A host that cannot store what the guest writes: the guest waits, and nothing is lost.
#[test]
fn a_host_disk_that_takes_no_more_stops_the_guest() {
    let directory = tempfile::tempdir().unwrap();
    // A file size limit stands for a full disk. It comes as a signal unless that is ignored.
    let limited = "trap '' XFSZ; ulimit -S -f 8192; exec QEMU \"$@\"";
    let world = World::with(wrapped(directory.path(), limited), direct(), 1);
    let mut node = world.boot("node", &[(DiskRole::Root, "image".to_owned())]);
    assert_eq!(node.ask("disk-write 0 17"), "ok");
    assert_eq!(node.machine.trouble().unwrap(), None);
    node.tell("fill-disk 40 34");
    let deadline = soon();
    let trouble = loop {
        if let Some(trouble) = node.machine.trouble().unwrap() {
            break trouble;
        }
        assert!(Instant::now() < deadline, "nothing was said");
        assert_eq!(node.machine.wait_end(Duration::from_millis(10)).unwrap(), None);
    };
    assert!(trouble.contains("the root disk could not be written: File too large"), "{trouble}");

    let pid = rustix::process::Pid::from_raw(node.machine.pid().cast_signed()).unwrap();
    let none = rustix::process::Rlimit { current: None, maximum: None };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Fsize, none).unwrap();
    node.machine.resume(soon()).unwrap();
    assert_eq!(node.read(), "ok");
    assert_eq!(node.machine.trouble().unwrap(), None);
    assert_eq!(node.ask("disk-read 0"), "[17, 17, 17, 17]");
    assert_eq!(node.ask("disk-read 41943040"), "[34, 34, 34, 34]");
}

/// A commit reads what the kernel noted as written: nothing else may have changed, whoever wrote it.
fn every_write_is_noted(rounds: u32) {
    let world = World::new(direct(), 2);
    let mut node = world.boot("node", &[(DiskRole::Root, "image".to_owned())]);
    let ram = node.machine.ram().unwrap();
    let mut live = LiveMemory::new(ram.pid, ram.address, ram.length);
    let mut known = PageDigests::default();
    let (mut read, mut own_pages) = (0, 0);
    for round in 1..=rounds {
        // CPUs and the disk write while it is read ahead.
        node.tell(&format!("fill-disk 16 {round}"));
        let mut capture = live.read_ahead(&known).unwrap();
        while !node.machine.stand_still(soon()).unwrap().quiet {
            node.machine.resume(soon()).unwrap();
        }
        assert!(live.complete(&mut capture, &known).unwrap().is_empty());
        let own = written_pages(ram.pid, ram.address, ram.length).unwrap();
        let mut all = Capture::prepare(0).unwrap();
        assert!(all.take(ram.pid, ram.address, &own).unwrap().is_empty());
        node.machine.resume(soon()).unwrap();

        let header = DeltaHeader { ram: ram.length };
        let mut writer = DeltaWriter::create(&world.path("delta"), header, &known, true).unwrap();
        writer.append(capture.pieces(), capture.data()).unwrap();
        known = writer.finish().unwrap().digests;
        live.saved();
        for piece in all.pieces() {
            let pages =
                all.data()[piece.at as usize * pando_delta::PAGE..].chunks(pando_delta::PAGE);
            for (page, data) in piece.run.pages().zip(pages) {
                assert_eq!(known.get(page), Some(&digest_page(data)), "{round}: page {page}");
            }
        }
        let given_back =
            known.pages().filter(|page| !own.iter().any(|run| run.pages().contains(page)));
        for page in given_back {
            assert_eq!(known.get(page), Some(&ZERO_PAGE), "{round}: page {page}");
        }
        (read, own_pages) = (read + capture.len(), own_pages + all.len());
        assert_eq!(node.read(), "ok");
    }
    eprintln!("{read} pages read of {own_pages}");
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let version: Vec<u32> = release.split(['.', '-']).flat_map(str::parse).take(2).collect();
    assert_eq!(live.is_tracked(), version >= vec![6, 7], "on Linux {release}");
    assert!(read < own_pages || !live.is_tracked());
}

#[test]
fn nothing_is_written_unnoticed() {
    every_write_is_noted(20);
}

/// UEFI keeps its variables on a disk that it writes by itself: it must be cut with the rest.
#[test]
fn firmware_with_a_disk_of_its_own() {
    const MENU: &str = "startup.nsh";
    let Some((code, variables)) = ovmf() else { panic!("the tests need the package ovmf") };
    let world = World::new(Firmware::Uefi { code, vars: PathBuf::new() }, 1);
    let size = ByteCount(std::fs::metadata(&variables).unwrap().len());
    std::os::unix::fs::symlink(&variables, world.path("variables.raw")).unwrap();
    create_overlay(&world.path("variables"), "variables.raw", BackingFormat::Raw, size).unwrap();
    let image =
        [(DiskRole::Root, "image".to_owned()), (DiskRole::Firmware, "variables".to_owned())];
    let mut parent = world.boot("parent", &image);
    let shown = parent.console.wait(soon(), |text| text.contains(MENU)).unwrap();
    assert!(shown, "{}", parent.console.text());
    let commit = world.commit("first", &mut parent);
    let mut child = world.branch("child", &commit);
    for node in [&mut child, &mut parent] {
        let prompt = |text: &str| text.contains("Shell>");
        assert!(node.console.wait(soon(), prompt).unwrap(), "{}", node.console.text());
        assert_eq!(node.machine.kill(), EndReason::Killed);
    }
    assert!(!child.console.text().contains("UEFI Interactive Shell"), "it did not boot again");
    // The firmware wrote its variables before the cut, and in each branch to its own layer.
    let written = |layer: &str| std::fs::metadata(world.path(layer)).unwrap().len();
    let frozen = &commit.layers[1].1;
    assert!(written(frozen) > written("variables"), "{}", written(frozen));
    let status = Command::new("qemu-img").arg("check").arg(world.path(&child.tops[1].1)).status();
    assert!(status.unwrap().success());
}

fn ovmf() -> Option<(PathBuf, PathBuf)> {
    [("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"), ("OVMF_CODE.fd", "OVMF_VARS.fd")]
        .map(|(code, variables)| {
            let file = |name| Path::new("/usr/share/OVMF").join(name);
            (file(code), file(variables))
        })
        .into_iter()
        .find(|(code, variables)| code.exists() && variables.exists())
}

/// Runs itself as nobody when it is root.
#[test]
fn two_cpus_as_an_ordinary_user() {
    const NOBODY: u32 = 65534;
    if !rustix::process::getuid().is_root() {
        every_write_is_noted(3);
        return commit_branch_grandchild_reboot(2);
    }
    let assets = Assets::get();
    let directory = tempfile::tempdir().unwrap();
    let reachable = |name: &str| directory.path().join(name);
    let program = reachable("tests");
    copy_program(&std::env::current_exe().unwrap(), &program);
    for (file, name) in [(assets.kernel, "kernel"), (assets.initrd, "initrd")] {
        std::fs::copy(file, reachable(name)).unwrap();
        std::fs::set_permissions(reachable(name), PermissionsExt::from_mode(0o444)).unwrap();
    }
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new(&program)
        .args(["--exact", "spike::two_cpus_as_an_ordinary_user", "--nocapture"])
        .env("PANDO_TEST_ASSETS", directory.path())
        .env("TMPDIR", "/tmp")
        .current_dir("/")
        .gid(NOBODY)
        .uid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    eprintln!("{text}");
}
