//! Captures: frames as records of a classic pcap file with nanoseconds, little endian
//! (<https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html>). The core appends records to a
//! buffer; the thread takes the buffer to the file.

use std::time::Duration;

use pando_machine::CaptureLimits;

use crate::limits::{CAPTURE_SNAP_BYTES, MAX_FRAME_BYTES};

/// Bytes of the file's header.
pub const FILE_HEADER_BYTES: usize = 24;
/// Bytes before each frame.
pub const RECORD_HEADER_BYTES: usize = 16;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const LINKTYPE_ETHERNET: u32 = 1;

/// Returns the header of a file whose frames have at most `snap` bytes.
pub fn file_header(snap: u32) -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC_NANOSECONDS.to_le_bytes());
    header[4..6].copy_from_slice(&2u16.to_le_bytes());
    header[6..8].copy_from_slice(&4u16.to_le_bytes());
    header[16..20].copy_from_slice(&snap.to_le_bytes());
    header[20..].copy_from_slice(&LINKTYPE_ETHERNET.to_le_bytes());
    header
}

/// Collects the records of frames, up to limits.
#[derive(Debug)]
pub struct Recorder {
    limits: CaptureLimits,
    /// The wall clock, since 1970.
    time: Duration,
    frames: u64,
    bytes: u64,
    limited: bool,
    records: Vec<u8>,
    records_frames: u64,
}

impl Recorder {
    /// Returns one that has recorded nothing.
    pub fn new(limits: CaptureLimits) -> Self {
        let snap = if limits.snap == 0 { CAPTURE_SNAP_BYTES } else { limits.snap };
        Self {
            limits: CaptureLimits { snap: snap.min(CAPTURE_SNAP_BYTES), ..limits },
            time: Duration::ZERO,
            frames: 0,
            bytes: FILE_HEADER_BYTES as u64,
            limited: false,
            records: Vec::new(),
            records_frames: 0,
        }
    }

    /// Most bytes of each frame that it takes.
    pub fn snap(&self) -> u32 {
        self.limits.snap
    }

    /// Sets the wall clock.
    pub fn set_time(&mut self, time: Duration) {
        self.time = time;
    }

    /// Records a frame, unless a limit is reached.
    pub fn record(&mut self, frame: &[u8]) {
        let snap = usize::try_from(self.limits.snap).unwrap_or(MAX_FRAME_BYTES);
        let taken = frame.get(..snap).unwrap_or(frame);
        let bytes = (RECORD_HEADER_BYTES + taken.len()) as u64;
        self.limited |= self.frames >= self.limits.frames || self.bytes + bytes > self.limits.bytes;
        if self.limited {
            return;
        }
        // The file's seconds have 32 bits.
        let seconds = u32::try_from(self.time.as_secs()).unwrap_or(u32::MAX);
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        for field in [seconds, self.time.subsec_nanos(), length(taken), length(frame)] {
            self.records.extend_from_slice(&field.to_le_bytes());
        }
        self.records.extend_from_slice(taken);
        self.records_frames += 1;
        self.frames += 1;
        self.bytes += bytes;
    }

    /// Whether a limit ended it.
    pub fn is_limited(&self) -> bool {
        self.limited
    }

    /// Bytes that wait to be taken.
    pub fn pending_bytes(&self) -> usize {
        self.records.len()
    }

    /// Takes the records since it was called last, and how many they are.
    pub fn take(&mut self) -> (Vec<u8>, u64) {
        (std::mem::take(&mut self.records), std::mem::take(&mut self.records_frames))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_other_programs_read() {
        let mut recorder = Recorder::new(CaptureLimits { frames: 9, bytes: 999, snap: 16 });
        recorder.set_time(Duration::new(1_700_000_000, 123_456_789));
        recorder.record(&[0xab; 60]);
        let (records, frames) = recorder.take();
        assert_eq!(frames, 1);
        let file = [&file_header(recorder.snap())[..], &records].concat();
        let u32_at = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        assert_eq!([0, 4, 16, 20].map(u32_at), [0xa1b2_3c4d, 0x0004_0002, 16, 1]);
        assert_eq!([24, 28, 32, 36].map(u32_at), [1_700_000_000, 123_456_789, 16, 60]);
        assert_eq!(file[40..], [0xab; 16]);
    }

    #[test]
    fn its_limits_end_it() {
        let mut recorder = Recorder::new(CaptureLimits { frames: 2, bytes: 9999, snap: 0 });
        for _ in 0..3 {
            recorder.record(&[0; 60]);
        }
        assert_eq!((recorder.take().1, recorder.is_limited()), (2, true));
        let mut recorder = Recorder::new(CaptureLimits { frames: 9, bytes: 24 + 76 * 2, snap: 0 });
        for _ in 0..3 {
            recorder.record(&[0; 60]);
        }
        assert_eq!((recorder.take().0.len(), recorder.is_limited()), (152, true));
    }
}
