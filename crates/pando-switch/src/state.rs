//! The file that a cut saves of a switch. It names nodes, ports and segments in tables of its own, so
//! that it does not depend on how a network is numbered.
//!
//! ```text
//!   magic 8 · clock u64 · spoofed u64
//!   nodes     n u32, then each: text
//!   segments  n u32, then each: text
//!   ports     n u32, then each: node u32 · number of the interface u8
//!   stations  n u32, then each: segment u32 · address 6 · port u32 · heard u64
//!   links     n u32, then each: from u32 · to u32 · 7 + 7 counts u64
//!   progress  n u32, then each: fault text · link u32 · frames u64 · dropped u64 · burst u8 · free u64
//!   queued    n u32, then each: output u32 · link u32 · frame
//!   delayed   n u32, then each: due u64 · number u64 · link u32 · gateway? u8 · port u32 · frame
//!   held      n u32, then each: port u32 · frame
//!   BLAKE3 of all before, cut to 16
//! ```
//! All integers are little endian, times are nanoseconds of the switch's clock, texts and frames have
//! their length before them (u32). The number behind the last node is the gateway's; outputs are the
//! ports, then the uplinks of the nodes.

use std::time::Duration;

use pando_model::network::MacAddress;

use crate::counts::{Counts, REASONS};
use crate::fault::Progress;
use crate::limits::{MAX_COUNT, MAX_TOLD_BYTES};

const MAGIC: &[u8; 8] = b"pando-n1";
const DIGEST_BYTES: usize = 16;
/// Longest text, in bytes: names and ids are shorter.
const MAX_TEXT_BYTES: usize = 255;

/// A state as it is in a file; frames and names are borrowed from wherever it comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved<'a> {
    /// The switch's clock.
    pub clock: Duration,
    /// Frames that were sent under another port's address.
    pub spoofed: u64,
    /// The nodes.
    pub nodes: Vec<&'a str>,
    /// The segments.
    pub segments: Vec<&'a str>,
    /// The ports: node and interface.
    pub ports: Vec<(u32, u8)>,
    /// The stations that were heard.
    pub stations: Vec<SavedStation>,
    /// The links with their counts, without what they hold.
    pub links: Vec<SavedLink>,
    /// How far faults have come.
    pub progress: Vec<SavedProgress<'a>>,
    /// Frames in the queues of outputs.
    pub queued: Vec<SavedQueued<'a>>,
    /// Frames that wait for their time.
    pub delayed: Vec<SavedDelayed<'a>>,
    /// Frames that came in while held.
    pub held: Vec<(u32, &'a [u8])>,
}

/// A station that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedStation {
    /// On which segment.
    pub segment: u32,
    /// Its address.
    pub address: MacAddress,
    /// Behind which port.
    pub port: u32,
    /// When last.
    pub heard: Duration,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedLink {
    /// Who sends.
    pub from: u32,
    /// Who receives.
    pub to: u32,
    /// Its counts; `held` follows from the frames and is zero.
    pub counts: Counts,
}

/// How far a fault has come on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedProgress<'a> {
    /// The fault's id.
    pub fault: &'a str,
    /// The link.
    pub link: u32,
    /// How far.
    pub progress: Progress,
}

/// A frame in an output's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedQueued<'a> {
    /// The output.
    pub output: u32,
    /// The link that it is on.
    pub link: u32,
    /// The frame.
    pub frame: &'a [u8],
}

/// A frame that waits for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedDelayed<'a> {
    /// When it goes on.
    pub due: Duration,
    /// Its place among those due together.
    pub number: u64,
    /// The link that it is on.
    pub link: u32,
    /// Whether it goes to the gateway, not to a machine.
    pub to_gateway: bool,
    /// The port that it goes to, or that the gateway answers through.
    pub port: u32,
    /// The frame.
    pub frame: &'a [u8],
}

/// Bytes are not a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAState(pub &'static str);

impl<'a> Saved<'a> {
    /// Returns the bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(MAGIC.to_vec());
        out.time(self.clock);
        out.u64(self.spoofed);
        out.all(&self.nodes, |out, node| out.bytes(node.as_bytes()));
        out.all(&self.segments, |out, segment| out.bytes(segment.as_bytes()));
        out.all(&self.ports, |out, (node, nic)| {
            out.u32(*node);
            out.u8(*nic);
        });
        out.all(&self.stations, Writer::station);
        out.all(&self.links, Writer::link);
        out.all(&self.progress, Writer::progress);
        out.all(&self.queued, |out, queued| {
            out.u32(queued.output);
            out.u32(queued.link);
            out.bytes(queued.frame);
        });
        out.all(&self.delayed, Writer::delayed);
        out.all(&self.held, |out, (port, frame)| {
            out.u32(*port);
            out.bytes(frame);
        });
        out.0.extend_from_slice(&digest(&out.0));
        out.0
    }

    /// Returns the state in a file. Total: any bytes; what is allocated is bounded by their number.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NotAState> {
        let body =
            bytes.strip_prefix(MAGIC).ok_or(NotAState("it is not a state of this version"))?;
        let (body, told) =
            body.split_last_chunk::<DIGEST_BYTES>().ok_or(NotAState("it is cut short"))?;
        let whole = bytes.len() - DIGEST_BYTES;
        if bytes.get(..whole).map(digest) != Some(*told) {
            return Err(NotAState("it does not have its digest"));
        }
        let mut input = Reader(body);
        let saved = Self {
            clock: input.time()?,
            spoofed: input.count()?,
            nodes: input.all(4, Reader::text)?,
            segments: input.all(4, Reader::text)?,
            ports: input.all(5, |input| Ok((input.u32()?, input.u8()?)))?,
            stations: input.all(22, Reader::station)?,
            links: input.all(112, Reader::link)?,
            progress: input.all(33, Reader::progress)?,
            queued: input.all(12, |input| {
                let (output, link) = (input.u32()?, input.u32()?);
                Ok(SavedQueued { output, link, frame: input.frame()? })
            })?,
            delayed: input.all(29, Reader::delayed)?,
            held: input.all(8, |input| Ok((input.u32()?, input.frame()?)))?,
        };
        if !input.0.is_empty() {
            return Err(NotAState("it goes on behind its end"));
        }
        Ok(saved)
    }

    /// Frames on their way.
    pub fn frames(&self) -> u64 {
        (self.queued.len() + self.delayed.len() + self.held.len()) as u64
    }
}

/// Returns a file with the digest that it should have, in place of the one that it has.
pub fn seal(bytes: &[u8]) -> Vec<u8> {
    let mut bytes =
        bytes.get(..bytes.len().saturating_sub(DIGEST_BYTES)).unwrap_or_default().to_vec();
    bytes.extend_from_slice(&digest(&bytes));
    bytes
}

fn digest(bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut digest = [0; DIGEST_BYTES];
    blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut digest);
    digest
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn time(&mut self, time: Duration) {
        self.u64(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    fn length(&mut self, length: usize) {
        self.u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn all<T>(&mut self, items: &[T], write: impl Fn(&mut Self, &T)) {
        self.length(items.len());
        for item in items {
            write(self, item);
        }
    }

    fn station(&mut self, station: &SavedStation) {
        self.u32(station.segment);
        self.0.extend_from_slice(&station.address.0);
        self.u32(station.port);
        self.time(station.heard);
    }

    fn link(&mut self, link: &SavedLink) {
        self.u32(link.from);
        self.u32(link.to);
        let counts = &link.counts;
        for count in [counts.sent, counts.sent_bytes, counts.delivered] {
            self.u64(count);
        }
        for count in counts.dropped {
            self.u64(count);
        }
        for count in [counts.duplicated, counts.corrupted, counts.reordered, counts.delayed] {
            self.u64(count);
        }
    }

    fn progress(&mut self, saved: &SavedProgress<'_>) {
        self.bytes(saved.fault.as_bytes());
        self.u32(saved.link);
        self.u64(saved.progress.frames);
        self.u64(saved.progress.dropped);
        self.u8(u8::from(saved.progress.in_burst));
        self.time(saved.progress.free_at);
    }

    fn delayed(&mut self, delayed: &SavedDelayed<'_>) {
        self.time(delayed.due);
        self.u64(delayed.number);
        self.u32(delayed.link);
        self.u8(u8::from(delayed.to_gateway));
        self.u32(delayed.port);
        self.bytes(delayed.frame);
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], NotAState> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(NotAState("it is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NotAState> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(NotAState("it is cut short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, NotAState> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Result<bool, NotAState> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(NotAState("a flag is neither 0 nor 1")),
        }
    }

    fn u32(&mut self) -> Result<u32, NotAState> {
        self.array().map(u32::from_le_bytes)
    }

    fn count(&mut self) -> Result<u64, NotAState> {
        let count = self.array().map(u64::from_le_bytes)?;
        if count <= MAX_COUNT { Ok(count) } else { Err(NotAState("a number is impossible")) }
    }

    fn time(&mut self) -> Result<Duration, NotAState> {
        self.count().map(Duration::from_nanos)
    }

    fn length(&mut self) -> Result<usize, NotAState> {
        Ok(usize::try_from(self.u32()?).unwrap_or(usize::MAX))
    }

    fn frame(&mut self) -> Result<&'a [u8], NotAState> {
        let length = self.length()?;
        if length > MAX_TOLD_BYTES {
            return Err(NotAState("a frame is too long"));
        }
        self.take(length)
    }

    fn text(&mut self) -> Result<&'a str, NotAState> {
        let length = self.length()?;
        if length > MAX_TEXT_BYTES {
            return Err(NotAState("a name is too long"));
        }
        std::str::from_utf8(self.take(length)?).map_err(|_| NotAState("a name is no text"))
    }

    /// Reads a table whose entries take at least `least` bytes each.
    fn all<T>(
        &mut self,
        least: usize,
        read: impl Fn(&mut Self) -> Result<T, NotAState>,
    ) -> Result<Vec<T>, NotAState> {
        let count = self.length()?;
        if count > self.0.len() / least {
            return Err(NotAState("a table is longer than the file"));
        }
        (0..count).map(|_| read(self)).collect()
    }

    fn station(&mut self) -> Result<SavedStation, NotAState> {
        let (segment, address) = (self.u32()?, MacAddress(self.array()?));
        Ok(SavedStation { segment, address, port: self.u32()?, heard: self.time()? })
    }

    fn link(&mut self) -> Result<SavedLink, NotAState> {
        let (from, to) = (self.u32()?, self.u32()?);
        let mut counts = Counts {
            sent: self.count()?,
            sent_bytes: self.count()?,
            delivered: self.count()?,
            ..Counts::default()
        };
        for place in 0..REASONS.len() {
            counts.dropped[place] = self.count()?;
        }
        counts.duplicated = self.count()?;
        counts.corrupted = self.count()?;
        counts.reordered = self.count()?;
        counts.delayed = self.count()?;
        Ok(SavedLink { from, to, counts })
    }

    fn progress(&mut self) -> Result<SavedProgress<'a>, NotAState> {
        let (fault, link) = (self.text()?, self.u32()?);
        let (frames, dropped) = (self.count()?, self.count()?);
        let (in_burst, free_at) = (self.flag()?, self.time()?);
        Ok(SavedProgress { fault, link, progress: Progress { frames, dropped, in_burst, free_at } })
    }

    fn delayed(&mut self) -> Result<SavedDelayed<'a>, NotAState> {
        Ok(SavedDelayed {
            due: self.time()?,
            number: self.count()?,
            link: self.u32()?,
            to_gateway: self.flag()?,
            port: self.u32()?,
            frame: self.frame()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Saved<'static> {
        let counts = Counts { sent: 3, sent_bytes: 180, delivered: 1, ..Counts::default() };
        Saved {
            clock: Duration::from_nanos(123_456_789),
            spoofed: 2,
            nodes: vec!["a", "b"],
            segments: vec!["lan"],
            ports: vec![(0, 0), (1, 0)],
            stations: vec![SavedStation {
                segment: 0,
                address: MacAddress([2, 0, 0, 0, 0, 1]),
                port: 1,
                heard: Duration::from_secs(1),
            }],
            links: vec![SavedLink { from: 0, to: 1, counts }],
            progress: vec![SavedProgress {
                fault: "ft_000000000000",
                link: 0,
                progress: Progress { frames: 9, dropped: 1, in_burst: true, ..Progress::default() },
            }],
            queued: vec![SavedQueued { output: 1, link: 0, frame: &[7; 60] }],
            delayed: vec![SavedDelayed {
                due: Duration::from_secs(2),
                number: 4,
                link: 0,
                to_gateway: true,
                port: 1,
                frame: &[8; 14],
            }],
            held: vec![(0, &[9; 3])],
        }
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let bytes = sample().encode();
        assert_eq!(Saved::parse(&bytes), Ok(sample()));
        assert_eq!(sample().frames(), 3);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found_and_so_is_a_missing_end() {
        let bytes = sample().encode();
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1 << (place % 8);
            assert!(Saved::parse(&changed).is_err(), "{place}");
            assert!(Saved::parse(&bytes[..place]).is_err(), "{place}");
        }
    }
}
