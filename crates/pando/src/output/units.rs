//! Sizes, times and ages as people read them.

use jiff::Timestamp;
use pando_model::ByteCount;

/// Returns a size: `512 MiB`.
pub fn bytes(count: u64) -> String {
    ByteCount(count).to_string()
}

/// Returns a time span: `480 µs`, `12.3 ms`, `4.2 s`, `3m 20s`.
pub fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{:.0} µs", ms * 1000.0),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.1} s", ms / 1000.0),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and nothing lasts that long"
        )]
        ms => {
            let seconds = (ms / 1000.0) as u64;
            format!("{}m {:02}s", seconds / 60, seconds % 60)
        }
    }
}

/// Returns a count of milliseconds as [`millis`].
pub fn whole_millis(ms: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    millis(ms as f64)
}

/// Returns how long ago something was: `12s`, `3m`, `5h`, `9d`, or the day when it is longer ago.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    match seconds {
        ..=0 => "now".to_owned(),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        86_400..2_592_000 => format!("{}d", seconds / 86_400),
        _ => then.strftime("%Y-%m-%d").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let cases = [
            (0.4, "400 µs"),
            (12.34, "12.3 ms"),
            (480.0, "480 ms"),
            (4_200.0, "4.2 s"),
            (200_000.0, "3m 20s"),
        ];
        for (ms, text) in cases {
            assert_eq!(millis(ms), text);
        }
        let at = |second| Timestamp::from_second(second).unwrap();
        for (then, text) in [(100, "now"), (70, "30s"), (-200, "5m"), (-90_000, "1d")] {
            assert_eq!(age(at(then), at(100)), text);
        }
        assert_eq!(age(at(0), at(1_000_000_000)), "1970-01-01");
    }
}
