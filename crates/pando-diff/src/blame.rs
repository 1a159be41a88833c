//! Which recorded commands were at work when something changed.
//!
//! A file's time of change is the kernel's, which ticks every few milliseconds, mapped to the
//! host's clock with an offset that was measured once: what is near a command's interval may belong
//! to it, what is inside of exactly one does.

use pando_model::JournalId;
use pando_model::change::Cause;

/// How far a mapped time may be off, in nanoseconds: two ticks of the slowest kernel clock, and the
/// way of an answer from a translated guest.
pub const SLACK_NS: i64 = 25_000_000;
/// Most commands that a change is attributed to.
const MAX_CAUSES: usize = 3;

/// A command, by the host's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// As the journal has it.
    pub id: JournalId,
    /// What was run or written.
    pub command: String,
    /// When it began, in nanoseconds since 1970.
    pub from_ns: i64,
    /// When it had ended; the present if it runs.
    pub until_ns: i64,
}

impl Act {
    /// Returns how far a time is outside of it.
    fn distance(&self, ns: i64) -> i64 {
        self.from_ns.saturating_sub(ns).max(ns.saturating_sub(self.until_ns)).max(0)
    }
}

/// Returns the commands that were at work at `ns`, if the time is exactly that of the change.
pub fn blame(acts: &[Act], ns: i64, exact: bool) -> Vec<Cause> {
    let near = |act: &&Act| act.distance(ns) <= SLACK_NS;
    let nearest = acts.iter().filter(near).map(|act| act.distance(ns)).min();
    let Some(nearest) = nearest else { return Vec::new() };
    let found: Vec<&Act> = acts.iter().filter(|act| act.distance(ns) == nearest).collect();
    let certain = exact && found.len() == 1;
    // Of several that overlap, the ones that began last are the likelier.
    let newest = found.into_iter().rev().take(MAX_CAUSES);
    newest.map(|act| Cause { id: act.id.clone(), command: act.command.clone(), certain }).collect()
}

/// Returns the command that removed a path, as a guess: the last one that names it. Of what is gone
/// only its directory tells a time, `until_ns`: that of the last change there, which may be
/// another's. Without a command that names it, that is all there is.
pub fn blame_removal(acts: &[Act], path: &str, until_ns: i64) -> Vec<Cause> {
    let before = |act: &&Act| act.from_ns <= until_ns.saturating_add(SLACK_NS);
    let named = acts.iter().rev().filter(before).find(|act| act.command.contains(path));
    match named {
        Some(act) => {
            let (id, command) = (act.id.clone(), act.command.clone());
            vec![Cause { id, command, certain: false }]
        }
        None => blame(acts, until_ns, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(command: &str, from_ms: i64, until_ms: i64) -> Act {
        Act {
            id: JournalId::random(),
            command: command.into(),
            from_ns: from_ms * 1_000_000,
            until_ns: until_ms * 1_000_000,
        }
    }

    #[test]
    fn a_change_belongs_to_the_command_that_was_at_work() {
        let acts = [act("a", 100, 200), act("b", 210, 300), act("c", 280, 400)];
        let blamed = |ms: i64| {
            let causes = blame(&acts, ms * 1_000_000, true);
            let certain = causes.iter().all(|cause| cause.certain);
            (causes.into_iter().map(|cause| cause.command).collect::<String>(), certain)
        };
        for (ms, expected) in [
            (150, ("a", true)),
            (204, ("a", true)),
            (207, ("b", true)),
            (290, ("cb", false)),
            (390, ("c", true)),
            (80, ("a", true)),
            (50, ("", true)),
            (500, ("", true)),
        ] {
            assert_eq!(blamed(ms), (expected.0.to_owned(), expected.1), "{ms}");
        }
        assert!(!blame(&acts, 150_000_000, false)[0].certain);
    }

    #[test]
    fn a_removal_belongs_to_the_last_command_that_names_it() {
        let acts =
            [act("touch /a/b", 0, 10), act("rm /a/b", 100, 110), act("touch /a/c", 200, 210)];
        let blamed = |path: &str| blame_removal(&acts, path, 205_000_000).remove(0);
        assert_eq!((blamed("/a/b").command.as_str(), blamed("/a/b").certain), ("rm /a/b", false));
        assert_eq!(blamed("/a/x").command, "touch /a/c");
    }
}
