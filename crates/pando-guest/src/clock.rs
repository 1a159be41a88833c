//! What a new epoch does to the kernel: right time, fresh random numbers.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_settime};

use crate::config::{Authority, Config};
use crate::sys;

/// A clock that is this close is left alone: a step would only disturb timers.
const CLOSE_ENOUGH: Duration = Duration::from_millis(10);

/// Sets the wall clock to `unix_ns`, unless it is right already.
pub fn set(config: &Config, unix_ns: u64) {
    if config.authority != Authority::Machine {
        return;
    }
    let wanted = UNIX_EPOCH + Duration::from_nanos(unix_ns);
    let now = SystemTime::now();
    let apart = wanted.duration_since(now).or_else(|_| now.duration_since(wanted));
    if apart.is_ok_and(|apart| apart <= CLOSE_ENOUGH) {
        return;
    }
    if let Ok(time) = Timespec::try_from(Duration::from_nanos(unix_ns)) {
        // Without the right to do so, a wrong clock is what there is.
        let _ = clock_settime(ClockId::Realtime, time);
    }
}

/// Mixes `entropy` into the kernel's random numbers: a restored machine would otherwise draw the
/// same ones as its siblings, where no vmgenid device tells the kernel.
pub fn reseed(config: &Config, entropy: &[u8]) {
    if config.authority != Authority::Machine || entropy.is_empty() {
        return;
    }
    if let Ok(mut random) = OpenOptions::new().write(true).open("/dev/urandom") {
        // Mixing in never makes it worse; crediting needs root, which is what we are in a machine.
        let _ = random.write_all(entropy);
        let _ = sys::add_entropy(&random, entropy);
    }
}
