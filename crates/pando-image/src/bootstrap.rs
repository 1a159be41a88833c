//! Builds an image from a distribution's packages: mmdebstrap makes the root file system, the
//! distribution's kernel for virtual machines is taken out of its package, and both become a root
//! disk, a kernel and an initramfs.

use std::fs::File;
use std::path::{Path, PathBuf};

use pando_driver::images::BuildSpec;
use pando_driver::{ImageError, Reporter};
use pando_model::{BootMethod, Image};

use crate::apt::{self, Apt};
use crate::manifest::Facts;
use crate::mmdebstrap::{BORROWED, Debs, Request};
use crate::sources::{self, Mirror, Source};
use crate::store::{self, Draft};
use crate::tool::Tool;
use crate::tree::{self, Tree, TreeError};
use crate::work::{Work, io_error, tree_error};
use crate::{ImageConfig, boot, disk, limits, mmdebstrap, names, system};

/// The init of every built image.
const INIT: &str = "/sbin/init";

/// Where modules are in a distribution with a merged `/usr`.
const MODULES: &str = "usr/lib/modules";

/// Builds an image.
///
/// # Errors
/// See [`pando_driver::Images::build`].
pub async fn build(
    config: &ImageConfig,
    spec: &BuildSpec,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    let plan = Plan::new(config, spec)?;
    let work = Work::new(&config.layout.tmp())?;
    let made = make(config, spec, &plan, &work, reporter).await;
    work.remove().await;
    made
}

/// A build that makes sense.
struct Plan {
    release: String,
    mirror: Mirror,
    packages: Vec<String>,
}

impl Plan {
    fn new(config: &ImageConfig, spec: &BuildSpec) -> Result<Self, ImageError> {
        let packages = names::check_packages(&spec.packages)?;
        let own_release = own_release(&config.system_root);
        let release = spec.release.clone().or_else(|| own_release.clone()).ok_or_else(|| {
            ImageError::Invalid("this machine's release has no name; name one".to_owned())
        })?;
        names::check_release(&release)?;
        disk::check_size(spec.disk_size, 0)?;
        let configured = sources::read_configured(&config.system_root);
        let given = spec.mirror.as_deref();
        let mirror = sources::choose(&configured, own_release.as_deref(), &release, given)?;
        Ok(Self { release, mirror, packages })
    }

    fn origin(&self, kernel: &Kernel) -> String {
        let mut text = format!("{}, kernel {}", self.release, kernel.version);
        if !self.packages.is_empty() {
            text.push_str(", with ");
            text.push_str(&self.packages.join(" "));
        }
        text
    }
}

async fn make(
    config: &ImageConfig,
    spec: &BuildSpec,
    plan: &Plan,
    work: &Work,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    let settings = apt::own_settings(reporter).await?;
    let debs = Debs::borrow(work, config.package_cache(), reporter).await?;
    let mut kernel = fetch_kernel(work, &plan.mirror, &settings, reporter).await?;
    let request = Request {
        release: &plan.release,
        mirror: &plan.mirror,
        settings: &settings,
        packages: &plan.packages,
    };
    let root = mmdebstrap::run(work, &request, reporter).await?;
    debs.give_back(work, reporter).await?;

    reporter.report("preparing the system", 0, 0);
    let guest_sources = sources::to_deb822(&guest_sources(&plan.mirror), apt::default_key());
    let mut tree = work
        .run(reporter, move |_| {
            let (mut tree, _) = read_archive(&root)?;
            system::prepare(&mut tree, &guest_sources).map_err(|error| tree_error(&root, error))?;
            Ok(tree)
        })
        .await?;
    let modules = add_modules(work, &kernel, reporter).await?;
    add_subtree(&mut tree, &modules, Path::new("lib/modules"), Path::new(MODULES))
        .map_err(|error| tree_error(&kernel.archive, error))?;

    let out = work.directory("out")?;
    let name = PathBuf::from(format!("vmlinuz-{}", kernel.version));
    boot::write_kernel(work, std::mem::take(&mut kernel.image), &name, &out, reporter).await?;
    let modules_at = Path::new(MODULES).join(&kernel.version);
    let sources = boot::InitrdSources {
        tree: &tree,
        modules: Some(&modules_at),
        guest_program: &config.guest_program,
        name: &name,
    };
    boot::write_initrd(work, sources, &out, reporter).await?;
    let facts = Facts {
        name: spec.name.clone(),
        boot: BootMethod::Direct { cmdline: boot::COMMAND_LINE.to_owned() },
        disk_size: spec.disk_size,
        init: INIT.to_owned(),
        origin: plan.origin(&kernel),
    };
    finish(config, work, tree, kernel.epoch, &out, facts, reporter).await
}

/// Makes the disk and publishes the image, unless there is one with the same content.
///
/// # Errors
/// `Invalid` if the files do not fit; those of [`disk::make_root_disk`] and [`store::publish`].
pub async fn finish(
    config: &ImageConfig,
    work: &Work,
    tree: Tree,
    newest: u64,
    out: &Path,
    facts: Facts,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    disk::check_size(facts.disk_size, tree.bytes())?;
    reporter.report("packing files", 0, 0);
    let packed = work.run(reporter, move |work| disk::pack(work, &tree, newest)).await?;
    let content = disk::content_digest(&packed, facts.disk_size);
    let layout = config.layout.clone();
    let (directory, known) = (out.to_owned(), facts.clone());
    let existing = work
        .run(reporter, move |_| {
            let hash = |name: &str| {
                let path = directory.join(name);
                store::hash_file(&path)
                    .map(|(_, hash)| hash.to_hex())
                    .map_err(|source| io_error(format!("read {}", path.display()), source))
            };
            let (disk, kernel, initrd) = (content.to_hex(), hash("kernel")?, hash("initrd")?);
            let contents = [
                ("disk.qcow2", disk.as_str()),
                ("kernel", kernel.as_str()),
                ("initrd", initrd.as_str()),
            ];
            Ok(store::find_content(&layout, &known, &contents))
        })
        .await?;
    if let Some(image) = existing {
        return Ok(image);
    }
    disk::make_root_disk(work, &packed, facts.disk_size, out, reporter).await?;
    reporter.report("publishing the image", 0, 0);
    let (layout, directory) = (config.layout.clone(), out.to_owned());
    work.run(reporter, move |_| {
        let drafts = [
            Draft { name: "disk.qcow2", content: Some(content) },
            Draft { name: "kernel", content: None },
            Draft { name: "initrd", content: None },
        ];
        store::publish(&layout, &directory, &drafts, facts)
    })
    .await
}

/// Returns the code name of the release that runs here.
fn own_release(system_root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(system_root.join("etc/os-release")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim().trim_matches('"').to_owned()).filter(|name| !name.is_empty())
}

/// A guest cannot see this machine's local mirrors.
fn guest_sources(mirror: &Mirror) -> Vec<Source> {
    mirror
        .sources
        .iter()
        .filter(|source| source.uris.iter().all(|uri| uri.starts_with("http")))
        .cloned()
        .collect()
}

/// A kernel taken out of its packages.
struct Kernel {
    /// Its version, as its modules' directory is called.
    version: String,
    /// The bzImage.
    image: Vec<u8>,
    /// The modules, below `lib/modules`.
    tree: Tree,
    /// The archive that the tree refers to; for messages.
    archive: PathBuf,
    /// Seconds since 1970 when it was built: no file of the image is newer, so that the same
    /// packages give the same image.
    epoch: u64,
}

async fn fetch_kernel(
    work: &Work,
    mirror: &Mirror,
    settings: &[String],
    reporter: &Reporter,
) -> Result<Kernel, ImageError> {
    let apt = Apt::new(work, mirror, settings, reporter).await?;
    let directory = work.directory("kernel")?;
    let packages = apt.download_kernel(work, &work.join(BORROWED), reporter).await?;
    let mut tree = Tree::default();
    let mut archive = directory.join("none");
    for package in packages {
        let name = package.file_name().unwrap_or_default();
        archive = directory.join(name).with_extension("tar");
        let file = File::create_new(&archive)
            .map_err(|source| io_error(format!("make {}", archive.display()), source))?;
        Tool::new("dpkg-deb", "dpkg")
            .arg("--fsys-tarfile")
            .arg(&package)
            .stdout(file)
            .run(limits::LOCAL_DEADLINE, reporter)
            .await?;
        let read = archive.clone();
        let (part, _) = work.run(reporter, move |_| read_archive(&read)).await?;
        for (from, to) in
            [("lib/modules", "lib/modules"), ("usr/lib/modules", "lib/modules"), ("boot", "boot")]
        {
            add_subtree(&mut tree, &part, Path::new(from), Path::new(to))
                .map_err(|error| tree_error(&archive, error))?;
        }
    }
    take_kernel(tree, archive)
}

fn take_kernel(tree: Tree, archive: PathBuf) -> Result<Kernel, ImageError> {
    let refuse =
        |reason: &str| ImageError::Refused { path: archive.clone(), reason: reason.to_owned() };
    let (path, version) = tree
        .children(Path::new("boot"))
        .find_map(|path| {
            let name = path.file_name()?.to_str()?;
            Some((path.to_owned(), name.strip_prefix("vmlinuz-")?.to_owned()))
        })
        .ok_or_else(|| refuse("the kernel's package has no kernel"))?;
    let image = tree
        .read(&path, limits::MAX_KERNEL_BYTES)
        .map_err(|error| tree_error(&archive, error))?
        .ok_or_else(|| refuse("the kernel is no file"))?;
    let epoch = tree.get(&path).map_or(0, |entry| entry.meta.mtime);
    Ok(Kernel { version, image, tree, archive, epoch })
}

/// Returns the kernel's modules with the lists that `depmod` makes, below `lib/modules`.
async fn add_modules(
    work: &Work,
    kernel: &Kernel,
    reporter: &Reporter,
) -> Result<Tree, ImageError> {
    reporter.report("listing kernel modules", 0, 0);
    let stage = work.directory("modules")?;
    let (tree, to) = (kernel.tree.clone(), stage.clone());
    work.run(reporter, move |_| {
        write_files(&tree, Path::new("lib/modules"), &to).map_err(|error| tree_error(&to, error))
    })
    .await?;
    Tool::new("depmod", "kmod")
        .arg("-b")
        .arg(&stage)
        .arg(&kernel.version)
        .run(limits::LOCAL_DEADLINE, reporter)
        .await?;
    let own_uid = rustix::process::getuid().as_raw();
    let epoch = kernel.epoch;
    work.run(reporter, move |_| {
        let (read, _) =
            tree::read_directory(&stage, own_uid).map_err(|error| tree_error(&stage, error))?;
        let mut tree = Tree::default();
        for (path, entry) in read.iter() {
            let mut entry = entry.clone();
            entry.meta.mtime = epoch;
            tree.add_entry(path, entry).map_err(|error| tree_error(&stage, error))?;
        }
        Ok(tree)
    })
    .await
}

/// Writes the files and directories below a path of a tree into a directory of ours, as plain ones.
fn write_files(tree: &Tree, below: &Path, to: &Path) -> Result<(), TreeError> {
    for (path, entry) in tree.iter().filter(|(path, _)| path.starts_with(below)) {
        let target = to.join(path);
        match &entry.kind {
            tree::Kind::Directory => std::fs::create_dir_all(&target)?,
            tree::Kind::File { content, .. } => {
                if let Some(parent) = target.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                std::io::copy(&mut content.reader()?, &mut File::create_new(&target)?)?;
            }
            tree::Kind::Symlink { .. } => {}
        }
    }
    Ok(())
}

/// Adds what is below `from` in one tree below `to` in another.
pub fn add_subtree(tree: &mut Tree, other: &Tree, from: &Path, to: &Path) -> Result<(), TreeError> {
    for (path, entry) in other.iter() {
        if let Ok(rest) = path.strip_prefix(from) {
            tree.add_entry(to.join(rest), entry.clone())?;
        }
    }
    Ok(())
}

fn read_archive(path: &Path) -> Result<(Tree, tree::Dropped), ImageError> {
    let file =
        File::open(path).map_err(|source| io_error(format!("open {}", path.display()), source))?;
    tree::read_tar(file).map_err(|error| tree_error(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_this_machines_own() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(own_release(root.path()), None);
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let file = root.path().join("etc/os-release");
        std::fs::write(&file, "ID=debian\nVERSION_CODENAME=\"trixie\"\n").unwrap();
        assert_eq!(own_release(root.path()).as_deref(), Some("trixie"));
        std::fs::write(&file, "VERSION_CODENAME=\n").unwrap();
        assert_eq!(own_release(root.path()), None);
    }

    #[test]
    fn a_local_mirror_is_not_told_to_the_guest() {
        let source = |uri: &str| Source {
            uris: vec![uri.to_owned()],
            suites: vec!["bookworm".to_owned()],
            components: vec!["main".to_owned()],
            signed_by: None,
        };
        let sources = vec![source("file:///srv/debian"), source("http://m.test/debian")];
        let kept = guest_sources(&Mirror { sources, backports: None });
        assert_eq!(kept, [source("http://m.test/debian")]);
    }
}
