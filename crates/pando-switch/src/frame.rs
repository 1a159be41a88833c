//! Frames: what is looked at of one, and how a stream of bytes is cut into them. Total over hostile
//! bytes.

use pando_model::network::MacAddress;

use crate::limits::{MAX_FRAME_BYTES, MAX_TOLD_BYTES, MIN_FRAME_BYTES};

/// Bytes of the length before each frame.
pub const PREFIX_BYTES: usize = 4;

/// Who a frame is for and from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// For whom.
    pub to: MacAddress,
    /// From whom: one interface.
    pub from: MacAddress,
}

impl Header {
    /// Returns a frame's header; `None` if it is too short or too long, or from nobody: a group of
    /// interfaces, or the address of all zeros.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        if !(MIN_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&frame.len()) {
            return None;
        }
        let (to, rest) = frame.split_first_chunk::<6>()?;
        let from = MacAddress(*rest.first_chunk::<6>()?);
        let is_somebody = !from.is_group() && from != MacAddress([0; 6]);
        is_somebody.then_some(Self { to: MacAddress(*to), from })
    }
}

/// A stream is not one of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame says that it has {0} bytes")]
pub struct FrameTooLong(pub u32);

/// Cuts the bytes of a stream into frames, each behind its length as four bytes, big endian.
/// Iterates over the whole ones; [`Frames::rest`] begins the next.
#[derive(Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Begins at the start of a frame.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What is left: less than a frame, once the iterator has ended.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<&'a [u8], FrameTooLong>;

    fn next(&mut self) -> Option<Self::Item> {
        let (prefix, behind) = self.rest.split_first_chunk::<PREFIX_BYTES>()?;
        let told = u32::from_be_bytes(*prefix);
        let length = usize::try_from(told).unwrap_or(usize::MAX);
        if length > MAX_TOLD_BYTES {
            return Some(Err(FrameTooLong(told)));
        }
        let (frame, next) = behind.split_at_checked(length)?;
        self.rest = next;
        Some(Ok(frame))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(length: usize, from: [u8; 6]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend(from);
        frame.resize(length, 0);
        frame
    }

    #[test]
    fn truncated_oversized_and_anonymous_frames_are_none() {
        let somebody = [0x52, 0x54, 0, 1, 2, 3];
        for (length, from, good) in [
            (14, somebody, true),
            (1518, somebody, true),
            (13, somebody, false),
            (1519, somebody, false),
            (60, [0xff; 6], false),
            (60, [0x33, 0x33, 0, 0, 0, 1], false),
            (60, [0; 6], false),
        ] {
            assert_eq!(Header::parse(&frame(length, from)).is_some(), good, "{length} {from:x?}");
        }
        assert!(Header::parse(&[]).is_none());
    }

    #[test]
    fn a_length_that_is_none_ends_the_stream() {
        let mut frames = Frames::new(&[0, 0, 0, 1, 9, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(frames.next(), Some(Ok([9].as_slice())));
        assert_eq!(frames.next(), Some(Err(FrameTooLong(u32::MAX))));
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_however_the_stream_is_cut(
            lengths in proptest::collection::vec(0usize..2000, 0..20),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut stream = Vec::new();
            for (number, length) in lengths.iter().enumerate() {
                stream.extend(u32::try_from(*length).unwrap().to_be_bytes());
                stream.resize(stream.len() + length, number as u8);
            }
            let (first, second) = stream.split_at(cut.index(stream.len() + 1));
            let mut before = Frames::new(first);
            let mut found: Vec<usize> = before.by_ref().map(|frame| frame.unwrap().len()).collect();
            let joined = [before.rest(), second].concat();
            let mut after = Frames::new(&joined);
            found.extend(after.by_ref().map(|frame| frame.unwrap().len()));
            prop_assert_eq!(found, lengths);
            prop_assert!(after.rest().is_empty());
        }
    }
}
