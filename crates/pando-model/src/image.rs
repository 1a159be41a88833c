//! Images: immutable bootable bases, and their ready states.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{CommitId, ImageId};
use crate::machine::NodeShape;
use crate::name::Name;
use crate::units::ByteCount;

/// How a machine of an image starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum BootMethod {
    /// QEMU loads `kernel` and `initrd` from the image's directory. The initramfs is ours: it
    /// starts the guest program, mounts the root disk and runs its init.
    Direct {
        /// Kernel command line, without the parts that pando adds.
        cmdline: String,
    },
    /// UEFI firmware boots the disk; the variable store is a disk layer of its own.
    Uefi,
    /// SeaBIOS boots the disk.
    Bios,
}

/// The record of an image; its files are in [`crate::Layout::image`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Derived from `digest`.
    pub id: ImageId,
    /// The name that people use; unique, movable to a newer image.
    pub name: Name,
    /// BLAKE3 of the manifest that lists every file with its own digest, in hex.
    pub digest: String,
    /// How it starts.
    pub boot: BootMethod,
    /// Virtual size of its root disk.
    pub disk_size: ByteCount,
    /// Bytes that its files take on the host.
    pub stored: ByteCount,
    /// What runs as process 1: "systemd", or the path of the init program.
    pub init: String,
    /// Where it came from: release and packages, or the imported file's name.
    pub origin: String,
    /// When it was added.
    pub created_at: Timestamp,
}

/// The full commit that nodes of one shape start from, warm. It holds no identity: taken with the
/// links down, without machine-id, host keys and addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyState {
    /// Whose ready state it is.
    pub image: ImageId,
    /// For which hardware.
    pub shape: NodeShape,
    /// The commit to branch from.
    pub commit: CommitId,
    /// Under which accelerator and QEMU it was taken, as one comparable text.
    pub profile_key: String,
    /// When it was taken.
    pub created_at: Timestamp,
}
