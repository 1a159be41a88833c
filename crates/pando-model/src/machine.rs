//! What a virtual machine is made of, and what a saved one needs to be restored.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::disk::ExtraDisk;
use crate::limits;
use crate::name::Name;
use crate::units::ByteCount;

/// How guest code runs.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// Hardware virtualisation through `/dev/kvm`.
    Kvm,
    /// QEMU's translator; works everywhere.
    Tcg,
}

impl Accelerator {
    /// Returns QEMU's name for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// The hardware of one node, and the key under which an image's ready states are kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeShape {
    /// Virtual CPUs.
    pub vcpus: u8,
    /// RAM; a multiple of [`limits::MEMORY_STEP`].
    pub memory: ByteCount,
    /// Virtual size of the root disk; never less than the image's.
    pub disk: ByteCount,
    /// Network interfaces.
    pub nics: u8,
    /// Disks beside the root disk, in the order that the machine sees them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_disks: Vec<ExtraDisk>,
}

/// Why a shape is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// vCPUs out of range.
    #[error("vcpus is {0}, but must be 1 to {max}", max = limits::MAX_VCPUS)]
    Vcpus(u8),
    /// RAM out of range.
    #[error("memory is {0}, but must be {min} to {max}", min = limits::MIN_MEMORY, max = limits::MAX_MEMORY)]
    Memory(ByteCount),
    /// RAM not a multiple of the step.
    #[error("memory is {0}, but must be a multiple of {step}", step = limits::MEMORY_STEP)]
    MemoryStep(ByteCount),
    /// Disk out of range.
    #[error("disk is {0}, but must be at most {max}", max = limits::MAX_DISK)]
    Disk(ByteCount),
    /// Too many extra disks.
    #[error("there are {0} extra disks, but at most {max} fit", max = limits::MAX_EXTRA_DISKS)]
    ExtraDisks(usize),
    /// An extra disk that a machine cannot have.
    #[error("the extra disk `{name}` {why}")]
    ExtraDisk {
        /// Its name.
        name: Name,
        /// What is wrong, as a verb phrase.
        why: String,
    },
}

impl NodeShape {
    /// Checks the shape against the limits; the image's own minimum is checked where it is known.
    ///
    /// # Errors
    /// The first limit that does not hold (`invalid_parameter`).
    pub fn validate(&self) -> Result<(), ShapeError> {
        if self.vcpus == 0 || self.vcpus > limits::MAX_VCPUS {
            return Err(ShapeError::Vcpus(self.vcpus));
        }
        if self.memory < limits::MIN_MEMORY || self.memory > limits::MAX_MEMORY {
            return Err(ShapeError::Memory(self.memory));
        }
        if !self.memory.0.is_multiple_of(limits::MEMORY_STEP.0) {
            return Err(ShapeError::MemoryStep(self.memory));
        }
        if self.disk > limits::MAX_DISK {
            return Err(ShapeError::Disk(self.disk));
        }
        if self.extra_disks.len() > limits::MAX_EXTRA_DISKS {
            return Err(ShapeError::ExtraDisks(self.extra_disks.len()));
        }
        let mut names = BTreeSet::new();
        for disk in &self.extra_disks {
            let refused = |why: String| Err(ShapeError::ExtraDisk { name: disk.name.clone(), why });
            if disk.name.as_str().len() > limits::MAX_DISK_NAME {
                let most = limits::MAX_DISK_NAME;
                return refused(format!("has a name of more than {most} bytes"));
            }
            if !names.insert(&disk.name) {
                return refused("is there twice".to_owned());
            }
            if disk.size.0 == 0 || disk.size > limits::MAX_DISK {
                return refused(format!(
                    "has {}, but must have at most {}",
                    disk.size,
                    limits::MAX_DISK
                ));
            }
        }
        Ok(())
    }

    /// Returns a text that is equal for equal shapes: `1c-512m-4096d-1n`, and `+data-1024d` for
    /// each extra disk.
    pub fn key(&self) -> String {
        let root = self.disk.mib();
        let mut key = format!("{}c-{}m-{root}d-{}n", self.vcpus, self.memory.mib(), self.nics);
        for disk in &self.extra_disks {
            key.push_str(&format!("+{}-{}d", disk.name, disk.size.mib()));
        }
        key
    }
}

/// What a saved machine needs to be restored: recorded in every full commit, compared before a
/// restore. Device state is not portable between QEMU versions or accelerators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MachineProfile {
    /// QEMU's version, `MAJOR.MINOR.MICRO`.
    pub qemu_version: String,
    /// QEMU's machine type.
    pub machine: String,
    /// QEMU's CPU model.
    pub cpu: String,
    /// How guest code ran.
    pub accelerator: Accelerator,
}

impl MachineProfile {
    /// Returns what differs from `host`, in words, or `None` when a restore can work.
    pub fn difference(&self, host: &Self) -> Option<String> {
        let rows = [
            ("QEMU", &self.qemu_version, &host.qemu_version),
            ("machine", &self.machine, &host.machine),
            ("CPU", &self.cpu, &host.cpu),
        ];
        let mut parts: Vec<String> = rows
            .iter()
            .filter(|(_, saved, here)| saved != here)
            .map(|(what, saved, here)| format!("{what} {saved} (here {here})"))
            .collect();
        if self.accelerator != host.accelerator {
            parts.push(format!(
                "accelerator {} (here {})",
                self.accelerator.as_str(),
                host.accelerator.as_str()
            ));
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}
