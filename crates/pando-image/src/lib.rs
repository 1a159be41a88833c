//! Images: built from a distribution's packages, or imported, and kept content-addressed.
//! Implements [`pando_driver::Images`]; the engine calls nothing else here. The host calls
//! [`seed`] when it starts a machine of an image that boots by itself.
//!
//! ```text
//! packages ─ mmdebstrap ─┐                            ┌─ pack ─ fakeroot: tar, mkfs.ext4 ─ qcow2
//! rootfs ─ tar, directory ┴─ Tree (validated, edited) ┴─ initramfs, kernel ──────────────┐
//! disk ─ inspected ─ qemu-img convert ───────────────────────────────────────────────────┴ publish
//! ```
//!
//! Everything happens in a scratch directory below the home's `tmp`. An image appears by one rename
//! after all of it is on the disk, and never changes afterwards. Whatever comes from outside is
//! hostile: archives are read entry by entry into a [`tree::Tree`] and never unpacked as they are,
//! disks are inspected before any program opens them.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod apt;
pub mod boot;
pub mod bootstrap;
pub mod cache;
pub mod cpio;
pub mod disk;
pub mod fuzz;
pub mod import;
pub mod initramfs;
pub mod iso;
pub mod kernel;
pub mod limits;
pub mod manifest;
pub mod mmdebstrap;
pub mod modules;
pub mod names;
pub mod qcow2;
pub mod rootfs;
pub mod seed;
pub mod sources;
pub mod store;
pub mod system;
pub mod tool;
pub mod tree;
pub mod work;

use std::path::PathBuf;

use async_trait::async_trait;
use pando_driver::images::{BuildSpec, ImportSpec};
use pando_driver::{ImageError, Images, Reporter};
use pando_model::{Image, ImageId, Layout};

/// What the image store needs to know.
#[derive(Debug, Clone)]
pub struct ImageConfig {
    /// Where images and scratch files are.
    pub layout: Layout,
    /// The static guest program that goes into every image.
    pub guest_program: PathBuf,
    /// Where this machine's `etc` is: `/`, except in tests.
    pub system_root: PathBuf,
}

impl ImageConfig {
    /// Returns the configuration of a home on this machine.
    pub fn new(layout: Layout, guest_program: impl Into<PathBuf>) -> Self {
        Self { layout, guest_program: guest_program.into(), system_root: PathBuf::from("/") }
    }
}

impl ImageConfig {
    /// Returns the packages that earlier builds of this home downloaded.
    fn package_cache(&self) -> cache::PackageCache {
        cache::PackageCache::new(self.layout.home().join("cache/packages"))
    }
}

/// Makes and keeps the images of one home.
#[derive(Debug, Clone)]
pub struct ImageStore {
    config: ImageConfig,
}

impl ImageStore {
    /// Returns the store of a home. Nothing is touched before it is used.
    pub fn new(config: ImageConfig) -> Self {
        Self { config }
    }

    /// Runs blocking work on the layout.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Layout) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let layout = self.config.layout.clone();
        tokio::task::spawn_blocking(move || work(&layout)).await.unwrap_or_else(|panic| {
            Err(work::io_error("do blocking work", std::io::Error::other(panic.to_string())))
        })
    }
}

#[async_trait]
impl Images for ImageStore {
    async fn build(&self, spec: &BuildSpec, reporter: &Reporter) -> Result<Image, ImageError> {
        bootstrap::build(&self.config, spec, reporter).await
    }

    async fn import(&self, spec: &ImportSpec, reporter: &Reporter) -> Result<Image, ImageError> {
        import::import(&self.config, spec, reporter).await
    }

    async fn list(&self) -> Result<Vec<Image>, ImageError> {
        self.blocking(store::list).await
    }

    async fn verify(&self, image: &ImageId) -> Result<(), ImageError> {
        let image = image.clone();
        self.blocking(move |layout| store::verify(layout, &image)).await
    }

    async fn remove(&self, image: &ImageId) -> Result<(), ImageError> {
        let image = image.clone();
        self.blocking(move |layout| store::remove(layout, &image)).await
    }
}
