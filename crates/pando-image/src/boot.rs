//! Makes the two files that QEMU loads for a direct boot: `kernel` and `initrd`.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use pando_driver::{ImageError, Reporter};

use crate::initramfs::{self, Module};
use crate::kernel::{self, Packing};
use crate::limits;
use crate::modules::{self, Modules};
use crate::tool::Tool;
use crate::tree::Tree;
use crate::work::{Work, io_error, tree_error};

/// What the initramfs of an image made here needs to find its root disk: the first virtio disk,
/// whole. The init program and what suits the machine are added by whoever starts it.
pub const COMMAND_LINE: &str = "pando.root=/dev/vda pando.rootfstype=ext4";

/// Writes `kernel` into `directory`: the uncompressed one if QEMU can start it, which is half a
/// second faster under TCG, `image` as it is otherwise.
///
/// # Errors
/// `Refused` if this is no kernel at all; `DiskFull`, `Cancelled`, `Io`.
pub async fn write_kernel(
    work: &Work,
    image: Vec<u8>,
    source: &Path,
    directory: &Path,
    reporter: &Reporter,
) -> Result<(), ImageError> {
    let to = directory.join("kernel");
    let payload = kernel::find_payload(&image);
    if payload.is_none() && !kernel::has_pvh_entry(&image) {
        return Err(ImageError::Refused {
            path: source.to_owned(),
            reason: "it is no x86-64 Linux kernel".to_owned(),
        });
    }
    let mut chosen = image;
    if let Some(payload) = payload {
        let packed = chosen.get(payload.range.clone()).unwrap_or_default().to_vec();
        match unpack(work, payload.packing, packed, payload.unpacked_size, reporter).await {
            Ok(bytes)
                if bytes.len() as u64 == payload.unpacked_size && kernel::has_pvh_entry(&bytes) =>
            {
                chosen = bytes;
            }
            Err(ImageError::Cancelled) => return Err(ImageError::Cancelled),
            Ok(_) => tracing::info!(source = %source.display(), "the kernel is booted packed"),
            Err(error) => {
                tracing::info!(source = %source.display(), %error, "the kernel is booted packed");
            }
        }
    }
    work.run(reporter, move |_| {
        std::fs::write(&to, &chosen).map_err(|source| io_error("write the kernel", source))
    })
    .await
}

/// Unpacks a few megabytes with the program for them.
async fn unpack(
    work: &Work,
    packing: Packing,
    packed: Vec<u8>,
    limit: u64,
    reporter: &Reporter,
) -> Result<Vec<u8>, ImageError> {
    let files = move |work: &Work| -> std::io::Result<(File, File, File)> {
        let mut input = tempfile::tempfile_in(work.path())?;
        input.write_all(&packed)?;
        input.rewind()?;
        let output = tempfile::tempfile_in(work.path())?;
        let writer = output.try_clone()?;
        Ok((input, output, writer))
    };
    let (input, mut output, writer) = work
        .run(reporter, move |work| {
            files(work).map_err(|source| io_error("make a scratch file", source))
        })
        .await?;
    let (program, package) = packing.unpacker();
    // A file that unpacks to more than it may is stopped by its size limit, not by a full disk.
    Tool::new(program, package)
        .args(["-d", "-c"])
        .stdin(input)
        .stdout(writer)
        .file_limit(limit)
        .run(limits::LOCAL_DEADLINE, reporter)
        .await?;
    work.run(reporter, move |_| {
        let mut read = || -> std::io::Result<Vec<u8>> {
            output.rewind()?;
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut output, &mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|source| io_error("read an unpacked file", source))
    })
    .await
}

/// What an initramfs is made of.
#[derive(Debug, Clone, Copy)]
pub struct InitrdSources<'a> {
    /// The root file system.
    pub tree: &'a Tree,
    /// Where in it the kernel's modules are, with `modules.dep`; none if the kernel has all inside.
    pub modules: Option<&'a Path>,
    /// The guest program, on this machine.
    pub guest_program: &'a Path,
    /// What to call all this when it is refused.
    pub name: &'a Path,
}

/// Writes `initrd` into `directory`: the guest program, and the modules that it loads.
///
/// # Errors
/// `Refused` if a driver is missing; `DiskFull`, `Cancelled`, `Io`.
pub async fn write_initrd(
    work: &Work,
    sources: InitrdSources<'_>,
    directory: &Path,
    reporter: &Reporter,
) -> Result<(), ImageError> {
    let InitrdSources { tree, modules, guest_program, name: source } = sources;
    let mut loaded = Vec::new();
    if let Some(modules) = modules {
        for path in choose_modules(tree, modules, source)? {
            loaded.push(read_module(work, tree, &modules.join(&path), reporter).await?);
        }
    }
    let guest_program = guest_program.to_owned();
    let source = source.to_owned();
    let to = directory.join("initrd");
    work.run(reporter, move |_| {
        let program = std::fs::read(&guest_program)
            .map_err(|source| io_error(format!("read {}", guest_program.display()), source))?;
        let archive = initramfs::assemble(program, loaded)
            .map_err(|error| ImageError::Refused { path: source, reason: error.to_string() })?;
        std::fs::write(&to, archive).map_err(|source| io_error("write the initramfs", source))
    })
    .await
}

fn choose_modules(
    tree: &Tree,
    modules_at: &Path,
    source: &Path,
) -> Result<Vec<String>, ImageError> {
    let text = |name: &str| -> Result<String, ImageError> {
        let read = tree.read(modules_at.join(name), limits::MAX_TEXT_BYTES);
        let bytes = read.map_err(|error| tree_error(source, error))?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let modules = Modules::parse(&text("modules.dep")?, &text("modules.builtin")?);
    let chosen = modules.for_initramfs().map_err(|error| ImageError::Refused {
        path: source.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(chosen.into_iter().map(str::to_owned).collect())
}

async fn read_module(
    work: &Work,
    tree: &Tree,
    path: &PathBuf,
    reporter: &Reporter,
) -> Result<Module, ImageError> {
    let refuse =
        |reason: &str| ImageError::Refused { path: path.clone(), reason: reason.to_owned() };
    let bytes = tree
        .read(path, limits::MAX_MODULE_BYTES)
        .map_err(|error| tree_error(path, error))?
        .ok_or_else(|| refuse("the list of modules names it and it is not there"))?;
    let bytes = match Packing::of(&bytes) {
        Some(packing) => unpack(work, packing, bytes, limits::MAX_MODULE_BYTES, reporter).await?,
        None => bytes,
    };
    if !bytes.starts_with(b"\x7fELF") {
        return Err(refuse("it is no kernel module"));
    }
    Ok(Module { name: modules::name_of(&path.to_string_lossy()), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        let dep = "a/virtio_blk.ko.gz:\na/virtio_pci.ko:\na/virtio_console.ko:\na/ext4.ko:\n";
        tree.add_text("m/modules.dep", 0o644, dep).unwrap();
        for name in ["virtio_pci", "virtio_console", "ext4"] {
            tree.add_text(format!("m/a/{name}.ko"), 0o644, b"\x7fELF module").unwrap();
        }
        tree
    }

    async fn initrd(tree: &Tree) -> Result<Vec<u8>, ImageError> {
        let directory = tempfile::tempdir().unwrap();
        let work = Work::new(directory.path()).unwrap();
        let program = directory.path().join("guest");
        std::fs::write(&program, b"the guest program").unwrap();
        let sources = InitrdSources {
            tree,
            modules: Some(Path::new("m")),
            guest_program: &program,
            name: Path::new("source"),
        };
        write_initrd(&work, sources, directory.path(), &Reporter::silent()).await?;
        Ok(std::fs::read(directory.path().join("initrd")).unwrap())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        // One stored block: the smallest gzip writer there is, its checksum included.
        let size = u16::try_from(bytes.len()).unwrap();
        let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
        packed.extend_from_slice(&size.to_le_bytes());
        packed.extend_from_slice(&(!size).to_le_bytes());
        packed.extend_from_slice(bytes);
        packed.extend_from_slice(&crc32(bytes).to_le_bytes());
        packed.extend_from_slice(&u32::from(size).to_le_bytes());
        packed
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0xedb8_8320 & (!(crc & 1)).wrapping_add(1))
            })
        })
    }

    #[tokio::test]
    async fn packed_modules_are_unpacked() {
        let mut tree = tree();
        tree.add_text("m/a/virtio_blk.ko.gz", 0o644, gzip(b"\x7fELF was packed")).unwrap();
        let archive = initrd(&tree).await.unwrap();
        let text = String::from_utf8_lossy(&archive);
        for wanted in ["the guest program", "was packed", "/lib/modules/virtio_blk.ko\n"] {
            assert!(text.contains(wanted), "{wanted}");
        }
    }

    #[tokio::test]
    async fn hostile_modules_are_refused() {
        for module in [&b"not a module"[..], &gzip(b"not a module"), b"\x1f\x8bnot gzip"] {
            let mut tree = tree();
            tree.add_text("m/a/virtio_blk.ko.gz", 0o644, module).unwrap();
            assert!(initrd(&tree).await.is_err());
        }
        let mut missing = tree();
        missing.remove("m/a/ext4.ko");
        assert!(matches!(initrd(&missing).await, Err(ImageError::Refused { .. })));
    }

    #[tokio::test]
    async fn what_is_no_kernel_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let work = Work::new(directory.path()).unwrap();
        let image = b"#!/bin/sh\n".repeat(1000);
        let source = Path::new("vmlinuz");
        let refused =
            write_kernel(&work, image, source, directory.path(), &Reporter::silent()).await;
        assert!(matches!(refused, Err(ImageError::Refused { .. })));
    }
}
