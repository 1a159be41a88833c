//! The comparison as a whole: which aspects can be compared, and what comes of each.

use std::collections::BTreeMap;

use pando_model::capture::{Aspect, Capture, Coverage};
use pando_model::change::{Change, ChangeKind, Severity, Side};

use crate::{database, files, system};

/// What is compared.
#[derive(Debug, Clone, Copy)]
pub struct Material<'a> {
    /// Before.
    pub from: &'a Capture,
    /// Afterwards.
    pub to: &'a Capture,
    /// What both descend from, if it is known.
    pub base: Option<&'a Capture>,
    /// Packages by the paths of their files, where the packages themselves differ.
    pub owners: &'a BTreeMap<String, String>,
    /// What of them.
    pub aspects: &'a [Aspect],
}

/// What a time has to do with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// It is that of the change itself.
    Exact,
    /// Something happened then that goes with the change.
    Near,
    /// The same by the clock of the kernel's log, which is apart from the guest's others by what the
    /// boot took until both ran.
    Logged,
    /// The change was not later.
    Latest,
}

/// When something was changed, by the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// On which side.
    pub side: Side,
    /// In nanoseconds since 1970.
    pub ns: i64,
    /// What it has to do with the change.
    pub time: Time,
}

/// A change, and what is known about its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The change; when and because of what is still to be said.
    pub change: Change,
    /// Times on the sides where it changed.
    pub when: Vec<When>,
    /// What a command may call the thing that changed, the most telling first.
    pub names: Vec<String>,
}

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What matters most first.
    pub found: Vec<Found>,
    /// Why differences were left out, and how many.
    pub suppressed: BTreeMap<&'static str, u64>,
    /// Aspects that could not be compared, or not wholly, and why.
    pub unknown: BTreeMap<Aspect, String>,
}

impl Comparison {
    pub(crate) fn suppress(&mut self, why: &'static str) {
        *self.suppressed.entry(why).or_default() += 1;
    }

    /// Adds a change.
    pub(crate) fn add(&mut self, subject: Subject, severity: Severity, when: Vec<When>) {
        let Subject { aspect, change, name, before, after, side, names } = subject;
        let id = format!("{}:{name}", aspect.as_str());
        let change = Change {
            id,
            node: None,
            aspect,
            change,
            subject: name,
            before,
            after,
            severity,
            side,
            at: None,
            causes: Vec::new(),
        };
        self.found.push(Found { change, when, names });
    }
}

/// What changed, before it is weighed.
pub(crate) struct Subject {
    pub aspect: Aspect,
    pub change: ChangeKind,
    pub name: String,
    pub before: Option<String>,
    pub after: Option<String>,
    pub side: Side,
    /// What a command may call it.
    pub names: Vec<String>,
}

/// Returns on which side something changed. `None` for `base` is unknown; inside, that it was not
/// there.
pub(crate) fn side<T: ?Sized>(
    base: Option<Option<&T>>,
    from: Option<&T>,
    to: Option<&T>,
    same: impl Fn(&T, &T) -> bool,
) -> Side {
    let Some(base) = base else { return Side::Unknown };
    let moved = |now: Option<&T>| match (base, now) {
        (None, None) => false,
        (Some(base), Some(now)) => !same(base, now),
        _ => true,
    };
    match (moved(from), moved(to)) {
        (true, true) => Side::Both,
        (true, false) => Side::From,
        (false, true) => Side::To,
        (false, false) => Side::Unknown,
    }
}

/// Returns a time of a guest by the host's clock.
pub(crate) fn when(side: Side, capture: &Capture, guest_ns: i64, time: Time) -> When {
    When { side, ns: guest_ns.saturating_sub(capture.ahead_ns), time }
}

/// Returns when something happened that is known by the time since the guest's boot.
pub(crate) fn since_boot(side: Side, capture: &Capture, ms: u64, time: Time) -> When {
    let ago = i64::try_from(capture.up_ms.saturating_sub(ms)).unwrap_or(i64::MAX);
    when(side, capture, capture.guest_ns.saturating_sub(ago.saturating_mul(1_000_000)), time)
}

/// Returns whether an aspect is there, and why not or not wholly.
fn coverage(capture: &Capture, aspect: Aspect) -> (bool, Option<&str>) {
    match capture.coverage.get(&aspect) {
        Some(Coverage::Complete) => (true, None),
        Some(Coverage::Partial(why)) => (true, Some(why)),
        Some(Coverage::Absent(why)) => (false, Some(why)),
        None => (false, Some("it was not captured")),
    }
}

/// Compares.
pub fn compare(material: &Material<'_>) -> Comparison {
    let mut comparison = Comparison::default();
    let mut usable = Vec::new();
    for &aspect in Aspect::ALL.iter().filter(|aspect| material.aspects.contains(aspect)) {
        let (before, after) = (coverage(material.from, aspect), coverage(material.to, aspect));
        if let Some(why) = before.1.or(after.1) {
            comparison.unknown.insert(aspect, why.to_owned());
        }
        // What neither has is the same in both, and said all the same.
        if before.0 && after.0 {
            usable.push(aspect);
        }
    }
    let has = |aspect| usable.contains(&aspect);
    if has(Aspect::Packages) {
        system::packages(material, &mut comparison);
    }
    if has(Aspect::Services) {
        system::services(material, &mut comparison);
    }
    if has(Aspect::Users) {
        system::users(material, &mut comparison);
    }
    if has(Aspect::Ports) {
        system::ports(material, &mut comparison);
    }
    if has(Aspect::Network) {
        system::network(material, &mut comparison);
    }
    if has(Aspect::Database) {
        database::databases(material, &mut comparison);
    }
    if has(Aspect::Processes) {
        system::processes(material, &mut comparison);
    }
    if has(Aspect::Env) {
        system::env(material, &mut comparison);
    }
    if has(Aspect::Kernel) {
        system::kernel(material, &mut comparison);
    }
    if has(Aspect::Files) || has(Aspect::Config) {
        files::files(material, &usable, &mut comparison);
    }
    comparison.found.sort_by(|a, b| {
        let key = |found: &Found| {
            let change = &found.change;
            (change.severity, change.aspect, change.subject.clone(), change.change)
        };
        key(a).cmp(&key(b))
    });
    comparison
}

#[cfg(test)]
mod tests;
