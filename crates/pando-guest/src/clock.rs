//! What a new epoch does to the kernel: right time, fresh random numbers.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

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

/// Returns how long the machine has been up, in milliseconds.
pub fn up_ms() -> u64 {
    let up = clock_gettime(ClockId::Boottime);
    u64::try_from(up.tv_sec * 1000 + up.tv_nsec / 1_000_000).unwrap_or(0)
}

/// The kernel's random numbers. Their device stays open: a restored machine is slow to open a file.
#[derive(Debug)]
pub struct Random {
    authority: Authority,
    device: Option<File>,
}

impl Random {
    /// Opens the device, if the kernel's state is ours to change.
    pub fn new(config: &Config) -> Self {
        let mut random = Self { authority: config.authority, device: None };
        random.open();
        random
    }

    /// Mixes `entropy` in, and has all numbers drawn anew from there: a restored machine would
    /// otherwise draw the same ones as its siblings. Returns whether the kernel has done so.
    pub fn reseed(&mut self, entropy: &[u8]) -> bool {
        self.open();
        let Some(mut device) = self.device.as_ref().filter(|_| !entropy.is_empty()) else {
            return false;
        };
        let reseeded = sys::add_entropy(device, entropy).is_ok();
        if !reseeded {
            // Mixing in never makes it worse, and needs no rights.
            let _ = device.write_all(entropy);
        }
        reseeded
    }

    fn open(&mut self) {
        if self.device.is_none() && self.authority == Authority::Machine {
            self.device = OpenOptions::new().write(true).open("/dev/urandom").ok();
        }
    }
}
