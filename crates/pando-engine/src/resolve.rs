//! From what a caller wrote (`CLUSTER[@BRANCH][/NODE]`, an id, a tag) to what exists.

use pando_driver::store::Query;
use pando_model::branch::{BranchRole, Checkout};
use pando_model::commit::Tag;
use pando_model::{
    Address, Branch, BranchId, BranchState, Cluster, ClusterId, ClusterState, Commit, CommitId,
    ErrorCode, Image, ImageId, Name,
};

use crate::engine::Engine;
use crate::failure::{Failure, Result};

/// The branch that an address without one means when nothing is checked out.
const MAIN: &str = "main";
/// Most names that an error lists.
const MAX_NAMES: usize = 8;

/// A branch of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub cluster: Cluster,
    pub branch: Branch,
}

/// A node on a branch.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub place: Place,
    pub node: Name,
}

/// What can be branched from.
pub(crate) enum Source {
    Branch(Place),
    Commit(Cluster, Commit),
}

/// Returns an address that names a machine whatever is checked out.
pub(crate) fn vm_id(_: &Cluster, branch: &Branch, node: &Name) -> String {
    format!("{}/{node}", branch.id)
}

/// Returns an address that names a branch's only machine, or all of them, whatever is checked out.
pub(crate) fn machine_id(cluster: &Cluster, branch: &Branch) -> String {
    match branch.nodes.as_slice() {
        [only] => vm_id(cluster, branch, &only.name),
        _ => branch.id.to_string(),
    }
}

impl Failure {
    /// Says of which node this is: as its subject, and in the commands that its hint names.
    pub fn at(self, target: &Target) -> Self {
        let Self(mut error) = self;
        let (branch, node) = (target.place.address(), &target.node);
        let address = format!("{branch}/{node}");
        error.hint = error.hint.map(|hint| {
            let hint = match target.place.branch.nodes.len() {
                1 => hint,
                _ => hint
                    .replace("vm control ADDRESS restart", &format!("node crash {branch} {node}")),
            };
            let hint = hint.replace("vm control ADDRESS", &format!("vm control {branch}"));
            hint.replace("ADDRESS", &address).replace("CLUSTER", &branch)
        });
        error.subject.get_or_insert(address);
        Self(error)
    }
}

impl Place {
    pub fn address(&self) -> String {
        format!("{}@{}", self.cluster.name, self.branch.name)
    }
}

/// Refuses a cluster that is on its way out, or not whole yet: what is made in it now would belong
/// to nobody.
pub(crate) fn must_stay(cluster: &Cluster) -> Result<()> {
    let (is, hint) = match cluster.state {
        ClusterState::Ready => return Ok(()),
        ClusterState::Creating => ("being created", "wait for it: `pando operation list`"),
        ClusterState::Deleting => ("being deleted", "`pando operation list` says how far it is"),
    };
    let message = format!("{} is {is}", cluster.name);
    Err(Failure::new(ErrorCode::WrongState, message).subject(cluster.name.as_str()).hint(hint))
}

fn listed<'a>(names: impl Iterator<Item = &'a Name>) -> String {
    let names: Vec<&str> = names.take(MAX_NAMES).map(Name::as_str).collect();
    names.join(", ")
}

impl Engine {
    /// Returns a cluster by name or id.
    pub(crate) async fn cluster(&self, text: &str) -> Result<Cluster> {
        let found = match text.parse::<ClusterId>() {
            Ok(id) => self.store.get(id.as_str()).await?,
            Err(_) => self.store.named("", text).await?,
        };
        if let Some(cluster) = found {
            return Ok(cluster);
        }
        let all: Vec<Cluster> = self.store.list(&Query::all()).await?;
        let failure = Failure::not_found("machine or cluster", text);
        Err(match all.is_empty() {
            true => failure.hint("there is none yet: `pando vm create NAME` makes one"),
            false => failure.hint(format!("there is {}", listed(all.iter().map(|c| &c.name)))),
        })
    }

    /// Returns the only cluster, for calls that name none.
    pub(crate) async fn only_cluster(&self) -> Result<Cluster> {
        let mut all: Vec<Cluster> = self.store.list(&Query::all()).await?;
        match (all.pop(), all.is_empty()) {
            (Some(only), true) => Ok(only),
            (None, _) => Err(Failure::new(ErrorCode::NotFound, "there is no machine yet")
                .hint("`pando vm create NAME` makes one")),
            (Some(last), false) => {
                let names = listed(all.iter().map(|c| &c.name).chain([&last.name]));
                Err(Failure::new(ErrorCode::Ambiguous, "there are several machines; name one")
                    .hint(format!("one of {names}")))
            }
        }
    }

    /// Returns a cluster's live branches.
    pub(crate) async fn branches_of(&self, cluster: &ClusterId) -> Result<Vec<Branch>> {
        let query = Query {
            statuses: vec!["running", "paused", "stopped"],
            ..Query::scope(cluster.as_str())
        };
        Ok(self.store.list(&query).await?)
    }

    /// Returns the branch that a principal works on when it names none.
    pub(crate) async fn current(&self, principal: &str, cluster: &Cluster) -> Result<Branch> {
        let key = format!("{}/{principal}", cluster.id);
        let checkout: Option<Checkout> = self.store.get(&key).await?;
        if let Some(checkout) = checkout
            && let Some(branch) = self.store.get(checkout.branch.as_str()).await?
        {
            return Ok(branch);
        }
        if let Some(main) = self.store.named(cluster.id.as_str(), MAIN).await? {
            return Ok(main);
        }
        let mut branches = self.branches_of(&cluster.id).await?;
        match (branches.pop(), branches.is_empty()) {
            (Some(only), true) => Ok(only),
            (None, _) => {
                let message = format!("{} has no branch", cluster.name);
                Err(Failure::new(ErrorCode::NotFound, message)
                    .hint(format!("branch one of its commits: `pando log {}`", cluster.name)))
            }
            (Some(last), false) => {
                let names = listed(branches.iter().map(|b| &b.name).chain([&last.name]));
                let message = format!("{} has several branches; name one", cluster.name);
                Err(Failure::new(ErrorCode::Ambiguous, message)
                    .hint(format!("{}@BRANCH, with one of {names}", cluster.name)))
            }
        }
    }

    async fn branch_by_id(&self, id: &BranchId) -> Result<Place> {
        let found: Option<Branch> = self.store.get(id.as_str()).await?;
        let branch = found
            .filter(|branch| branch.role == BranchRole::Live)
            .ok_or_else(|| Failure::not_found("branch", id.as_str()))?;
        let cluster: Option<Cluster> = self.store.get(branch.cluster.as_str()).await?;
        let cluster =
            cluster.ok_or_else(|| Failure::not_found("cluster", branch.cluster.as_str()))?;
        Ok(Place { cluster, branch })
    }

    /// Returns the branch that an address names.
    pub(crate) async fn place(&self, principal: &str, address: Option<&Address>) -> Result<Place> {
        let Some(address) = address else {
            let cluster = self.only_cluster().await?;
            let branch = self.current(principal, &cluster).await?;
            return Ok(Place { cluster, branch });
        };
        if let Ok(id) = address.cluster.parse::<BranchId>() {
            return self.branch_by_id(&id).await;
        }
        if address.cluster.parse::<CommitId>().is_ok() {
            let message = format!("{} is a commit; a branch is needed", address.cluster);
            return Err(Failure::new(ErrorCode::InvalidParameter, message)
                .hint(format!("branch it first: `pando branch {}`", address.cluster)));
        }
        let cluster = self.cluster(&address.cluster).await?;
        let Some(name) = &address.branch else {
            let branch = self.current(principal, &cluster).await?;
            return Ok(Place { cluster, branch });
        };
        let branch = self.store.named(cluster.id.as_str(), name.as_str()).await?;
        match branch {
            Some(branch) => Ok(Place { cluster, branch }),
            None => {
                let there = self.branches_of(&cluster.id).await?;
                let failure = Failure::not_found("branch", &address.to_string());
                let names = listed(there.iter().map(|branch| &branch.name));
                Err(failure.hint(format!("{} has {names}", cluster.name)))
            }
        }
    }

    /// Returns the branch as it is now, once its lock is held.
    pub(crate) async fn again(&self, place: Place) -> Result<Place> {
        let address = place.address();
        let cluster: Option<Cluster> = self.store.get(place.cluster.id.as_str()).await?;
        let branch: Option<Branch> = self.store.get(place.branch.id.as_str()).await?;
        match (cluster, branch) {
            (Some(cluster), Some(branch)) if branch.role == BranchRole::Live => {
                must_stay(&cluster)?;
                Ok(Place { cluster, branch })
            }
            _ => Err(Failure::not_found("branch", &address)),
        }
    }

    /// Returns the node that an address names.
    pub(crate) async fn target(
        &self,
        principal: &str,
        address: Option<&Address>,
    ) -> Result<Target> {
        let place = self.place(principal, address).await?;
        let nodes = &place.branch.nodes;
        let named = address.and_then(|address| address.node.as_ref());
        let node = match (named, nodes.as_slice()) {
            (Some(name), nodes) => {
                let found = nodes.iter().find(|node| node.name == *name);
                found.ok_or_else(|| {
                    let names = listed(nodes.iter().map(|node| &node.name));
                    Failure::not_found("node", name.as_str())
                        .hint(format!("{} has {names}", place.address()))
                })?
            }
            (None, [only]) => only,
            (None, nodes) => {
                let names = listed(nodes.iter().map(|node| &node.name));
                let message = format!("{} has several nodes; name one", place.address());
                return Err(Failure::new(ErrorCode::Ambiguous, message)
                    .hint(format!("{}/NODE, with one of {names}", place.address())));
            }
        };
        Ok(Target { node: node.name.clone(), place })
    }

    /// Returns a commit that is kept.
    pub(crate) async fn commit_by_id(&self, id: &CommitId) -> Result<Commit> {
        let found: Option<Commit> = self.store.get(id.as_str()).await?;
        found
            .filter(|commit| !commit.deleted)
            .ok_or_else(|| Failure::not_found("commit", id.as_str()))
    }

    async fn cluster_of(&self, commit: &Commit) -> Result<Cluster> {
        let found = self.store.get(commit.cluster.as_str()).await?;
        found.ok_or_else(|| Failure::not_found("commit", commit.id.as_str()))
    }

    async fn tagged(&self, cluster: &Cluster, name: &str) -> Result<Option<Commit>> {
        let tag: Option<Tag> = self.store.named(cluster.id.as_str(), name).await?;
        match tag {
            Some(tag) => Ok(Some(self.commit_by_id(&tag.commit).await?)),
            None => Ok(None),
        }
    }

    /// Returns the commit with a tag that only one cluster has.
    async fn tagged_anywhere(&self, tag: &str) -> Result<(Cluster, Commit)> {
        let clusters: Vec<Cluster> = self.store.list(&Query::all()).await?;
        let mut found = Vec::new();
        for cluster in clusters {
            if let Some(commit) = self.tagged(&cluster, tag).await? {
                found.push((cluster, commit));
            }
        }
        match (found.pop(), found.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                let all = found.iter().chain([&last]).map(|(cluster, _)| &cluster.name);
                let message = format!("several machines have a tag `{tag}`");
                let places: Vec<String> = all.map(|name| format!("{name}@{tag}")).collect();
                Err(Failure::new(ErrorCode::Ambiguous, message)
                    .hint(format!("one of {}", places.join(", "))))
            }
            (None, _) => Err(Failure::not_found("commit or tag", tag)
                .hint("`pando log MACHINE` lists them; commits have ids such as cm_0123456789ab")),
        }
    }

    /// Returns the commit that `CLUSTER@TAG`, an id, or a tag of `home` names.
    pub(crate) async fn commit_named(
        &self,
        text: &str,
        home: Option<&Cluster>,
    ) -> Result<(Cluster, Commit)> {
        if let Ok(id) = text.parse::<CommitId>() {
            let commit = self.commit_by_id(&id).await?;
            return Ok((self.cluster_of(&commit).await?, commit));
        }
        let (cluster, tag) = match (text.split_once('@'), home) {
            (Some((cluster, tag)), _) => (self.cluster(cluster).await?, tag),
            (None, Some(home)) => (home.clone(), text),
            (None, None) => return self.tagged_anywhere(text).await,
        };
        match self.tagged(&cluster, tag).await? {
            Some(commit) => Ok((cluster, commit)),
            None => {
                let failure = Failure::not_found("commit or tag", text);
                Err(failure.hint(format!("`pando log {}` lists them", cluster.name)))
            }
        }
    }

    /// Returns what can be branched from: a branch before a tag of the same name.
    pub(crate) async fn source(
        &self,
        principal: &str,
        address: Option<&Address>,
    ) -> Result<Source> {
        let Some(address) = address else {
            return Ok(Source::Branch(self.place(principal, None).await?));
        };
        if let Ok(id) = address.cluster.parse::<CommitId>() {
            let commit = self.commit_by_id(&id).await?;
            return Ok(Source::Commit(self.cluster_of(&commit).await?, commit));
        }
        match (self.place(principal, Some(address)).await, &address.branch) {
            (Ok(place), _) => Ok(Source::Branch(place)),
            (Err(failure), Some(tag)) if failure.code() == ErrorCode::NotFound => {
                let cluster = self.cluster(&address.cluster).await?;
                match self.tagged(&cluster, tag.as_str()).await? {
                    Some(commit) => Ok(Source::Commit(cluster, commit)),
                    None => Err(failure),
                }
            }
            (Err(failure), _) => Err(failure),
        }
    }

    /// Returns an image by name or id.
    pub(crate) async fn image_named(&self, text: &str) -> Result<Image> {
        let found: Option<Image> = match text.parse::<ImageId>() {
            Ok(id) => self.store.get(id.as_str()).await?,
            Err(_) => self.store.named("", text).await?,
        };
        if let Some(image) = found {
            return Ok(image);
        }
        let all: Vec<Image> = self.store.list(&Query::all()).await?;
        let failure = Failure::not_found("image", text);
        Err(match all.is_empty() {
            true => failure.hint("there is none yet: `pando image build` makes one"),
            false => failure.hint(format!("there is {}", listed(all.iter().map(|i| &i.name)))),
        })
    }

    /// Refuses a branch whose guests cannot answer.
    pub(crate) fn must_run(&self, place: &Place) -> Result<()> {
        let (is, action) = match place.branch.state {
            BranchState::Running => return Ok(()),
            BranchState::Paused => ("paused", "resume"),
            BranchState::Stopped => ("stopped", "start"),
        };
        let address = place.address();
        let because = place.branch.stopped_because.as_ref();
        let because = because.map(|why| format!(" ({why})")).unwrap_or_default();
        Err(Failure::new(ErrorCode::WrongState, format!("{address} is {is}{because}"))
            .subject(address.clone())
            .hint(match (action, &place.cluster.topology) {
                ("start", Some(_)) => format!("`pando cluster start {address}`"),
                _ => format!("`pando vm control {address} {action}`"),
            }))
    }
}
