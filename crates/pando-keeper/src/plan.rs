//! From a node's spec to a machine's plan: ids become paths, the image's boot method becomes a
//! firmware, the kernel command line gets what our initramfs needs.

use std::iter;
use std::path::PathBuf;

use pando_machine::{Firmware, MachinePlan, Nic, NicBackend};
use pando_model::host::{BranchSpec, NodeSpec, NodeStart};
use pando_model::{BootMethod, Layout, Uplink};

/// Where UEFI firmware is, in the order of preference; Debian and Ubuntu use the first.
const UEFI_CODE: &[&str] = &["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd"];

/// What every directly booted guest gets: its console, an end instead of a hang on a panic, and
/// what makes it boot fast under translation.
const CMDLINE: &str = "console=ttyS0 panic=-1 quiet net.ifnames=0 tsc=reliable no_timer_check \
                       mitigations=off random.trust_cpu=on";

/// How a machine of a node comes to life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// As the spec says.
    AsSpecified,
    /// By booting, whatever the spec says: the guest rebooted.
    Boot,
}

/// Returns the plan of a node's machine.
pub fn machine_plan(
    layout: &Layout,
    branch: &BranchSpec,
    node: &NodeSpec,
    begin: Begin,
) -> MachinePlan {
    let directory = layout.branch(&branch.branch);
    let restored_from = match (&node.start, begin) {
        (NodeStart::Restore { commit, saved_as }, Begin::AsSpecified) => Some((commit, saved_as)),
        _ => None,
    };
    MachinePlan {
        name: format!("{}/{}", branch.title, node.name),
        shape: node.shape.clone(),
        accelerator: branch.accelerator,
        firmware: firmware(layout, node),
        memory_image: match restored_from {
            Some((commit, saved_as)) => layout.flat_memory(commit, saved_as),
            None => layout.zero_memory(node.shape.memory),
        },
        disk: layout.layer(&node.layers.root),
        extra_disks: node.layers.extra.iter().map(|layer| layout.layer(layer)).collect(),
        seed: node.seed.as_ref().map(|_| seed_path(layout, branch, node)),
        durable_disk: branch.durable_disk,
        nics: nics(branch, node),
        console: layout.console(&branch.branch, &node.name),
        log: directory.join(format!("{}.qemu.log", node.name)),
        restore: restored_from.is_some(),
    }
}

/// On a switch: the interfaces that have a port of it. Without one, only the first has an address,
/// so only it has an uplink.
fn nics(branch: &BranchSpec, node: &NodeSpec) -> Vec<Nic> {
    if let Some(network) = &branch.network {
        let nics = (0u8..).zip(&node.macs).map(|(nic, mac)| {
            let port = network.ports.iter().find(|port| port.node == node.name && port.nic == nic);
            let backend = match port {
                None => NicBackend::Isolated,
                Some(_) if network.is_bridged() => NicBackend::Tap,
                Some(_) => NicBackend::Switch,
            };
            Nic { mac: mac.clone(), backend }
        });
        return nics.collect();
    }
    let first = match node.uplink {
        Uplink::None => NicBackend::Isolated,
        Uplink::Nat => NicBackend::Nat,
    };
    let backends = iter::once(first).chain(iter::repeat(NicBackend::Isolated));
    let nics = node.macs.iter().zip(backends);
    nics.map(|(mac, backend)| Nic { mac: mac.clone(), backend }).collect()
}

/// Returns where the host driver puts the seed disk of a node.
pub fn seed_path(layout: &Layout, branch: &BranchSpec, node: &NodeSpec) -> PathBuf {
    layout.branch(&branch.branch).join(format!("{}.seed", node.name))
}

fn firmware(layout: &Layout, node: &NodeSpec) -> Firmware {
    match (&node.boot, &node.layers.vars) {
        (BootMethod::Direct { cmdline }, _) => Firmware::Direct {
            kernel: layout.image_part(&node.image, "kernel"),
            initrd: layout.image_part(&node.image, "initrd"),
            cmdline: format!("{CMDLINE} {cmdline} pando.init={}", node.init),
        },
        (BootMethod::Uefi, Some(vars)) => Firmware::Uefi {
            code: UEFI_CODE
                .iter()
                .map(PathBuf::from)
                .find(|path| path.exists())
                .unwrap_or_else(|| PathBuf::from(UEFI_CODE[0])),
            vars: layout.layer(vars),
        },
        (BootMethod::Uefi, None) | (BootMethod::Bios, _) => Firmware::Bios,
    }
}
