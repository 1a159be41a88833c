//! A node's disks: which it has, and the layers that they are written to.

use serde::{Deserialize, Serialize};

use crate::id::LayerId;
use crate::name::Name;
use crate::units::ByteCount;

/// Which of a machine's writable disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskRole {
    /// The root disk.
    Root,
    /// The firmware's variable store.
    Firmware,
    /// A disk beside the root disk, by its position in [`NodeShape::extra_disks`].
    ///
    /// [`NodeShape::extra_disks`]: crate::NodeShape::extra_disks
    Extra(u8),
}

/// A disk beside the root disk, empty when its node is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExtraDisk {
    /// Its name, unique in the node: the serial number that the guest sees. At most
    /// [`limits::MAX_DISK_NAME`] bytes.
    ///
    /// [`limits::MAX_DISK_NAME`]: crate::limits::MAX_DISK_NAME
    pub name: Name,
    /// Its size.
    pub size: ByteCount,
}

/// One layer for each of a node's writable disks: the tops of their chains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLayers {
    /// The root disk's.
    #[serde(rename = "layer")]
    pub root: LayerId,
    /// The firmware variables', for UEFI images.
    #[serde(rename = "vars_layer")]
    pub vars: Option<LayerId>,
    /// The extra disks', in the order of the node's shape.
    #[serde(default, rename = "extra_layers", skip_serializing_if = "Vec::is_empty")]
    pub extra: Vec<LayerId>,
}

impl NodeLayers {
    /// Returns the layers of a node that has nothing but a root disk.
    pub const fn of_root(root: LayerId) -> Self {
        Self { root, vars: None, extra: Vec::new() }
    }

    /// Returns all layers with the disks that they belong to.
    pub fn disks(&self) -> impl Iterator<Item = (DiskRole, &LayerId)> {
        let vars = self.vars.iter().map(|layer| (DiskRole::Firmware, layer));
        let extra = (0u8..).map(DiskRole::Extra).zip(&self.extra);
        std::iter::once((DiskRole::Root, &self.root)).chain(vars).chain(extra)
    }

    /// Returns all layers.
    pub fn iter(&self) -> impl Iterator<Item = &LayerId> {
        self.disks().map(|(_, layer)| layer)
    }

    /// Returns the layer of a disk, if the node has it.
    pub fn get(&self, disk: DiskRole) -> Option<&LayerId> {
        match disk {
            DiskRole::Root => Some(&self.root),
            DiskRole::Firmware => self.vars.as_ref(),
            DiskRole::Extra(number) => self.extra.get(usize::from(number)),
        }
    }

    /// Sets the layer of a disk that the node has.
    pub fn set(&mut self, disk: DiskRole, layer: LayerId) {
        let place = match disk {
            DiskRole::Root => Some(&mut self.root),
            DiskRole::Firmware => self.vars.as_mut(),
            DiskRole::Extra(number) => self.extra.get_mut(usize::from(number)),
        };
        if let Some(place) = place {
            *place = layer;
        }
    }

    /// Whether both are of the same disks.
    pub fn fits(&self, other: &Self) -> bool {
        let roles = |layers: &Self| layers.disks().map(|(disk, _)| disk).collect::<Vec<_>>();
        roles(self) == roles(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_before_there_were_extra_disks_load_and_are_written_the_same() {
        let text = r#"{"layer":"ly_0123456789ab","vars_layer":null}"#;
        let layers: NodeLayers = serde_json::from_str(text).unwrap();
        assert_eq!(layers.disks().count(), 1);
        assert_eq!(serde_json::to_string(&layers).unwrap(), text);
    }

    #[test]
    fn every_disk_has_a_layer_of_its_own() {
        let mut layers = NodeLayers {
            root: LayerId::random(),
            vars: Some(LayerId::random()),
            extra: vec![LayerId::random(), LayerId::random()],
        };
        let other = layers.clone();
        let disks: Vec<DiskRole> = layers.disks().map(|(disk, _)| disk).collect();
        assert_eq!(disks.len(), 4);
        for disk in disks {
            let next = LayerId::random();
            layers.set(disk, next.clone());
            assert_eq!(layers.get(disk), Some(&next));
            assert_ne!(layers.get(disk), other.get(disk));
        }
        assert!(layers.fits(&other) && !layers.fits(&NodeLayers::of_root(other.root)));
    }
}
