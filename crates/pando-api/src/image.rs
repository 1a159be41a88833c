//! Images: parameters and results of the `image_*` verbs.

use jiff::Timestamp;
use pando_model::{ImageId, Name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::page::{Page, default_limit};

fn default_name() -> String {
    "default".to_owned()
}

const fn default_disk() -> u64 {
    4
}

const fn uefi() -> Firmware {
    Firmware::Uefi
}

/// Build an image from a Debian release's packages and its cloud kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageBuildParams {
    /// Its name; moves if it named another image.
    #[serde(default = "default_name")]
    pub name: String,
    /// Debian release, such as `bookworm`; the host's own if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Packages beyond the base.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// Package mirror; the one that this host uses if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// Size of the root disk, in GiB; it takes only what is written.
    #[serde(default = "default_disk")]
    #[schemars(range(min = 1, max = pando_model::limits::MAX_DISK.gib()))]
    pub disk_gib: u64,
}

/// What a file is that is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImportKind {
    /// A disk image (qcow2 or raw) that boots by itself, such as a cloud image.
    Disk,
    /// A root file system, as tarball or directory, with a kernel beside it.
    Rootfs,
}

/// What boots a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// UEFI.
    Uefi,
    /// BIOS.
    Bios,
}

/// Import an image: a disk or cloud image, or a root file system with a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageImportParams {
    /// Its name; moves if it named another image.
    pub name: Name,
    /// The file or directory on this host, as an absolute path.
    pub path: String,
    /// What it is.
    pub kind: ImportKind,
    /// What boots a disk.
    #[serde(default = "uefi")]
    pub firmware: Firmware,
    /// The kernel of a root file system, as an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Directory of that kernel's modules; looked for in the root file system if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<String>,
    /// Path of a root file system's init program; looked for if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// SHA-256 that the file must have, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Size of the root disk, in GiB; the source's own if left out, never less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = pando_model::limits::MAX_DISK.gib()))]
    pub disk_gib: Option<u64>,
}

/// A ready state of an image: machines of this shape start warm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReadyView {
    /// Virtual CPUs.
    pub vcpus: u8,
    /// RAM, in MiB.
    pub memory_mib: u64,
    /// Size of the root disk, in GiB, rounded up.
    pub disk_gib: u64,
    /// Network interfaces.
    pub nics: u8,
    /// Bytes that it takes.
    pub size_bytes: u64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageView {
    /// Named after its content.
    pub image_id: ImageId,
    /// Its name.
    pub name: String,
    /// Its content's BLAKE3, in hex.
    pub digest: String,
    /// How it boots: `direct`, `uefi` or `bios`.
    pub boot: String,
    /// What runs as process 1: `systemd`, or the init program's path.
    pub init: String,
    /// Where it came from.
    pub origin: String,
    /// Size of its root disk, in GiB, rounded up.
    pub disk_gib: u64,
    /// Bytes that its files take.
    pub size_bytes: u64,
    /// Machines that were made from it.
    pub machines: u32,
    /// Its ready states.
    pub ready: Vec<ReadyView>,
    /// When it was added.
    pub created_at: Timestamp,
}

/// List images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageListParams {
    /// Most images to return.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = crate::limits::MAX_PAGE))]
    pub limit: u32,
    /// `next_cursor` of an earlier result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Some images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageListResult {
    /// Sorted by name.
    pub images: Vec<ImageView>,
    /// How much of the list this is.
    #[serde(flatten)]
    pub page: Page,
}

/// Show one image with its ready states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageShowParams {
    /// Name or id.
    pub image: String,
}

/// Remove an image and its ready states. Refused while machines are made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageRemoveParams {
    /// Name or id.
    pub image: String,
    /// Also when stopped machines are made of it: they lose their disks.
    #[serde(default)]
    pub force: bool,
}

/// An image that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageRemoveResult {
    /// The image.
    pub image_id: ImageId,
    /// Its name.
    pub name: String,
    /// Bytes that were freed.
    pub freed_bytes: u64,
    /// Ready states that went with it.
    pub removed_ready_states: u32,
}
