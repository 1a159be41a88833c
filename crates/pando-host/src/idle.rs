//! Connections to keepers between two requests. Opening one costs the keeper two threads, which on a
//! busy machine takes longer than most commands run.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pando_model::BranchId;

use crate::client::{Connection, Peer};
use crate::limits::{MAX_IDLE, MAX_IDLE_EACH};

/// The idle connections of all branches. A connection belongs to one incarnation: another one's
/// secret finds none.
#[derive(Default)]
pub struct IdleConnections(Mutex<HashMap<BranchId, Idle>>);

#[derive(Default)]
struct Idle {
    token: String,
    connections: Vec<Connection>,
}

impl IdleConnections {
    fn lock(&self) -> MutexGuard<'_, HashMap<BranchId, Idle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection to this incarnation's keeper, if one is there and still open.
    pub fn take(&self, peer: &Peer) -> Option<Connection> {
        let mut all = self.lock();
        let idle = all.get_mut(&peer.branch).filter(|idle| idle.token == peer.token)?;
        while let Some(connection) = idle.connections.pop() {
            if connection.is_idle() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection of which all that was asked has been answered.
    pub fn give_back(&self, peer: Peer, connection: Connection) {
        if !connection.is_idle() {
            return;
        }
        let mut all = self.lock();
        let count: usize = all.values().map(|idle| idle.connections.len()).sum();
        if count >= MAX_IDLE {
            all.retain(|_, idle| {
                idle.connections.retain(Connection::is_idle);
                !idle.connections.is_empty()
            });
        }
        let idle = all.entry(peer.branch).or_default();
        if idle.token != peer.token {
            *idle = Idle { token: peer.token, connections: Vec::new() };
        }
        if count < MAX_IDLE && idle.connections.len() < MAX_IDLE_EACH {
            idle.connections.push(connection);
        }
    }

    /// Closes the connections to a branch whose keeper is to end.
    pub fn forget(&self, branch: &BranchId) {
        self.lock().remove(branch);
    }
}
