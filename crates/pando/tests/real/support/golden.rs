//! The golden homes: an image, its ready state, and the database that knows both. Each is made once
//! for each build of the binary by the binary itself, then copied for every test that is based on
//! it.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Shape of the machines in these tests: the smallest in which everything runs, so that two
/// processors are enough for many.
pub const SHAPE: &[&str] = &["--memory", "256MiB"];

/// What a golden home has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The default image.
    Default,
    /// An image with servers and programs of databases in it.
    Databases,
    /// An image with etcd in it, as the demo has it.
    #[allow(dead_code, reason = "the demo's test is a program of its own")]
    Etcd,
}

impl Base {
    /// Returns the image's name.
    pub const fn image(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Databases => "databases",
            Self::Etcd => "etcd",
        }
    }

    /// Returns where its image is.
    fn assets(self) -> PathBuf {
        match self {
            Self::Default => assets(),
            Self::Databases | Self::Etcd => assets().with_file_name(self.image()),
        }
    }
}

fn assets() -> PathBuf {
    let named = std::env::var_os("PANDO_TEST_HOME").map(PathBuf::from);
    let usual = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/test-assets/home");
    let home = named.unwrap_or_else(usual);
    home.canonicalize().unwrap_or_else(|_| {
        panic!("{} is not there: ./test makes the image that tests boot", home.display())
    })
}

/// Returns what a golden home was made of: another binary or image makes another one.
fn stamp(images: &Path) -> String {
    let program = fs::metadata(env!("CARGO_BIN_EXE_pando")).unwrap();
    let mut names: Vec<_> =
        fs::read_dir(images).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    format!("{} {}.{} {names:?}", program.len(), program.mtime(), program.mtime_nsec())
}

/// Returns a golden home, and a lock that keeps it as it is.
pub fn get(base: Base) -> (PathBuf, File) {
    let assets = base.assets();
    let lock = File::create(assets.with_extension("golden.lock")).unwrap();
    lock.lock().unwrap();
    let (golden, written) =
        (assets.with_extension("golden"), assets.with_extension("golden.stamp"));
    let images = assets.join("images");
    let stamp = stamp(&images);
    if fs::read_to_string(&written).ok().as_ref() != Some(&stamp) {
        let _ = fs::remove_file(&written);
        let _ = fs::remove_dir_all(&golden);
        make(&golden, &images, base);
        fs::write(&written, stamp).unwrap();
    }
    (golden, lock)
}

fn make(golden: &Path, images: &Path, base: Base) {
    fs::create_dir(golden).unwrap();
    fs::set_permissions(golden, fs::Permissions::from_mode(0o700)).unwrap();
    symlink(images, golden.join("images")).unwrap();
    let home = super::Home::at(golden.to_owned());
    home.ok(&[&["vm", "create", "golden", "--image", base.image()], SHAPE].concat());
    home.ok(&["rm", "golden", "--force", "--disks"]);
    home.run(&["daemon", "stop"]);
    for name in ["daemon.log", "daemon.lock", "start.lock", "journal.log"] {
        fs::remove_file(golden.join(name)).unwrap();
    }
}

/// Whose a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// What never changes is the golden home's own file.
    Links,
    /// Every file is a copy.
    Nothing,
}

/// Copies a directory. Flat memory is left out unless it can be shared: it is a cache.
pub fn copy(from: &Path, to: &Path, share: Share) {
    if !to.exists() {
        fs::create_dir(to).unwrap();
        fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    }
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        let immutable = path.extension().is_some_and(|end| end == "ram" || end == "pages");
        if kind.is_symlink() {
            symlink(fs::read_link(&path).unwrap(), target).unwrap();
        } else if kind.is_dir() {
            copy(&path, &target, share);
        } else if immutable && share == Share::Links && fs::hard_link(&path, &target).is_ok() {
        } else if path.extension().is_none_or(|end| end != "ram") {
            fs::copy(&path, target).unwrap();
        }
    }
}
