//! Guests' clocks, after time that the guests did not see. A guest that has to wait for a processor
//! hears late what the time is; here it is asked whether it still believes so.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pando_link::{GuestLink, LinkError};
use pando_wire::guest::Request;

use crate::limits;

/// What a guest's answer says of its clock.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// As right as it has to be.
    Right,
    /// Too far from the host's, wherever in its way the answer was given.
    Wrong,
    /// The answer was too long on its way.
    Unclear,
}

/// Looks after clocks that were set.
#[derive(Default)]
pub struct Clocks {
    /// Counts the times that clocks were set or left as they were: the last one counts.
    set: Arc<AtomicU64>,
}

impl Clocks {
    /// Leaves the guests' clocks as they are from now on.
    pub fn leave(&self) {
        self.set.fetch_add(1, Ordering::Relaxed);
    }

    /// Sees to it, beside the caller, that clocks which were just set become right.
    pub fn follow(&self, links: Vec<Arc<GuestLink>>) {
        let mine = self.set.fetch_add(1, Ordering::Relaxed) + 1;
        let set = self.set.clone();
        let run = move || settle(links, || set.load(Ordering::Relaxed) == mine);
        if let Err(error) = thread::Builder::new().name("clocks".into()).spawn(run) {
            tracing::warn!(%error, "the guests' clocks are not looked at");
        }
    }
}

/// Asks the guests in turn until all clocks are right, or it is no longer wanted.
fn settle(mut links: Vec<Arc<GuestLink>>, goes_on: impl Fn() -> bool) {
    for _ in 0..limits::CLOCK_ROUNDS {
        // First too: a guest has more urgent things to do than to tell what it believes.
        thread::sleep(limits::CLOCK_PAUSE);
        links.retain(|link| goes_on() && !is_settled(link));
        if links.is_empty() {
            return;
        }
    }
    for link in links {
        tracing::warn!(node = link.name(), "its clock may be wrong: it is too slow to tell");
    }
}

/// Returns whether nothing is left to do about a guest's clock; sets it again if it is wrong.
fn is_settled(link: &GuestLink) -> bool {
    match look(link) {
        Ok(Verdict::Right) => true,
        Ok(Verdict::Unclear) | Err(LinkError::Deadline { .. }) => false,
        Ok(Verdict::Wrong) => {
            tracing::debug!(node = link.name(), "it heard late what the time is");
            // An error is the next look's, too.
            let _ = link.set_clock(Instant::now() + limits::GUEST_ANSWER);
            false
        }
        // The machine has ended, or is another one now.
        Err(_) => true,
    }
}

fn look(link: &GuestLink) -> Result<Verdict, LinkError> {
    let asked_ns = now_ns();
    let nothing = Request::Capture { aspects: Vec::new() };
    let deadline = Instant::now() + limits::GUEST_ANSWER;
    let guest_ns = link.capture(&nothing, &mut io::sink(), deadline)?.guest_ns;
    Ok(verdict(asked_ns, guest_ns, now_ns()))
}

fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

fn verdict(asked_ns: i64, guest_ns: i64, heard_ns: i64) -> Verdict {
    let near = limits::CLOCK_NEAR_NS;
    if guest_ns < asked_ns.saturating_sub(near) || guest_ns > heard_ns.saturating_add(near) {
        Verdict::Wrong
    } else if heard_ns.saturating_sub(asked_ns) > near {
        Verdict::Unclear
    } else {
        Verdict::Right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_the_time_it_was_on_its_way() {
        let near = limits::CLOCK_NEAR_NS;
        let asked = 1_000 * near;
        for (guest, heard, wanted) in [
            (asked + 1, asked + 2, Verdict::Right),
            (asked - near, asked + 2, Verdict::Right),
            (asked - near - 1, asked + 2, Verdict::Wrong),
            (asked + near + 3, asked + 2, Verdict::Wrong),
            (asked + near, asked + 2 * near, Verdict::Unclear),
            (asked - 2 * near, asked + 20 * near, Verdict::Wrong),
        ] {
            assert_eq!(verdict(asked, guest, heard), wanted, "{guest} {heard}");
        }
    }
}
