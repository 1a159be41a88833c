//! From records to a running incarnation: disks, the specification that a host starts, and ids
//! that are chosen before anything is recorded.

use std::collections::BTreeMap;
use std::time::Duration;

use pando_driver::host::{
    AfterStart, BranchSpec, Clock, NodeSpec, NodeStart, StartReport, StopMode,
};
use pando_model::branch::BranchNode;
use pando_model::commit::{Below, Layer};
use pando_model::guest::{Identity, InterfaceConfig};
use pando_model::network::{NetworkSpec, Port};
use pando_model::{
    BootMethod, Branch, BranchId, ByteCount, Cluster, Commit, CommitNode, Image, ImageId, LayerId,
    Name, NodeDef, NodeLayers, Uplink, network,
};
use rand::Rng;

use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::operation::Cx;

/// The first MAC address of a cluster; every interface gets the next one. The same in every
/// branch: they are the same machines.
const FIRST_MAC: u32 = 0x0012_3456;

/// Returns the MAC addresses of a node's interfaces.
pub(crate) fn macs(cluster: &Cluster, node: &Name) -> Vec<String> {
    let mut next = FIRST_MAC;
    for def in &cluster.nodes {
        if def.name == *node {
            if !def.interfaces.is_empty() {
                return def.interfaces.iter().map(|own| own.mac.to_string()).collect();
            }
            return born_macs(next, def.shape.nics);
        }
        next += u32::from(def.shape.nics);
    }
    Vec::new()
}

fn born_macs(first: u32, nics: u8) -> Vec<String> {
    (0..u32::from(nics)).map(|nic| mac(first + nic)).collect()
}

/// Returns what a new node's interfaces are told. In a cluster with segments each has its own MAC
/// address, and has that of its image's ready state until then.
pub(crate) fn interfaces(cluster: &Cluster, def: &NodeDef) -> Vec<InterfaceConfig> {
    if cluster.networks.is_empty() {
        let first = macs(cluster, &def.name).into_iter().take(1);
        let config = |mac| InterfaceConfig {
            mac,
            was: None,
            address: format!("{}/{}", network::ADDRESS, network::PREFIX_BITS),
            more: Vec::new(),
            gateway: Some(network::GATEWAY.to_string()),
            dns: match cluster.uplink {
                Uplink::None => Vec::new(),
                Uplink::Nat => vec![network::NAME_SERVER.to_string()],
            },
        };
        return first.map(config).collect();
    }
    let born = born_macs(FIRST_MAC, def.shape.nics);
    let mut configs = Vec::with_capacity(def.interfaces.len());
    for (number, own) in def.interfaces.iter().enumerate() {
        let Some(segment) = cluster.network(&own.network) else { continue };
        let bits6 = segment.gateway6.map_or(64, |(_, bits)| bits);
        let address = own.address.map(|address| format!("{address}/{}", segment.prefix_bits));
        let address6 = own.address6.map(|address| format!("{address}/{bits6}"));
        let mut addresses = address.into_iter().chain(address6);
        let Some(address) = addresses.next() else { continue };
        let first = number == 0;
        // On a bridge of the kernel nobody is the gateway, and nobody answers for names.
        let served = first && segment.bridge.is_none();
        let mut dns = if served { vec![segment.gateway.to_string()] } else { Vec::new() };
        if first && segment.uplink == Uplink::Nat {
            dns.push(network::NAME_SERVER.to_string());
        }
        configs.push(InterfaceConfig {
            mac: own.mac.to_string(),
            was: born.get(number).cloned(),
            address,
            more: addresses.collect(),
            gateway: served.then(|| segment.gateway.to_string()),
            dns,
        });
    }
    configs
}

/// Returns what a branch's switch is told; a cluster without segments has none.
fn network_of(cluster: &Cluster, branch: &Branch, from: Option<&Commit>) -> Option<NetworkSpec> {
    if cluster.networks.is_empty() {
        return None;
    }
    let ports = cluster.nodes.iter().flat_map(|def| {
        (0u8..).zip(&def.interfaces).map(|(nic, own)| Port {
            node: def.name.clone(),
            nic,
            segment: own.network.clone(),
            mac: own.mac,
            address: own.address,
            address6: own.address6,
        })
    });
    Some(NetworkSpec {
        domain: cluster.name.to_string(),
        segments: cluster.networks.clone(),
        ports: ports.collect(),
        faults: branch.faults.clone(),
        restore: from.filter(|commit| commit.network.is_some()).map(|commit| commit.id.clone()),
    })
}

fn mac(low: u32) -> String {
    let [_, a, b, c] = low.to_be_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

/// Returns 32 random hex characters: a keeper's secret, a machine id.
pub(crate) fn random_hex() -> String {
    format!("{:032x}", rand::rng().random::<u128>())
}

/// New overlays for all nodes of a branch: what the branch records, and what is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Disks {
    pub nodes: Vec<BranchNode>,
    pub layers: Vec<Layer>,
}

impl Disks {
    /// Adds a node's disks: a layer for each, as `layers` names them.
    fn add(&mut self, name: &Name, layers: NodeLayers, files: Vec<Layer>) {
        self.nodes.push(BranchNode { name: name.clone(), layers, ready: None });
        self.layers.extend(files);
    }

    /// Adds new, empty layers on those of a node, which `below` returns.
    fn add_over(&mut self, name: &Name, on: &NodeLayers, below: &[Layer]) {
        let mut layers = on.clone();
        let mut files = Vec::with_capacity(below.len());
        for (disk, id) in on.disks() {
            let Some(below) = below.iter().find(|layer| layer.id == *id) else { continue };
            let file = overlay(below);
            layers.set(disk, file.id.clone());
            files.push(file);
        }
        self.add(name, layers, files);
    }

    /// Returns empty disks on a node's image.
    pub fn on_image(def: &NodeDef, image: &Image) -> Self {
        let layer = |below, size| Layer { id: LayerId::random(), below, size, depth: 1 };
        let root = layer(Below::Image(image.id.clone()), def.shape.disk);
        // A variable store is as large as its image's: nobody can ask for another size.
        let vars = matches!(image.boot, BootMethod::Uefi)
            .then(|| layer(Below::ImageVars(image.id.clone()), ByteCount(0)));
        let extra = def.shape.extra_disks.iter().map(|disk| layer(Below::Nothing, disk.size));
        let extra: Vec<Layer> = extra.collect();
        let layers = NodeLayers {
            root: root.id.clone(),
            vars: vars.as_ref().map(|vars| vars.id.clone()),
            extra: extra.iter().map(|layer| layer.id.clone()).collect(),
        };
        let files = std::iter::once(root).chain(vars).chain(extra);
        let mut disks = Self::default();
        disks.add(&def.name, layers, files.collect());
        disks
    }

    /// Returns new, empty disks on these.
    pub fn covered(&self) -> Self {
        let mut next = Self::default();
        for node in &self.nodes {
            next.add_over(&node.name, &node.layers, &self.layers);
        }
        next
    }

    /// Adds another node's disks.
    pub fn extend(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
        self.layers.extend(other.layers);
    }

    /// Makes the files.
    pub async fn create(&self, engine: &Engine) -> Result<()> {
        for layer in &self.layers {
            engine.host.create_layer(layer).await?;
        }
        Ok(())
    }

    /// Removes the files.
    pub async fn discard(&self, engine: &Engine) -> Result<()> {
        for layer in self.layers.iter().rev() {
            engine.host.discard_layer(&layer.id).await?;
        }
        Ok(())
    }
}

fn overlay(on: &Layer) -> Layer {
    Layer {
        id: LayerId::random(),
        below: Below::Layer(on.id.clone()),
        size: on.size,
        depth: on.depth + 1,
    }
}

/// Returns the node of a commit that `name` continues from: the one with its name, or the only one
/// (an image's ready state has a name of its own).
pub(crate) fn saved_node<'a>(commit: &'a Commit, name: &Name) -> Result<&'a CommitNode> {
    let named = commit.nodes.iter().find(|node| node.name == *name);
    let only = || commit.nodes.first().filter(|_| commit.nodes.len() == 1);
    named.or_else(only).ok_or_else(|| Failure::not_found("node of that commit", name.as_str()))
}

impl Engine {
    /// Returns the record of a layer.
    pub(crate) async fn layer(&self, id: &LayerId) -> Result<Layer> {
        let found = self.store.get(id.as_str()).await?;
        found.ok_or_else(|| Failure::internal(format!("the disk layer {id} is not recorded")))
    }

    /// Returns the records of a node's layers.
    pub(crate) async fn layers(&self, of: &NodeLayers) -> Result<Vec<Layer>> {
        let mut layers = Vec::new();
        for id in of.iter() {
            layers.push(self.layer(id).await?);
        }
        Ok(layers)
    }

    /// Returns the record of an image.
    pub(crate) async fn image(&self, id: &ImageId) -> Result<Image> {
        let found = self.store.get(id.as_str()).await?;
        found.ok_or_else(|| Failure::not_found("image", id.as_str()))
    }

    /// Returns new overlays on a commit's disks, for nodes named as in the commit, or `rename` for
    /// the only node of a ready state.
    pub(crate) async fn disks_on_commit(
        &self,
        commit: &Commit,
        rename: Option<&Name>,
    ) -> Result<Disks> {
        let mut disks = Disks::default();
        for node in &commit.nodes {
            let below = self.layers(&node.layers).await?;
            disks.add_over(rename.unwrap_or(&node.name), &node.layers, &below);
        }
        Ok(disks)
    }

    /// Returns new overlays on the disks that a branch has now.
    pub(crate) async fn disks_on_branch(&self, branch: &Branch) -> Result<Disks> {
        let mut disks = Disks::default();
        for node in &branch.nodes {
            disks.add_over(&node.name, &node.layers, &self.layers(&node.layers).await?);
        }
        for (next, node) in disks.nodes.iter_mut().zip(&branch.nodes) {
            next.ready.clone_from(&node.ready);
        }
        Ok(disks)
    }

    /// Ends what runs under a host id, at once, and removes its files; layers stay.
    pub(crate) async fn remove_incarnation(&self, host_id: &BranchId) -> Result<()> {
        self.host.stop(host_id, StopMode::Kill).await?;
        self.host.discard_branch(host_id).await?;
        Ok(())
    }
}

/// An incarnation that is to be started.
pub(crate) struct Incarnation<'a> {
    pub cluster: &'a Cluster,
    pub branch: &'a Branch,
    /// Continue from this full commit; boot the disks if absent.
    pub from: Option<&'a Commit>,
    /// For new nodes from an image.
    pub identities: BTreeMap<Name, Identity>,
    /// For new nodes from an image: the ready states that they continue from.
    pub ready: BTreeMap<Name, Commit>,
    pub after: AfterStart,
    pub clock: Clock,
    pub timeout: Duration,
}

impl<'a> Incarnation<'a> {
    /// Returns the incarnation of a branch that runs when all nodes answer.
    pub fn new(engine: &Engine, cluster: &'a Cluster, branch: &'a Branch) -> Self {
        Self {
            cluster,
            branch,
            from: None,
            identities: BTreeMap::new(),
            ready: BTreeMap::new(),
            after: AfterStart::Run,
            clock: Clock::Step,
            timeout: engine.config.restore_timeout,
        }
    }

    /// Starts it: makes the commit's memory mappable first, if it is not.
    pub async fn start(self, cx: &Cx) -> Result<StartReport> {
        let engine = &cx.engine;
        for commit in self.from.into_iter().chain(self.ready.values()) {
            engine.materialise(commit, &cx.reporter).await?;
        }
        let profile = engine.host.profile().await?;
        let mut nodes = Vec::with_capacity(self.branch.nodes.len());
        for node in &self.branch.nodes {
            nodes.push(self.node(engine, node).await?);
        }
        let spec = BranchSpec {
            branch: self.branch.host_id.clone(),
            cluster: self.cluster.id.clone(),
            title: format!("{}@{}", self.cluster.name, self.branch.name),
            generation: self.branch.generation,
            token: self.branch.keeper_token.clone(),
            accelerator: profile.accelerator,
            nodes,
            network: network_of(self.cluster, self.branch, self.from),
            clock: self.clock,
            after: self.after,
            durable_disk: engine.config.durable_disk,
            ready_timeout: self.timeout,
        };
        Ok(engine.host.start(&spec, &cx.reporter).await?)
    }

    async fn node(&self, engine: &Engine, node: &BranchNode) -> Result<NodeSpec> {
        let defined = self.cluster.nodes.iter().find(|def| def.name == node.name);
        let def = defined.ok_or_else(|| Failure::not_found("node", node.name.as_str()))?;
        let image = engine.image(&def.image).await?;
        let seed = seed(self.cluster, def, &image);
        let start = match self.from.or_else(|| self.ready.get(&node.name)) {
            None => NodeStart::Boot,
            Some(commit) => NodeStart::Restore {
                commit: commit.id.clone(),
                saved_as: saved_node(commit, &node.name)?.name.clone(),
            },
        };
        Ok(NodeSpec {
            name: node.name.clone(),
            shape: def.shape.clone(),
            image: image.id,
            boot: image.boot,
            init: image.init,
            layers: node.layers.clone(),
            start,
            macs: macs(self.cluster, &node.name),
            // With segments, the switch is the way to the outside.
            uplink: match self.cluster.networks.is_empty() {
                true => self.cluster.uplink,
                false => Uplink::None,
            },
            identity: self.identities.get(&node.name).cloned(),
            seed,
        })
    }
}

/// Returns the files of a node's seed disk, which images that boot by themselves need: it brings
/// them the guest program. The same in every incarnation, because it is a device of the machine.
fn seed(cluster: &Cluster, def: &NodeDef, image: &Image) -> Option<BTreeMap<String, String>> {
    if matches!(image.boot, BootMethod::Direct { .. }) {
        return None;
    }
    let meta = format!("instance-id: {}\nlocal-hostname: {}\n", cluster.id, def.name.host_name());
    let mut files = BTreeMap::from([("meta-data".to_owned(), meta)]);
    let config = def.user_data.as_ref().filter(|data| data.starts_with("#cloud-config"));
    files.extend(config.map(|data| ("user-data".to_owned(), data.clone())));
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_count_up_from_the_first() {
        assert_eq!(mac(FIRST_MAC), "52:54:00:12:34:56");
        assert_eq!(mac(FIRST_MAC + 0xaa), "52:54:00:12:35:00");
    }

    #[test]
    fn secrets_are_32_hex_characters_and_differ() {
        let (first, second) = (random_hex(), random_hex());
        assert_ne!(first, second);
        assert!(first.len() == 32 && first.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
