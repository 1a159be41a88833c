//! What goes to one machine, in order: whole frames as one run of bytes, so that one write carries
//! as many as the socket takes.
//!
//! ```text
//!   given up │ begun frame │ written up to here │ not yet │
//!            └ begin ──────┴ written ───────────┴─────────┘
//! ```

use std::collections::VecDeque;

use crate::frame::PREFIX_BYTES;
use crate::limits::{QUEUE_BYTES, QUEUE_FRAMES, QUEUE_SLACK_BYTES};
use crate::links::LinkNumber;

/// A queue has as much as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

#[derive(Debug, Clone, Copy)]
struct Queued {
    link: LinkNumber,
    /// With its length before it.
    bytes: usize,
}

/// The frames for one socket.
#[derive(Debug, Default)]
pub struct OutputQueue {
    bytes: Vec<u8>,
    /// Where the first frame that is not wholly written begins.
    begin: usize,
    /// What is before this is written.
    written: usize,
    frames: VecDeque<Queued>,
}

impl OutputQueue {
    /// Appends a frame that came over `link`.
    pub fn push(&mut self, link: LinkNumber, frame: &[u8]) -> Result<(), Full> {
        let bytes = PREFIX_BYTES + frame.len();
        let Ok(length) = u32::try_from(frame.len()) else { return Err(Full) };
        if self.frames.len() >= QUEUE_FRAMES || self.pending_bytes() + bytes > QUEUE_BYTES {
            return Err(Full);
        }
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(frame);
        self.frames.push_back(Queued { link, bytes });
        Ok(())
    }

    /// Whether a frame's beginning is written and its end is not.
    pub fn is_amid_frame(&self) -> bool {
        self.written > self.begin
    }

    /// What is to be written.
    pub fn unwritten(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// What is to be written of the frame that was begun; nothing if none was.
    pub fn rest_of_frame(&self) -> &[u8] {
        match self.frames.front() {
            Some(first) if self.is_amid_frame() => {
                self.bytes.get(self.written..self.begin + first.bytes).unwrap_or_default()
            }
            _ => &[],
        }
    }

    /// Takes note that so many bytes more are written, and tells `ended` of each frame that this
    /// ended: its link and length.
    pub fn wrote(&mut self, count: usize, mut ended: impl FnMut(LinkNumber, usize)) {
        self.written = (self.written + count).min(self.bytes.len());
        while let Some(first) = self.frames.front().copied() {
            if self.begin + first.bytes > self.written {
                break;
            }
            self.begin += first.bytes;
            self.frames.pop_front();
            ended(first.link, first.bytes - PREFIX_BYTES);
        }
        self.give_up_written();
    }

    /// Forgets that a frame was begun: its reader has changed, and gets it whole.
    pub fn begin_again(&mut self) {
        self.written = self.begin;
    }

    /// Gives up all frames, and tells `lost` of each: its link.
    pub fn clear(&mut self, mut lost: impl FnMut(LinkNumber)) {
        for frame in self.frames.drain(..) {
            lost(frame.link);
        }
        *self = Self::default();
    }

    /// The frames that are not wholly written, in order.
    pub fn frames(&self) -> impl Iterator<Item = (LinkNumber, &[u8])> {
        let mut at = self.begin;
        self.frames.iter().map(move |queued| {
            let frame = self.bytes.get(at + PREFIX_BYTES..at + queued.bytes).unwrap_or_default();
            at += queued.bytes;
            (queued.link, frame)
        })
    }

    fn pending_bytes(&self) -> usize {
        self.bytes.len() - self.begin
    }

    fn give_up_written(&mut self) {
        if self.begin == self.bytes.len() {
            self.bytes.clear();
            // A burst's memory is not kept for the rest of the branch's life.
            self.bytes.shrink_to(QUEUE_SLACK_BYTES);
        } else if self.begin > QUEUE_SLACK_BYTES && self.begin >= self.pending_bytes() {
            self.bytes.drain(..self.begin);
        } else {
            return;
        }
        self.written -= self.begin;
        self.begin = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINK: LinkNumber = LinkNumber(3);

    #[test]
    fn a_queue_is_bounded_by_frames_and_by_bytes() {
        let mut queue = OutputQueue::default();
        let taken = (0..2 * QUEUE_FRAMES).filter(|_| queue.push(LINK, &[0; 60]).is_ok()).count();
        assert_eq!(taken, QUEUE_FRAMES);
        let mut lost = 0;
        queue.clear(|_| lost += 1);
        assert_eq!((lost, queue.unwritten()), (taken, &[][..]));
        let taken = (0..2 * QUEUE_FRAMES).filter(|_| queue.push(LINK, &[0; 1514]).is_ok()).count();
        assert_eq!(taken, QUEUE_BYTES / 1518);
        queue.wrote(1518, |_, _| {});
        assert!(queue.push(LINK, &[0; 1514]).is_ok());
    }

    #[test]
    fn a_frame_that_was_begun_is_still_whole() {
        let mut queue = OutputQueue::default();
        queue.push(LINK, &[1; 20]).unwrap();
        queue.push(LINK, &[2; 20]).unwrap();
        let mut ended = 0;
        queue.wrote(30, |_, _| ended += 1);
        assert_eq!((ended, queue.is_amid_frame(), queue.rest_of_frame()), (1, true, &[2; 18][..]));
        assert_eq!(queue.frames().collect::<Vec<_>>(), [(LINK, &[2; 20][..])]);
        queue.begin_again();
        assert_eq!(queue.unwritten().len(), 24);
        assert!(!queue.is_amid_frame());
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_was_pushed(
            steps in proptest::collection::vec((0usize..5, 1usize..3000, 0usize..200_000), 1..200),
        ) {
            let (mut queue, mut pushed, mut written) =
                (OutputQueue::default(), Vec::new(), Vec::new());
            let (mut count, mut ended) = (0, 0);
            for (frames, length, step) in steps {
                for _ in 0..frames {
                    let frame = vec![count as u8; length];
                    if queue.push(LINK, &frame).is_ok() {
                        pushed.extend(u32::try_from(length).unwrap().to_be_bytes());
                        pushed.extend(frame);
                        count += 1;
                    }
                }
                let piece = step.min(queue.unwritten().len());
                written.extend_from_slice(&queue.unwritten()[..piece]);
                queue.wrote(piece, |_, _| ended += 1);
                prop_assert_eq!(queue.frames().count(), count - ended);
            }
            written.extend_from_slice(queue.unwritten());
            prop_assert!(written == pushed);
        }
    }
}
