//! What was done in guests: noted before and after, and `journal_list`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pando_api::Caller;
use pando_api::state::{CommandRow, JournalListParams, JournalListResult};
use pando_driver::store::{Journal, JournalEnd, JournalEntry, JournalQuery, JournalRecord};
use pando_model::guest::{Command, ExecOutcome, ExecStatus};
use pando_model::{Branch, BranchId, Commit, JournalId, Name};

use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::paging::page;
use crate::resolve::Target;
use crate::verbs::usage::Waiting;

/// Most bytes of a command line in the journal.
const MAX_JOURNAL_BYTES: usize = 1024;

/// An act that was noted and whose end is to be. Dropped without one, its caller went away.
pub(crate) struct Noted {
    journal: Arc<dyn Journal>,
    id: JournalId,
    began: Instant,
    /// Counts a command among those that are waited for.
    waiting: Option<Waiting>,
    end: Option<(Option<i32>, Option<String>)>,
}

impl Noted {
    /// Returns the handle of an act that was noted earlier, under this id.
    pub fn again(journal: &Arc<dyn Journal>, id: JournalId) -> Self {
        Self { journal: journal.clone(), id, began: Instant::now(), waiting: None, end: None }
    }

    /// Returns the handle of an act that was noted earlier, and began `ago`.
    pub fn since(journal: &Arc<dyn Journal>, id: JournalId, ago: Duration) -> Self {
        let now = Instant::now();
        let began = now.checked_sub(ago).unwrap_or(now);
        Self { journal: journal.clone(), id, began, waiting: None, end: None }
    }

    /// Returns the act's id, for who will note its end.
    pub fn leave_open(mut self) -> JournalId {
        let id = self.id.clone();
        self.end = Some((None, Some(String::new())));
        id
    }

    /// Notes a command's end.
    pub fn exited(mut self, exit_code: Option<i32>, why: Option<String>) {
        self.end = Some((exit_code, why));
    }

    /// Notes an end with or without success.
    pub fn ended<T>(mut self, result: &Result<T>) {
        self.end = Some(match result {
            Ok(_) => (Some(0), None),
            Err(failure) => (None, Some(failure.0.message.clone())),
        });
    }

    /// Notes an attached command's end.
    pub fn attached(self, result: &Result<ExecOutcome>) {
        match result {
            Ok(outcome) => {
                let (code, why) = ending(outcome.status);
                self.exited(code, why);
            }
            Err(_) => self.ended(result),
        }
    }
}

fn ending(status: ExecStatus) -> (Option<i32>, Option<String>) {
    match status {
        ExecStatus::Exited(code) => (Some(code), None),
        ExecStatus::Signaled(signal) => (None, Some(format!("signal {signal}"))),
        ExecStatus::TimedOut => (None, Some("timed out".to_owned())),
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        let (exit_code, why) =
            self.end.take().unwrap_or((None, Some("its caller went away".to_owned())));
        if why.as_deref() == Some("") {
            return;
        }
        let end = JournalEnd {
            ends: self.id.clone(),
            at: Timestamp::now(),
            exit_code,
            why: why.map(|why| why.chars().take(MAX_JOURNAL_BYTES).collect()),
            duration_us: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
        };
        if let Err(error) = self.journal.end(&end) {
            // The act itself is noted, and it is over: its caller must hear how it ended.
            tracing::error!(%error, "the end of an act is not in the journal");
        }
    }
}

impl Engine {
    /// Notes an act in a guest before it happens.
    pub(super) fn journal(
        &self,
        caller: &Caller,
        act: &str,
        target: &Target,
        detail: &str,
    ) -> Result<Noted> {
        self.journal_on(caller, act, (&target.place.branch.id, &target.node), detail)
    }

    /// Notes an act in or on a node of a branch before it happens.
    pub(super) fn journal_on(
        &self,
        caller: &Caller,
        act: &str,
        (branch, node): (&BranchId, &Name),
        detail: &str,
    ) -> Result<Noted> {
        self.journal_as(
            (caller.request_id.as_str(), &caller.principal),
            act,
            (branch, node),
            detail,
        )
    }

    /// Notes an act of a request by a principal, in or on a node of a branch, before it happens.
    pub(crate) fn journal_as(
        &self,
        (request, principal): (&str, &str),
        act: &str,
        (branch, node): (&BranchId, &Name),
        detail: &str,
    ) -> Result<Noted> {
        let mut noted = Noted::again(&self.journal, JournalId::random());
        let entry = JournalEntry {
            id: noted.id.clone(),
            at: Timestamp::now(),
            request: request.to_owned(),
            principal: principal.to_owned(),
            act: act.to_owned(),
            target: format!("{branch}/{node}"),
            detail: detail.chars().take(MAX_JOURNAL_BYTES).collect(),
        };
        match self.journal.append(&entry) {
            Ok(()) => {
                noted.waiting = (act == "exec").then(|| self.waited.begin(&entry.target));
                Ok(noted)
            }
            Err(error) => {
                noted.leave_open();
                Err(Failure::internal(format!("the journal cannot be written: {error}")))
            }
        }
    }

    pub(super) fn journal_command(
        &self,
        caller: &Caller,
        target: &Target,
        command: &Command,
    ) -> Result<Noted> {
        match command {
            Command::Shell(line) => self.journal(caller, "exec", target, line),
            Command::Argv(argv) => self.journal(caller, "exec", target, &words(argv)),
        }
    }

    /// Returns what was done on branches, in the order of its beginning.
    pub(crate) async fn acts(
        &self,
        branches: Vec<BranchId>,
        since: Option<Timestamp>,
    ) -> Result<Vec<JournalRecord>> {
        let journal = self.journal.clone();
        let query = JournalQuery { branches, since };
        let read = tokio::task::spawn_blocking(move || journal.read(&query)).await;
        let read = read.map_err(|error| Failure::internal(error.to_string()))?;
        read.map_err(|error| Failure::internal(format!("the journal cannot be read: {error}")))
    }

    pub(super) async fn journal_list(
        &self,
        caller: &Caller,
        params: JournalListParams,
    ) -> Result<JournalListResult> {
        let place = self.place(&caller.principal, params.address.as_ref()).await?;
        let mut acts = self.acts(vec![place.branch.id.clone()], params.since).await?;
        let node = params.address.and_then(|address| address.node);
        acts.retain(|act| node.as_ref().is_none_or(|node| node_of(act) == node.as_str()));
        acts.reverse();
        let cursor = params.cursor.as_deref();
        let (acts, page) = page(acts, params.limit, cursor, |act| act.entry.id.to_string())?;
        let commands = acts.into_iter().map(|act| row(&place.branch, act)).collect();
        Ok(JournalListResult { commands, page })
    }

    /// Returns what was done between a commit and the one before it, and how much that was.
    pub(super) async fn commands_of(
        &self,
        commit: &Commit,
        limit: usize,
    ) -> Result<(Vec<CommandRow>, u64)> {
        let parent: Option<Commit> = match &commit.parent {
            Some(parent) => self.store.get(parent.as_str()).await?,
            None => None,
        };
        let since = parent.map(|parent| parent.created_at);
        let mut acts = self.acts(vec![commit.branch.clone()], since).await?;
        acts.retain(|act| act.entry.at <= commit.created_at && act.entry.act != "pull");
        let total = acts.len();
        let newest = acts.into_iter().skip(total.saturating_sub(limit));
        let rows = newest.map(|act| {
            let mut row = row_of(act);
            row.branch = commit.branch_name.to_string();
            row
        });
        Ok((rows.collect(), total as u64))
    }
}

fn node_of(act: &JournalRecord) -> &str {
    act.entry.target.split_once('/').map_or("", |(_, node)| node)
}

fn row(branch: &Branch, act: JournalRecord) -> CommandRow {
    CommandRow { branch: branch.name.to_string(), ..row_of(act) }
}

/// Returns an act as clients see it; whose branch it is they know by the id.
pub(crate) fn row_of(act: JournalRecord) -> CommandRow {
    let node = node_of(&act).to_owned();
    let branch = act.entry.target.split('/').next().unwrap_or_default().to_owned();
    let (exit_code, why, duration_ms) = match act.end {
        Some(end) => (end.exit_code, end.why, Some(crate::ops::milliseconds(end.duration_us))),
        None => (None, None, None),
    };
    CommandRow {
        id: act.entry.id,
        at: act.entry.at,
        by: act.entry.principal,
        act: act.entry.act,
        branch,
        node,
        command: act.entry.detail,
        exit_code,
        why,
        duration_ms,
    }
}

/// Returns arguments as a shell would be told them.
fn words(argv: &[String]) -> String {
    let plain = |word: &str| {
        let harmless = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
        !word.is_empty() && word.chars().all(harmless)
    };
    let quoted = argv.iter().map(|word| match plain(word) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_written_as_a_shell_takes_them() {
        let argv = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(words(&argv(&["ls", "-l", "/a b"])), "ls -l '/a b'");
        assert_eq!(words(&argv(&["sh", "-c", "it's", ""])), "sh -c 'it'\\''s' ''");
    }
}
