//! What machines sent while the switch was held: frames with the port that they came in through, in
//! order.

use std::collections::VecDeque;

use crate::limits::HELD_BYTES;

/// Frames that wait for the release.
#[derive(Debug, Default)]
pub struct Held {
    /// Port and length of each.
    frames: VecDeque<(usize, usize)>,
    bytes: Vec<u8>,
    /// Where the first begins.
    begin: usize,
}

impl Held {
    /// Appends a frame that came in through `port`.
    pub fn push(&mut self, port: usize, frame: &[u8]) {
        self.frames.push_back((port, frame.len()));
        self.bytes.extend_from_slice(frame);
    }

    /// Whether no more may come in.
    pub fn is_full(&self) -> bool {
        self.bytes.len() - self.begin >= HELD_BYTES
    }

    /// Takes the first into `frame`; returns its port.
    pub fn pop(&mut self, frame: &mut Vec<u8>) -> Option<usize> {
        let Some((port, length)) = self.frames.pop_front() else {
            *self = Self::default();
            return None;
        };
        frame.clear();
        let end = self.begin + length;
        frame.extend_from_slice(self.bytes.get(self.begin..end).unwrap_or_default());
        self.begin = end;
        Some(port)
    }

    /// All of them, in order.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = (usize, &[u8])> {
        let mut at = self.begin;
        self.frames.iter().map(move |(port, length)| {
            let frame = self.bytes.get(at..at + length).unwrap_or_default();
            at += length;
            (*port, frame)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut held = Held::default();
        held.push(2, &[1; 20]);
        held.push(0, &[2; 30]);
        let mut frame = Vec::new();
        assert_eq!((held.pop(&mut frame), frame.as_slice()), (Some(2), &[1; 20][..]));
        held.push(1, &[3; 14]);
        assert_eq!(held.frames().collect::<Vec<_>>(), [(0, &[2; 30][..]), (1, &[3; 14][..])]);
        assert_eq!((held.pop(&mut frame), held.pop(&mut frame)), (Some(0), Some(1)));
        assert_eq!(held.pop(&mut frame), None);
    }

    #[test]
    fn what_may_come_in_is_bounded() {
        let mut held = Held::default();
        let mut count = 0;
        while !held.is_full() {
            held.push(0, &[0; 1514]);
            count += 1;
        }
        assert_eq!(count, HELD_BYTES.div_ceil(1514));
    }
}
