//! The file of a capture, written by a thread of its own: a slow disk costs records, not frames.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use pando_machine::{FrameCapture, SwitchError};

use crate::limits::{CAPTURE_AGE, CAPTURE_CHUNK_BYTES, CAPTURE_END, CAPTURE_PENDING_BYTES};
use crate::pcap::{FILE_HEADER_BYTES, Recorder, file_header};

/// A capture's file.
#[derive(Debug)]
pub struct CaptureFile {
    /// `None` once a limit has ended it.
    records: Option<Sender<Vec<u8>>>,
    /// Bytes that wait.
    pending: Arc<AtomicUsize>,
    ended: Receiver<io::Result<()>>,
    capture: FrameCapture,
    /// When it took records last.
    took: Instant,
}

impl CaptureFile {
    /// Starts to write a file whose frames have at most `snap` bytes.
    pub fn start(mut file: File, snap: u32) -> io::Result<Self> {
        let (records, chunks) = channel::<Vec<u8>>();
        let (end, ended) = channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let waits = Arc::clone(&pending);
        std::thread::Builder::new().name("switch-capture".to_owned()).spawn(move || {
            let written = file.write_all(&file_header(snap)).and_then(|()| {
                chunks.iter().try_for_each(|chunk| {
                    waits.fetch_sub(chunk.len(), Ordering::Relaxed);
                    file.write_all(&chunk)
                })
            });
            // Nobody asks when the switch has ended.
            let _ = end.send(written);
        })?;
        let capture = FrameCapture { bytes: FILE_HEADER_BYTES as u64, ..FrameCapture::default() };
        Ok(Self { records: Some(records), pending, ended, capture, took: Instant::now() })
    }

    /// Whether it takes more: no limit has ended it.
    pub const fn is_open(&self) -> bool {
        self.records.is_some()
    }

    /// Returns how long what was recorded may still wait to be taken; `None` if that is nothing.
    pub fn due(&self, recorder: &Recorder) -> Option<Duration> {
        let waits = self.is_open() && recorder.pending_bytes() > 0;
        waits.then(|| CAPTURE_AGE.saturating_sub(self.took.elapsed()))
    }

    /// Takes what was recorded, if it is enough to be worth it or has waited.
    pub fn take(&mut self, recorder: &mut Recorder) {
        if recorder.is_limited() {
            self.take_all(recorder);
        } else if recorder.pending_bytes() >= CAPTURE_CHUNK_BYTES
            || self.due(recorder).is_some_and(|left| left.is_zero())
        {
            self.hand_over(recorder, CAPTURE_PENDING_BYTES);
        }
    }

    /// Takes all that was recorded, and ends the file.
    pub fn take_all(&mut self, recorder: &mut Recorder) {
        self.hand_over(recorder, usize::MAX);
        self.capture.limited = recorder.is_limited();
        self.records = None;
    }

    fn hand_over(&mut self, recorder: &mut Recorder, limit: usize) {
        self.took = Instant::now();
        let (chunk, frames) = recorder.take();
        let bytes = chunk.len();
        let fits = self.pending.load(Ordering::Relaxed) <= limit.saturating_sub(bytes);
        let Some(records) = self.records.as_ref().filter(|_| frames > 0) else { return };
        self.pending.fetch_add(bytes, Ordering::Relaxed);
        if fits && records.send(chunk).is_ok() {
            self.capture.frames += frames;
            self.capture.bytes += bytes as u64;
        } else {
            self.pending.fetch_sub(bytes, Ordering::Relaxed);
            self.capture.lost += frames;
        }
    }

    /// Waits until the file is written.
    ///
    /// # Errors
    /// [`SwitchError::System`], [`SwitchError::Deadline`].
    pub fn wait_end(mut self) -> Result<FrameCapture, SwitchError> {
        self.records = None;
        match self.ended.recv_timeout(CAPTURE_END) {
            Ok(Ok(())) => Ok(self.capture),
            Ok(Err(source)) => Err(SwitchError::System { what: "write the capture", source }),
            Err(_) => Err(SwitchError::Deadline(CAPTURE_END)),
        }
    }
}
