//! The kernel's own news of a restore: QEMU raises an ACPI event (vmgenid), and the kernel reseeds its
//! random numbers, says so in its log and tells those of its parts that asked.
//!
//! Under translation that is half of what a restored machine does before it answers: the firmware's
//! code is interpreted, and what the kernel logs wakes the system's logger. Nothing of it is urgent,
//! because the host's greeting has the random numbers reseeded before anything else is done
//! ([`Random`](crate::clock::Random)). So the event is masked, and let through when the machine has had
//! time for its first commands.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

use crate::config::{Authority, Config};
use crate::limits::{GENERATION_DELAY, GENERATION_WINDOW};

/// QEMU's generation device. Only with it is [`EVENT`] known to be its event.
const DEVICE: &str = "sys/bus/acpi/devices/QEMUVGID:00";
/// The event that QEMU raises for it on q35 (`ACPI_VMGENID_CHANGE_STATUS` in its sources).
const EVENT: &str = "sys/firmware/acpi/interrupts/gpe05";
/// A user of the news whom waiting would harm: two copies must not go on with the same session keys.
const URGENT: &str = "sys/module/wireguard";

/// Holds the event back, and lets it through.
#[derive(Debug)]
pub struct Generation {
    root: PathBuf,
    /// The kernel's switch of the event, kept open: whatever becomes of the mounts, an event that was
    /// masked can be let through. None where there is no such event, or it is not ours to hold back.
    event: Option<File>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The event is masked.
    Masked,
    /// It is masked until then.
    Due(Instant),
    /// It gets through until then.
    Open(Instant),
}

impl Generation {
    /// Masks the event, where there is one.
    pub fn new(config: &Config) -> Self {
        let root = config.root.clone();
        let mut generation = Self { root, event: None, state: State::Masked };
        if config.authority == Authority::Machine && generation.has(DEVICE) {
            let event = OpenOptions::new().write(true).open(generation.root.join(EVENT)).ok();
            // A kernel that does not mask it does what it always did.
            generation.event = event.filter(|event| event.write_at(b"mask\n", 0).is_ok());
        }
        generation
    }

    /// Takes note that the machine may have been restored, and whether its random numbers were
    /// `reseeded` since. If not, the kernel has to hear of it at once.
    pub fn begin(&mut self, now: Instant, reseeded: bool) {
        if self.event.is_none() {
            return;
        }
        if !reseeded || self.has(URGENT) {
            return self.open(now);
        }
        if matches!(self.state, State::Open(_)) {
            self.mask();
        }
        self.state = State::Due(now + GENERATION_DELAY);
    }

    /// When [`Generation::tick`] has something to do.
    pub const fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Masked => None,
            State::Due(at) | State::Open(at) => Some(at),
        }
    }

    /// Does what time demands.
    pub fn tick(&mut self, now: Instant) {
        match self.state {
            State::Due(at) if at <= now => self.open(now),
            State::Open(until) if until <= now => self.mask(),
            _ => {}
        }
    }

    fn mask(&mut self) {
        self.tell("mask\n");
        self.state = State::Masked;
    }

    fn open(&mut self, now: Instant) {
        self.tell("unmask\n");
        self.state = State::Open(now + GENERATION_WINDOW);
    }

    fn tell(&self, what: &str) {
        if let Some(Err(error)) =
            self.event.as_ref().map(|event| event.write_at(what.as_bytes(), 0))
        {
            eprintln!("pando-guest: the event of a restore: {error}");
        }
    }

    fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    /// A machine's files, and what the kernel was told last.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(with: &[&str]) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            let event = machine.0.path().join(EVENT);
            fs::create_dir_all(event.parent().unwrap()).unwrap();
            fs::write(event, "").unwrap();
            for directory in with {
                fs::create_dir_all(machine.0.path().join(directory)).unwrap();
            }
            machine
        }

        fn generation(&self) -> Generation {
            let authority = Authority::Machine;
            Generation::new(&Config { authority, ..Config::embedded(self.0.path()) })
        }

        fn told(&self) -> String {
            // Each word is written where the one before was, and may be shorter.
            let told = fs::read_to_string(self.0.path().join(EVENT)).unwrap();
            told.split_inclusive('\n').next().unwrap_or_default().to_owned()
        }
    }

    #[test]
    fn the_event_gets_through_for_a_while_some_time_after_a_restore() {
        let machine = Machine::new(&[DEVICE]);
        let mut generation = machine.generation();
        assert_eq!((machine.told().as_str(), generation.deadline()), ("mask\n", None));
        let now = Instant::now();
        // The second greeting counts: the machine was restored before the event had got through.
        for now in [now, now + GENERATION_DELAY / 2] {
            generation.begin(now, true);
            let due = now + GENERATION_DELAY;
            assert_eq!(generation.deadline(), Some(due));
            generation.tick(due - Duration::from_millis(1));
            assert_eq!(machine.told(), "mask\n");
        }
        let due = generation.deadline().unwrap();
        generation.tick(due);
        assert_eq!(machine.told(), "unmask\n");
        assert_eq!(generation.deadline(), Some(due + GENERATION_WINDOW));
        generation.tick(due + GENERATION_WINDOW);
        assert_eq!((machine.told().as_str(), generation.deadline()), ("mask\n", None));
    }

    #[test]
    fn a_copy_of_a_machine_that_let_it_through_holds_it_back_again() {
        let machine = Machine::new(&[DEVICE]);
        let mut generation = machine.generation();
        let now = Instant::now();
        generation.begin(now, true);
        generation.tick(now + GENERATION_DELAY);
        assert_eq!(machine.told(), "unmask\n");
        let now = now + GENERATION_DELAY;
        generation.begin(now, true);
        assert_eq!(machine.told(), "mask\n");
        assert_eq!(generation.deadline(), Some(now + GENERATION_DELAY));
    }

    #[test]
    fn it_is_not_held_back_from_those_who_need_it_at_once_nor_where_it_is_unknown() {
        let machine = Machine::new(&[DEVICE]);
        let mut generation = machine.generation();
        generation.begin(Instant::now(), false);
        assert_eq!(machine.told(), "unmask\n");
        let machine = Machine::new(&[DEVICE, URGENT]);
        let mut generation = machine.generation();
        generation.begin(Instant::now(), true);
        assert_eq!(machine.told(), "unmask\n");
        let machine = Machine::new(&[]);
        let mut generation = machine.generation();
        generation.begin(Instant::now(), true);
        assert_eq!((machine.told().as_str(), generation.deadline()), ("", None));
        let machine = Machine::new(&[DEVICE]);
        fs::remove_dir_all(machine.0.path().join("sys/firmware")).unwrap();
        let mut generation = machine.generation();
        generation.begin(Instant::now(), true);
        assert_eq!(generation.deadline(), None);
    }
}
