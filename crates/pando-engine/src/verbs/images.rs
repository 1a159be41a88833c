//! `image_*`.

use std::path::PathBuf;

use pando_api::ApiError;
use pando_api::image::{
    Firmware, ImageBuildParams, ImageImportParams, ImageListParams, ImageListResult,
    ImageRemoveParams, ImageView, ImportKind, ReadyView,
};
use pando_driver::store::Query;
use pando_model::{
    BootMethod, ByteCount, Cluster, Commit, ErrorCode, Image, ImageId, Name, ReadyState,
};

use super::Planned;
use crate::engine::Engine;
use crate::failure::Result;
use crate::operation::Plan;
use crate::ops::image_add::{ImageAdd, Source};
use crate::ops::image_remove::ImageRemove;
use crate::paging::page;

/// Returns bytes as GiB, rounded up.
pub(super) fn gib(size: ByteCount) -> u64 {
    size.0.div_ceil(1 << 30)
}

/// Returns an image as clients see it.
pub(crate) fn view(image: &Image, machines: u32, ready: Vec<ReadyView>) -> ImageView {
    let boot = match &image.boot {
        BootMethod::Direct { .. } => "direct",
        BootMethod::Uefi => "uefi",
        BootMethod::Bios => "bios",
    };
    ImageView {
        image_id: image.id.clone(),
        name: image.name.to_string(),
        digest: image.digest.clone(),
        boot: boot.to_owned(),
        init: image.init.clone(),
        origin: image.origin.clone(),
        disk_gib: gib(image.disk_size),
        size_bytes: image.stored.0,
        machines,
        ready,
        created_at: image.created_at,
    }
}

impl Engine {
    /// Returns the clusters that are made of an image.
    pub(super) async fn made_of(&self, image: &ImageId) -> Result<Vec<Cluster>> {
        let clusters: Vec<Cluster> = self.store.list(&Query::all()).await?;
        let of_image = |cluster: &Cluster| cluster.nodes.iter().any(|node| node.image == *image);
        Ok(clusters.into_iter().filter(of_image).collect())
    }

    async fn image_view(&self, image: &Image) -> Result<ImageView> {
        let machines = self.made_of(&image.id).await?.len();
        let states: Vec<ReadyState> = self.store.list(&Query::scope(image.id.as_str())).await?;
        let mut ready = Vec::with_capacity(states.len());
        for state in states {
            let commit: Option<Commit> = self.store.get(state.commit.as_str()).await?;
            ready.push(ReadyView {
                vcpus: state.shape.vcpus,
                memory_mib: state.shape.memory.mib(),
                disk_gib: gib(state.shape.disk),
                nics: state.shape.nics,
                size_bytes: commit.map_or(0, |commit| commit.size.0),
                created_at: state.created_at,
            });
        }
        Ok(view(image, u32::try_from(machines).unwrap_or(u32::MAX), ready))
    }

    pub(super) async fn image_show(&self, text: &str) -> Result<ImageView> {
        let image = self.image_named(text).await?;
        self.image_view(&image).await
    }

    pub(super) async fn image_list(&self, params: ImageListParams) -> Result<ImageListResult> {
        let mut all: Vec<Image> = self.store.list(&Query::all()).await?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let cursor = params.cursor.as_deref();
        let (rows, page) = page(all, params.limit, cursor, |image| image.id.to_string())?;
        let mut images = Vec::with_capacity(rows.len());
        for image in &rows {
            images.push(self.image_view(image).await?);
        }
        Ok(ImageListResult { images, page })
    }

    pub(super) async fn plan_image_build(&self, params: ImageBuildParams) -> Result<Planned> {
        let name: Name =
            params.name.parse().map_err(|error| ApiError::parameter("name", format!("{error}")))?;
        let source = Source::Build {
            release: params.release,
            packages: params.packages,
            mirror: params.mirror,
        };
        self.plan_image_add(name, source, Some(ByteCount::from_gib(params.disk_gib))).await
    }

    pub(super) async fn plan_image_import(&self, params: ImageImportParams) -> Result<Planned> {
        let path = PathBuf::from(params.path);
        let source = match (params.kind, params.kernel) {
            (ImportKind::Disk, _) => Source::Disk {
                path,
                uefi: params.firmware == Firmware::Uefi,
                sha256: params.sha256,
            },
            (ImportKind::Rootfs, Some(kernel)) => Source::RootFs {
                path,
                kernel: PathBuf::from(kernel),
                modules: params.modules.map(PathBuf::from),
                init: params.init,
                sha256: params.sha256,
            },
            (ImportKind::Rootfs, None) => {
                let message = "a root file system needs a `kernel`";
                return Err(ApiError::parameter("kernel", message).into());
            }
        };
        self.plan_image_add(params.name, source, params.disk_gib.map(ByteCount::from_gib)).await
    }

    async fn plan_image_add(
        &self,
        name: Name,
        source: Source,
        disk_size: Option<ByteCount>,
    ) -> Result<Planned> {
        let verb =
            if matches!(source, Source::Build { .. }) { "image_build" } else { "image_import" };
        let guard = self.hold(ImageAdd::locks(), verb).await?;
        self.check_disk("a new image").await?;
        let kind = ImageAdd { name, source, disk_size, made: None, machines: 0 };
        Ok(Plan { kind: Box::new(kind), guard, timeout: self.config.image_timeout }.into())
    }

    pub(super) async fn plan_image_remove(&self, params: &ImageRemoveParams) -> Result<Planned> {
        let image = self.image_named(&params.image).await?;
        let guard = self.hold(ImageRemove::locks_for(&image), "image_remove").await?;
        let image = self.image(&image.id).await?;
        let machines = self.made_of(&image.id).await?;
        if let Some(cluster) = machines.first() {
            // Also with `force`: removing machines is `vm_delete`'s, which says what is lost.
            let count = machines.len();
            let message = format!(
                "{} machines are made of {}, `{}` for one",
                count, image.name, cluster.name
            );
            return Err(ApiError::new(ErrorCode::InUse, message)
                .subject(image.name.as_str())
                .hint(format!("first `pando vm rm {} --remove-overlays`", cluster.name))
                .into());
        }
        let ready: Vec<ReadyState> = self.store.list(&Query::scope(image.id.as_str())).await?;
        let mut commits: Vec<Commit> = Vec::with_capacity(ready.len());
        for state in &ready {
            commits.extend(self.store.get::<Commit>(state.commit.as_str()).await?);
        }
        let kind = ImageRemove { image, ready, commits };
        Ok(Plan { kind: Box::new(kind), guard, timeout: self.config.undo_timeout * 2 }.into())
    }
}
