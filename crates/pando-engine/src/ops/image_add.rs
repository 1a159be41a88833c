//! `image_build` and `image_import`: the content decides the image's id, so it is known only when
//! it is there. One at a time, so that whatever has no record after a failure is this one's.

use std::path::PathBuf;

use async_trait::async_trait;
use pando_driver::images::{BuildSpec, FirmwareKind, ImportSource, ImportSpec};
use pando_driver::store::Transaction;
use pando_model::{ByteCount, Image, Name, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::locks::{Hold, LockSet};
use crate::operation::{Cx, Kind, memo};

/// What is built or imported, as it is written with the operation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Source {
    Build {
        release: Option<String>,
        packages: Vec<String>,
        mirror: Option<String>,
    },
    Disk {
        path: PathBuf,
        uefi: bool,
        sha256: Option<String>,
    },
    RootFs {
        path: PathBuf,
        kernel: PathBuf,
        modules: Option<PathBuf>,
        init: Option<String>,
        sha256: Option<String>,
    },
}

/// Returns an image whose name a newer one takes, under a name that says which it was.
pub(crate) fn step_aside(old: Image) -> Result<Image> {
    let suffix: String = old.id.suffix().chars().take(6).collect();
    let stem: String = old.name.as_str().chars().take(50).collect();
    let name = format!("{stem}-{suffix}");
    let name = name.parse().map_err(|_| Failure::internal(format!("`{name}`: no name")))?;
    Ok(Image { name, ..old })
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ImageAdd {
    pub name: Name,
    pub source: Source,
    pub disk_size: Option<ByteCount>,
    pub made: Option<Image>,
    /// Machines that are made of it, for the result.
    pub machines: u32,
}

impl ImageAdd {
    pub fn locks() -> LockSet {
        LockSet::new().with("images", Hold::Exclusive)
    }

    async fn make(&mut self, cx: &Cx) -> Result<()> {
        let import = |source, sha256: &Option<String>| ImportSpec {
            name: self.name.clone(),
            source,
            sha256: sha256.clone(),
            disk_size: self.disk_size,
        };
        let images = &cx.engine.images;
        let made = match &self.source {
            Source::Build { release, packages, mirror } => {
                let spec = BuildSpec {
                    name: self.name.clone(),
                    release: release.clone(),
                    packages: packages.clone(),
                    mirror: mirror.clone(),
                    disk_size: self.disk_size.unwrap_or(ByteCount::from_gib(4)),
                };
                images.build(&spec, &cx.reporter).await?
            }
            Source::Disk { path, uefi, sha256 } => {
                let firmware = if *uefi { FirmwareKind::Uefi } else { FirmwareKind::Bios };
                let source = ImportSource::Disk { path: path.clone(), firmware };
                images.import(&import(source, sha256), &cx.reporter).await?
            }
            Source::RootFs { path, kernel, modules, init, sha256 } => {
                let source = ImportSource::RootFs {
                    path: path.clone(),
                    kernel: kernel.clone(),
                    modules: modules.clone(),
                    init: init.clone(),
                };
                images.import(&import(source, sha256), &cx.reporter).await?
            }
        };
        self.made = Some(made);
        Ok(())
    }
}

#[async_trait]
impl Kind for ImageAdd {
    fn steps(&self) -> &'static [&'static str] {
        &["make"]
    }

    fn locks(&self) -> LockSet {
        Self::locks()
    }

    fn memo(&self) -> Value {
        memo(self)
    }

    async fn run(&mut self, _: &str, cx: &Cx) -> Result<Transaction> {
        self.make(cx).await?;
        Ok(Transaction::new())
    }

    async fn undo(&mut self, _: &str, cx: &Cx) -> Result<Transaction> {
        for image in cx.engine.images.list().await? {
            let recorded: Option<Image> = cx.engine.store.get(image.id.as_str()).await?;
            if recorded.is_none() {
                cx.engine.images.remove(&image.id).await?;
            }
        }
        Ok(Transaction::new())
    }

    async fn finish(&mut self, cx: &Cx) -> Result<Transaction> {
        let mut made = self.made.clone().ok_or_else(|| Failure::internal("no image was made"))?;
        made.name = self.name.clone();
        let mut records = Transaction::new();
        let holder: Option<Image> = cx.engine.store.named("", self.name.as_str()).await?;
        if let Some(old) = holder.filter(|old| old.id != made.id) {
            // Deleted and put, so that the name is free before it is taken again.
            records.delete::<Image>(old.id.as_str());
            records.put(&step_aside(old)?);
        }
        records.put(&made);
        self.made = Some(made);
        Ok(records)
    }

    fn result(&self, _: &OperationId) -> Value {
        let made = self.made.as_ref();
        made.map_or(Value::Null, |made| {
            memo(&crate::verbs::images::view(made, self.machines, Vec::new()))
        })
    }
}
