//! The life of a branch's incarnations.

use pando_driver::host::{
    BranchSpec, Clock, CutReport, CutSpec, HostError, NodeStart, Observation, StartReport, StopMode,
};
use pando_driver::progress::Reporter;
use pando_model::{BranchId, ByteCount, CommitId, Name};
use pando_wire::keeper::{Reply, Request};
use std::time::Duration;
use tokio::time::timeout;

use crate::client::{Connection, Peer, unexpected};
use crate::{LocalHost, files, keepers, limits, memory, trouble};

impl LocalHost {
    /// Connects to the keeper of a branch.
    ///
    /// # Errors
    /// [`HostError::NotRunning`] when there is none, [`HostError::KeeperLost`] when it is silent.
    pub(crate) async fn connect(&self, branch: &BranchId) -> Result<Connection, HostError> {
        self.connect_to(&self.peer(branch)?).await
    }

    async fn connect_to(&self, peer: &Peer) -> Result<Connection, HostError> {
        match Connection::open(self.layout(), peer).await {
            Ok(connection) => Ok(connection),
            Err(error) => Err(if keepers::has_ended(self.layout(), &peer.branch).await? {
                HostError::NotRunning { branch: peer.branch.clone() }
            } else {
                error
            }),
        }
    }

    /// Returns whom the branch's keeper must prove to be.
    fn peer(&self, branch: &BranchId) -> Result<Peer, HostError> {
        let not_running = || HostError::NotRunning { branch: branch.clone() };
        keepers::peer(self.layout(), branch)?.ok_or_else(not_running)
    }

    /// Connects to a branch's keeper for one exchange, over a connection of an earlier one if there
    /// is any. It is given back once the answer is there.
    pub(crate) async fn borrow(&self, branch: &BranchId) -> Result<(Peer, Connection), HostError> {
        let peer = self.peer(branch)?;
        let connection = match self.idle.take(&peer) {
            Some(connection) => connection,
            None => self.connect_to(&peer).await?,
        };
        Ok((peer, connection))
    }

    pub(crate) async fn ask(
        &self,
        branch: &BranchId,
        request: &Request,
        wait: Duration,
    ) -> Result<Reply, HostError> {
        let (peer, mut connection) = self.borrow(branch).await?;
        let reply = connection.ask(request, wait).await;
        // After a lost answer it is not idle, and is closed.
        if !matches!(reply, Err(HostError::KeeperLost { .. })) {
            self.idle.give_back(peer, connection);
        }
        reply
    }

    /// Asks for something that is answered by its being done.
    pub(crate) async fn tell(&self, branch: &BranchId, request: &Request) -> Result<(), HostError> {
        match self.ask(branch, request, limits::COMMAND).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn start_branch(
        &self,
        spec: &BranchSpec,
        reporter: &Reporter,
    ) -> Result<StartReport, HostError> {
        let (layout, branch) = (self.layout(), &spec.branch);
        let alive = self.keeper_of(spec).await?;
        let mut spawned = None;
        if !alive {
            memory::check_room(self, spec)?;
            let directory = layout.branch(branch);
            files::make_directory(&directory)?;
            files::make_directory(&layout.memory())?;
            self.write_seeds(spec)?;
            let json = serde_json::to_vec_pretty(spec)
                .map_err(|error| HostError::Protocol { detail: error.to_string() })?;
            files::write_whole(&layout.branch_spec(branch), &json)?;
            files::remove_file(&layout.branch_ends(branch))?;
            spawned = Some(keepers::spawn(layout, &self.config.keeper_program, branch)?);
        }
        let boots = spec.nodes.iter().any(|node| matches!(node.start, NodeStart::Boot));
        reporter.report(if boots { "booting" } else { "restoring" }, 0, 0);
        let started = self.await_start(spec, reporter).await;
        if started.is_err() {
            // One that does not hold its lock yet is not found, and would take it later.
            if let Some(spawned) = spawned
                && !keepers::is_alive(layout, branch).unwrap_or(false)
            {
                spawned.end().await;
            }
            self.end_failed_start(branch).await;
        }
        started
    }

    /// Returns whether the keeper of this very incarnation lives; one of an older incarnation is
    /// ended.
    async fn keeper_of(&self, spec: &BranchSpec) -> Result<bool, HostError> {
        if !keepers::is_alive(self.layout(), &spec.branch)? {
            // The machines of one that was killed may still write to the disks.
            keepers::wait_gone(self.layout(), &spec.branch, limits::GONE).await?;
            return Ok(false);
        }
        match self.connect(&spec.branch).await {
            Ok(connection) if connection.generation == spec.generation => Ok(true),
            Ok(_) | Err(_) => {
                self.stop_branch(&spec.branch, StopMode::Kill).await?;
                Ok(false)
            }
        }
    }

    async fn await_start(
        &self,
        spec: &BranchSpec,
        reporter: &Reporter,
    ) -> Result<StartReport, HostError> {
        let wait = spec.ready_timeout + limits::GRACE;
        let request = Request::AwaitStart { timeout: wait };
        let ask = async {
            let mut connection = self.connect(&spec.branch).await?;
            connection.ask(&request, wait + limits::GRACE).await
        };
        let reply = tokio::select! {
            // Dropping the question is safe: the connection goes with it.
            reply = ask => reply,
            () = reporter.cancelled() => Err(HostError::Cancelled),
        };
        match reply {
            Ok(Reply::Started { report }) => Ok(report),
            Ok(other) => Err(unexpected(&other)),
            Err(HostError::NotRunning { .. } | HostError::KeeperLost { .. }) => {
                Err(HostError::KeeperLost {
                    branch: spec.branch.clone(),
                    detail: self.last_words(&spec.branch),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the end of a keeper's log, for want of an answer.
    fn last_words(&self, branch: &BranchId) -> String {
        let log = std::fs::read_to_string(self.layout().keeper_log(branch)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        if lines.is_empty() {
            return "it ended without a word".into();
        }
        format!("it ended: {}", lines.into_iter().rev().collect::<Vec<_>>().join(" | "))
    }

    async fn end_failed_start(&self, branch: &BranchId) {
        let ended = match keepers::wait_gone(self.layout(), branch, limits::ANSWER / 2).await {
            Ok(()) => Ok(()),
            Err(_) => keepers::kill(self.layout(), branch).await,
        };
        if let Err(error) = ended.and_then(|()| keepers::remove_socket(self.layout(), branch)) {
            tracing::error!(%branch, %error, "a failed start is not cleared away");
        }
    }

    fn write_seeds(&self, spec: &BranchSpec) -> Result<(), HostError> {
        for node in &spec.nodes {
            if let Some(contents) = &node.seed {
                let bytes = (self.config.seeds)(contents)?;
                let path = self.layout().branch(&spec.branch).join(format!("{}.seed", node.name));
                files::write_whole(&path, &bytes)?;
            }
        }
        Ok(())
    }

    pub(crate) async fn observe_branch(
        &self,
        branch: &BranchId,
        memory: bool,
    ) -> Result<Option<Observation>, HostError> {
        if !keepers::is_alive(self.layout(), branch)? {
            return Ok(None);
        }
        let mut observation =
            match self.ask(branch, &Request::Observe { memory }, limits::ANSWER).await {
                Ok(Reply::Observed { observation }) => observation,
                Ok(other) => return Err(unexpected(&other)),
                Err(HostError::NotRunning { .. }) => return Ok(None),
                Err(HostError::KeeperLost { .. })
                    if keepers::has_ended(self.layout(), branch).await? =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
        for node in &mut observation.nodes {
            let sizes = node.layers.iter().map(|layer| layer_bytes(&self.layout().layer(layer)).0);
            node.disk_used = ByteCount(sizes.sum());
        }
        Ok(Some(observation))
    }

    pub(crate) async fn pause_branch(&self, branch: &BranchId) -> Result<(), HostError> {
        self.tell(branch, &Request::Pause).await
    }

    pub(crate) async fn resume_branch(
        &self,
        branch: &BranchId,
        clock: Clock,
    ) -> Result<(), HostError> {
        match self.ask(branch, &Request::Resume { clock }, limits::RESUME).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn stop_branch(
        &self,
        branch: &BranchId,
        mode: StopMode,
    ) -> Result<(), HostError> {
        let layout = self.layout();
        self.idle.forget(branch);
        let patience = match mode {
            StopMode::Shutdown { timeout } => timeout + limits::GRACE,
            StopMode::Kill => limits::ANSWER,
        };
        if let Ok(mut connection) = self.connect(branch).await
            && connection.ask(&Request::Stop { mode }, patience).await.is_ok()
        {
            let _ = timeout(limits::GONE, connection.wait_hangup()).await;
        }
        if keepers::wait_gone(layout, branch, limits::ANSWER / 4).await.is_err() {
            keepers::kill(layout, branch).await?;
        }
        keepers::remove_socket(layout, branch)
    }

    pub(crate) async fn cut_branch(
        &self,
        branch: &BranchId,
        spec: &CutSpec,
    ) -> Result<CutReport, HostError> {
        let request = Request::Cut { spec: spec.clone() };
        match self.ask(branch, &request, spec.timeout + limits::GRACE).await? {
            Reply::Cut { report } => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn adopt(
        &self,
        branch: &BranchId,
        commit: &CommitId,
    ) -> Result<Option<CutReport>, HostError> {
        if keepers::is_alive(self.layout(), branch)? {
            let wait = limits::COMMAND * 4;
            let request = Request::AwaitCut { commit: commit.clone(), timeout: wait };
            match self.ask(branch, &request, wait + limits::GRACE).await {
                Ok(Reply::Cut { .. } | Reply::NoCut) | Err(HostError::NotRunning { .. }) => {}
                Ok(other) => return Err(unexpected(&other)),
                Err(HostError::KeeperLost { .. })
                    if keepers::has_ended(self.layout(), branch).await? => {}
                Err(error) => return Err(error),
            }
        }
        let (layout, branch, commit) = (self.layout().clone(), branch.clone(), commit.clone());
        trouble::blocking("adopt a cut", move || pando_keeper::adopt(&layout, &branch, &commit))
            .await
    }

    pub(crate) async fn anonymise(
        &self,
        branch: &BranchId,
        node: &Name,
        wait: Duration,
    ) -> Result<(), HostError> {
        let request = Request::MakeAnonymous { node: node.clone(), timeout: wait };
        match self.ask(branch, &request, wait + limits::COMMAND).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

/// Returns the bytes that a layer's file takes on the disk; 0 when it is not there.
pub(crate) fn layer_bytes(path: &std::path::Path) -> ByteCount {
    use std::os::unix::fs::MetadataExt;
    ByteCount(std::fs::metadata(path).map_or(0, |found| found.blocks() * 512))
}
