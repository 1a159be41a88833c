//! Frames: how messages are told apart on a byte stream that may be cut anywhere.
//!
//! ```text
//! 00  COBS( epoch:u64le  sequence:u32le  message  crc32:u32le )  00
//! ```
//!
//! A zero byte occurs nowhere but between frames, and every frame starts *and* ends with one. A
//! machine that is restored finds half a frame of its past life in its queues: that costs the
//! torn frame only, never the one after it. The checksum covers everything before it. Whoever
//! receives compares the epoch, and the sequence number tells a lost frame from a quiet line.

use crate::limits::{MAX_FRAME_BYTES, MAX_MESSAGE_BYTES};

/// Bytes before the message: epoch and sequence number.
const HEADER_BYTES: usize = 12;
/// Bytes after the message.
const CHECKSUM_BYTES: usize = 4;
/// The longest run of non-zero bytes that one COBS code covers.
const LONGEST_RUN: usize = 254;

/// A message is longer than a frame may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of {bytes} bytes does not fit a frame (at most {MAX_MESSAGE_BYTES})")]
pub struct TooLong {
    /// Its length.
    pub bytes: usize,
}

/// A frame whose checksum was right. What is in it may still be nonsense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The host's random number for this life of the channel.
    pub epoch: u64,
    /// Counts the frames of one direction since the epoch's first.
    pub sequence: u32,
    /// The encoded message.
    pub message: &'a [u8],
}

impl Frame<'_> {
    /// Appends the frame to `out`, delimiters included.
    ///
    /// # Errors
    /// [`TooLong`]; `out` is then unchanged.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        if self.message.len() > MAX_MESSAGE_BYTES {
            return Err(TooLong { bytes: self.message.len() });
        }
        let mut plain = Vec::with_capacity(HEADER_BYTES + self.message.len() + CHECKSUM_BYTES);
        plain.extend_from_slice(&self.epoch.to_le_bytes());
        plain.extend_from_slice(&self.sequence.to_le_bytes());
        plain.extend_from_slice(self.message);
        let checksum = crc32fast::hash(&plain);
        plain.extend_from_slice(&checksum.to_le_bytes());
        out.reserve(plain.len() + plain.len() / LONGEST_RUN + 3);
        out.push(0);
        stuff(&plain, out);
        out.push(0);
        Ok(())
    }

    fn parse(plain: &[u8]) -> Option<Frame<'_>> {
        let (covered, checksum) = plain.split_last_chunk::<CHECKSUM_BYTES>()?;
        if crc32fast::hash(covered) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let (epoch, rest) = covered.split_first_chunk::<8>()?;
        let (sequence, message) = rest.split_first_chunk::<4>()?;
        Some(Frame {
            epoch: u64::from_le_bytes(*epoch),
            sequence: u32::from_le_bytes(*sequence),
            message,
        })
    }
}

/// Finds frames in a byte stream, whatever is between them. Holds at most two frames' bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes since the last delimiter, still stuffed.
    stuffed: Vec<u8>,
    /// The frame handed out last, unstuffed.
    plain: Vec<u8>,
    /// More came since the last delimiter than any frame has: skip to the next one.
    overlong: bool,
    dropped: u64,
}

impl Decoder {
    /// Returns a decoder that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input` until a whole, intact frame is found, and returns it.
    /// `None` means that all input was used up.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Frame<'_>> {
        loop {
            let Some(end) = input.iter().position(|&byte| byte == 0) else {
                self.hold(input);
                *input = &[];
                return None;
            };
            let (before, from_delimiter) = input.split_at(end);
            self.hold(before);
            *input = from_delimiter.get(1..).unwrap_or_default();
            if self.close() {
                break;
            }
        }
        // Checked by `close`; parsed anew because a borrow cannot leave a loop conditionally.
        Frame::parse(&self.plain)
    }

    /// Returns how many torn, foreign or damaged frames were skipped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn hold(&mut self, bytes: &[u8]) {
        if self.overlong || self.stuffed.len() + bytes.len() > MAX_FRAME_BYTES {
            self.overlong = true;
            self.stuffed.clear();
        } else {
            self.stuffed.extend_from_slice(bytes);
        }
    }

    /// Ends what was held as a frame; returns whether it is intact.
    fn close(&mut self) -> bool {
        let empty = self.stuffed.is_empty() && !self.overlong;
        let whole = !self.overlong
            && unstuff(&self.stuffed, &mut self.plain)
            && Frame::parse(&self.plain).is_some();
        self.stuffed.clear();
        self.overlong = false;
        if !whole && !empty {
            self.dropped = self.dropped.saturating_add(1);
        }
        whole
    }
}

/// Appends `plain` to `out` with consistent overhead byte stuffing: no zero byte is left.
fn stuff(plain: &[u8], out: &mut Vec<u8>) {
    let mut rest = plain;
    loop {
        let zeros = count(rest, |byte| byte == 0);
        // All but the last: a zero at the end must be followed by a code of its own.
        let whole = if zeros == rest.len() { zeros.saturating_sub(1) } else { zeros };
        out.resize(out.len() + whole, 1);
        rest = rest.get(whole..).unwrap_or_default();
        let window = rest.get(..LONGEST_RUN).unwrap_or(rest);
        let (block, after) = rest.split_at(count(window, |byte| byte != 0));
        #[expect(clippy::cast_possible_truncation, reason = "a run is at most 254 bytes")]
        out.push(block.len() as u8 + 1);
        out.extend_from_slice(block);
        if after.is_empty() {
            return;
        }
        // A full run stands for itself; a shorter one ended at a zero, which the code implies.
        let skip = usize::from(block.len() != LONGEST_RUN);
        rest = after.get(skip..).unwrap_or_default();
    }
}

/// Undoes [`stuff`] into `plain`; returns whether `stuffed` was well formed.
fn unstuff(stuffed: &[u8], plain: &mut Vec<u8>) -> bool {
    plain.clear();
    let mut rest = stuffed;
    while let Some((&code, after)) = rest.split_first() {
        if code == 1 {
            // As many zeros, but for the end, where the last one is only implied.
            let ones = count(rest, |byte| byte == 1);
            let zeros = if ones == rest.len() { ones - 1 } else { ones };
            plain.resize(plain.len() + zeros, 0);
            rest = rest.get(ones..).unwrap_or_default();
            continue;
        }
        let Some((block, next)) = after.split_at_checked(usize::from(code).wrapping_sub(1)) else {
            return false;
        };
        plain.extend_from_slice(block);
        rest = next;
        if usize::from(code) <= LONGEST_RUN && !rest.is_empty() {
            plain.push(0);
        }
    }
    !stuffed.is_empty()
}

/// Returns how many bytes at the front are `like` this.
fn count(bytes: &[u8], like: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|&byte| !like(byte)).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(epoch: u64, sequence: u32, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Frame { epoch, sequence, message }.encode(&mut out).unwrap();
        out
    }

    /// All frames in `bytes`, fed in pieces of `step`.
    fn decoded(bytes: &[u8], step: usize) -> Vec<(u64, u32, Vec<u8>)> {
        let mut decoder = Decoder::new();
        let mut frames = Vec::new();
        for mut piece in bytes.chunks(step) {
            while let Some(frame) = decoder.next(&mut piece) {
                frames.push((frame.epoch, frame.sequence, frame.message.to_vec()));
            }
        }
        frames
    }

    /// Bytes in which zeros and long runs without zeros are both likely.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(0u8), Just(1u8), any::<u8>()];
        prop_oneof![
            proptest::collection::vec(byte, 0..600),
            (0usize..1100).prop_map(|length| vec![7; length]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn frames_come_back_in_any_pieces(
            first in message(), second in message(), epoch: u64, sequence: u32, step in 1usize..700,
        ) {
            let mut bytes = encoded(epoch, sequence, &first);
            bytes.extend(encoded(epoch, sequence.wrapping_add(1), &second));
            prop_assert!(bytes.len() <= 2 * MAX_FRAME_BYTES);
            prop_assert_eq!(
                decoded(&bytes, step),
                vec![(epoch, sequence, first), (epoch, sequence.wrapping_add(1), second)]
            );
        }

        #[test]
        fn garbage_between_frames_costs_no_frame(
            garbage in proptest::collection::vec(any::<u8>(), 0..600), body in message(),
        ) {
            let mut bytes = garbage.clone();
            bytes.extend(encoded(1, 0, &body));
            bytes.extend(&garbage);
            bytes.extend(encoded(1, 1, &body));
            let frames = decoded(&bytes, 64);
            prop_assert!(frames.contains(&(1, 0, body.clone())));
            prop_assert!(frames.contains(&(1, 1, body)));
        }

        #[test]
        fn a_flipped_bit_never_yields_a_changed_frame(body in message(), at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = encoded(3, 9, &body);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            for (epoch, sequence, message) in decoded(&bytes, 100) {
                prop_assert_eq!((epoch, sequence, &message), (3, 9, &body));
            }
        }

        #[test]
        fn noise_never_panics_nor_grows(noise in proptest::collection::vec(any::<u8>(), 0..1000)) {
            let mut decoder = Decoder::new();
            let mut input = noise.as_slice();
            while decoder.next(&mut input).is_some() {}
            prop_assert!(decoder.stuffed.len() <= MAX_FRAME_BYTES);
        }
    }

    #[test]
    fn a_torn_frame_costs_itself_only() {
        let torn = encoded(1, 0, b"half of this is lost, \0 zeros and all");
        let next = encoded(2, 0, b"hello");
        for cut in 0..torn.len() - 1 {
            let mut bytes = torn[..cut].to_vec();
            bytes.extend(&next);
            assert_eq!(decoded(&bytes, 5), vec![(2, 0, b"hello".to_vec())], "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_frame_is_not_kept() {
        let mut decoder = Decoder::new();
        for _ in 0..100 {
            assert_eq!(decoder.next(&mut [1u8; 10_000].as_slice()), None);
            assert!(decoder.stuffed.capacity() <= 2 * MAX_FRAME_BYTES);
        }
        let next = encoded(2, 0, b"hello");
        assert_eq!(decoder.next(&mut next.as_slice()).unwrap().message, b"hello");
        assert_eq!(decoder.dropped(), 1);
    }

    #[test]
    fn the_longest_message_fits_the_longest_frame_and_no_longer_one_is_made() {
        let mut out = Vec::new();
        let longest = vec![9; MAX_MESSAGE_BYTES];
        Frame { epoch: u64::MAX, sequence: 0, message: &longest }.encode(&mut out).unwrap();
        assert!(out.len() <= MAX_FRAME_BYTES, "{}", out.len());
        assert_eq!(decoded(&out, 4096).len(), 1);
        let over = vec![9; MAX_MESSAGE_BYTES + 1];
        let refused = Frame { epoch: 0, sequence: 0, message: &over }.encode(&mut out);
        assert_eq!(refused, Err(TooLong { bytes: MAX_MESSAGE_BYTES + 1 }));
    }
}
