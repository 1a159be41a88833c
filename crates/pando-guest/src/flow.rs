//! Credit of one stream, seen from the guest.

use pando_wire::limits::STREAM_WINDOW_BYTES;

use crate::limits::CREDIT_STEP_BYTES;

/// What may still be sent, and what was taken in and is not yet granted anew.
#[derive(Debug)]
pub struct Flow {
    /// Bytes that we may send.
    pub sendable: u32,
    /// Bytes that the host may send.
    receivable: u32,
    owed: u32,
}

impl Default for Flow {
    fn default() -> Self {
        Self { sendable: STREAM_WINDOW_BYTES, receivable: STREAM_WINDOW_BYTES, owed: 0 }
    }
}

impl Flow {
    /// Counts bytes from the host. Returns whether they were granted.
    pub fn receive(&mut self, bytes: usize) -> bool {
        let left = u32::try_from(bytes).ok().and_then(|bytes| self.receivable.checked_sub(bytes));
        self.receivable = left.unwrap_or(0);
        left.is_some()
    }

    /// Counts bytes from the host that have been used up. Returns what to grant it by now.
    pub fn consume(&mut self, bytes: usize) -> Option<u32> {
        self.owed = self.owed.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.owed < CREDIT_STEP_BYTES {
            return None;
        }
        let granted = std::mem::take(&mut self.owed);
        self.receivable = self.receivable.saturating_add(granted);
        Some(granted)
    }

    /// Counts bytes sent; never more than `sendable`.
    pub fn send(&mut self, bytes: usize) {
        self.sendable = self.sendable.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Counts a grant from the host.
    pub fn granted(&mut self, bytes: u32) {
        self.sendable = self.sendable.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_granted_is_noticed() {
        let mut flow = Flow::default();
        assert!(flow.receive(STREAM_WINDOW_BYTES as usize));
        assert!(!flow.receive(1));
        assert_eq!(flow.consume(CREDIT_STEP_BYTES as usize - 1), None);
        assert_eq!(flow.consume(1), Some(CREDIT_STEP_BYTES));
        assert!(flow.receive(CREDIT_STEP_BYTES as usize));
        assert!(!flow.receive(usize::MAX));
    }
}
