//! Where images come from: built from a distribution's packages, or imported.

use std::path::PathBuf;

use async_trait::async_trait;
use pando_model::{ByteCount, Image, ImageId, Name};

use crate::progress::Reporter;

/// An image to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildSpec {
    /// The name it gets.
    pub name: Name,
    /// Distribution release, such as "bookworm"; the host's own by default.
    pub release: Option<String>,
    /// Packages beyond the base.
    pub packages: Vec<String>,
    /// Package mirror; the one that the host uses by default.
    pub mirror: Option<String>,
    /// Virtual size of the root disk.
    pub disk_size: ByteCount,
}

/// What is imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportSource {
    /// A disk image (raw or qcow2) that boots by itself, such as a cloud image.
    Disk {
        /// The file.
        path: PathBuf,
        /// How it boots.
        firmware: FirmwareKind,
    },
    /// A root file system (tarball or directory) with a kernel to boot it.
    RootFs {
        /// The tarball or directory.
        path: PathBuf,
        /// A kernel image.
        kernel: PathBuf,
        /// Directory of that kernel's modules (`…/lib/modules/VERSION`); looked for in the root
        /// file system by default.
        modules: Option<PathBuf>,
        /// Path of its init program; looked for by default.
        init: Option<String>,
    },
}

/// Firmware of an imported disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirmwareKind {
    /// UEFI.
    Uefi,
    /// SeaBIOS.
    Bios,
}

/// An image to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportSpec {
    /// The name it gets.
    pub name: Name,
    /// What is imported.
    pub source: ImportSource,
    /// SHA-256 that the file must have, in hex.
    pub sha256: Option<String>,
    /// Virtual size of the root disk; the source's own by default, never less.
    pub disk_size: Option<ByteCount>,
}

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A program that this needs is not installed.
    #[error("{tool} is not installed")]
    ToolMissing {
        /// The program.
        tool: String,
        /// The Debian package that has it.
        package: String,
    },
    /// A program that this needs failed.
    #[error("{tool} failed: {detail}")]
    ToolFailed {
        /// The program.
        tool: String,
        /// Its last lines.
        detail: String,
    },
    /// The source is not safe or not usable.
    #[error("{path} is refused: {reason}", path = path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file's checksum is another one.
    #[error("{path} has SHA-256 {actual}, not {expected}", path = path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// A parameter makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// No mirror is known for the release.
    #[error("no package mirror for {release} is configured on this machine")]
    NoMirror {
        /// The release.
        release: String,
    },
    /// Stored data does not match its checksum.
    #[error("{what} of the image {image} is damaged")]
    Corrupt {
        /// The image.
        image: ImageId,
        /// The file.
        what: String,
    },
    /// The image has no files.
    #[error("the image {0} has no files")]
    Missing(ImageId),
    /// The disk is full.
    #[error("no space left for {0}")]
    DiskFull(String),
    /// The reporter was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The operating system refused something.
    #[error("cannot {what}")]
    Io {
        /// What was being done, as a verb phrase.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Makes and keeps images. An image appears whole or not at all.
#[async_trait]
pub trait Images: Send + Sync {
    /// Builds an image. If the same content exists already, that image is returned.
    async fn build(&self, spec: &BuildSpec, reporter: &Reporter) -> Result<Image, ImageError>;

    /// Imports an image. If the same content exists already, that image is returned.
    async fn import(&self, spec: &ImportSpec, reporter: &Reporter) -> Result<Image, ImageError>;

    /// Returns every image that has files, as its manifest describes it.
    async fn list(&self) -> Result<Vec<Image>, ImageError>;

    /// Checks every file of an image against its checksum.
    async fn verify(&self, image: &ImageId) -> Result<(), ImageError>;

    /// Removes an image's files. None is success.
    async fn remove(&self, image: &ImageId) -> Result<(), ImageError>;
}
