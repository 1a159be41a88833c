//! What the kernel says of a process: proportional memory and processor time (proc(5)).

use std::fs;

use pando_model::ByteCount;

/// Returns the proportional set size of a process; 0 when it is gone.
pub fn proportional_memory(pid: u32) -> ByteCount {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok());
    ByteCount(kib.unwrap_or(0) * 1024)
}

/// Returns the processor time that a process has used, in milliseconds; 0 when it is gone.
pub fn cpu_ms(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The command name may hold spaces and parentheses; fields are counted after its end.
    let Some((_, fields)) = stat.rsplit_once(')') else { return 0 };
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    ticks * 1000 / rustix::param::clock_ticks_per_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_time() {
        assert!(proportional_memory(std::process::id()).0 > 100_000);
        assert_eq!(cpu_ms(u32::MAX), 0);
        let before = cpu_ms(std::process::id());
        let mut sum = 0u64;
        while cpu_ms(std::process::id()) <= before + 10 {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(sum > 0);
    }
}
