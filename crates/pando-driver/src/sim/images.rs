//! Images in memory.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use pando_model::{BootMethod, ByteCount, Image, ImageId, Name};

use super::Connection;
use super::faults::Outcome;
use crate::images::{BuildSpec, ImageError, Images, ImportSource, ImportSpec};
use crate::progress::Reporter;

struct SimImages(Connection);

impl Connection {
    /// Returns the world's images.
    pub fn images(&self) -> Arc<dyn Images> {
        Arc::new(SimImages(self.clone()))
    }
}

fn failed() -> ImageError {
    ImageError::ToolFailed { tool: "sim".to_owned(), detail: "simulated failure".to_owned() }
}

/// Content decides the id, as for real ones.
fn image(name: &Name, content: &str, boot: BootMethod, disk_size: ByteCount) -> Image {
    let mut digest = [0u8; 32];
    for (position, byte) in content.bytes().enumerate() {
        let place = position % digest.len();
        if let Some(slot) = digest.get_mut(place) {
            *slot = slot.wrapping_mul(31).wrapping_add(byte);
        }
    }
    Image {
        id: ImageId::from_digest(&digest),
        name: name.clone(),
        digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        boot,
        disk_size,
        stored: ByteCount::from_mib(1),
        init: "systemd".to_owned(),
        origin: content.to_owned(),
        created_at: Timestamp::now(),
    }
}

impl SimImages {
    async fn act<T>(
        &self,
        name: &str,
        effect: impl FnOnce() -> Result<T, ImageError> + Send,
    ) -> Result<T, ImageError>
    where
        T: Send,
    {
        tokio::task::yield_now().await;
        let (before, after) = self.0.world.faults.decide(name, self.0.life);
        match before {
            Outcome::Go => {}
            Outcome::Fail => return Err(failed()),
            Outcome::Hang => std::future::pending().await,
        }
        let result = effect();
        match after {
            Outcome::Go => result,
            Outcome::Fail => result.and_then(|_| Err(failed())),
            Outcome::Hang => {
                self.0.world.faults.crash();
                std::future::pending().await
            }
        }
    }

    fn add(&self, image: Image) -> Image {
        self.0.world.state().images.entry(image.id.clone()).or_insert(image).clone()
    }
}

#[async_trait]
impl Images for SimImages {
    async fn build(&self, spec: &BuildSpec, reporter: &Reporter) -> Result<Image, ImageError> {
        reporter.report("installing packages", 0, 2);
        self.act("images.build", || {
            let content = format!("{:?} {:?}", spec.release, spec.packages);
            let boot = BootMethod::Direct { cmdline: String::new() };
            Ok(self.add(image(&spec.name, &content, boot, spec.disk_size)))
        })
        .await
    }

    async fn import(&self, spec: &ImportSpec, _: &Reporter) -> Result<Image, ImageError> {
        self.act("images.import", || {
            let (content, boot) = match &spec.source {
                ImportSource::Disk { path, .. } => (path, BootMethod::Uefi),
                ImportSource::RootFs { path, .. } => {
                    (path, BootMethod::Direct { cmdline: String::new() })
                }
            };
            let size = spec.disk_size.unwrap_or(ByteCount::from_gib(2));
            Ok(self.add(image(&spec.name, &content.display().to_string(), boot, size)))
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Image>, ImageError> {
        self.act("images.list", || Ok(self.0.world.state().images.values().cloned().collect()))
            .await
    }

    async fn verify(&self, image: &ImageId) -> Result<(), ImageError> {
        self.act("images.verify", || {
            let known = self.0.world.state().images.contains_key(image);
            if known { Ok(()) } else { Err(ImageError::Missing(image.clone())) }
        })
        .await
    }

    async fn remove(&self, image: &ImageId) -> Result<(), ImageError> {
        self.act("images.remove", || {
            self.0.world.state().images.remove(image);
            Ok(())
        })
        .await
    }
}
