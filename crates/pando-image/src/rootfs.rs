//! Imports a root file system, an archive or a directory, with a kernel to boot it.

use std::fs::File;
use std::path::{Path, PathBuf};

use pando_driver::images::ImportSpec;
use pando_driver::{ImageError, Reporter};
use pando_model::{BootMethod, ByteCount, Image};

use crate::bootstrap::{add_subtree, finish};
use crate::import::{Witness, open_regular, refused};
use crate::kernel::{self, Packing};
use crate::manifest::Facts;
use crate::tool::Tool;
use crate::tree::{self, Kind, Tree};
use crate::work::{Work, io_error, tree_error};
use crate::{ImageConfig, boot, limits};

/// Where an init program is looked for, in this order.
const INITS: &[&str] = &["/sbin/init", "/lib/systemd/systemd", "/init", "/bin/init"];

/// The init of an image that has none: the guest program runs as process 1 itself.
pub const NO_INIT: &str = "none";

/// What a root file system is imported from.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The archive or directory.
    pub path: &'a Path,
    /// A kernel image.
    pub kernel: &'a Path,
    /// Directory of its modules.
    pub modules: Option<&'a Path>,
    /// Path of the init program, inside.
    pub init: Option<&'a str>,
}

/// Imports a root file system.
///
/// # Errors
/// See [`pando_driver::Images::import`].
pub async fn import(
    config: &ImageConfig,
    spec: &ImportSpec,
    parts: Parts<'_>,
    work: &Work,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    let kernel = read_kernel(work, parts.kernel, reporter).await?;
    let mut tree = read_root(work, spec, parts.path, reporter).await?;
    let init = match parts.init {
        Some(given) => check_init(&tree, parts.path, given)?,
        None => find_init(&tree).unwrap_or(NO_INIT).to_owned(),
    };
    let modules_at = match parts.modules {
        Some(directory) => Some(add_modules(work, &mut tree, directory, reporter).await?),
        None => find_modules(&tree, kernel::release(&kernel)),
    };
    let disk_size = spec.disk_size.unwrap_or_else(|| {
        let wanted = tree.bytes().saturating_mul(2).saturating_add(limits::DEFAULT_ROOM_BYTES);
        ByteCount(wanted.next_multiple_of(1 << 30))
    });

    let out = work.directory("out")?;
    boot::write_kernel(work, kernel, parts.kernel, &out, reporter).await?;
    let sources = boot::InitrdSources {
        tree: &tree,
        modules: modules_at.as_deref(),
        guest_program: &config.guest_program,
        name: parts.path,
    };
    boot::write_initrd(work, sources, &out, reporter).await?;
    let file_name = parts.path.file_name().map(|name| name.to_string_lossy().into_owned());
    let facts = Facts {
        name: spec.name.clone(),
        boot: BootMethod::Direct { cmdline: boot::COMMAND_LINE.to_owned() },
        disk_size,
        init,
        origin: format!("root file system {}", file_name.unwrap_or_default()),
    };
    finish(config, work, tree, u64::MAX, &out, facts, reporter).await
}

async fn read_kernel(work: &Work, path: &Path, reporter: &Reporter) -> Result<Vec<u8>, ImageError> {
    let path = path.to_owned();
    work.run(reporter, move |_| read_bounded(&path, limits::MAX_KERNEL_BYTES)).await
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, ImageError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| io_error(format!("read {}", path.display()), source))?;
    if bytes.len() as u64 > limit {
        return Err(refused(path, format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

async fn read_root(
    work: &Work,
    spec: &ImportSpec,
    path: &Path,
    reporter: &Reporter,
) -> Result<Tree, ImageError> {
    if path.is_dir() {
        if spec.sha256.is_some() {
            return Err(ImageError::Invalid("a directory has no SHA-256".to_owned()));
        }
        reporter.report("reading the directory", 0, 0);
        let path = path.to_owned();
        return work.run(reporter, move |_| read_directory(&path)).await;
    }
    let (read, sha256, told) = (path.to_owned(), spec.sha256.clone(), reporter.clone());
    let witness =
        work.run(reporter, move |_| Witness::read(&read, sha256.as_deref(), &told)).await?;
    // Work on a file of ours, so that nothing changes under the tree that refers to it.
    let archive = work.join("given.tar");
    reporter.report("unpacking the archive", 0, 0);
    match Packing::of(&witness.head) {
        Some(packing) => unpack(packing, path, &archive, reporter).await?,
        None => {
            let (from, to) = (path.to_owned(), archive.clone());
            work.run(reporter, move |_| {
                std::fs::copy(&from, &to)
                    .map(drop)
                    .map_err(|source| io_error(format!("copy {}", from.display()), source))
            })
            .await?;
        }
    }
    witness.check()?;
    let path = path.to_owned();
    work.run(reporter, move |_| {
        let file = open_regular(&archive)?;
        let (tree, dropped) = tree::read_tar(file).map_err(|error| tree_error(&path, error))?;
        if tree.is_empty() {
            return Err(refused(&path, "it is no archive with files"));
        }
        if dropped.specials > 0 {
            tracing::info!(path = %path.display(), dropped.specials, "special files were left out");
        }
        Ok(tree)
    })
    .await
}

fn read_directory(path: &Path) -> Result<Tree, ImageError> {
    let own_uid = rustix::process::geteuid().as_raw();
    let (tree, _) = tree::read_directory(path, own_uid).map_err(|error| tree_error(path, error))?;
    if tree.is_empty() {
        return Err(refused(path, "it is empty"));
    }
    Ok(tree)
}

async fn unpack(
    packing: Packing,
    from: &Path,
    to: &Path,
    reporter: &Reporter,
) -> Result<(), ImageError> {
    let output = File::create_new(to)
        .map_err(|source| io_error(format!("make {}", to.display()), source))?;
    let (program, package) = packing.unpacker();
    let unpacked = Tool::new(program, package)
        .args(["-d", "-c"])
        .stdin(open_regular(from)?)
        .stdout(output)
        .file_limit(limits::MAX_ARCHIVE_BYTES)
        .run(limits::LOCAL_DEADLINE, reporter)
        .await;
    match unpacked {
        Ok(_) => Ok(()),
        Err(ImageError::ToolFailed { detail, .. }) => {
            Err(refused(from, format!("{program} cannot unpack it: {detail}")))
        }
        Err(error) => Err(error),
    }
}

/// Returns the first init program that is there and can be run.
fn find_init(tree: &Tree) -> Option<&'static str> {
    INITS.iter().copied().find(|path| is_program(tree, path))
}

fn is_program(tree: &Tree, path: &str) -> bool {
    tree.resolve(path).and_then(|path| tree.get(path)).is_some_and(|entry| {
        matches!(entry.kind, Kind::File { .. }) && entry.meta.mode & 0o111 != 0
    })
}

/// Checks an init path that somebody gave: it must be there, and it must not be able to add to the
/// kernel command line.
fn check_init(tree: &Tree, source: &Path, path: &str) -> Result<String, ImageError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-@".contains(c);
    if !path.starts_with('/') || path.len() > limits::MAX_INIT_BYTES || !path.chars().all(plain) {
        return Err(ImageError::Invalid(format!(
            "`{}` is not the path of an init program",
            path.chars().take(60).flat_map(char::escape_default).collect::<String>()
        )));
    }
    if !is_program(tree, path) {
        return Err(refused(source, format!("it has no program {path}")));
    }
    Ok(path.to_owned())
}

/// Returns the directory of a kernel's modules in a tree: the one of its release, or the only one.
fn find_modules(tree: &Tree, release: Option<&str>) -> Option<PathBuf> {
    let parent = tree.resolve("lib/modules")?;
    let found: Vec<_> = tree
        .children(&parent)
        .filter(|path| tree.get(path.join("modules.dep")).is_some())
        .collect();
    let of_release = |path: &&Path| {
        release.is_some() && path.file_name().and_then(|name| name.to_str()) == release
    };
    let chosen = found.iter().copied().find(of_release).or(match (release, found.as_slice()) {
        (None, [only]) => Some(*only),
        _ => None,
    });
    chosen.map(Path::to_owned)
}

/// Puts a directory of modules where the guest looks for them, and returns where that is.
async fn add_modules(
    work: &Work,
    tree: &mut Tree,
    directory: &Path,
    reporter: &Reporter,
) -> Result<PathBuf, ImageError> {
    let version = directory
        .file_name()
        .and_then(|name| name.to_str())
        .filter(|name| !name.starts_with('.'))
        .ok_or_else(|| refused(directory, "it is not named after a kernel's release"))?;
    let read = directory.to_owned();
    let modules = work.run(reporter, move |_| read_directory(&read)).await?;
    if modules.get("modules.dep").is_none() {
        return Err(refused(directory, "it has no modules.dep; `depmod` makes one"));
    }
    let parent = tree.resolve("lib").unwrap_or_else(|| PathBuf::from("lib")).join("modules");
    let target = parent.join(version);
    tree.remove(&target);
    add_subtree(tree, &modules, Path::new(""), &target)
        .map_err(|error| tree_error(directory, error))?;
    // Links to where the modules were built lead nowhere in the guest.
    tree.remove(target.join("build"));
    tree.remove(target.join("source"));
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Meta;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.add_text("usr/lib/systemd/systemd", 0o755, "x").unwrap();
        tree.add_text("usr/bin/text", 0o644, "x").unwrap();
        tree.add_symlink("sbin", Meta::root(0o777), "usr/sbin").unwrap();
        tree.add_symlink("lib", Meta::root(0o777), "usr/lib").unwrap();
        tree.add_symlink("usr/sbin/init", Meta::root(0o777), "/lib/systemd/systemd").unwrap();
        tree
    }

    #[test]
    fn the_init_program_is_found_through_links() {
        let mut tree = tree();
        assert_eq!(find_init(&tree), Some("/sbin/init"));
        tree.remove("usr/sbin/init");
        assert_eq!(find_init(&tree), Some("/lib/systemd/systemd"));
        tree.remove("usr/lib/systemd");
        assert_eq!(find_init(&tree), None);
    }

    #[test]
    fn a_given_init_cannot_add_to_the_command_line() {
        let (tree, source) = (tree(), Path::new("rootfs.tar"));
        assert_eq!(check_init(&tree, source, "/sbin/init").unwrap(), "/sbin/init");
        for path in ["sbin/init", "/sbin/init init=/bin/sh", "/a\nb", "/\"", ""] {
            let error = check_init(&tree, source, path).unwrap_err();
            assert!(matches!(error, ImageError::Invalid(_)), "{path:?}");
        }
        for path in ["/usr/bin/text", "/nowhere", "/usr"] {
            let error = check_init(&tree, source, path).unwrap_err();
            assert!(matches!(error, ImageError::Refused { .. }), "{path:?}");
        }
    }

    #[test]
    fn modules_are_those_of_the_kernel() {
        let mut tree = tree();
        assert_eq!(find_modules(&tree, None), None);
        tree.add_text("usr/lib/modules/6.1/modules.dep", 0o644, "").unwrap();
        assert_eq!(find_modules(&tree, None), Some("usr/lib/modules/6.1".into()));
        tree.add_text("usr/lib/modules/6.2/modules.dep", 0o644, "").unwrap();
        assert_eq!(find_modules(&tree, None), None);
        assert_eq!(find_modules(&tree, Some("6.2")), Some("usr/lib/modules/6.2".into()));
        assert_eq!(find_modules(&tree, Some("6.3")), None);
    }
}
