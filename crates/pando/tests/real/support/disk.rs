//! Real small file systems on loop devices, in a mount namespace of the test's own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::FallocateFlags;
use rustix::ioctl::{Setter, ioctl, opcode};

/// Says that the test runs in a mount namespace of its own.
const INSIDE: &str = "PANDO_TEST_IN_NAMESPACE";

/// Runs this test again in a mount namespace of its own, unless it is there: what it mounts is
/// seen by nobody else, and goes with it.
pub fn in_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "yes")
        .status();
    assert!(status.unwrap().success());
    false
}

/// An ext4 file system of its own. (A real one: in memory, where a hole of a file takes space when
/// it is read, a full one ends machines.)
pub struct Disk {
    directory: tempfile::TempDir,
    image: tempfile::NamedTempFile,
}

impl Disk {
    /// Returns a file system of so many bytes, of which nothing is its own.
    pub fn new(size: u64) -> Self {
        Self::made(size, &["-m", "0", "-O", "^has_journal"])
    }

    /// Returns one that is consistent after a power cut.
    pub fn with_journal(size: u64) -> Self {
        Self::made(size, &["-m", "0"])
    }

    fn made(size: u64, options: &[&str]) -> Self {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(size).unwrap();
        let directory = tempfile::tempdir().unwrap();
        run(Command::new("mkfs.ext4").arg("-q").args(options).arg(image.path()));
        let disk = Self { directory, image };
        disk.mount();
        std::fs::remove_dir(disk.path().join("lost+found")).unwrap();
        disk
    }

    /// Returns where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn mount(&self) {
        let mut mount = Command::new("mount");
        run(mount.args(["-o", "loop"]).arg(self.image.path()).arg(self.path()));
    }

    /// Fills it but for so many bytes; returns what to remove to make room.
    pub fn fill(&self, leave: u64) -> PathBuf {
        let path = self.path().join("ballast");
        let facts = rustix::fs::statvfs(self.path()).unwrap();
        let size = (facts.f_bavail * facts.f_frsize).saturating_sub(leave);
        let file = File::create(&path).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size).unwrap();
        path
    }

    /// Makes durable what tests put there themselves.
    pub fn sync(&self) {
        rustix::fs::syncfs(File::open(self.path()).unwrap()).unwrap();
    }

    /// From now on nothing reaches it any more; what was not synced never does.
    #[expect(unsafe_code, reason = "EXT4_IOC_SHUTDOWN has no wrapper")]
    pub fn cut_power(&self) {
        /// EXT4_GOING_FLAGS_NOLOGFLUSH (linux/fs/ext4/ext4.h): not even the journal is written.
        const AT_ONCE: u32 = 2;
        let root = File::open(self.path()).unwrap();
        // SAFETY: the call reads one u32, as its number says.
        unsafe {
            let request = Setter::<{ opcode::read::<u32>(b'X', 125) }, u32>::new(AT_ONCE);
            ioctl(&root, request).unwrap();
        }
    }

    /// Mounts it again after a power cut, when nothing uses it any more.
    pub fn mount_again(&self) {
        // The last files of killed processes close when the kernel gets round to it.
        super::until("nothing uses the disk", || {
            let status = Command::new("umount").arg(self.path()).stderr(Stdio::null()).status();
            status.unwrap().success().then_some(())
        });
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.directory.path()).status();
    }
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
