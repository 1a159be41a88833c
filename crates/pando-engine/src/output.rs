//! Running a command with bounded output: of each stream the head and the tail are kept, whatever
//! the command prints.

use std::collections::VecDeque;

use pando_api::exec::ExecRunResult;
use pando_driver::host::{ExecInput, ExecIo, ExecOutput};
use pando_model::guest::{ExecOutcome, ExecSpec, ExecStatus, OutputStream};
use pando_model::{BranchId, ErrorCode, Name};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::failure::{Failure, Result};

/// Chunks of output that may wait: what they hold is bounded by the guest protocol's frame size.
const OUTPUT_QUEUE: usize = 16;
/// Bytes of standard input in one message.
const STDIN_CHUNK: usize = 32 * 1024;

/// What is kept of each stream, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound(u64);

impl Bound {
    pub fn new(bytes: u64) -> Self {
        Self(bytes)
    }
}

/// One stream's head and tail.
struct Kept {
    limit: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
}

impl Kept {
    fn new(bound: Bound) -> Self {
        let limit = usize::try_from(bound.0).unwrap_or(usize::MAX);
        Self { limit, head: Vec::new(), tail: VecDeque::new(), total: 0 }
    }

    /// The first half of the limit goes to the head, the rest to the tail, which forgets its
    /// beginning: what fits in the limit is kept whole.
    fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = self.limit.div_ceil(2).saturating_sub(self.head.len());
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(self.limit / 2);
        self.tail.drain(..excess);
    }

    /// Returns the text and whether its middle is missing.
    fn text(self) -> (String, bool) {
        let cut = self.total > (self.head.len() + self.tail.len()) as u64;
        if !cut {
            let mut all = self.head;
            all.extend(self.tail);
            return (String::from_utf8_lossy(&all).into_owned(), false);
        }
        let left_out = self.total - (self.head.len() + self.tail.len()) as u64;
        let tail: Vec<u8> = self.tail.into();
        let head = String::from_utf8_lossy(&self.head);
        let tail = String::from_utf8_lossy(&tail);
        (format!("{head}\n… {left_out} bytes left out …\n{tail}"), true)
    }
}

fn result(outcome: &ExecOutcome, stdout: Kept, stderr: Kept) -> ExecRunResult {
    let (stdout_bytes, stderr_bytes) = (stdout.total, stderr.total);
    let (stdout, stdout_truncated) = stdout.text();
    let (stderr, stderr_truncated) = stderr.text();
    let (exit_code, signal, timed_out) = match outcome.status {
        ExecStatus::Exited(code) => (Some(code), None, false),
        ExecStatus::Signaled(signal) => (None, Some(signal), false),
        ExecStatus::TimedOut => (None, None, true),
    };
    ExecRunResult {
        stdout,
        stderr,
        exit_code,
        signal,
        timed_out,
        duration_ms: crate::ops::milliseconds(outcome.duration_us),
        stdout_bytes,
        stderr_bytes,
        stdout_truncated,
        stderr_truncated,
        operation_id: None,
    }
}

/// Sends all input, then its end. Ends early when the command does not take any more; one without
/// input was told so when it was started.
async fn feed(stdin: Option<Vec<u8>>, input: mpsc::Sender<ExecInput>) {
    let Some(stdin) = stdin else { return };
    for chunk in stdin.chunks(STDIN_CHUNK) {
        if input.send(ExecInput::Data(chunk.to_vec())).await.is_err() {
            return;
        }
    }
    // The command may have ended meanwhile.
    let _ = input.send(ExecInput::Eof).await;
}

impl Engine {
    /// Runs a command in a guest until it ends or `cancel` says so.
    ///
    /// # Cancel safety
    /// A dropped call kills the command: its output has no reader any more.
    pub(crate) async fn run_command(
        &self,
        host_id: &BranchId,
        node: &Name,
        spec: &ExecSpec,
        stdin: Option<Vec<u8>>,
        bound: Bound,
        cancel: &CancellationToken,
    ) -> Result<ExecRunResult> {
        let (input, input_end) = mpsc::channel(OUTPUT_QUEUE);
        let (output_end, mut output) = mpsc::channel::<ExecOutput>(OUTPUT_QUEUE);
        let io = ExecIo { input: input_end, output: output_end };
        let (mut stdout, mut stderr) = (Kept::new(bound), Kept::new(bound));
        let collect = async {
            while let Some(chunk) = output.recv().await {
                match chunk.stream {
                    OutputStream::Stdout => stdout.push(&chunk.bytes),
                    OutputStream::Stderr => stderr.push(&chunk.bytes),
                }
            }
        };
        let run = self.host.exec(host_id, node, spec, io);
        let all = async { tokio::join!(run, collect, feed(stdin, input)).0 };
        // Losing `all` kills the command, which is what cancelling means.
        let outcome = tokio::select! {
            outcome = all => outcome?,
            () = cancel.cancelled() => {
                return Err(Failure::new(ErrorCode::Cancelled, "the command was killed"));
            }
        };
        Ok(result(&outcome, stdout, stderr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(limit: u64, chunks: &[&str]) -> (String, bool) {
        let mut kept = Kept::new(Bound::new(limit));
        for chunk in chunks {
            kept.push(chunk.as_bytes());
        }
        kept.text()
    }

    #[test]
    fn what_fits_is_kept_whole() {
        assert_eq!(kept(6, &["ab", "cd", "ef"]), ("abcdef".into(), false));
        assert_eq!(kept(6, &[]), (String::new(), false));
    }

    #[test]
    fn of_more_the_head_and_the_tail_are_kept() {
        let expected = ("abc\n… 4 bytes left out …\nhij".to_owned(), true);
        assert_eq!(kept(6, &["abcdefghij"]), expected);
        assert_eq!(kept(6, &["abcde", "fghij"]), expected);
        assert_eq!(kept(6, &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]), expected);
        assert_eq!(kept(1, &["ab", "c"]), ("a\n… 2 bytes left out …\n".to_owned(), true));
    }
}
