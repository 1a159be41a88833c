//! Captures: taken of branches that run, and of commits once, then kept under the home by id. A
//! kept capture is a cache or evidence, never needed: the oldest goes when there are many, and one
//! whose digest is wrong is as good as gone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use pando_api::network::ProbeRow;
use pando_model::capture::{Aspect, Capture};
use pando_model::{BranchId, Cluster, Commit, CommitId, CommitKind, Name};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::ops::look::{Wanted, probe_of};

/// Most captures that are kept: some megabytes each.
const MAX_KEPT: usize = 64;
/// Most guests of a side that are captured at once: each keeps a processor busy.
pub(crate) const MAX_CAPTURES_AT_ONCE: usize = 4;
/// Most bytes of a file that is compared line by line, or of a package's list.
const MAX_TEXT_BYTES: usize = 512 * 1024;
/// Most packages whose lists of files are read.
const MAX_LISTS: usize = 64;

/// What was seen of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sight {
    /// Some megabytes, which several comparisons may hold.
    #[serde(with = "shared")]
    pub capture: Arc<Capture>,
    /// Paths of the files of packages, where those were needed.
    #[serde(default)]
    pub lists: BTreeMap<String, Vec<String>>,
    /// Whom the node of a commit reached, where its whole cluster was looked into.
    #[serde(default)]
    pub reached: Option<Vec<ProbeRow>>,
    /// Contents of files that were asked for; `None` for what is none or too long.
    #[serde(skip)]
    pub files: BTreeMap<String, Option<String>>,
}

/// A shared capture is written as any other.
mod shared {
    use std::sync::Arc;

    use pando_model::capture::Capture;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(capture: &Capture, to: S) -> Result<S::Ok, S::Error> {
        capture.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Capture>, D::Error> {
        Capture::deserialize(from).map(Arc::new)
    }
}

/// A sight and where it is from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub branch: BranchId,
    pub address: String,
    /// The branch's latest commit then, or the commit itself.
    pub head: Option<CommitId>,
    pub node: Name,
    pub at: Timestamp,
    pub sight: Sight,
}

/// Returns the packages of a capture whose lists tell which files changed with them.
pub(crate) fn lists(capture: &Capture, against: &Capture) -> Vec<String> {
    let changed = |name: &&String| capture.packages.get(*name) != against.packages.get(*name);
    let known =
        |name: &&String| capture.files.contains_key(&format!("/var/lib/dpkg/info/{name}.list"));
    let names = capture.packages.keys().filter(changed).filter(known);
    names.take(MAX_LISTS).cloned().collect()
}

fn whole(capture: &Capture) -> bool {
    Aspect::ALL.iter().all(|aspect| capture.coverage.contains_key(aspect))
}

fn read(path: &Path) -> Option<Kept> {
    let bytes = std::fs::read(path).ok()?;
    let (digest, body) = bytes.split_at_checked(64)?;
    let intact = blake3::hash(body).to_hex().as_bytes() == digest;
    intact.then(|| serde_json::from_slice(body).ok()).flatten()
}

fn write(path: &Path, kept: &Kept) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    std::fs::create_dir_all(directory)?;
    let body = serde_json::to_vec(kept).map_err(std::io::Error::other)?;
    let mut bytes = blake3::hash(&body).to_hex().as_bytes().to_vec();
    bytes.extend(body);
    let unfinished = path.with_extension(format!("{}.part", crate::incarnation::random_hex()));
    std::fs::write(&unfinished, bytes)?;
    std::fs::rename(&unfinished, path)?;
    // The oldest go; what cannot be removed now is tried again with the next one.
    let mut all: Vec<_> = std::fs::read_dir(directory)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
        })
        .collect();
    all.sort();
    let excess = all.len().saturating_sub(MAX_KEPT);
    for (_, path) in all.into_iter().take(excess) {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

impl Engine {
    /// Returns a kept capture. `name` is an id's.
    pub(crate) async fn kept(&self, name: &str, node: &Name) -> Option<Kept> {
        let path = self.config.layout.capture(name, node);
        tokio::task::spawn_blocking(move || read(&path)).await.ok().flatten()
    }

    /// Returns the first kept capture of an id, whatever its node.
    pub(crate) async fn kept_as(&self, id: &str) -> Option<Kept> {
        let (directory, prefix) = (self.config.layout.captures(), format!("{id}."));
        let find = move || {
            let entries = std::fs::read_dir(directory).ok()?;
            let mut names = entries.filter_map(|entry| Some(entry.ok()?.path()));
            let of_id = |path: &std::path::PathBuf| {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                name.is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".json"))
            };
            read(&names.find(of_id)?)
        };
        tokio::task::spawn_blocking(find).await.ok().flatten()
    }

    /// Keeps a capture, so that it is found again by `name`.
    pub(crate) async fn keep(&self, name: &str, kept: Kept) -> std::io::Result<()> {
        let path = self.config.layout.capture(name, &kept.node);
        let written = tokio::task::spawn_blocking(move || write(&path, &kept)).await;
        written.map_err(std::io::Error::other)?
    }

    /// Returns captures of a commit's nodes: the kept ones, and new ones, which are kept. Each
    /// node comes with what it will be compared with, if that is known.
    pub(crate) async fn sights_of_commit(
        &self,
        cluster: &Cluster,
        commit: &Commit,
        nodes: Vec<(Name, Option<Arc<Capture>>)>,
    ) -> Result<BTreeMap<Name, Sight>> {
        let mut sights = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        let asks = probe_of(cluster, commit).is_some();
        let asked = |sight: &Sight| !asks || sight.reached.is_some();
        for (node, against) in nodes {
            match self.kept(commit.id.as_str(), &node).await {
                Some(kept) if whole(&kept.sight.capture) && asked(&kept.sight) => {
                    sights.insert(node, kept.sight);
                }
                _ => {
                    let aspects = Aspect::ALL.to_vec();
                    wanted.insert(node, Wanted { aspects, against, ..Wanted::default() });
                }
            }
        }
        if wanted.is_empty() {
            return Ok(sights);
        }
        if commit.kind == CommitKind::Disk {
            let message = format!("{} holds a disk only, which has to be booted first", commit.id);
            return Err(Failure::new(pando_model::ErrorCode::WrongState, message)
                .subject(commit.id.as_str())
                .hint(format!("pando branch {}, then compare with that branch", commit.id)));
        }
        for (node, sight) in self.look_into(cluster, commit, wanted).await? {
            self.keep_commit(commit, &node, &sight).await;
            sights.insert(node, sight);
        }
        Ok(sights)
    }

    /// Keeps what is known of a commit.
    pub(crate) async fn keep_commit(&self, commit: &Commit, node: &Name, sight: &Sight) {
        let kept = Kept {
            branch: commit.branch.clone(),
            address: commit.id.to_string(),
            head: Some(commit.id.clone()),
            node: node.clone(),
            at: commit.created_at,
            sight: sight.clone(),
        };
        if let Err(error) = self.keep(commit.id.as_str(), kept).await {
            // It is made again when it is needed.
            tracing::warn!(commit = %commit.id, %error, "a capture is not kept");
        }
    }

    /// Reads lists of packages' files; one that cannot be read is left out.
    pub(crate) async fn read_lists(
        &self,
        host_id: &BranchId,
        node: &Name,
        names: Vec<String>,
        sight: &mut Sight,
    ) {
        for name in names.into_iter().take(MAX_LISTS) {
            if sight.lists.contains_key(&name) {
                continue;
            }
            let path = format!("/var/lib/dpkg/info/{name}.list");
            let text = match self.read_text(host_id, node, &path).await {
                Ok(text) => text,
                // A guest that fails at one is not waited for at each.
                Err(failure) => {
                    tracing::info!(%node, error = %failure.0, "lists of packages' files are left out");
                    return;
                }
            };
            if let Some(text) = text {
                let paths = text.lines().filter(|path| path.starts_with('/') && *path != "/.");
                sight.lists.insert(name, paths.map(str::to_owned).collect());
            }
        }
    }

    /// Reads a text of a guest. `None` when it is none, is not there, or is too long.
    pub(crate) async fn read_text(
        &self,
        host_id: &BranchId,
        node: &Name,
        path: &str,
    ) -> Result<Option<String>> {
        let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(8);
        let collect = async move {
            let mut contents = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                if contents.len() + chunk.len() > MAX_TEXT_BYTES {
                    // Dropping the receiver ends the transfer.
                    return None;
                }
                contents.extend(chunk);
            }
            String::from_utf8(contents).ok().filter(|text| !text.contains('\0'))
        };
        let (facts, text) = tokio::join!(self.host.pull(host_id, node, path, sender), collect);
        match facts {
            Ok(_) => Ok(text),
            Err(
                pando_driver::HostError::Cancelled | pando_driver::HostError::GuestRefused { .. },
            ) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
