//! What an image's directory says about itself: `image.json`.
//!
//! An image's id stands for its content: how it boots, its disk's size, and for each file a digest
//! of what it holds. For most files that is the digest of its bytes; a disk made here is identified
//! by the files that went into it, because its bytes are not reproducible. Every file's own BLAKE3
//! is kept as well, and is what [`crate::ImageStore`] verifies.

use jiff::Timestamp;
use pando_model::{BootMethod, ByteCount, Image, ImageId, Name};
use serde::{Deserialize, Serialize};

use crate::limits;

/// Name of the file itself.
pub const FILE_NAME: &str = "image.json";

/// Version of the format written here.
const FORMAT: u32 = 1;

/// One file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name in the image's directory.
    pub name: String,
    /// Its size.
    pub size: ByteCount,
    /// BLAKE3 of its bytes, in hex.
    pub blake3: String,
    /// What it holds, in hex: equal contents have equal values, whatever the bytes are.
    pub content: String,
}

/// The manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// The image's record.
    pub image: Image,
    /// Its files, sorted by name.
    pub parts: Vec<Part>,
}

/// What an image is, apart from its files.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The name that was asked for.
    pub name: Name,
    /// How it starts.
    pub boot: BootMethod,
    /// Virtual size of its root disk.
    pub disk_size: ByteCount,
    /// What runs as process 1.
    pub init: String,
    /// Where it came from.
    pub origin: String,
}

/// Why a manifest is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is not what this program writes.
    #[error("the manifest is not readable")]
    Unreadable,
    /// Its digest or id does not follow from its files.
    #[error("the manifest does not match its own digest")]
    Digest,
}

/// Returns the digest that identifies an image with these facts and file contents.
pub fn digest_of<'a>(
    facts: &Facts,
    contents: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> blake3::Hash {
    let mut contents: Vec<_> = contents.into_iter().collect();
    contents.sort_unstable();
    let boot = match &facts.boot {
        BootMethod::Direct { cmdline } => format!("direct {cmdline}"),
        BootMethod::Uefi => "uefi".to_owned(),
        BootMethod::Bios => "bios".to_owned(),
    };
    let mut hasher = blake3::Hasher::new_derive_key("pando image 1");
    let mut field = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    field(&boot);
    field(&facts.disk_size.bytes().to_string());
    field(&facts.init);
    for (name, content) in contents {
        field(name);
        field(content);
    }
    hasher.finalize()
}

impl Manifest {
    /// Returns the manifest of an image with these files.
    pub fn new(facts: Facts, mut parts: Vec<Part>, created_at: Timestamp) -> Self {
        parts.sort_by(|a, b| a.name.cmp(&b.name));
        let digest = digest_of(&facts, contents(&parts));
        let stored = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.size.bytes()));
        let Facts { name, boot, disk_size, init, origin } = facts;
        let image = Image {
            id: ImageId::from_digest(digest.as_bytes()),
            name,
            digest: digest.to_hex().to_string(),
            boot,
            disk_size,
            stored: ByteCount(stored),
            init,
            origin,
            created_at,
        };
        Self { format: FORMAT, image, parts }
    }

    /// Returns the bytes of `image.json`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// Reads a manifest and checks that it is whole: names are plain, and id and digest follow from
    /// the rest.
    ///
    /// # Errors
    /// If it is not.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > limits::MAX_MANIFEST_BYTES {
            return Err(ManifestError::Unreadable);
        }
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|_| ManifestError::Unreadable)?;
        let plain = |part: &Part| {
            part.name != FILE_NAME
                && !part.name.starts_with('.')
                && !part.name.contains(['/', '\0'])
        };
        if manifest.format != FORMAT
            || manifest.parts.len() > limits::MAX_PARTS
            || !manifest.parts.iter().all(plain)
        {
            return Err(ManifestError::Unreadable);
        }
        let image = &manifest.image;
        let facts = Facts {
            name: image.name.clone(),
            boot: image.boot.clone(),
            disk_size: image.disk_size,
            init: image.init.clone(),
            origin: image.origin.clone(),
        };
        let digest = digest_of(&facts, contents(&manifest.parts));
        if image.digest != digest.to_hex().as_str()
            || image.id != ImageId::from_digest(digest.as_bytes())
        {
            return Err(ManifestError::Digest);
        }
        Ok(manifest)
    }
}

fn contents(parts: &[Part]) -> impl Iterator<Item = (&str, &str)> {
    parts.iter().map(|part| (part.name.as_str(), part.content.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, content: &str, size: u64) -> Manifest {
        let facts = Facts {
            name: name.parse().unwrap(),
            boot: BootMethod::Bios,
            disk_size: ByteCount::from_gib(size),
            init: "systemd".to_owned(),
            origin: "a test".to_owned(),
        };
        let part = Part {
            name: "disk.qcow2".to_owned(),
            size: ByteCount(7),
            blake3: "00".to_owned(),
            content: content.to_owned(),
        };
        Manifest::new(facts, vec![part], Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_id_follows_content_and_not_the_name() {
        let base = manifest("a", "11", 1);
        assert_eq!(base.image.id, manifest("b", "11", 1).image.id);
        assert_ne!(base.image.id, manifest("a", "22", 1).image.id);
        assert_ne!(base.image.id, manifest("a", "11", 2).image.id);
    }

    #[test]
    fn a_changed_manifest_is_not_believed() {
        let base = manifest("a", "11", 1);
        let bytes = base.to_bytes();
        assert_eq!(Manifest::parse(&bytes), Ok(base));
        let text = String::from_utf8(bytes).unwrap();
        let changed = text.replace("\"11\"", "\"22\"");
        assert_eq!(Manifest::parse(changed.as_bytes()), Err(ManifestError::Digest));
        for hostile in ["../x", ".hidden", "a/b", FILE_NAME] {
            let changed = text.replace("disk.qcow2", hostile);
            assert_eq!(Manifest::parse(changed.as_bytes()), Err(ManifestError::Unreadable));
        }
        assert_eq!(Manifest::parse(b"{}"), Err(ManifestError::Unreadable));
    }
}
