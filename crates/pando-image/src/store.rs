//! Keeps images: each in a directory of its own, named after its content, which appears whole by
//! one rename after everything in it is on the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pando_driver::ImageError;
use pando_model::{ByteCount, Image, ImageId, Layout};

use crate::limits;
use crate::manifest::{self, Facts, Manifest, Part};
use crate::work::{Work, io_error};

/// A file that is to become part of an image, and what it holds if that is not its bytes.
pub struct Draft {
    /// Its name.
    pub name: &'static str,
    /// What identifies its content; the BLAKE3 of its bytes if none is given.
    pub content: Option<blake3::Hash>,
}

/// Makes the files in `directory` an image. If that image is there already, it is returned.
///
/// # Errors
/// `DiskFull`, `Io`.
pub fn publish(
    layout: &Layout,
    directory: &Path,
    drafts: &[Draft],
    facts: Facts,
) -> Result<Image, ImageError> {
    let mut parts = Vec::new();
    for draft in drafts {
        parts.push(seal(&directory.join(draft.name), draft)?);
    }
    let name = facts.name.clone();
    let manifest = Manifest::new(facts, parts, Timestamp::now());
    let path = directory.join(manifest::FILE_NAME);
    std::fs::write(&path, manifest.to_bytes())
        .and_then(|()| read_only(&path))
        .and_then(|()| sync(&path))
        .and_then(|()| sync(directory))
        .map_err(|source| io_error("write an image's manifest", source))?;
    let target = layout.image(&manifest.image.id);
    let published = std::fs::create_dir_all(layout.images())
        .and_then(|()| std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)))
        .and_then(|()| std::fs::rename(directory, &target))
        .and_then(|()| sync(&layout.images()));
    match published {
        Ok(()) => Ok(manifest.image),
        // Somebody else published the same content first.
        Err(error) if is_taken(&error) => {
            let mut image = load(layout, &manifest.image.id)?.image;
            image.name = name;
            Ok(image)
        }
        Err(source) => Err(io_error(format!("publish {}", target.display()), source)),
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}

/// Returns the image with this content, if it is there.
pub fn find_content(layout: &Layout, facts: &Facts, contents: &[(&str, &str)]) -> Option<Image> {
    let digest = manifest::digest_of(facts, contents.iter().copied());
    let mut image = load(layout, &ImageId::from_digest(digest.as_bytes())).ok()?.image;
    image.name = facts.name.clone();
    Some(image)
}

/// Measures a finished file, makes it read-only and puts it on the disk.
fn seal(path: &Path, draft: &Draft) -> Result<Part, ImageError> {
    let sealed = || -> io::Result<(u64, blake3::Hash)> {
        let hashed = hash_file(path)?;
        read_only(path)?;
        sync(path)?;
        Ok(hashed)
    };
    let (size, hash) =
        sealed().map_err(|source| io_error(format!("seal {}", path.display()), source))?;
    Ok(Part {
        name: draft.name.to_owned(),
        size: ByteCount(size),
        blake3: hash.to_hex().to_string(),
        content: draft.content.unwrap_or(hash).to_hex().to_string(),
    })
}

fn read_only(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o444))
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Returns the size and BLAKE3 of a file.
pub fn hash_file(path: &Path) -> io::Result<(u64, blake3::Hash)> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut size = 0;
    loop {
        let count = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok((size, hasher.finalize()));
        };
        size += count as u64;
        hasher.update(bytes);
    }
}

/// Reads an image's manifest.
///
/// # Errors
/// `Missing` if there is no image, `Corrupt` if its manifest is not believed, `Io`.
pub fn load(layout: &Layout, image: &ImageId) -> Result<Manifest, ImageError> {
    let path = layout.image_part(image, manifest::FILE_NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ImageError::Missing(image.clone()));
        }
        Err(source) => return Err(io_error(format!("open {}", path.display()), source)),
    };
    let mut bytes = Vec::new();
    file.take(limits::MAX_MANIFEST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| io_error(format!("read {}", path.display()), source))?;
    let corrupt =
        || ImageError::Corrupt { image: image.clone(), what: manifest::FILE_NAME.to_owned() };
    let manifest = Manifest::parse(&bytes).map_err(|_| corrupt())?;
    if manifest.image.id == *image { Ok(manifest) } else { Err(corrupt()) }
}

/// Returns every image that has a manifest that can be believed, the newest first. Others are told
/// to the log and left alone.
///
/// # Errors
/// `Io`.
pub fn list(layout: &Layout) -> Result<Vec<Image>, ImageError> {
    let entries = match std::fs::read_dir(layout.images()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(io_error("list images", source)),
    };
    let mut images = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| io_error("list images", source))?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<ImageId>().ok())
        else {
            continue;
        };
        match load(layout, &id) {
            Ok(manifest) => images.push(manifest.image),
            Err(error) => tracing::warn!(image = %id, %error, "an image is left out"),
        }
    }
    images.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
    Ok(images)
}

/// Checks every file of an image.
///
/// # Errors
/// `Missing`, `Corrupt` naming the first file that is not what it was, `Io`.
pub fn verify(layout: &Layout, image: &ImageId) -> Result<(), ImageError> {
    for part in load(layout, image)?.parts {
        let corrupt = || ImageError::Corrupt { image: image.clone(), what: part.name.clone() };
        let path = layout.image_part(image, &part.name);
        match hash_file(&path) {
            Ok((size, hash))
                if size == part.size.bytes() && part.blake3 == hash.to_hex().as_str() => {}
            Ok(_) => return Err(corrupt()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(corrupt()),
            Err(source) => return Err(io_error(format!("read {}", path.display()), source)),
        }
    }
    Ok(())
}

/// Removes an image's directory: out of sight by one rename, then file by file.
///
/// # Errors
/// `Io`, `DiskFull`.
pub fn remove(layout: &Layout, image: &ImageId) -> Result<(), ImageError> {
    let work = Work::new(&layout.tmp())?;
    let doomed: PathBuf = work.join(image.as_str());
    match std::fs::rename(layout.image(image), doomed) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error(format!("remove {image}"), source)),
    }
    sync(&layout.images()).map_err(|source| io_error(format!("remove {image}"), source))
}

#[cfg(test)]
mod tests;
