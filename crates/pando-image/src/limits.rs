//! Limits of the image builder: value, unit, reason.

use std::time::Duration;

/// Longest bootstrap of a distribution: a slow mirror and a slow machine, but not for ever.
pub const BOOTSTRAP_DEADLINE: Duration = Duration::from_secs(45 * 60);
/// Longest download of package lists or of a kernel package.
pub const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(20 * 60);
/// Longest run of a program that only reads and writes local files.
pub const LOCAL_DEADLINE: Duration = Duration::from_secs(20 * 60);
/// Longest look at a hostile file; it reads a few headers.
pub const INSPECT_DEADLINE: Duration = Duration::from_secs(20);
/// How long mmdebstrap may tidy up after it was asked to stop, where it has no namespaces that end
/// with it.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// How often it is looked whether a stopping program has ended.
pub const STOP_POLL: Duration = Duration::from_millis(20);
/// Most bytes that a program's standard output is kept of: package lists of one name.
pub const MAX_CAPTURE_BYTES: usize = 4 << 20;
/// Most lines of a program's standard error that an error shows.
pub const MAX_ERROR_LINES: usize = 12;
/// Longest line that is kept of a program's standard error, in bytes.
pub const MAX_LINE_BYTES: usize = 400;
/// Address space of a program that looks at a hostile disk image, in bytes.
pub const INSPECT_MEMORY_BYTES: u64 = 2 << 30;

/// Most entries of a root file system: several times a full desktop installation.
pub const MAX_TREE_ENTRIES: usize = 2_000_000;
/// Most bytes of all files of a root file system together.
pub const MAX_TREE_BYTES: u64 = 256 << 30;
/// Longest path in a root file system, in bytes: the guest kernel's PATH_MAX.
pub const MAX_PATH_BYTES: usize = 4096;
/// Longest component of a path, in bytes: ext4's own limit.
pub const MAX_NAME_BYTES: usize = 255;
/// Deepest directory of a root file system.
pub const MAX_PATH_DEPTH: usize = 128;
/// Largest kernel that is read into memory, packed or not, in bytes.
pub const MAX_KERNEL_BYTES: u64 = 256 << 20;
/// Largest kernel module, unpacked, in bytes.
pub const MAX_MODULE_BYTES: u64 = 64 << 20;
/// Largest text file that is read from a root file system (modules.dep and the like), in bytes.
pub const MAX_TEXT_BYTES: u64 = 16 << 20;
/// Largest manifest, in bytes.
pub const MAX_MANIFEST_BYTES: u64 = 1 << 20;
/// Most files of one image.
pub const MAX_PARTS: usize = 16;
/// Most packages that one build adds.
pub const MAX_PACKAGES: usize = 500;
/// Most bytes of downloaded packages that are kept for the next build.
pub const MAX_PACKAGE_CACHE_BYTES: u64 = 768 << 20;

/// Smallest root disk, in bytes: the default image and room to work.
pub const MIN_DISK_BYTES: u64 = 512 << 20;
/// Room that a root disk must have beyond the files put on it, in bytes.
pub const DISK_SLACK_BYTES: u64 = 128 << 20;
/// Largest file system made here, in bytes; the guest grows it to a larger disk at first boot.
/// Bounds what the empty metadata of a huge disk costs in every image.
pub const MAX_MADE_FS_BYTES: u64 = 32 << 30;
/// Journal of the root file system, in MiB: smaller boots faster, and replays in no time.
pub const JOURNAL_MIB: u32 = 16;
/// Largest disk that is imported, in bytes: more than any published image.
pub const MAX_IMPORTED_DISK_BYTES: u64 = 16 << 40;
/// Largest archive of a root file system, unpacked, in bytes.
pub const MAX_ARCHIVE_BYTES: u64 = 64 << 30;
/// Address space of a program that converts a hostile disk image, in bytes: it keeps the tables of
/// a disk of [`MAX_IMPORTED_DISK_BYTES`] in memory.
pub const CONVERT_MEMORY_BYTES: u64 = 4 << 30;
/// Bytes of a file that are read at once: enough to keep the digests busy.
pub const READ_BYTES: usize = 1 << 20;
/// How far a file is read between two reports of it, in bytes; a multiple of [`READ_BYTES`].
pub const PROGRESS_BYTES: u64 = 64 << 20;
/// Longest path of an init program, in bytes; it becomes a part of the kernel command line.
pub const MAX_INIT_BYTES: usize = 200;
/// Free room that a root file system of unstated size gets, in bytes.
pub const DEFAULT_ROOM_BYTES: u64 = 4 << 30;
/// Files of a seed disk together, in bytes: user data, and the guest program.
pub const MAX_SEED_BYTES: usize = 64 << 20;
