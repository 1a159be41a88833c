//! Images appear whole, are found by their content, and damage is noticed.

use pando_model::BootMethod;

use super::*;

struct Home {
    _directory: tempfile::TempDir,
    layout: Layout,
}

fn home() -> Home {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path().join("home"), directory.path().join("run"));
    Home { _directory: directory, layout }
}

fn facts(name: &str) -> Facts {
    Facts {
        name: name.parse().unwrap(),
        boot: BootMethod::Direct { cmdline: "quiet".to_owned() },
        disk_size: ByteCount::from_gib(1),
        init: "systemd".to_owned(),
        origin: "a test".to_owned(),
    }
}

fn add(home: &Home, name: &str, disk: &[u8], content: Option<blake3::Hash>) -> Image {
    let work = Work::new(&home.layout.tmp()).unwrap();
    let out = work.directory("out").unwrap();
    std::fs::write(out.join("disk.qcow2"), disk).unwrap();
    std::fs::write(out.join("kernel"), b"kernel").unwrap();
    let drafts = [Draft { name: "disk.qcow2", content }, Draft { name: "kernel", content: None }];
    publish(&home.layout, &out, &drafts, facts(name)).unwrap()
}

#[test]
fn what_is_published_is_listed_and_verified() {
    let home = home();
    assert!(list(&home.layout).unwrap().is_empty());
    let image = add(&home, "one", b"disk", None);
    assert_eq!(list(&home.layout).unwrap(), std::slice::from_ref(&image));
    assert_eq!(image.stored, ByteCount(10));
    verify(&home.layout, &image.id).unwrap();
    let disk = home.layout.image_part(&image.id, "disk.qcow2");
    assert!(std::fs::metadata(disk).unwrap().permissions().readonly());
    assert_eq!(std::fs::read_dir(home.layout.tmp()).unwrap().count(), 0, "scratch is gone");
}

#[test]
fn the_same_content_is_kept_once() {
    let home = home();
    let content = blake3::hash(b"what the disk holds");
    let first = add(&home, "one", b"disk", Some(content));
    let second = add(&home, "two", b"other bytes of an equal disk", Some(content));
    assert_eq!(first.id, second.id);
    assert_eq!(second.name.as_str(), "two");
    assert_eq!(list(&home.layout).unwrap().len(), 1);
    verify(&home.layout, &first.id).unwrap();

    let (disk, kernel) = (content.to_hex(), blake3::hash(b"kernel").to_hex());
    let contents = [("kernel", kernel.as_str()), ("disk.qcow2", disk.as_str())];
    let found = find_content(&home.layout, &facts("three"), &contents).unwrap();
    assert_eq!((found.id, found.name.as_str()), (first.id, "three"));
    assert!(find_content(&home.layout, &facts("three"), &contents[..1]).is_none());
}

#[test]
fn damage_is_noticed_and_named() {
    for (file, what) in [("disk.qcow2", "disk.qcow2"), ("kernel", "kernel")] {
        let home = home();
        let image = add(&home, "one", b"disk", None);
        let path = home.layout.image_part(&image.id, file);
        std::fs::remove_file(&path).unwrap();
        let damaged = verify(&home.layout, &image.id).unwrap_err();
        assert!(matches!(&damaged, ImageError::Corrupt { what: named, .. } if named == what));
        std::fs::write(&path, b"DISK").unwrap();
        let damaged = verify(&home.layout, &image.id).unwrap_err();
        assert!(matches!(&damaged, ImageError::Corrupt { what: named, .. } if named == what));
    }
}

#[test]
fn a_half_made_directory_is_no_image() {
    let home = home();
    let image = add(&home, "one", b"disk", None);
    let half = ImageId::random();
    std::fs::create_dir(home.layout.image(&half)).unwrap();
    std::fs::write(home.layout.image_part(&half, "disk.qcow2"), b"x").unwrap();
    let renamed = ImageId::random();
    std::fs::create_dir(home.layout.image(&renamed)).unwrap();
    for file in ["disk.qcow2", "kernel", "image.json"] {
        let from = home.layout.image_part(&image.id, file);
        std::fs::copy(from, home.layout.image_part(&renamed, file)).unwrap();
    }
    std::fs::create_dir(home.layout.images().join("not an id")).unwrap();
    assert_eq!(list(&home.layout).unwrap(), [image]);
    assert!(matches!(verify(&home.layout, &half), Err(ImageError::Missing(_))));
    assert!(matches!(verify(&home.layout, &renamed), Err(ImageError::Corrupt { .. })));
}

#[test]
fn removing_twice_is_success() {
    let home = home();
    let image = add(&home, "one", b"disk", None);
    remove(&home.layout, &image.id).unwrap();
    remove(&home.layout, &image.id).unwrap();
    assert!(list(&home.layout).unwrap().is_empty());
    assert!(matches!(verify(&home.layout, &image.id), Err(ImageError::Missing(_))));
    assert_eq!(std::fs::read_dir(home.layout.tmp()).unwrap().count(), 0);
}
