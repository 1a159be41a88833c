//! Importing, on real programs: honest files become images, hostile ones are refused, and nothing
//! is left of what failed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::path::{Path, PathBuf};

use common::{Disk, Home, cancelled_at, run, text};
use pando_driver::images::{FirmwareKind, ImportSource, ImportSpec};
use pando_driver::{ImageError, Images, Reporter};
use pando_model::{BootMethod, ByteCount};

/// Returns a path outside of the home, for what is imported.
fn outside(home: &Home, name: &str) -> PathBuf {
    home.layout.home().with_file_name(name)
}

fn spec(source: ImportSource) -> ImportSpec {
    ImportSpec { name: "given".parse().unwrap(), source, sha256: None, disk_size: None }
}

fn disk(path: &Path, firmware: FirmwareKind) -> ImportSpec {
    spec(ImportSource::Disk { path: path.to_owned(), firmware })
}

/// Bytes without a pattern that a conversion could lose unnoticed, and a hole.
fn disk_bytes() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..2u32 << 18)
        .flat_map(|number| (number.wrapping_mul(0x9e37_79b9)).to_le_bytes())
        .collect();
    bytes[1 << 19..1 << 20].fill(0);
    bytes
}

fn raw_disk(home: &Home) -> PathBuf {
    let path = outside(home, "disk.raw");
    std::fs::write(&path, disk_bytes()).unwrap();
    path
}

#[tokio::test]
async fn a_disk_keeps_its_bytes_in_either_format() {
    let home = Home::new();
    let raw = raw_disk(&home);
    let qcow2 = outside(&home, "disk.img");
    run("qemu-img", &["convert", "-c", "-O", "qcow2", text(&raw), text(&qcow2)]);
    for (path, firmware, boot) in [
        (&raw, FirmwareKind::Bios, BootMethod::Bios),
        (&qcow2, FirmwareKind::Uefi, BootMethod::Uefi),
    ] {
        let image = home.store.import(&disk(path, firmware), &Reporter::silent()).await.unwrap();
        assert_eq!(image.boot, boot);
        assert_eq!(image.disk_size, ByteCount::from_mib(2));
        home.store.verify(&image.id).await.unwrap();
        let stored = home.layout.image_part(&image.id, "disk.qcow2");
        let back = outside(&home, "back.raw");
        run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", text(&stored), text(&back)]);
        assert!(std::fs::read(&back).unwrap() == disk_bytes(), "{boot:?}");
        let variables = home.layout.image_part(&image.id, "vars.qcow2");
        assert_eq!(variables.exists(), boot == BootMethod::Uefi);
        assert!(!home.layout.image_part(&image.id, "kernel").exists());
    }
    assert_eq!(home.store.list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_same_file_is_the_same_image() {
    let home = Home::new();
    let raw = raw_disk(&home);
    let (spec, reporter) = (disk(&raw, FirmwareKind::Bios), Reporter::silent());
    let (first, second) =
        tokio::join!(home.store.import(&spec, &reporter), home.store.import(&spec, &reporter));
    let third = home.store.import(&spec, &reporter).await.unwrap();
    assert_eq!(first.unwrap().id, third.id);
    assert_eq!(second.unwrap().id, third.id);
    assert_eq!(home.left().len(), 1, "{:?}", home.left());
}

#[tokio::test]
async fn a_disk_may_grow_and_never_shrinks() {
    let home = Home::new();
    let raw = raw_disk(&home);
    let mut larger = disk(&raw, FirmwareKind::Bios);
    larger.disk_size = Some(ByteCount::from_gib(3));
    let image = home.store.import(&larger, &Reporter::silent()).await.unwrap();
    let stored = home.layout.image_part(&image.id, "disk.qcow2");
    let info = run("qemu-img", &["info", "--output=json", text(&stored)]);
    assert!(info.contains("\"virtual-size\": 3221225472"), "{info}");
    larger.disk_size = Some(ByteCount::from_mib(1));
    let error = home.store.import(&larger, &Reporter::silent()).await.unwrap_err();
    assert!(matches!(error, ImageError::Invalid(_)), "{error}");
}

#[tokio::test]
async fn hostile_disks_are_refused_and_leave_nothing() {
    let home = Home::new();
    let make = |name: &str, options: &[&str]| {
        let path = outside(&home, name);
        let mut args = vec!["create", "-q", "-f", "qcow2"];
        args.extend(options);
        args.push(text(&path));
        args.push("64M");
        run("qemu-img", &args);
        path
    };
    let secret = outside(&home, "secret");
    std::fs::write(&secret, vec![b's'; 1 << 20]).unwrap();
    let backed = make("backed", &["-u", "-b", text(&secret), "-F", "raw"]);
    let external = outside(&home, "external.raw");
    let split = make("split", &["-o", &format!("data_file={}", text(&external))]);
    let remembers = make("remembers", &[]);
    run("qemu-img", &["snapshot", "-c", "earlier", text(&remembers)]);
    let vmdk = outside(&home, "disk.vmdk");
    run("qemu-img", &["create", "-q", "-f", "vmdk", text(&vmdk), "64M"]);
    let broken = make("broken", &[]);
    let mut bytes = std::fs::read(&broken).unwrap();
    bytes[40..48].copy_from_slice(&u64::MAX.to_be_bytes());
    std::fs::write(&broken, &bytes).unwrap();
    let giant = make("giant", &[]);
    let mut bytes = std::fs::read(&giant).unwrap();
    bytes[24..32].copy_from_slice(&(1u64 << 60).to_be_bytes());
    std::fs::write(&giant, &bytes).unwrap();
    let cut = make("cut", &[]);
    std::fs::File::options().write(true).open(&cut).unwrap().set_len(60).unwrap();
    let empty = outside(&home, "empty");
    std::fs::write(&empty, b"").unwrap();
    let pipe = outside(&home, "pipe");
    run("mkfifo", &[text(&pipe)]);

    let nowhere = outside(&home, "nowhere");
    let directory = outside(&home, "directory");
    std::fs::create_dir(&directory).unwrap();
    for path in
        [backed, split, remembers, vmdk, broken, giant, cut, empty, pipe, nowhere, directory]
    {
        let spec = disk(&path, FirmwareKind::Bios);
        let error = home.store.import(&spec, &Reporter::silent()).await.unwrap_err();
        assert!(
            matches!(&error, ImageError::Refused { path: named, .. } if *named == path),
            "{}: {error:?}",
            path.display()
        );
        assert_eq!(home.left(), Vec::<String>::new(), "{}", path.display());
    }
}

#[tokio::test]
async fn another_checksum_is_said() {
    let home = Home::new();
    let raw = raw_disk(&home);
    let right = run("sha256sum", &[text(&raw)]);
    let right = right.split_whitespace().next().unwrap();
    let mut spec = disk(&raw, FirmwareKind::Bios);
    spec.sha256 = Some("0".repeat(64));
    let error = home.store.import(&spec, &Reporter::silent()).await.unwrap_err();
    assert!(matches!(&error, ImageError::Checksum { actual, .. } if actual == right), "{error}");
    spec.sha256 = Some("no checksum".to_owned());
    let error = home.store.import(&spec, &Reporter::silent()).await.unwrap_err();
    assert!(matches!(error, ImageError::Invalid(_)), "{error}");
    assert_eq!(home.left(), Vec::<String>::new());
    spec.sha256 = Some(right.to_uppercase());
    home.store.import(&spec, &Reporter::silent()).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_import_leaves_nothing() {
    for step in ["reading the file", "converting the disk", "publishing the image"] {
        let home = Home::new();
        let raw = raw_disk(&home);
        let imported =
            home.store.import(&disk(&raw, FirmwareKind::Bios), &cancelled_at(step)).await;
        assert!(matches!(imported, Err(ImageError::Cancelled)), "{step}: {imported:?}");
        assert_eq!(home.left(), Vec::<String>::new(), "{step}");
    }
}

/// A kernel as far as the boot protocol's header goes; QEMU would have to boot it packed.
fn kernel(home: &Home) -> PathBuf {
    let mut image = vec![0; 4096];
    image[0x1f1] = 1;
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&64u32.to_le_bytes());
    image[1024..1026].copy_from_slice(&[0x1f, 0x8b]);
    let path = outside(home, "vmlinuz");
    std::fs::write(&path, &image).unwrap();
    path
}

fn root_fs(home: &Home, path: &Path) -> ImportSpec {
    spec(ImportSource::RootFs {
        path: path.to_owned(),
        kernel: kernel(home),
        modules: None,
        init: None,
    })
}

/// Path, mode, owner, and either bytes or a link's target.
type Packed<'a> = (&'a str, u32, u64, Result<&'a [u8], &'a str>);

/// Writes an archive.
fn archive(path: &Path, entries: &[Packed<'_>]) {
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, mode, owner, what) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_uid(*owner);
        header.set_gid(*owner + 1);
        header.set_mtime(1_000_000_000);
        match what {
            Ok(bytes) => {
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, name, *bytes).unwrap();
            }
            Err(target) => {
                header.set_size(0);
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, name, target).unwrap();
            }
        }
    }
    builder.finish().unwrap();
}

#[tokio::test]
async fn a_root_file_system_keeps_owners_modes_and_links() {
    let home = Home::new();
    let path = outside(&home, "root.tar");
    archive(
        &path,
        &[
            ("bin/su", 0o4755, 0, Ok(b"program")),
            ("sbin/init", 0o777, 0, Err("/bin/su")),
            ("srv/data", 0o640, 1234, Ok(b"hello")),
            ("etc/escape", 0o777, 0, Err("../../../../etc/passwd")),
        ],
    );
    let packed = outside(&home, "root.tar.xz");
    run("xz", &["-k", text(&path)]);
    let spec = root_fs(&home, &packed);
    let image = home.store.import(&spec, &Reporter::silent()).await.unwrap();
    assert_eq!(image.init, "/sbin/init");
    assert!(matches!(image.boot, BootMethod::Direct { .. }));
    home.store.verify(&image.id).await.unwrap();
    let disk = Disk::of(&home.layout, &image.id);
    assert_eq!(disk.cat("/srv/data"), "hello");
    let data = disk.stat("/srv/data");
    assert!(data.contains("Mode:  0640") && data.contains("User:  1234   Group:  1235"), "{data}");
    let program = disk.stat("/bin/su");
    assert!(program.contains("Mode:  04755") && program.contains("User:     0"), "{program}");
    assert!(disk.stat("/etc/escape").contains("../../../../etc/passwd"));

    let again = home.store.import(&root_fs(&home, &path), &Reporter::silent()).await.unwrap();
    assert_eq!(again.id, image.id, "how an archive is packed is no part of its content");
    assert_eq!(home.left().len(), 1);
}

#[tokio::test]
async fn a_directory_without_an_init_is_an_image_too() {
    let home = Home::new();
    let directory = outside(&home, "root");
    std::fs::create_dir_all(directory.join("usr/bin")).unwrap();
    std::fs::write(directory.join("usr/bin/tool"), "x").unwrap();
    let modules = outside(&home, "6.1.0-x");
    std::fs::create_dir(&modules).unwrap();
    let listed = "a/virtio_pci.ko:\na/virtio_blk.ko: a/virtio_pci.ko\na/virtio_console.ko:\n";
    std::fs::write(modules.join("modules.dep"), listed).unwrap();
    std::fs::write(modules.join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
    std::fs::create_dir(modules.join("a")).unwrap();
    for name in ["virtio_pci", "virtio_blk", "virtio_console"] {
        std::fs::write(modules.join(format!("a/{name}.ko")), "\x7fELF").unwrap();
    }
    let spec = spec(ImportSource::RootFs {
        path: directory,
        kernel: kernel(&home),
        modules: Some(modules.clone()),
        init: None,
    });
    let image = home.store.import(&spec, &Reporter::silent()).await.unwrap();
    assert_eq!(image.init, "none");
    let disk = Disk::of(&home.layout, &image.id);
    assert!(disk.stat("/usr/bin/tool").contains("User:     0"));
    assert!(disk.has("/lib/modules/6.1.0-x/a/virtio_blk.ko"));
    let initrd = std::fs::read(home.layout.image_part(&image.id, "initrd")).unwrap();
    let order = "/lib/modules/virtio_pci.ko\n/lib/modules/virtio_blk.ko\n";
    assert!(String::from_utf8_lossy(&initrd).contains(order));

    std::fs::remove_file(modules.join("a/virtio_blk.ko")).unwrap();
    let error = home.store.import(&spec, &Reporter::silent()).await.unwrap_err();
    assert!(matches!(error, ImageError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn hostile_archives_are_refused_and_leave_nothing() {
    let home = Home::new();
    let through = outside(&home, "through.tar");
    archive(&through, &[("a", 0o777, 0, Err("/etc")), ("a/evil", 0o644, 0, Ok(b"x"))]);
    let garbage = outside(&home, "garbage.tar");
    std::fs::write(&garbage, [0x5a; 4096]).unwrap();
    let torn = outside(&home, "torn.tar.gz");
    std::fs::write(&torn, [0x1f, 0x8b, 8, 0, 0, 0]).unwrap();
    let empty = outside(&home, "empty.tar");
    archive(&empty, &[]);
    let cut = outside(&home, "cut.tar");
    archive(&cut, &[("file", 0o644, 0, Ok(&[7; 5000]))]);
    std::fs::File::options().write(true).open(&cut).unwrap().set_len(3000).unwrap();
    for path in [through, garbage, torn, empty, cut] {
        let imported = home.store.import(&root_fs(&home, &path), &Reporter::silent()).await;
        assert!(
            matches!(&imported, Err(ImageError::Refused { path: named, .. }) if *named == path),
            "{}: {imported:?}",
            path.display()
        );
        assert_eq!(home.left(), Vec::<String>::new(), "{}", path.display());
    }
    assert!(!Path::new("/etc/evil").exists());
}

#[tokio::test]
async fn a_disk_too_small_for_its_files_is_refused() {
    let home = Home::new();
    let path = outside(&home, "root.tar");
    archive(&path, &[("file", 0o644, 0, Ok(b"x"))]);
    let mut spec = root_fs(&home, &path);
    spec.disk_size = Some(ByteCount::from_mib(64));
    let error = home.store.import(&spec, &Reporter::silent()).await.unwrap_err();
    assert!(matches!(error, ImageError::Invalid(_)), "{error}");
    assert_eq!(home.left(), Vec::<String>::new());
}
