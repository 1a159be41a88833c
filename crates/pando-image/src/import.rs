//! Imports what others made: a disk that boots by itself, or a root file system with a kernel.
//! Both are hostile until they have been looked at.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pando_driver::images::{FirmwareKind, ImportSource, ImportSpec};
use pando_driver::{ImageError, Reporter};
use pando_model::{BootMethod, ByteCount, Image};
use sha2::{Digest, Sha256};

use crate::manifest::Facts;
use crate::qcow2::{self, Format};
use crate::store::{self, Draft};
use crate::tool::Tool;
use crate::work::{Work, io_error};
use crate::{ImageConfig, disk, limits, rootfs};

/// Empty variable stores of the firmware that keepers start, in the same order of preference.
const UEFI_VARIABLES: &[&str] = &["usr/share/OVMF/OVMF_VARS_4M.fd", "usr/share/OVMF/OVMF_VARS.fd"];

/// Imports an image.
///
/// # Errors
/// See [`pando_driver::Images::import`].
pub async fn import(
    config: &ImageConfig,
    spec: &ImportSpec,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    let work = Work::new(&config.layout.tmp())?;
    let made = match &spec.source {
        ImportSource::Disk { path, firmware } => {
            import_disk(config, spec, path, *firmware, &work, reporter).await
        }
        ImportSource::RootFs { path, kernel, modules, init } => {
            let parts =
                rootfs::Parts { path, kernel, modules: modules.as_deref(), init: init.as_deref() };
            rootfs::import(config, spec, parts, &work, reporter).await
        }
    };
    work.remove().await;
    made
}

/// A file whose bytes were seen once, and by what it is known to be the same still.
pub struct Witness {
    path: PathBuf,
    identity: [i64; 6],
    /// BLAKE3 of its bytes.
    pub blake3: blake3::Hash,
    /// Its first bytes.
    pub head: Vec<u8>,
    /// Its size.
    pub size: u64,
}

impl Witness {
    /// Reads a file once: its digests and its first bytes. `sha256` is what it must have, in hex.
    ///
    /// # Errors
    /// `Checksum`, `Refused` if it is no regular file, `Invalid` if `sha256` is no checksum,
    /// `Cancelled`, `Io`.
    pub fn read(
        path: &Path,
        sha256: Option<&str>,
        reporter: &Reporter,
    ) -> Result<Self, ImageError> {
        let expected = sha256.map(check_sha256).transpose()?;
        let failed = |source| io_error(format!("read {}", path.display()), source);
        let mut file = open_regular(path)?;
        let facts = file.metadata().map_err(failed)?;
        let size = facts.len();
        let (mut blake3, mut sha256) = (blake3::Hasher::new(), Sha256::new());
        let mut head = Vec::new();
        let mut buffer = vec![0; limits::READ_BYTES];
        let mut done: u64 = 0;
        loop {
            if reporter.is_cancelled() {
                return Err(ImageError::Cancelled);
            }
            let count = file.read(&mut buffer).map_err(failed)?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            blake3.update(bytes);
            if expected.is_some() {
                sha256.update(bytes);
            }
            let missing = qcow2::HEAD_BYTES.saturating_sub(head.len());
            head.extend(bytes.iter().take(missing));
            if done.is_multiple_of(limits::PROGRESS_BYTES) {
                reporter.report("reading the file", done, size);
            }
            done += count as u64;
        }
        if let Some(expected) = expected {
            let actual: String =
                sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            if actual != expected {
                return Err(ImageError::Checksum { path: path.to_owned(), expected, actual });
            }
        }
        let path = path.to_owned();
        Ok(Self { path, identity: identity(&facts), blake3: blake3.finalize(), head, size })
    }

    /// Checks that the file has not changed since it was read, as far as its file system tells.
    ///
    /// # Errors
    /// `Refused` if it has.
    pub fn check(&self) -> Result<(), ImageError> {
        let same = std::fs::metadata(&self.path).is_ok_and(|now| identity(&now) == self.identity);
        if same { Ok(()) } else { Err(refused(&self.path, "it changed while it was imported")) }
    }
}

fn identity(facts: &Metadata) -> [i64; 6] {
    [
        facts.dev().cast_signed(),
        facts.ino().cast_signed(),
        facts.len().cast_signed(),
        facts.mtime(),
        facts.mtime_nsec(),
        facts.ctime().wrapping_mul(1_000_000_000).wrapping_add(facts.ctime_nsec()),
    ]
}

/// Opens a file that must be a regular one; a pipe or a device would be waited for.
///
/// # Errors
/// `Refused`, `Io`.
pub fn open_regular(path: &Path) -> Result<File, ImageError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => refused(path, "there is no such file"),
        _ => io_error(format!("open {}", path.display()), source),
    };
    let flags = rustix::fs::OFlags::RDONLY
        | rustix::fs::OFlags::NONBLOCK
        | rustix::fs::OFlags::NOCTTY
        | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
        .map_err(|errno| failed(errno.into()))?;
    let file = File::from(file);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(refused(path, "it is no regular file"));
    }
    Ok(file)
}

fn check_sha256(text: &str) -> Result<String, ImageError> {
    let text = text.trim().to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text);
    }
    Err(ImageError::Invalid("a SHA-256 has 64 hexadecimal digits".to_owned()))
}

/// Returns the error for a file that is not taken.
pub fn refused(path: &Path, reason: impl Into<String>) -> ImageError {
    ImageError::Refused { path: path.to_owned(), reason: reason.into() }
}

async fn import_disk(
    config: &ImageConfig,
    spec: &ImportSpec,
    path: &Path,
    firmware: FirmwareKind,
    work: &Work,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    let (read, sha256, told) = (path.to_owned(), spec.sha256.clone(), reporter.clone());
    let witness =
        work.run(reporter, move |_| Witness::read(&read, sha256.as_deref(), &told)).await?;
    let format = qcow2::inspect(&witness.head, witness.size)
        .map_err(|error| refused(path, error.to_string()))?;
    let (format_name, own_size) = match format {
        Format::Qcow2 { virtual_size } => ("qcow2", virtual_size),
        Format::Raw => ("raw", witness.size),
    };
    let own_size = ByteCount(own_size.next_multiple_of(512));
    let disk_size = spec.disk_size.unwrap_or(own_size);
    if disk_size < own_size || disk_size > pando_model::limits::MAX_DISK {
        return Err(ImageError::Invalid(format!(
            "a disk of {disk_size} is not between the image's own {own_size} and {}",
            pando_model::limits::MAX_DISK
        )));
    }
    let variables = match firmware {
        FirmwareKind::Uefi => Some(find_variables(&config.system_root)?),
        FirmwareKind::Bios => None,
    };
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let facts = Facts {
        name: spec.name.clone(),
        boot: if variables.is_some() { BootMethod::Uefi } else { BootMethod::Bios },
        disk_size,
        init: "systemd".to_owned(),
        origin: format!("disk {}", file_name.unwrap_or_default()),
    };

    let out = work.directory("out")?;
    if let Some(variables) = &variables {
        disk::convert(variables, "raw", &out.join("vars.qcow2"), reporter).await?;
    }
    let content =
        blake3::hash(format!("pando disk 1\n{format_name}\n{}\n", witness.blake3).as_bytes());
    let variables_content = variables.as_deref().map(hash_variables).transpose()?;
    if let Some(image) = find_disk(config, &facts, content, variables_content) {
        return Ok(image);
    }
    let disk = out.join("disk.qcow2");
    check_readable(path, format_name, reporter).await?;
    reporter.report("converting the disk", 0, 0);
    disk::convert(path, format_name, &disk, reporter).await?;
    witness.check()?;
    if disk_size > own_size {
        disk::resize(&disk, disk_size, reporter).await?;
    }
    reporter.report("publishing the image", 0, 0);
    let layout = config.layout.clone();
    work.run(reporter, move |_| {
        let mut drafts = vec![Draft { name: "disk.qcow2", content: Some(content) }];
        if variables_content.is_some() {
            drafts.push(Draft { name: "vars.qcow2", content: variables_content });
        }
        store::publish(&layout, &out, &drafts, facts)
    })
    .await
}

/// Lets `qemu-img` look at the disk, confined: what it cannot read in little memory and time is
/// not converted either, and it must see what we saw.
async fn check_readable(
    path: &Path,
    format: &'static str,
    reporter: &Reporter,
) -> Result<(), ImageError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Info {
        format: String,
        #[serde(default)]
        backing_filename: Option<String>,
        #[serde(default)]
        encrypted: bool,
        #[serde(default)]
        snapshots: Vec<serde_json::Value>,
    }
    let looked = Tool::new("qemu-img", "qemu-utils")
        .args(["info", "--output=json", "-f", format, "--"])
        .arg(path)
        .memory_limit(limits::INSPECT_MEMORY_BYTES)
        .run(limits::INSPECT_DEADLINE, reporter)
        .await;
    let output = match looked {
        Ok(output) => output,
        Err(ImageError::ToolFailed { detail, .. }) => {
            return Err(refused(path, format!("qemu-img cannot read it: {detail}")));
        }
        Err(error) => return Err(error),
    };
    let info: Info = serde_json::from_slice(&output)
        .map_err(|_| refused(path, "qemu-img does not understand it"))?;
    if info.format != format || info.backing_filename.is_some() || info.encrypted {
        return Err(refused(path, "qemu-img takes it for something else"));
    }
    if !info.snapshots.is_empty() {
        return Err(refused(path, "it has snapshots inside, which would be lost"));
    }
    Ok(())
}

fn find_variables(system_root: &Path) -> Result<PathBuf, ImageError> {
    UEFI_VARIABLES.iter().map(|path| system_root.join(path)).find(|path| path.is_file()).ok_or_else(
        || ImageError::ToolMissing { tool: "UEFI firmware".to_owned(), package: "ovmf".to_owned() },
    )
}

fn hash_variables(path: &Path) -> Result<blake3::Hash, ImageError> {
    // Debian has links there.
    let path = path
        .canonicalize()
        .map_err(|source| io_error(format!("read {}", path.display()), source))?;
    let (_, hash) = store::hash_file(&path)
        .map_err(|source| io_error(format!("read {}", path.display()), source))?;
    Ok(hash)
}

fn find_disk(
    config: &ImageConfig,
    facts: &Facts,
    disk: blake3::Hash,
    variables: Option<blake3::Hash>,
) -> Option<Image> {
    let disk = disk.to_hex();
    let variables = variables.map(|hash| hash.to_hex());
    let mut contents = vec![("disk.qcow2", disk.as_str())];
    if let Some(variables) = &variables {
        contents.push(("vars.qcow2", variables.as_str()));
    }
    store::find_content(&config.layout, facts, &contents)
}
