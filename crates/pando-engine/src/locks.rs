//! Locks on objects, by key, shared or exclusive. A set is granted whole or not at all, so that no
//! two waiters can wait for one another; a waiter never overtakes an earlier one that it conflicts
//! with, so that nobody starves. The holder is named in the error when waiting takes too long.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pando_api::ApiError;
use pando_model::{BranchId, ClusterId, CommitId, ErrorCode, ImageId, Name};
use tokio::sync::Notify;

use crate::failure::{Failure, Result};

/// How an object is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hold {
    /// With others that hold it so.
    Shared,
    /// Alone.
    Exclusive,
}

/// The objects that an operation holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LockSet(BTreeMap<String, Hold>);

impl LockSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key; the stronger hold wins when it is there already.
    pub fn with(mut self, key: impl Into<String>, hold: Hold) -> Self {
        let held = self.0.entry(key.into()).or_insert(hold);
        *held = hold.max(*held);
        self
    }

    pub fn cluster(self, id: &ClusterId, hold: Hold) -> Self {
        self.with(id.as_str(), hold)
    }

    pub fn branch(self, id: &BranchId) -> Self {
        self.with(id.as_str(), Hold::Exclusive)
    }

    pub fn commit(self, id: &CommitId) -> Self {
        self.with(id.as_str(), Hold::Shared)
    }

    /// The name of a tag, which may be there or not.
    pub fn tag(self, cluster: &ClusterId, name: &Name) -> Self {
        self.with(format!("{cluster}/{name}"), Hold::Exclusive)
    }

    pub fn image(self, id: &ImageId, hold: Hold) -> Self {
        self.with(id.as_str(), hold)
    }
}

#[derive(Default)]
struct Held {
    exclusive: bool,
    /// Ticket and description of each holder.
    holders: HashMap<u64, Arc<str>>,
}

#[derive(Default)]
struct State {
    held: HashMap<String, Held>,
    /// Who waits, in order of arrival.
    waiting: BTreeMap<u64, LockSet>,
    next_ticket: u64,
}

/// All locks of an engine.
#[derive(Default)]
pub(crate) struct Locks {
    state: Mutex<State>,
    released: Notify,
}

/// Held locks; dropping it releases them.
pub(crate) struct Guard {
    locks: Arc<Locks>,
    ticket: u64,
    set: LockSet,
}

/// A place in the queue; dropping it leaves the queue.
struct Waiter<'a> {
    locks: &'a Locks,
    ticket: u64,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.locks.state().waiting.remove(&self.ticket);
        self.locks.released.notify_waiters();
    }
}

impl Guard {
    /// Takes more, if all of it is free now. Never waits, so it cannot wait for ever.
    pub fn extend(&mut self, more: LockSet, what: &str) -> bool {
        let mut state = self.locks.state();
        let own = |key: &String| self.set.0.contains_key(key);
        if more.0.keys().any(own) || state.conflict(u64::MAX, &more).is_some() {
            return false;
        }
        state.take(self.ticket, &more, &Arc::from(what));
        drop(state);
        self.set.0.extend(more.0);
        true
    }
}

impl Guard {
    /// Takes what the set has beyond this guard, if that is free now.
    ///
    /// # Errors
    /// `busy`, naming the object.
    pub fn cover(&mut self, set: LockSet, what: &str) -> Result<()> {
        let missing =
            LockSet(set.0.into_iter().filter(|(key, _)| !self.set.0.contains_key(key)).collect());
        let first = missing.0.keys().next().cloned();
        match first {
            Some(key) if !self.extend(missing, what) => {
                Err(busy(&key, "another call", Duration::ZERO))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.locks.state();
        for key in self.set.0.keys() {
            let Some(held) = state.held.get_mut(key) else { continue };
            held.holders.remove(&self.ticket);
            held.exclusive = false;
            if held.holders.is_empty() {
                state.held.remove(key);
            }
        }
        drop(state);
        self.locks.released.notify_waiters();
    }
}

impl State {
    /// Returns the first key that `set` cannot have now, with its holder's description.
    fn conflict(&self, ticket: u64, set: &LockSet) -> Option<(String, Arc<str>)> {
        for (key, hold) in &set.0 {
            let Some(held) = self.held.get(key) else { continue };
            if held.exclusive || *hold == Hold::Exclusive {
                let holder = held.holders.values().next().cloned();
                return Some((key.clone(), holder.unwrap_or_else(|| Arc::from("another call"))));
            }
        }
        let overtaken = self.waiting.range(..ticket).find_map(|(_, earlier)| {
            earlier.0.iter().find(|(key, earlier)| {
                let own = set.0.get(*key);
                own.is_some_and(|own| *own == Hold::Exclusive || **earlier == Hold::Exclusive)
            })
        });
        overtaken.map(|(key, _)| (key.clone(), Arc::from("a call that came earlier")))
    }

    fn take(&mut self, ticket: u64, set: &LockSet, what: &Arc<str>) {
        for (key, hold) in &set.0 {
            let held = self.held.entry(key.clone()).or_default();
            held.exclusive = *hold == Hold::Exclusive;
            held.holders.insert(ticket, Arc::clone(what));
        }
    }
}

impl Locks {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the whole set, waiting at most `patience`. `what` describes the holder to others.
    ///
    /// # Errors
    /// `busy`, naming the object and its holder.
    ///
    /// # Cancel safety
    /// A dropped call holds nothing and has left the queue.
    pub async fn acquire(
        self: &Arc<Self>,
        set: LockSet,
        what: &str,
        patience: Duration,
    ) -> Result<Guard> {
        let what: Arc<str> = Arc::from(what);
        let ticket = {
            let mut state = self.state();
            state.next_ticket += 1;
            let ticket = state.next_ticket;
            state.waiting.insert(ticket, set.clone());
            ticket
        };
        let waiter = Waiter { locks: self, ticket };
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            // Registered before the check, so that no release between the two is missed.
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            let conflict = {
                let mut state = self.state();
                let conflict = state.conflict(ticket, &set);
                if conflict.is_none() {
                    state.take(ticket, &set, &what);
                }
                conflict
            };
            let Some((key, holder)) = conflict else {
                drop(waiter);
                return Ok(Guard { locks: Arc::clone(self), ticket, set });
            };
            if tokio::time::timeout_at(deadline, released).await.is_err() {
                return Err(busy(&key, &holder, patience));
            }
        }
    }

    /// Takes the whole set if it is free now.
    pub fn try_acquire(self: &Arc<Self>, set: LockSet, what: &str) -> Option<Guard> {
        let mut state = self.state();
        state.next_ticket += 1;
        let ticket = state.next_ticket;
        if state.conflict(ticket, &set).is_some() {
            return None;
        }
        state.take(ticket, &set, &Arc::from(what));
        drop(state);
        Some(Guard { locks: Arc::clone(self), ticket, set })
    }
}

fn busy(key: &str, holder: &str, patience: Duration) -> Failure {
    let message =
        format!("{key} is held by {holder}, still after {} s", patience.as_secs_f32().round());
    ApiError::new(ErrorCode::Busy, message)
        .subject(key)
        .hint("call again, or look at `pando operation list`")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(keys: &[(&str, Hold)]) -> LockSet {
        keys.iter().fold(LockSet::new(), |set, (key, hold)| set.with(*key, *hold))
    }

    #[tokio::test(start_paused = true)]
    async fn shared_holders_share_and_exclude_others() {
        let locks = Arc::new(Locks::default());
        let shared = set(&[("a", Hold::Shared)]);
        let first = locks.try_acquire(shared.clone(), "first").unwrap();
        let second = locks.try_acquire(shared.clone(), "second").unwrap();
        assert!(locks.try_acquire(set(&[("a", Hold::Exclusive)]), "third").is_none());
        drop((first, second));
        let third = locks.try_acquire(set(&[("a", Hold::Exclusive)]), "third").unwrap();
        assert!(locks.try_acquire(shared, "fourth").is_none());
        drop(third);
        assert!(locks.state().held.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_bounded_and_names_the_holder() {
        let locks = Arc::new(Locks::default());
        let both = set(&[("a", Hold::Exclusive), ("b", Hold::Exclusive)]);
        let _held = locks.try_acquire(set(&[("b", Hold::Shared)]), "commit_create op_1").unwrap();
        let refused = locks.acquire(both, "x", Duration::from_secs(3)).await;
        let error = refused.err().unwrap().0;
        assert_eq!(error.code, ErrorCode::Busy);
        assert!(error.message.contains("commit_create op_1"), "{}", error.message);
        assert_eq!(error.subject.as_deref(), Some("b"));
        let state = locks.state();
        assert!(state.waiting.is_empty() && !state.held.contains_key("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_exclusive_waiter_is_not_overtaken_by_later_shared_ones() {
        let locks = Arc::new(Locks::default());
        let reader = locks.try_acquire(set(&[("a", Hold::Shared)]), "reader").unwrap();
        let writer = {
            let locks = Arc::clone(&locks);
            let wanted = set(&[("a", Hold::Exclusive)]);
            tokio::spawn(async move { locks.acquire(wanted, "w", Duration::from_secs(9)).await })
        };
        while locks.state().waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(locks.try_acquire(set(&[("a", Hold::Shared)]), "late").is_none());
        drop(reader);
        assert!(writer.await.unwrap().is_ok());
        assert!(locks.state().held.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn opposite_orders_do_not_deadlock() {
        let locks = Arc::new(Locks::default());
        let sets = [
            set(&[("a", Hold::Exclusive), ("b", Hold::Exclusive)]),
            set(&[("b", Hold::Exclusive), ("a", Hold::Exclusive)]),
        ];
        let mut tasks = tokio::task::JoinSet::new();
        for round in 0..100 {
            let (locks, wanted) = (Arc::clone(&locks), sets[round % 2].clone());
            tasks.spawn(async move {
                let held = locks.acquire(wanted, "x", Duration::from_secs(60)).await;
                tokio::task::yield_now().await;
                held.is_ok()
            });
        }
        assert!(tasks.join_all().await.into_iter().all(|held| held));
    }
}
