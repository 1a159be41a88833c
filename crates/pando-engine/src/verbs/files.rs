//! Files, consoles and logins: `file_push`, `file_pull`, `connect_info`, `console_read`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pando_api::exec::{
    ConnectInfoParams, ConnectInfoResult, ConsoleReadParams, ConsoleReadResult, FilePullParams,
    FilePullResult, FilePushParams, FilePushResult,
};
use pando_api::{ApiError, Caller, PullRequest, PushRequest};
use pando_model::guest::{FileFacts, PushSpec};
use pando_topology::Ssh;
use tokio::sync::mpsc;

use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::keys;
use crate::topologies;

/// Chunks that may wait between the client and the guest.
const QUEUE: usize = 8;
/// Bytes in one chunk of an inline file.
const CHUNK: usize = 64 * 1024;
/// Where a node's SSH server listens.
const SSH_PORT: u16 = 22;

fn octal(mode: u32) -> String {
    format!("{mode:03o}")
}

impl Engine {
    pub(crate) async fn push_stream(
        &self,
        caller: &Caller,
        request: PushRequest,
        chunks: mpsc::Receiver<Vec<u8>>,
    ) -> Result<FileFacts> {
        let target = self.target(&caller.principal, Some(&request.address)).await?;
        self.must_run(&target.place)?;
        let noted = self.journal(caller, "push", &target, &request.path)?;
        let spec = PushSpec {
            path: request.path,
            mode: request.mode,
            owner: request.owner,
            make_parents: request.make_parents,
            size: request.size,
        };
        let host_id = &target.place.branch.host_id;
        let facts = self.host.push(host_id, &target.node, &spec, chunks).await;
        let facts = facts.map_err(Failure::from);
        noted.ended(&facts);
        self.notice_loss_in(&target, facts)
    }

    pub(crate) async fn pull_stream(
        &self,
        caller: &Caller,
        request: PullRequest,
        chunks: mpsc::Sender<Vec<u8>>,
    ) -> Result<FileFacts> {
        let target = self.target(&caller.principal, Some(&request.address)).await?;
        self.must_run(&target.place)?;
        let noted = self.journal(caller, "pull", &target, &request.path)?;
        let host_id = &target.place.branch.host_id;
        let facts = self.host.pull(host_id, &target.node, &request.path, chunks).await;
        let facts = facts.map_err(Failure::from);
        noted.ended(&facts);
        self.notice_loss_in(&target, facts)
    }

    pub(super) async fn file_push(
        &self,
        caller: &Caller,
        params: FilePushParams,
    ) -> Result<FilePushResult> {
        let mode = params.mode_bits();
        let contents = match (params.content, params.content_base64) {
            (Some(text), _) => text.into_bytes(),
            (None, Some(text)) => BASE64.decode(text.trim()).map_err(|error| {
                ApiError::parameter("content_base64", format!("it is no base64: {error}"))
            })?,
            (None, None) => Vec::new(),
        };
        let request = PushRequest {
            address: params.address,
            path: params.path,
            mode,
            owner: params.owner,
            make_parents: params.make_parents,
            size: contents.len() as u64,
        };
        let (sender, chunks) = mpsc::channel(QUEUE);
        let feed = async move {
            for chunk in contents.chunks(CHUNK) {
                if sender.send(chunk.to_vec()).await.is_err() {
                    return;
                }
            }
        };
        let (facts, ()) = tokio::join!(self.push_stream(caller, request, chunks), feed);
        let facts = facts?;
        Ok(FilePushResult { path: facts.path, size_bytes: facts.size, mode: octal(facts.mode) })
    }

    pub(super) async fn file_pull(
        &self,
        caller: &Caller,
        params: FilePullParams,
    ) -> Result<FilePullResult> {
        let most = usize::try_from(params.max_bytes).unwrap_or(usize::MAX);
        let request = PullRequest { address: params.address, path: params.path };
        let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(QUEUE);
        let collect = async move {
            let mut contents = Vec::new();
            // The rest is read and dropped: its size is part of the answer.
            while let Some(chunk) = chunks.recv().await {
                let room = most - contents.len();
                contents.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
            }
            contents
        };
        let (facts, contents) = tokio::join!(self.pull_stream(caller, request, sender), collect);
        let facts = facts?;
        let truncated = (contents.len() as u64) < facts.size;
        let mut contents = contents;
        if truncated
            && let Err(error) = str::from_utf8(&contents)
            && error.error_len().is_none()
        {
            // It ends amid a character, which whoever reads on gets whole.
            contents.truncate(error.valid_up_to());
        }
        let (content, content_base64) = match String::from_utf8(contents) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(BASE64.encode(error.as_bytes()))),
        };
        Ok(FilePullResult {
            path: facts.path,
            size_bytes: facts.size,
            mode: octal(facts.mode),
            content,
            content_base64,
            truncated,
        })
    }

    pub(super) async fn connect_info(
        &self,
        caller: &Caller,
        params: ConnectInfoParams,
    ) -> Result<ConnectInfoResult> {
        let target = self.target(&caller.principal, params.address.as_ref()).await?;
        self.must_run(&target.place)?;
        let cluster = &target.place.cluster;
        let host_id = &target.place.branch.host_id;
        let port = self.host.forward(host_id, &target.node, SSH_PORT, None).await;
        let port = self.notice_loss_in(&target, port.map_err(Failure::from))?;
        let layout = &self.config.layout;
        let key_path = self.key_file(cluster).await?;
        let def = cluster.nodes.iter().find(|def| def.name == target.node);
        let host_key = def.and_then(|def| def.host_key.clone()).unwrap_or_default();
        let known = keys::known_hosts(layout, &cluster.id);
        let Ssh { user, connect_timeout_s, .. } = topologies::ssh(cluster)?;
        let command = format!(
            "ssh -i {} -p {port} -o IdentitiesOnly=yes -o ConnectTimeout={connect_timeout_s} \
             -o HostKeyAlias={} -o UserKnownHostsFile={} {user}@127.0.0.1",
            keys::quoted(&key_path),
            target.node,
            keys::quoted(&known.display().to_string()),
        );
        Ok(ConnectInfoResult {
            host: "127.0.0.1".to_owned(),
            port,
            user,
            key_path,
            connect_timeout_s,
            known_hosts_line: format!("[127.0.0.1]:{port} {host_key}"),
            command,
        })
    }

    pub(super) async fn console_read(
        &self,
        caller: &Caller,
        params: ConsoleReadParams,
    ) -> Result<ConsoleReadResult> {
        let target = self.target(&caller.principal, params.address.as_ref()).await?;
        let tail = i64::try_from(params.tail_bytes).unwrap_or(i64::MAX);
        let offset = match params.offset {
            Some(offset) => i64::try_from(offset).unwrap_or(i64::MAX),
            None => -tail,
        };
        let host_id = &target.place.branch.host_id;
        let (bytes, next_offset) =
            self.host.console(host_id, &target.node, offset, params.tail_bytes).await?;
        Ok(ConsoleReadResult { text: String::from_utf8_lossy(&bytes).into_owned(), next_offset })
    }
}
