//! Builds the default image from the distribution's packages, once per run of the suite, where the
//! tests on real machines find it: `PANDO_TEST_ASSETS/home`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Disk, Home, cancelled_at};
use pando_driver::images::BuildSpec;
use pando_driver::{ImageError, Images, Reporter};
use pando_image::{ImageConfig, ImageStore};
use pando_model::{ByteCount, Layout};

fn spec(packages: &[&str]) -> BuildSpec {
    BuildSpec {
        name: "default".parse().unwrap(),
        release: None,
        packages: packages.iter().map(|name| (*name).to_owned()).collect(),
        mirror: None,
        disk_size: ByteCount::from_gib(8),
    }
}

fn assets() -> PathBuf {
    std::env::var_os("PANDO_TEST_ASSETS").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-assets"),
        PathBuf::from,
    )
}

/// The program that real machines need, if it was compiled.
fn guest_program() -> Option<PathBuf> {
    let compiled = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .with_file_name("x86_64-unknown-linux-gnu/guest/pando-guest");
    let named = std::env::var_os("PANDO_GUEST").map(PathBuf::from);
    named.or_else(|| compiled.is_file().then_some(compiled))
}

#[tokio::test]
async fn the_default_image_is_built_from_packages() {
    let own = Home::new();
    let assets = assets();
    std::fs::create_dir_all(&assets).unwrap();
    // Somebody else's run of the suite may share the directory.
    let lock = File::create(assets.join("home.lock")).unwrap();
    lock.lock().unwrap();
    let (layout, store) = match guest_program() {
        Some(guest) => {
            let layout = Layout::new(assets.join("home"), assets.join("run"));
            (layout.clone(), ImageStore::new(ImageConfig::new(layout, guest)))
        }
        None => (own.layout.clone(), own.store.clone()),
    };
    let image = store.build(&spec(&[]), &Reporter::silent()).await.unwrap();
    store.verify(&image.id).await.unwrap();
    for older in store.list().await.unwrap() {
        if older.id != image.id {
            store.remove(&older.id).await.unwrap();
        }
    }

    let kernel = std::fs::read(layout.image_part(&image.id, "kernel")).unwrap();
    assert!(pando_image::kernel::has_pvh_entry(&kernel), "the kernel is unpacked");
    let initrd = std::fs::read(layout.image_part(&image.id, "initrd")).unwrap();
    let initrd = String::from_utf8_lossy(&initrd);
    assert!(initrd.contains("/lib/modules/virtio_blk.ko\n"), "the root disk can be reached");

    let disk = Disk::of(&layout, &image.id);
    assert_eq!(disk.cat("/etc/machine-id"), "");
    assert!(disk.cat("/etc/shadow").contains("root:*:"), "nobody logs in with a password");
    assert!(disk.cat("/etc/apt/sources.list.d/pando.sources").contains("Types: deb"));
    for path in ["/etc/ssh/ssh_host_ed25519_key", "/etc/apt/apt.conf.d/99mmdebstrap"] {
        assert!(!disk.has(path), "{path}");
    }
    for path in ["/usr/lib/systemd/systemd", "/usr/sbin/sshd", "/usr/bin/apt-get"] {
        assert!(disk.has(path), "{path}");
    }
    let su = disk.stat("/usr/bin/su");
    assert!(su.contains("Mode:  04755") && su.contains("User:     0"), "{su}");
}

#[tokio::test]
async fn a_cancelled_build_leaves_no_file_and_no_process() {
    let home = Home::new();
    let built = home.store.build(&spec(&[]), &cancelled_at("unpacking packages")).await;
    assert!(matches!(built, Err(ImageError::Cancelled)), "{built:?}");
    assert_eq!(home.left(), Vec::<String>::new());
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = processes_of(home.layout.home());
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "still running: {left:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_package_that_does_not_exist_is_an_error_that_names_it() {
    let home = Home::new();
    let built = home.store.build(&spec(&["no-such-package-in-debian"]), &Reporter::silent()).await;
    let Err(ImageError::ToolFailed { detail, .. }) = built else { panic!("{built:?}") };
    assert!(detail.contains("no-such-package-in-debian"), "{detail}");
    assert_eq!(home.left(), Vec::<String>::new());
}

#[tokio::test]
async fn nonsense_is_refused_before_anything_is_downloaded() {
    let home = Home::new();
    let option = spec(&["--allow-unauthenticated"]);
    let mirror = BuildSpec { mirror: Some("[trusted=yes] http://m.test".to_owned()), ..spec(&[]) };
    let release = BuildSpec { release: Some("../etc".to_owned()), ..spec(&[]) };
    let small = BuildSpec { disk_size: ByteCount::from_mib(1), ..spec(&[]) };
    for spec in [option, mirror, release, small] {
        let built = home.store.build(&spec, &Reporter::silent()).await;
        assert!(matches!(built, Err(ImageError::Invalid(_))), "{built:?}");
        assert!(!home.layout.home().exists(), "nothing was touched");
    }
}

/// Returns processes whose command line, root or working directory is below a directory.
fn processes_of(directory: &Path) -> Vec<String> {
    let wanted = directory.to_str().unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            path.file_name()?.to_str()?.parse::<u32>().ok()?;
            let command = std::fs::read(path.join("cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let linked = ["cwd", "root"].iter().any(|link| {
                std::fs::read_link(path.join(link)).is_ok_and(|target| target.starts_with(wanted))
            });
            (linked || command.contains(wanted)).then_some(command)
        })
        .collect()
}
