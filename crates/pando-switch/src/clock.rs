//! The switch's clock, which stands still while it is held, so that frames that wait for their time
//! wait as long in a branch as they would have.

use std::time::{Duration, Instant};

/// A clock that can be stopped.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// What it shows, or showed when it started last.
    shown: Duration,
    started: Option<Instant>,
}

impl Clock {
    /// Returns one that stands still.
    pub fn stopped_at(shown: Duration) -> Self {
        Self { shown, started: None }
    }

    /// What it shows.
    pub fn now(&self) -> Duration {
        self.shown + self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// Lets it go on.
    pub fn start(&mut self) {
        self.started.get_or_insert_with(Instant::now);
    }

    /// Stops it.
    pub fn stop(&mut self) {
        self.shown = self.now();
        self.started = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_still_when_stopped() {
        let mut clock = Clock::stopped_at(Duration::from_secs(5));
        assert_eq!(clock.now(), Duration::from_secs(5));
        clock.start();
        let begun = Instant::now();
        while clock.now() == Duration::from_secs(5) {
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
        clock.stop();
        let shown = clock.now();
        assert!(shown > Duration::from_secs(5));
        assert_eq!(clock.now(), shown);
    }
}
