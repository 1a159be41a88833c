//! What the tests on real programs share: a hermetic home, and a look at what is left in it.

#![allow(dead_code, reason = "each test program uses its part")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use pando_driver::Reporter;
use pando_image::{ImageConfig, ImageStore};
use pando_model::operation::Progress;
use pando_model::{ImageId, Layout};
use tokio_util::sync::CancellationToken;

/// A home of one test.
pub struct Home {
    _directory: tempfile::TempDir,
    pub layout: Layout,
    pub store: ImageStore,
}

impl Home {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("pando-image-").tempdir().unwrap();
        let layout = Layout::new(directory.path().join("home"), directory.path().join("run"));
        let guest = directory.path().join("guest");
        std::fs::write(&guest, b"\x7fELF stands for the guest program").unwrap();
        let store = ImageStore::new(ImageConfig::new(layout.clone(), guest));
        Self { _directory: directory, layout, store }
    }

    /// Returns the names of what is in the home's images and scratch directories.
    pub fn left(&self) -> Vec<String> {
        [self.layout.images(), self.layout.tmp()]
            .iter()
            .flat_map(|directory| std::fs::read_dir(directory).into_iter().flatten())
            .map(|entry| entry.unwrap().path().display().to_string())
            .collect()
    }
}

/// Returns a reporter that cancels itself once it is told `message`.
pub fn cancelled_at(message: &'static str) -> Reporter {
    let token = CancellationToken::new();
    let cancel = token.clone();
    let sink = move |progress: Progress| {
        if progress.message == message {
            cancel.cancel();
        }
    };
    Reporter::new(Arc::new(sink), token)
}

/// Runs a program that must succeed; returns what it wrote.
pub fn run(program: &str, args: &[&str]) -> String {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let output = Command::new(program)
        .args(args)
        .env("PATH", path)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The root file system of an image, looked into from outside.
pub struct Disk {
    raw: tempfile::NamedTempFile,
}

impl Disk {
    pub fn of(layout: &Layout, image: &ImageId) -> Self {
        let raw = tempfile::NamedTempFile::new().unwrap();
        let disk = layout.image_part(image, "disk.qcow2");
        run("qemu-img", &["check", "-q", text(&disk)]);
        run("qemu-img", &["convert", "-O", "raw", text(&disk), text(raw.path())]);
        run("e2fsck", &["-f", "-n", text(raw.path())]);
        Self { raw }
    }

    /// Returns what `debugfs` says about a path: type, mode, owner, size, link target.
    pub fn stat(&self, path: &str) -> String {
        self.ask(&format!("stat {path}"))
    }

    /// Returns the bytes of a file.
    pub fn cat(&self, path: &str) -> String {
        self.ask(&format!("cat {path}"))
    }

    /// Returns whether a path exists.
    pub fn has(&self, path: &str) -> bool {
        self.stat(path).contains("Inode:")
    }

    fn ask(&self, request: &str) -> String {
        run("debugfs", &["-R", request, text(self.raw.path())])
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
