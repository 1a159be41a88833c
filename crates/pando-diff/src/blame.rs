//! Which recorded commands were at work when something changed.
//!
//! A file's time of change is the kernel's, which ticks every few milliseconds, mapped to the
//! host's clock with an offset that was measured once: what is near a command's interval may belong
//! to it, what is inside of exactly one does. Where there is no such time, a command that names what
//! changed is the likeliest.

use pando_model::JournalId;
use pando_model::change::{Cause, ChangeKind};

use crate::compare::{Time, When};

/// How far a mapped time may be off, in nanoseconds: two ticks of the slowest kernel clock, and the
/// way of an answer from a translated guest.
pub const SLACK_NS: i64 = 25_000_000;
/// How far the clock of the kernel's log may be off, in nanoseconds: a slow boot.
const LOG_SLACK_NS: i64 = 250_000_000;
/// Most commands that a change is attributed to.
const MAX_CAUSES: usize = 3;

/// A command, by the host's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// As the journal has it.
    pub id: JournalId,
    /// What kind of act: `exec`, `push` or `control`.
    pub act: String,
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

    fn cause(&self, certain: bool) -> Cause {
        Cause { id: self.id.clone(), command: self.command.clone(), certain }
    }
}

/// Returns the commands that a change of this kind is because of: of these, which are a side's in
/// their order. `names` are what a command may call the thing that changed, the most telling first.
pub fn blame(acts: &[Act], when: Option<&When>, kind: ChangeKind, names: &[String]) -> Vec<Cause> {
    let Some(when) = when else { return named(acts, kind, names, i64::MAX) };
    let slack = match when.time {
        Time::Near => Some(SLACK_NS),
        Time::Logged => Some(LOG_SLACK_NS),
        Time::Exact | Time::Latest => None,
    };
    if let Some(naming) = slack.and_then(|slack| nearest_naming(acts, when.ns, slack, names)) {
        return vec![naming];
    }
    let (first, second) = match when.time {
        Time::Exact => return at_work(acts, when.ns, true),
        Time::Near | Time::Logged => {
            (at_work(acts, when.ns, false), named(acts, kind, names, when.ns))
        }
        Time::Latest => (named(acts, kind, names, when.ns), at_work(acts, when.ns, false)),
    };
    if first.is_empty() { second } else { first }
}

/// Returns the commands that were at work at `ns`; certain is at most one that was alone.
fn at_work(acts: &[Act], ns: i64, exact: bool) -> Vec<Cause> {
    let near = |act: &&Act| act.distance(ns) <= SLACK_NS;
    let nearest = acts.iter().filter(near).map(|act| act.distance(ns)).min();
    let Some(nearest) = nearest else { return Vec::new() };
    let found: Vec<&Act> = acts.iter().filter(|act| act.distance(ns) == nearest).collect();
    let certain = exact && found.len() == 1;
    // Of several that overlap, the ones that began last are the likelier.
    found.into_iter().rev().take(MAX_CAUSES).map(|act| act.cause(certain)).collect()
}

/// Returns the nearest of the commands that were perhaps at work at `ns` and say one of the names: of
/// two that followed one another at once it is the likelier, whichever is nearer.
fn nearest_naming(acts: &[Act], ns: i64, slack_ns: i64, names: &[String]) -> Option<Cause> {
    let naming = |act: &&Act| {
        act.distance(ns) <= slack_ns && names.iter().any(|name| says(&act.command, name))
    };
    let nearest = acts.iter().filter(naming).min_by_key(|act| act.distance(ns))?;
    Some(nearest.cause(false))
}

/// Returns the command before `until_ns` that calls the thing by the most telling name: the last one,
/// or for what is new the first.
fn named(acts: &[Act], kind: ChangeKind, names: &[String], until_ns: i64) -> Vec<Cause> {
    let before = |act: &&Act| act.from_ns <= until_ns.saturating_add(SLACK_NS);
    let of = |name: &String| {
        let mut all = acts.iter().filter(before).filter(|act| says(&act.command, name));
        if kind == ChangeKind::Added { all.next() } else { all.next_back() }
    };
    names.iter().find_map(of).map(|act| act.cause(false)).into_iter().collect()
}

/// Returns whether a command line says a name, and not only a longer one.
fn says(command: &str, name: &str) -> bool {
    let path = name.starts_with('/');
    let word = |c: char| c.is_alphanumeric() || "_-".contains(c);
    let goes_on = |c: char| word(c) || path && c == '.';
    let comes_from = |c: char| word(c) || path && "./".contains(c);
    !name.is_empty()
        && command.match_indices(name).any(|(at, _)| {
            let (before, after) = (command.get(..at), command.get(at + name.len()..));
            let before = before.and_then(|text| text.chars().next_back());
            let after = after.and_then(|text| text.chars().next());
            !before.is_some_and(comes_from) && !after.is_some_and(goes_on)
        })
}

#[cfg(test)]
mod tests {
    use pando_model::change::Side;

    use super::*;

    fn act(command: &str, from_ms: i64, until_ms: i64) -> Act {
        Act {
            id: JournalId::random(),
            act: "exec".into(),
            command: command.into(),
            from_ns: from_ms * 1_000_000,
            until_ns: until_ms * 1_000_000,
        }
    }

    fn at(ms: i64, time: Time) -> When {
        When { side: Side::To, ns: ms * 1_000_000, time }
    }

    #[test]
    fn a_change_belongs_to_the_command_that_was_at_work() {
        let acts = [act("a", 100, 200), act("b", 210, 300), act("c", 280, 400)];
        let blamed = |ms: i64| {
            let causes =
                blame(&acts, Some(&at(ms, Time::Exact)), ChangeKind::Changed, &["a".to_owned()]);
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
        assert!(!blame(&acts, Some(&at(150, Time::Near)), ChangeKind::Added, &[])[0].certain);
    }

    #[test]
    fn about_a_time_the_command_that_names_it_is_the_likelier() {
        let acts = [act("sysctl -w a=1", 100, 110), act("echo 'one: two' >/dev/kmsg", 112, 130)];
        let blamed = |ms, time, name: &str| {
            let causes = blame(&acts, Some(&at(ms, time)), ChangeKind::Added, &[name.to_owned()]);
            causes.into_iter().map(|cause| cause.command).collect::<Vec<_>>()
        };
        assert_eq!(blamed(109, Time::Near, "one: two"), [acts[1].command.clone()]);
        assert_eq!(blamed(109, Time::Near, "three"), [acts[0].command.clone()]);
        assert_eq!(blamed(75, Time::Near, "one: two"), [acts[0].command.clone()]);
        assert_eq!(blamed(75, Time::Logged, "one: two"), [acts[1].command.clone()]);
        assert_eq!(blamed(75, Time::Logged, "three"), [acts[0].command.clone()]);
    }

    #[test]
    fn what_has_no_time_of_its_own_belongs_to_the_last_command_that_names_it() {
        let acts = [
            act("touch /a/b; ip addr add 10.0.0.1/24", 0, 10),
            act("rm /a/b", 100, 110),
            act("touch /a/c /a/b.old", 200, 210),
        ];
        let blamed = |when: Option<When>, name: &str| {
            let causes = blame(&acts, when.as_ref(), ChangeKind::Removed, &[name.to_owned()]);
            causes.into_iter().map(|cause| (cause.command, cause.certain)).next()
        };
        let latest = |ms| Some(at(ms, Time::Latest));
        for (when, name, expected) in [
            (latest(205), "/a/b", Some(1)),
            (latest(50), "/a/b", Some(0)),
            (latest(205), "/a/x", Some(2)),
            (None, "10.0.0.1/24", Some(0)),
            (None, "10.0.0.1", Some(0)),
            (None, "0.0.0.1/24", None),
            (None, "ad", None),
            (None, "old", Some(2)),
            (Some(at(105, Time::Near)), "old", Some(1)),
            (Some(at(900, Time::Near)), "old", Some(2)),
        ] {
            let expected = expected.map(|index: usize| (acts[index].command.clone(), false));
            assert_eq!(blamed(when, name), expected, "{name} {when:?}");
        }
        let new = blame(&acts, None, ChangeKind::Added, &["/a/b".to_owned()]);
        assert_eq!(new[0].command, acts[0].command, "what is new was named first when it was made");
    }
}
