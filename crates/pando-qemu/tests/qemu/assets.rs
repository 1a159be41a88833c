//! What the spike boots: Debian's cloud kernel and an initial RAM disk with our test program.
//!
//! `PANDO_TEST_ASSETS` names a directory with `kernel` and `initrd`, where somebody has made them;
//! else they are made once, in `target/test-assets`, from the distribution's package.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Modules that the guest needs, in the order of loading; what is built in has no file.
const MODULES: [&str; 12] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "pvpanic",
    "pvpanic-pci",
    "failover",
    "net_failover",
    "virtio_net",
];

pub struct Assets {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
}

impl Assets {
    pub fn get() -> Self {
        if let Some(directory) = std::env::var_os("PANDO_TEST_ASSETS") {
            return Self::at(Path::new(&directory));
        }
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let cache = target.join("test-assets");
        std::fs::create_dir_all(&cache).unwrap();
        // Tests run in threads and processes; one of them makes what the others wait for.
        let lock = File::create(cache.join("qemu.lock")).unwrap();
        lock.lock().unwrap();
        let package = kernel_package(&cache);
        let initrd = cache.join("initrd");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/init.rs");
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/qemu/assets.rs");
        if is_older(&initrd, &source) || is_older(&initrd, &recipe) {
            make_initrd(&package, &source, &cache);
        }
        let kernel = cache.join("kernel");
        if !kernel.exists() {
            let image = only_file(&package.join("boot"), "vmlinuz-").unwrap();
            std::fs::copy(image, &kernel).unwrap();
        }
        Self::at(&cache)
    }

    fn at(directory: &Path) -> Self {
        Self { kernel: directory.join("kernel"), initrd: directory.join("initrd") }
    }
}

fn is_older(made: &Path, source: &Path) -> bool {
    let time = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    time(made).is_none() || time(made) < time(source)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The unpacked package of the distribution's cloud kernel.
fn kernel_package(cache: &Path) -> PathBuf {
    let package = cache.join("kernel-package");
    if package.exists() {
        return package;
    }
    let scratch = tempfile::tempdir_in(cache).unwrap();
    let name = newest_kernel();
    run(Command::new("apt-get")
        .args(["download", "-q", "-o", "APT::Sandbox::User=root", &name])
        .current_dir(scratch.path()));
    let archive = only_file(scratch.path(), "linux-image-").unwrap();
    let unpacked = scratch.path().join("unpacked");
    run(Command::new("dpkg-deb").arg("-x").args([&archive, &unpacked]));
    std::fs::rename(unpacked, &package).unwrap();
    package
}

/// The newest cloud kernel that the machine's package sources have: older ones lack the driver that
/// reseeds random numbers after a restore.
fn newest_kernel() -> String {
    const PACKAGE: &str = "linux-image-cloud-amd64";
    let versions = run(Command::new("apt-cache").args(["madison", PACKAGE]));
    let newest = versions.lines().next().and_then(|line| line.split('|').nth(1));
    let newest = newest.expect("the package sources have a cloud kernel").trim();
    let record = run(Command::new("apt-cache").args(["show", &format!("{PACKAGE}={newest}")]));
    let depends = record.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap();
    depends.split(' ').next().unwrap().trim_end_matches(',').to_owned()
}

fn only_file(directory: &Path, prefix: &str) -> Option<PathBuf> {
    let mut entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|e| e.path())
}

fn make_initrd(package: &Path, source: &Path, cache: &Path) {
    let scratch = tempfile::tempdir_in(cache).unwrap();
    let init = scratch.path().join("init");
    run(Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "-O", "-Cpanic=abort", "-Cstrip=symbols"])
        .args(["-Ctarget-feature=+crt-static", "--target=x86_64-unknown-linux-gnu"])
        .arg(source)
        .arg("-o")
        .arg(&init));
    let mut archive = Cpio::default();
    archive.add("init", 0o100_755, &std::fs::read(init).unwrap());
    archive.add("modules", 0o040_755, &[]);
    for (number, module) in MODULES.iter().enumerate() {
        let found = run(Command::new("find")
            .arg(package.join("lib/modules"))
            .args(["-name", &format!("{module}.ko*")]));
        let Some(path) = found.lines().next() else { continue };
        let bytes = match path.strip_suffix(".xz") {
            Some(_) => Command::new("xz").args(["-dc", path]).output().unwrap().stdout,
            None => std::fs::read(path).unwrap(),
        };
        archive.add(&format!("modules/{number:02}"), 0o100_644, &bytes);
    }
    let made = scratch.path().join("initrd");
    File::create(&made).unwrap().write_all(&archive.finish()).unwrap();
    std::fs::rename(made, cache.join("initrd")).unwrap();
}

/// An archive in the format that kernels unpack ("newc").
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    fn add(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(data.len()).unwrap();
        let name_size = u32::try_from(name.len() + 1).unwrap();
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}
