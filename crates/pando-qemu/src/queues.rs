//! The queues of a machine's network devices, as QEMU tells of them. Unstable interfaces of QEMU:
//! the self-test of a start holds them.

use serde_json::{Value, json};

use crate::args;
use crate::qmp::Command;

/// The queue that a guest gives buffers for arriving frames to.
const RECEIVE_QUEUE: u32 = 0;
/// The queue that a guest gives the frames that it sends to.
const TRANSMIT_QUEUE: u32 = 1;
/// Buffers that a receive queue should have: a frame takes one, a large one a few.
const ROOM: u16 = 8;

/// A queue's indices, which count modulo 2^16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// What the device has taken and not given back.
    pub in_use: u64,
    /// What the device took so far.
    pub taken: u16,
    /// What the device knows that the guest gave.
    known: u16,
}

fn arguments(nic: usize, queue: u32) -> Value {
    let path = format!("/machine/peripheral/{}/virtio-backend", args::nic_id(nic));
    json!({ "path": path, "queue": queue })
}

/// Returns the commands that ask for both queues of each interface: first the one it sends by.
pub fn queries(nics: usize) -> Vec<Command> {
    let of = |nic, queue| Command::with("x-query-virtio-queue-status", arguments(nic, queue));
    (0..nics).flat_map(|nic| [of(nic, TRANSMIT_QUEUE), of(nic, RECEIVE_QUEUE)]).collect()
}

/// Returns the command that asks what a guest gave to an interface's receive queue.
pub fn given_query(nic: usize) -> Command {
    Command::with("x-query-virtio-queue-element", arguments(nic, RECEIVE_QUEUE))
}

impl Queue {
    /// Reads an answer to one of [`queries`]; `None` if it is none.
    pub fn parse(status: &Value) -> Option<Self> {
        let index = |name: &str| {
            let index = status.get(name).and_then(Value::as_u64)?;
            u16::try_from(index).ok()
        };
        Some(Self {
            in_use: status.get("inuse").and_then(Value::as_u64)?,
            taken: index("last-avail-idx")?,
            known: index("shadow-avail-idx")?,
        })
    }

    /// Whether the device knows of room for more frames. One that does holds none back.
    pub fn has_room(self) -> bool {
        self.known.wrapping_sub(self.taken) >= ROOM
    }

    /// Whether there is room by what an answer to [`given_query`] says that the guest gave.
    pub fn has_room_given(self, element: &Value) -> bool {
        let given = element.pointer("/avail/idx").and_then(Value::as_u64);
        given
            .and_then(|given| u16::try_from(given).ok())
            .is_none_or(|given| given.wrapping_sub(self.taken) >= ROOM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(last: u16, known: u16) -> Queue {
        let status = json!({"inuse": 0, "last-avail-idx": last, "shadow-avail-idx": known});
        Queue::parse(&status).unwrap()
    }

    #[test]
    fn room_is_counted_across_the_end_of_the_indices() {
        assert!(queue(65_530, 2).has_room());
        assert!(!queue(65_530, 1).has_room());
        assert!(!queue(7, 7).has_room());
        assert!(queue(65_535, 65_535).has_room_given(&json!({"avail": {"idx": 7}})));
        assert!(!queue(65_535, 65_535).has_room_given(&json!({"avail": {"idx": 6}})));
    }

    #[test]
    fn answers_that_are_none_are_refused() {
        assert_eq!(Queue::parse(&json!({"inuse": 0})), None);
        let long = json!({"inuse": 0, "last-avail-idx": 65_536, "shadow-avail-idx": 0});
        assert_eq!(Queue::parse(&long), None);
    }
}
