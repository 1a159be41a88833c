//! The command line of QEMU, made from a [`MachinePlan`].
//!
//! Everything with a path in it is JSON where QEMU takes JSON, so that nothing has to be escaped;
//! the few options that only know `key=value` get their commas doubled. Every device has a fixed
//! id and PCI address: device state can only be loaded into a machine that looks the same.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use pando_machine::{Firmware, MachinePlan, Nic, NicBackend};
use pando_model::limits::MAX_EXTRA_DISKS;
use pando_model::machine::Accelerator;
use serde_json::{Value, json};

use crate::limits::MAX_NICS;

/// QEMU's machine type.
pub const MACHINE: &str = "q35";
/// The name by which the guest program finds its channel.
pub const GUEST_PORT: &str = "pando.0";

/// PCI slots of the root bus, in decimal. Slot 31 is the chipset's.
mod slot {
    pub const SERIAL: usize = 2;
    pub const ROOT: usize = 3;
    pub const SEED: usize = 4;
    pub const RNG: usize = 5;
    pub const PANIC: usize = 6;
    pub const FIRST_EXTRA: usize = 7;
    pub const FIRST_NIC: usize = 16;
}

/// Why a plan has no command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// QEMU takes JSON, and JSON is Unicode.
    #[error("the path is not valid UTF-8")]
    PathNotUtf8(PathBuf),
    /// The interfaces on a switch and the ports given are not as many.
    #[error("{0} ports of a switch, but {1} network interfaces are on one")]
    Ports(usize, usize),
    /// The extra disks and their files are not as many, or too many.
    #[error("{0} files for {1} extra disks, of which at most {MAX_EXTRA_DISKS} fit")]
    ExtraDisks(usize, usize),
    /// No PCI slots are left.
    #[error("{0} network interfaces, but at most {MAX_NICS} fit")]
    TooManyNics(usize),
}

/// The sockets that QEMU inherits, as they are numbered in its process.
#[derive(Debug, Clone, Copy)]
pub struct Channels<'a> {
    /// QMP.
    pub qmp: RawFd,
    /// The guest channel.
    pub guest: RawFd,
    /// One for each interface whose backend is [`NicBackend::Nat`], in order.
    pub uplinks: &'a [RawFd],
    /// One for each interface whose backend is [`NicBackend::Switch`] or [`NicBackend::Tap`], in
    /// order.
    pub ports: &'a [RawFd],
}

/// Returns QEMU's CPU model under an accelerator.
///
/// An emulated one leaves out the features that promise fast `rep movsb` and `rep stosb`: there each
/// byte is emulated by itself, and without the promise the guest's kernel moves eight at a time. That
/// takes a fifth off a fork, an exec and whatever else clears or copies pages.
pub const fn cpu_model(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "host",
        Accelerator::Tcg => "max,-erms,-fsrm,-fsrs,-fzrm",
    }
}

/// Returns the id of a network interface's device.
pub fn nic_id(nic: usize) -> String {
    format!("nic{nic}")
}

/// Returns the id of an extra disk's device.
pub fn extra_id(disk: u8) -> String {
    format!("extra{disk}")
}

/// Returns QEMU's arguments, without the program.
pub fn build(plan: &MachinePlan, channels: Channels<'_>) -> Result<Vec<OsString>, PlanError> {
    let mut argv = Argv::default();
    argv.process(plan);
    argv.board(plan)?;
    argv.channels(plan, channels)?;
    argv.disks(plan)?;
    argv.small_devices();
    argv.network(plan, channels)?;
    argv.start(plan);
    Ok(argv.0)
}

#[derive(Default)]
struct Argv(Vec<OsString>);

impl Argv {
    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }

    fn json(&mut self, name: &str, value: &Value) {
        self.option(name, value.to_string());
    }

    /// A device on the root PCI bus.
    fn pci(&mut self, slot: usize, mut device: Value) {
        if let Some(properties) = device.as_object_mut() {
            properties.insert("bus".to_owned(), json!("pcie.0"));
            properties.insert("addr".to_owned(), json!(format!("{slot:#x}")));
        }
        self.json("-device", &device);
    }

    fn process(&mut self, plan: &MachinePlan) {
        self.option("-name", format!("guest={},debug-threads=on", escape(&plan.name)));
        for flag in ["-nodefaults", "-no-user-config"] {
            self.flag(flag);
        }
        self.option("-display", "none");
        self.option("-msg", "timestamp=on");
        self.option(
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        );
    }

    fn board(&mut self, plan: &MachinePlan) -> Result<(), PlanError> {
        let bytes = plan.shape.memory.bytes();
        let mut machine = String::from(MACHINE);
        // A timer interrupt source that costs an idle guest a percent of a core, controllers that
        // nothing is attached to, and a description that only full migration streams have.
        machine.push_str(",hpet=off,sata=off,smbus=off,usb=off,vmport=off,suppress-vmdesc=on");
        machine.push_str(",dump-guest-core=off,mem-merge=off,memory-backend=ram");
        if let Firmware::Uefi { code, vars } = &plan.firmware {
            let code = json!({
                "driver": "raw", "node-name": "firmware-code", "read-only": true,
                "file": { "driver": "file", "filename": utf8(code)?, "read-only": true },
            });
            self.json("-blockdev", &code);
            self.json("-blockdev", &writable_disk("firmware-0", vars, plan.durable_disk)?);
            machine.push_str(",pflash0=firmware-code,pflash1=firmware-0");
        }
        let memory = json!({
            "qom-type": "memory-backend-file", "id": "ram", "size": bytes,
            "mem-path": utf8(&plan.memory_image)?, "share": false, "readonly": true, "rom": "off",
        });
        self.json("-object", &memory);
        self.option("-machine", machine);
        self.option(
            "-accel",
            match plan.accelerator {
                Accelerator::Kvm => "kvm",
                Accelerator::Tcg => "tcg,thread=multi",
            },
        );
        self.option("-cpu", cpu_model(plan.accelerator));
        let vcpus = plan.shape.vcpus;
        self.option("-smp", format!("cpus={vcpus},sockets=1,cores={vcpus},threads=1"));
        self.option("-m", format!("size={}k", bytes / 1024));
        Ok(())
    }

    fn channels(&mut self, plan: &MachinePlan, channels: Channels<'_>) -> Result<(), PlanError> {
        self.option("-chardev", format!("socket,id=qmp,fd={}", channels.qmp));
        self.option("-mon", "chardev=qmp,mode=control");
        self.option("-chardev", format!("socket,id=guest,fd={}", channels.guest));
        self.pci(slot::SERIAL, json!({ "driver": "virtio-serial-pci", "id": "serial" }));
        let port = json!({
            "driver": "virtserialport", "id": "port", "bus": "serial.0", "nr": 1,
            "chardev": "guest", "name": GUEST_PORT,
        });
        self.json("-device", &port);
        let console = escape(utf8(&plan.console)?);
        self.option("-chardev", format!("file,id=console,path={console},append=on"));
        let uart = json!({ "driver": "isa-serial", "id": "uart", "chardev": "console" });
        self.json("-device", &uart);
        Ok(())
    }

    fn disks(&mut self, plan: &MachinePlan) -> Result<(), PlanError> {
        self.json("-blockdev", &writable_disk("root-0", &plan.disk, plan.durable_disk)?);
        // The boot ROM of a directly loaded kernel takes index 0.
        let root = json!({
            "driver": "virtio-blk-pci", "id": "root", "drive": "root-0", "serial": "pando-root",
            "bootindex": 1,
            // A host that is out of space stops the guest, which then has lost nothing.
            "werror": "stop",
        });
        self.pci(slot::ROOT, root);
        self.extra_disks(plan)?;
        let Some(seed) = &plan.seed else { return Ok(()) };
        let node = json!({
            "driver": "raw", "node-name": "seed", "read-only": true,
            "file": { "driver": "file", "filename": utf8(seed)?, "read-only": true },
        });
        self.json("-blockdev", &node);
        let device = json!({
            "driver": "virtio-blk-pci", "id": "seed", "drive": "seed", "serial": "pando-seed",
        });
        self.pci(slot::SEED, device);
        Ok(())
    }

    fn extra_disks(&mut self, plan: &MachinePlan) -> Result<(), PlanError> {
        let named = plan.shape.extra_disks.len();
        if plan.extra_disks.len() != named || named > MAX_EXTRA_DISKS {
            return Err(PlanError::ExtraDisks(plan.extra_disks.len(), named));
        }
        for (number, (path, disk)) in
            (0u8..).zip(plan.extra_disks.iter().zip(&plan.shape.extra_disks))
        {
            let id = extra_id(number);
            let drive = format!("{id}-0");
            self.json("-blockdev", &writable_disk(&drive, path, plan.durable_disk)?);
            let device = json!({
                "driver": "virtio-blk-pci", "id": id, "drive": drive,
                "serial": disk.name.as_str(), "werror": "stop",
            });
            self.pci(slot::FIRST_EXTRA + usize::from(number), device);
        }
        Ok(())
    }

    fn small_devices(&mut self) {
        self.pci(slot::RNG, json!({ "driver": "virtio-rng-pci", "id": "rng" }));
        self.pci(slot::PANIC, json!({ "driver": "pvpanic-pci", "id": "panic" }));
        // A fresh id in every process makes a restored guest kernel reseed its random numbers.
        self.json("-device", &json!({ "driver": "vmgenid", "id": "generation", "guid": "auto" }));
    }

    fn network(&mut self, plan: &MachinePlan, channels: Channels<'_>) -> Result<(), PlanError> {
        if plan.nics.len() > MAX_NICS {
            return Err(PlanError::TooManyNics(plan.nics.len()));
        }
        let on_switch = plan.nics.iter().filter(|nic| has_port(nic)).count();
        if on_switch != channels.ports.len() {
            return Err(PlanError::Ports(channels.ports.len(), on_switch));
        }
        let (mut uplinks, mut ports) = (channels.uplinks.iter(), channels.ports.iter());
        for (number, nic) in plan.nics.iter().enumerate() {
            let netdev = format!("net{number}");
            if nic.backend != NicBackend::Isolated {
                // Connected to nothing. A user network has a section in saved device state, which
                // must be the same whatever a node is plugged into: ready states are made without
                // a switch or an uplink.
                let mut spare = user_network();
                set(&mut spare, "id", &json!(format!("spare{number}")));
                self.json("-netdev", &spare);
            }
            let mut backend = match &nic.backend {
                NicBackend::Isolated => user_network(),
                NicBackend::Nat => inherited_stream(uplinks.next()),
                NicBackend::Switch => inherited_stream(ports.next()),
                NicBackend::Tap => inherited_tap(ports.next()),
            };
            set(&mut backend, "id", &json!(netdev));
            self.json("-netdev", &backend);
            // A boot ROM would only slow the start; the disk is what boots.
            let device = json!({
                "driver": "virtio-net-pci", "id": nic_id(number), "netdev": netdev,
                "mac": nic.mac, "romfile": "",
            });
            self.pci(slot::FIRST_NIC + number, device);
        }
        Ok(())
    }

    fn start(&mut self, plan: &MachinePlan) {
        if let Firmware::Direct { kernel, initrd, cmdline } = &plan.firmware {
            self.option("-kernel", kernel);
            self.option("-initrd", initrd);
            self.option("-append", cmdline);
        }
        // A restored machine has no ROM contents to reboot into; every reboot is a new process.
        self.option("-action", "reboot=shutdown,shutdown=poweroff,panic=shutdown");
        self.flag("-S");
        if plan.restore {
            self.option("-incoming", "defer");
            self.option("-global", "migration.send-configuration=off");
        }
    }
}

/// Returns QEMU's user network, through which nothing of the host can be reached.
fn user_network() -> Value {
    json!({
        "type": "user", "restrict": true, "ipv6": false, "net": "10.0.2.0/24",
        "dhcpstart": "10.0.2.15",
    })
}

/// Returns a connection over a socket that QEMU inherits. Without one it refuses to start, rather
/// than lose the network.
fn inherited_stream(fd: Option<&RawFd>) -> Value {
    json!({
        "type": "stream", "server": false,
        "addr": { "type": "fd", "str": fd.map(ToString::to_string) },
    })
}

/// Returns a connection over a tap device that QEMU inherits, open.
fn inherited_tap(fd: Option<&RawFd>) -> Value {
    json!({ "type": "tap", "fd": fd.map(ToString::to_string) })
}

fn has_port(nic: &Nic) -> bool {
    matches!(nic.backend, NicBackend::Switch | NicBackend::Tap)
}

fn set(object: &mut Value, name: &str, value: &Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value.clone());
    }
}

/// Returns the block graph of a writable qcow2 file, without what only a first layer has.
pub fn writable_disk(node: &str, path: &Path, durable: bool) -> Result<Value, PlanError> {
    Ok(json!({
        "driver": "qcow2", "node-name": node, "discard": "unmap", "detect-zeroes": "off",
        "cache": { "no-flush": !durable },
        "file": {
            "driver": "file", "node-name": format!("{node}-file"), "filename": utf8(path)?,
            "discard": "unmap", "cache": { "no-flush": !durable },
        },
    }))
}

/// Returns a path as text.
pub fn utf8(path: &Path) -> Result<&str, PlanError> {
    path.to_str().ok_or_else(|| PlanError::PathNotUtf8(path.to_owned()))
}

/// Returns a value for a `key=value` list, in which a comma is doubled.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use pando_model::machine::NodeShape;
    use pando_model::{ByteCount, ExtraDisk};

    use super::*;

    fn plan(firmware: Firmware) -> MachinePlan {
        MachinePlan {
            name: "shop@main/db".to_owned(),
            shape: NodeShape {
                vcpus: 1,
                memory: ByteCount::from_mib(512),
                disk: ByteCount::from_gib(4),
                nics: 0,
                extra_disks: Vec::new(),
            },
            accelerator: Accelerator::Tcg,
            firmware,
            memory_image: "/h/memory/zero-512M.ram".into(),
            disk: "/h/layers/top.qcow2".into(),
            extra_disks: Vec::new(),
            seed: None,
            durable_disk: false,
            nics: Vec::new(),
            console: "/h/branches/b/db.console".into(),
            log: "/h/branches/b/db.log".into(),
            restore: false,
        }
    }

    fn nic(backend: NicBackend) -> Nic {
        Nic { mac: "52:54:00:12:34:56".to_owned(), backend }
    }

    /// One option with its value a line.
    fn argv(plan: &MachinePlan) -> Result<String, PlanError> {
        let ports = plan.nics.iter().filter(|nic| has_port(nic));
        let ports: Vec<RawFd> = (11..).zip(ports).map(|(fd, _)| fd).collect();
        let channels = Channels { qmp: 8, guest: 9, uplinks: &[10], ports: &ports };
        let arguments = build(plan, channels)?;
        let mut text = String::new();
        for argument in &arguments {
            let argument = argument.to_str().unwrap();
            let separator = if argument.starts_with('-') { '\n' } else { ' ' };
            text.push(separator);
            text.push_str(argument);
        }
        Ok(text)
    }

    #[test]
    fn direct_boot() {
        let mut plan = plan(Firmware::Direct {
            kernel: "/h/images/i/kernel".into(),
            initrd: "/h/images/i/initrd".into(),
            cmdline: "console=ttyS0 quiet".to_owned(),
        });
        plan.shape.vcpus = 2;
        plan.nics = vec![nic(NicBackend::Isolated)];
        insta::assert_snapshot!(argv(&plan).unwrap());
    }

    #[test]
    fn firmware_boot_from_a_durable_disk_with_a_seed() {
        let mut plan = plan(Firmware::Uefi {
            code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
            vars: "/h/layers/vars.qcow2".into(),
        });
        plan.accelerator = Accelerator::Kvm;
        plan.durable_disk = true;
        plan.seed = Some("/h/branches/b/db.seed".into());
        insta::assert_snapshot!(argv(&plan).unwrap());
    }

    #[test]
    fn a_restored_machine_on_a_switch() {
        let mut plan = plan(Firmware::Bios);
        plan.restore = true;
        plan.nics =
            vec![nic(NicBackend::Switch), nic(NicBackend::Isolated), nic(NicBackend::Switch)];
        insta::assert_snapshot!(argv(&plan).unwrap());
    }

    #[test]
    fn an_uplink_is_an_inherited_socket() {
        let mut plan = plan(Firmware::Bios);
        plan.nics = vec![nic(NicBackend::Isolated), nic(NicBackend::Nat)];
        let text = argv(&plan).unwrap();
        let netdev =
            r#"{"addr":{"str":"10","type":"fd"},"id":"net1","server":false,"type":"stream"}"#;
        assert!(text.contains(netdev), "{text}");
        let users = text.matches(r#""restrict":true,"type":"user""#).count();
        assert_eq!(users, plan.nics.len(), "the same sections of device state: {text}");
    }

    #[test]
    fn extra_disks_are_on_virtio_under_their_names() {
        let mut plan = plan(Firmware::Bios);
        let disk = |name: &str| ExtraDisk { name: name.parse().unwrap(), size: ByteCount(1 << 30) };
        plan.shape.extra_disks = vec![disk("data"), disk("log")];
        plan.extra_disks = vec!["/h/layers/data.qcow2".into(), "/h/layers/log.qcow2".into()];
        let text = argv(&plan).unwrap();
        for (number, name) in [(0, "data"), (1, "log")] {
            let node = format!(r#""node-name":"extra{number}-0""#);
            assert!(text.contains(&node), "{text}");
            let device = format!(
                r#"{{"addr":"{slot:#x}","bus":"pcie.0","drive":"extra{number}-0","driver":"virtio-blk-pci","id":"extra{number}","serial":"{name}","werror":"stop"}}"#,
                slot = slot::FIRST_EXTRA + number,
            );
            assert!(text.contains(&device), "{text}");
        }
        plan.extra_disks.pop();
        assert_eq!(argv(&plan), Err(PlanError::ExtraDisks(1, 2)));
        assert_eq!(slot::FIRST_EXTRA + MAX_EXTRA_DISKS - 1, 14, "below the network's");
    }

    #[test]
    fn a_tap_has_the_same_sections_of_device_state() {
        let mut plan = plan(Firmware::Bios);
        plan.nics = vec![nic(NicBackend::Tap)];
        let text = argv(&plan).unwrap();
        assert!(text.contains(r#"{"fd":"11","id":"net0","type":"tap"}"#), "{text}");
        let users = text.matches(r#""restrict":true,"type":"user""#).count();
        assert_eq!(users, plan.nics.len(), "the same sections of device state: {text}");
    }

    #[test]
    fn every_interface_on_a_switch_has_a_port() {
        let mut plan = plan(Firmware::Bios);
        plan.nics = vec![nic(NicBackend::Switch)];
        let channels = Channels { qmp: 8, guest: 9, uplinks: &[], ports: &[] };
        assert_eq!(build(&plan, channels), Err(PlanError::Ports(0, 1)));
    }

    #[test]
    fn text_from_outside_stays_in_its_argument() {
        let mut plan = plan(Firmware::Bios);
        plan.name = "a,process=b".to_owned();
        plan.console = "/c,logfile=/etc/passwd".into();
        plan.disk = "/d\",\"x\":\"y,z".into();
        let text = argv(&plan).unwrap();
        assert!(text.contains("guest=a,,process=b,"), "{text}");
        assert!(text.contains("path=/c,,logfile=/etc/passwd,append=on"), "{text}");
        assert!(text.contains(r#""filename":"/d\",\"x\":\"y,z""#), "{text}");
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        use std::os::unix::ffi::OsStringExt as _;
        let odd = PathBuf::from(OsString::from_vec(vec![b'/', 0xff]));
        let mut with_odd_disk = plan(Firmware::Bios);
        with_odd_disk.disk = odd.clone();
        assert_eq!(argv(&with_odd_disk), Err(PlanError::PathNotUtf8(odd)));
        let mut with_many_nics = plan(Firmware::Bios);
        with_many_nics.nics = vec![nic(NicBackend::Isolated); MAX_NICS + 1];
        assert_eq!(argv(&with_many_nics), Err(PlanError::TooManyNics(MAX_NICS + 1)));
    }
}
