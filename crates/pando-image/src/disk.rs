//! Makes the root disk of a directly booted image: an ext4 file system filled from a [`Tree`],
//! inside a qcow2 file.
//!
//! No root is needed: files are unpacked, and the file system is filled, under one fakeroot state.
//! Everything that a guest would otherwise initialise in the background is done here, once.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use pando_driver::{ImageError, Reporter};
use pando_model::ByteCount;

use crate::limits;
use crate::tool::{Tool, find};
use crate::tree::Tree;
use crate::work::{Work, io_error, tree_error};

/// A tree written as an archive, and what that archive's digest is.
pub struct Packed {
    /// The archive.
    pub archive: PathBuf,
    /// BLAKE3 of the archive: equal trees have equal digests.
    pub digest: blake3::Hash,
    /// Bytes of the files in it.
    pub bytes: u64,
}

/// Writes a tree as an archive; no time in it is later than `newest`.
///
/// # Errors
/// `Refused` if a file changed since the tree was read; `DiskFull`, `Io`.
pub fn pack(work: &Work, tree: &Tree, newest: u64) -> Result<Packed, ImageError> {
    let archive = work.join("root.tar");
    let file = File::create_new(&archive)
        .map_err(|source| io_error(format!("make {}", archive.display()), source))?;
    let mut hashed = Hashed { to: BufWriter::new(file), hasher: blake3::Hasher::new() };
    tree.write_tar(&mut hashed, newest).map_err(|error| tree_error(&archive, error))?;
    Ok(Packed { archive, digest: hashed.hasher.finalize(), bytes: tree.bytes() })
}

struct Hashed<W> {
    to: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// What identifies a root disk made here, whatever its file's bytes are: mke2fs stores the order in
/// which the host's file system lists names, so that equal disks differ in their bytes.
pub fn content_digest(packed: &Packed, size: ByteCount) -> blake3::Hash {
    let text = format!("pando root disk 1\n{}\n{}\n", size.bytes(), packed.digest.to_hex());
    blake3::hash(text.as_bytes())
}

/// Refuses a disk that its files would not fit on.
///
/// # Errors
/// `Invalid`.
pub fn check_size(size: ByteCount, bytes: u64) -> Result<(), ImageError> {
    // Blocks, inodes and directories cost about a tenth more than the bytes of the files.
    let needed = bytes
        .saturating_add(bytes / 10)
        .saturating_add(limits::DISK_SLACK_BYTES)
        .max(limits::MIN_DISK_BYTES);
    if size < ByteCount(needed) || size > pando_model::limits::MAX_DISK {
        return Err(ImageError::Invalid(format!(
            "a root disk of {size} is not between {} and {}",
            ByteCount(needed),
            pando_model::limits::MAX_DISK
        )));
    }
    Ok(())
}

/// Makes `disk.qcow2` in `directory`.
///
/// # Errors
/// `ToolMissing`, `ToolFailed`, `DiskFull`, `Cancelled`, `Io`.
pub async fn make_root_disk(
    work: &Work,
    packed: &Packed,
    size: ByteCount,
    directory: &Path,
    reporter: &Reporter,
) -> Result<(), ImageError> {
    let root = work.directory("root")?;
    let state = work.join("fakeroot.state");
    let raw = work.join("disk.raw");
    let made_size = size.bytes().min(limits::MAX_MADE_FS_BYTES);
    File::create_new(&raw)
        .and_then(|file| file.set_len(made_size))
        .map_err(|source| io_error(format!("make {}", raw.display()), source))?;

    reporter.report("unpacking files", 0, 0);
    Tool::new("fakeroot", "fakeroot")
        .arg("-s")
        .arg(&state)
        .arg("--")
        .arg(find("tar", "tar")?)
        .args(["--extract", "--same-owner", "--preserve-permissions", "--numeric-owner", "--file"])
        .arg(&packed.archive)
        .arg("--directory")
        .arg(&root)
        .run(limits::LOCAL_DEADLINE, reporter)
        .await?;

    reporter.report("making the file system", 0, 0);
    let identity = content_digest(packed, size);
    Tool::new("fakeroot", "fakeroot")
        .arg("-i")
        .arg(&state)
        .arg("--")
        .arg(find("mkfs.ext4", "e2fsprogs")?)
        .args(mkfs_options(&identity))
        .arg("-d")
        .arg(&root)
        .arg(&raw)
        .run(limits::LOCAL_DEADLINE, reporter)
        .await?;

    reporter.report("making the disk", 0, 0);
    let disk = directory.join("disk.qcow2");
    convert(&raw, "raw", &disk, reporter).await?;
    if size.bytes() > made_size {
        resize(&disk, size, reporter).await?;
    }
    // A gigabyte of scratch is not kept until the image is published.
    work.run(reporter, |work| {
        let _ = std::fs::remove_dir_all(work.join("root"));
        let _ = std::fs::remove_file(work.join("disk.raw"));
        Ok(())
    })
    .await
}

/// Identifiers come from the content, so that nothing random is in the file system.
fn mkfs_options(identity: &blake3::Hash) -> Vec<String> {
    let uuid = |bytes: &[u8]| {
        let hex: String = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
        [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
    };
    let (volume, seed) = identity.as_bytes().split_at(16);
    let extended =
        format!("hash_seed={},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", uuid(seed));
    let journal = format!("size={}", limits::JOURNAL_MIB);
    ["-q", "-F", "-L", "pando-root", "-m", "0", "-b", "4096", "-I", "256", "-U"]
        .map(str::to_owned)
        .into_iter()
        .chain([uuid(volume), "-E".to_owned(), extended, "-J".to_owned(), journal])
        // Features newer than the oldest kernel that an imported root file system may bring.
        .chain(["-O", "^metadata_csum_seed,^orphan_file"].map(str::to_owned))
        .collect()
}

/// Copies a disk of a stated format into a fresh qcow2 file.
///
/// # Errors
/// `ToolMissing`, `ToolFailed`, `DiskFull`, `Cancelled`.
pub async fn convert(
    from: &Path,
    format: &'static str,
    to: &Path,
    reporter: &Reporter,
) -> Result<(), ImageError> {
    Tool::new("qemu-img", "qemu-utils")
        .args(["convert", "-f", format, "-O", "qcow2", "-o", "cluster_size=64k", "--"])
        .arg(from)
        .arg(to)
        .memory_limit(limits::CONVERT_MEMORY_BYTES)
        .run(limits::LOCAL_DEADLINE, reporter)
        .await
        .map(drop)
}

/// Gives a qcow2 disk another virtual size.
///
/// # Errors
/// `ToolMissing`, `ToolFailed`, `DiskFull`, `Cancelled`.
pub async fn resize(disk: &Path, size: ByteCount, reporter: &Reporter) -> Result<(), ImageError> {
    Tool::new("qemu-img", "qemu-utils")
        .args(["resize", "-f", "qcow2", "--"])
        .arg(disk)
        .arg(size.bytes().to_string())
        .run(limits::LOCAL_DEADLINE, reporter)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_must_hold_its_files() {
        let gib = |count| ByteCount::from_gib(count);
        assert!(check_size(gib(4), 1 << 30).is_ok());
        assert!(check_size(gib(1), 1 << 30).is_err());
        assert!(check_size(ByteCount::from_mib(100), 10).is_err());
        assert!(check_size(gib(100_000), 10).is_err());
    }

    #[test]
    fn identifiers_follow_the_content() {
        let options = |text: &[u8]| mkfs_options(&blake3::hash(text));
        assert_eq!(options(b"a"), options(b"a"));
        assert_ne!(options(b"a"), options(b"b"));
    }
}
