//! The guest's state, told aspect by aspect: what `stat`, `/proc` and the system's own tables say.
//! No child processes; of contents only digests, and the definitions of databases' tables.
//!
//! Memory is bounded: what was told leaves as soon as the host grants it, and is forgotten.

mod database;
mod digest;
mod kernel;
mod network;
mod processes;
mod tables;
mod units;
mod walk;

use std::sync::mpsc::Receiver;
use std::time::{SystemTime, UNIX_EPOCH};

use pando_model::capture::{Aspect, CaptureRecord, Captured, Coverage};
use pando_wire::capture::encode;
use pando_wire::guest::{Answer, Refusal, RefusalKind, Reply};
use pando_wire::limits::{MAX_CHUNK_BYTES, MAX_DIGESTS, STREAM_WINDOW_BYTES};
pub use units::failed_units;

use crate::config::Config;
use crate::jobs::{Voice, What};
use crate::limits::MAX_CAPTURED_TEXT;
use crate::{clock, facts};

/// `USER_HZ`: the unit of times in `/proc/PID/stat`.
pub const TICKS_PER_SECOND: u64 = 100;

/// Nobody listens any more.
#[derive(Debug)]
struct GivenUp;

type Told = Result<(), GivenUp>;

/// Tells records, as far as the host grants it.
struct Teller<'a> {
    voice: &'a Voice,
    grants: Receiver<u32>,
    granted: usize,
    out: Vec<u8>,
}

impl<'a> Teller<'a> {
    fn new(voice: &'a Voice, grants: Receiver<u32>) -> Self {
        voice.say(What::Started);
        Self { voice, grants, granted: STREAM_WINDOW_BYTES as usize, out: Vec::new() }
    }

    /// Tells one record. Returns whether it was short enough.
    fn tell(&mut self, record: &CaptureRecord) -> Result<bool, GivenUp> {
        let told = encode(record, &mut self.out);
        while self.out.len() >= MAX_CHUNK_BYTES {
            self.send(MAX_CHUNK_BYTES)?;
        }
        Ok(told)
    }

    fn covered(&mut self, aspect: Aspect, coverage: Coverage) -> Told {
        self.tell(&CaptureRecord::Coverage(aspect, coverage)).map(drop)
    }

    fn send(&mut self, wanted: usize) -> Told {
        while self.granted == 0 {
            let more = self.grants.recv().map_err(|_| GivenUp)?;
            self.granted = self.granted.saturating_add(more as usize);
        }
        while let Ok(more) = self.grants.try_recv() {
            self.granted = self.granted.saturating_add(more as usize);
        }
        let count = wanted.min(self.granted).min(self.out.len());
        let rest = self.out.split_off(count);
        let bytes = std::mem::replace(&mut self.out, rest);
        self.granted -= count;
        self.voice.say(What::Data(bytes));
        Ok(())
    }

    fn finish(mut self) -> Answer {
        while !self.out.is_empty() {
            if self.send(MAX_CHUNK_BYTES).is_err() {
                return given_up();
            }
        }
        end()
    }
}

/// Tells when this was, and in which boot: the end of every capture, and all of one without aspects.
pub fn end() -> Answer {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let guest_ns = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    let up_ms = clock::up_ms();
    Ok(Reply::Captured(Captured { guest_ns, up_ms, boot_id: facts::boot_id() }))
}

fn given_up() -> Answer {
    Err(Refusal::new(RefusalKind::Invalid, "the capture was given up"))
}

/// Returns a text within bounds.
fn short(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_CAPTURED_TEXT)).unwrap_or_default().to_owned()
}

/// Tells these aspects of the guest's state.
pub fn tell(config: &Config, aspects: &[Aspect], grants: Receiver<u32>, voice: &Voice) -> Answer {
    let mut teller = Teller::new(voice, grants);
    let root = config.root.as_path();
    let mut found = Vec::new();
    for aspect in Aspect::ALL.iter().filter(|aspect| aspects.contains(aspect)) {
        let told = match aspect {
            Aspect::Packages => tables::packages(root, &mut teller),
            // One walk tells both.
            Aspect::Config if aspects.contains(&Aspect::Files) => Ok(()),
            Aspect::Config => walk::config(root, &mut teller),
            Aspect::Files => walk::files(config, &mut teller).map(|candidates| found = candidates),
            Aspect::Services => units::services(root, &mut teller),
            Aspect::Users => tables::users(root, &mut teller),
            Aspect::Ports => processes::ports(&mut teller),
            Aspect::Processes => processes::processes(&mut teller),
            Aspect::Env => tables::env(root, &mut teller),
            Aspect::Kernel => kernel::lines(&mut teller),
            Aspect::Network => network::network(root, &mut teller),
            Aspect::Database => {
                if !aspects.contains(&Aspect::Files) {
                    found = walk::candidates(config);
                }
                database::databases(config, &found, &mut teller)
            }
        };
        if told.is_err() {
            return given_up();
        }
    }
    teller.finish()
}

/// Digests the contents of regular files.
pub fn digest(config: &Config, paths: &[String], grants: Receiver<u32>, voice: &Voice) -> Answer {
    if paths.len() > MAX_DIGESTS {
        let message = format!("{} files are more than {MAX_DIGESTS}", paths.len());
        return Err(Refusal::new(RefusalKind::Limit, message));
    }
    let mut teller = Teller::new(voice, grants);
    for path in paths {
        let Some(relative) = path.strip_prefix('/') else {
            let message = format!("`{}` is not an absolute path", path.escape_debug());
            return Err(Refusal::new(RefusalKind::Invalid, message));
        };
        let digest = digest::of_file(&config.root.join(relative)).unwrap_or_default();
        if teller.tell(&CaptureRecord::Digest(path.clone(), digest)).is_err() {
            return given_up();
        }
    }
    teller.finish()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
