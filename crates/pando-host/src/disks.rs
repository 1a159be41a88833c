//! Disk layers.

use std::collections::BTreeMap;

use pando_driver::host::HostError;
use pando_driver::progress::Reporter;
use pando_model::commit::{Below, Layer};
use pando_model::{BranchId, ByteCount, DiskRole, LayerId, Layout, Name};
use pando_wire::keeper::{Reply, Request};
use std::path::PathBuf;
use tokio::time::Instant;

use crate::branches::layer_bytes;
use crate::client::unexpected;
use crate::{LocalHost, files, limits, trouble};

impl LocalHost {
    pub(crate) async fn make_layer(&self, layer: &Layer) -> Result<(), HostError> {
        let (layout, disks, layer) =
            (self.layout().clone(), self.config.disks.clone(), layer.clone());
        trouble::blocking("make a disk layer", move || {
            files::make_directory(&layout.layers())?;
            let path = layout.layer(&layer.id);
            if let Some(below) = below_path(&layout, &layer.below).filter(|path| !path.exists()) {
                return Err(HostError::Missing { what: below.display().to_string() });
            }
            let backing = backing_name(&layer.below);
            disks.create_layer(&path, backing.as_deref(), layer.size).map_err(|error| {
                HostError::Io {
                    what: format!("make {}", path.display()),
                    detail: trouble::chain(&error),
                }
            })
        })
        .await
    }

    pub(crate) async fn all_layers(&self) -> Result<BTreeMap<LayerId, ByteCount>, HostError> {
        let layout = self.layout().clone();
        trouble::blocking("list disk layers", move || {
            let ids = files::ids_in::<LayerId>(&layout.layers(), ".qcow2")?;
            Ok(ids.into_iter().map(|id| (id.clone(), layer_bytes(&layout.layer(&id)))).collect())
        })
        .await
    }

    pub(crate) async fn flatten_disk(
        &self,
        branch: &BranchId,
        node: &Name,
        disk: DiskRole,
        keep: &Below,
        reporter: &Reporter,
    ) -> Result<(), HostError> {
        let deadline = Instant::now() + limits::FLATTEN;
        let Some(keep) = below_path(self.layout(), keep) else {
            let what = "a layer that the disk shall lie on".to_owned();
            return Err(HostError::Missing { what });
        };
        let request = Request::Flatten { node: node.clone(), disk, keep, timeout: limits::FLATTEN };
        loop {
            // The keeper works in slices, so that a commit never waits for the whole of it.
            match self.ask(branch, &request, limits::COMMAND).await {
                Ok(Reply::Done) => return Ok(()),
                Ok(other) => return Err(unexpected(&other)),
                Err(HostError::Deadline { .. }) if Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
            if reporter.is_cancelled() {
                return Err(HostError::Cancelled);
            }
        }
    }
}

/// Returns what a layer's header says of its backing file: relative to the layers' directory, so
/// that a home can be moved.
fn backing_name(below: &Below) -> Option<String> {
    Some(match below {
        Below::Layer(layer) => format!("{layer}.qcow2"),
        Below::Image(image) => format!("../images/{image}/disk.qcow2"),
        Below::ImageVars(image) => format!("../images/{image}/vars.qcow2"),
        Below::Nothing => return None,
    })
}

fn below_path(layout: &Layout, below: &Below) -> Option<PathBuf> {
    Some(match below {
        Below::Layer(layer) => layout.layer(layer),
        Below::Image(image) => layout.image_part(image, "disk.qcow2"),
        Below::ImageVars(image) => layout.image_part(image, "vars.qcow2"),
        Below::Nothing => return None,
    })
}
