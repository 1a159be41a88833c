//! Which call fails, and how. Calls are counted from 0 across all drivers of a world, in the order
//! in which they begin.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call fails and has no effect.
    Fail,
    /// The call has its effect and then fails.
    FailAfter,
    /// The caller's process ends before the effect.
    CrashBefore,
    /// The caller's process ends after the effect.
    CrashAfter,
}

impl Fault {
    /// Every kind.
    pub const ALL: &'static [Self] =
        &[Self::Fail, Self::FailAfter, Self::CrashBefore, Self::CrashAfter];
}

/// What the plan says about one call, before and after its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It goes on.
    Go,
    /// It fails.
    Fail,
    /// It never returns.
    Hang,
}

#[derive(Default)]
struct Plan {
    calls: u64,
    at: Option<(u64, Fault)>,
    random: Option<Random>,
    /// The call at which the plan struck, with its name.
    struck: Option<(u64, String)>,
    names: Vec<String>,
}

struct Random {
    state: u64,
    /// Strikes in a thousand calls.
    per_mille: u64,
    kinds: Vec<Fault>,
}

/// The fault plan of a world.
pub struct Faults {
    plan: Mutex<Plan>,
    life: watch::Sender<u64>,
    /// The name of calls that do not return for now.
    hanging: watch::Sender<String>,
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self {
            plan: Mutex::new(Plan::default()),
            life: watch::Sender::new(0),
            hanging: watch::Sender::new(String::new()),
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the plan and starts to count at 0.
    pub fn clear(&self) {
        *self.plan() = Plan::default();
    }

    /// Plans one fault at call `n` from now.
    pub fn at(&self, n: u64, fault: Fault) {
        *self.plan() = Plan { at: Some((n, fault)), ..Plan::default() };
    }

    /// Plans faults of these kinds at random calls, `per_mille` in a thousand, the same ones for
    /// the same seed.
    pub fn random(&self, seed: u64, per_mille: u64, kinds: &[Fault]) {
        let random = Random { state: seed, per_mille, kinds: kinds.to_vec() };
        *self.plan() = Plan { random: Some(random), ..Plan::default() };
    }

    /// Returns the call at which the plan struck, if it did.
    pub fn struck(&self) -> Option<(u64, String)> {
        self.plan().struck.clone()
    }

    /// Returns the names of the calls so far.
    pub fn calls(&self) -> Vec<String> {
        self.plan().names.clone()
    }

    /// Ends all present connections.
    pub fn crash(&self) {
        self.life.send_modify(|life| *life += 1);
    }

    /// Resolves when the connections that are present at the call have ended.
    pub async fn crashed(&self) {
        let mut watched = self.life.subscribe();
        let before = *watched.borrow_and_update();
        // The sender lives as long as `self`, so this only ends by a change.
        let _ = watched.wait_for(|life| *life != before).await;
    }

    /// Lets no call of this name begin until another name is given.
    pub(crate) fn hang(&self, name: &str) {
        self.hanging.send_replace(name.to_owned());
    }

    /// Resolves when calls of this name may begin.
    pub(crate) async fn may_begin(&self, name: &str) {
        // The sender lives as long as `self`, so this only ends by the condition.
        let _ = self.hanging.subscribe().wait_for(|hanging| hanging != name).await;
    }

    pub(crate) fn life(&self) -> u64 {
        *self.life.borrow()
    }

    /// Decides about a call: what happens before its effect, and what after.
    pub(crate) fn decide(&self, name: &str, life: u64) -> (Outcome, Outcome) {
        if life != self.life() {
            return (Outcome::Hang, Outcome::Hang);
        }
        let fault = {
            let mut plan = self.plan();
            let call = plan.calls;
            plan.calls += 1;
            plan.names.push(name.to_owned());
            let fault = plan.strike(call);
            if fault.is_some() {
                plan.struck = Some((call, name.to_owned()));
            }
            fault
        };
        match fault {
            None => (Outcome::Go, Outcome::Go),
            Some(Fault::Fail) => (Outcome::Fail, Outcome::Go),
            Some(Fault::FailAfter) => (Outcome::Go, Outcome::Fail),
            Some(Fault::CrashBefore) => {
                self.crash();
                (Outcome::Hang, Outcome::Hang)
            }
            Some(Fault::CrashAfter) => (Outcome::Go, Outcome::Hang),
        }
    }
}

impl Plan {
    fn strike(&mut self, call: u64) -> Option<Fault> {
        if let Some((at, fault)) = self.at {
            return (at == call).then_some(fault);
        }
        let random = self.random.as_mut()?;
        if random.kinds.is_empty() || random.next() % 1000 >= random.per_mille {
            return None;
        }
        let pick = random.next() as usize % random.kinds.len();
        random.kinds.get(pick).copied()
    }
}

impl Random {
    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
