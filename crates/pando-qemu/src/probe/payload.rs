//! The boot sector that the probe runs; `payload.s` tells what it does.

use std::num::NonZeroU16;

/// Bytes of a boot sector.
const SECTOR: usize = 512;
static PAYLOAD: &[u8; SECTOR] = include_bytes!("payload.bin");
const LIMIT_OFFSET: usize = 0x1fb;
const ACTION_OFFSET: usize = 0x1fd;

/// What the payload does after a number of timer ticks (100 a second).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtTick {
    /// Counts on for ever.
    Nothing,
    /// Switches itself off.
    PowerOff(NonZeroU16),
    /// Resets the machine.
    Reset(NonZeroU16),
}

/// Returns a boot sector that prints `pando`, then `Txxxx` with every tick.
pub fn boot_sector(at_tick: AtTick) -> [u8; SECTOR] {
    let (limit, action) = match at_tick {
        AtTick::Nothing => (0, 0),
        AtTick::PowerOff(ticks) => (ticks.get(), 1),
        AtTick::Reset(ticks) => (ticks.get(), 2),
    };
    let mut sector = *PAYLOAD;
    let [low, high] = limit.to_le_bytes();
    for (offset, byte) in [(LIMIT_OFFSET, low), (LIMIT_OFFSET + 1, high), (ACTION_OFFSET, action)] {
        if let Some(place) = sector.get_mut(offset) {
            *place = byte;
        }
    }
    sector
}

/// Returns the ticks in what the payload printed.
pub fn ticks(text: &str) -> Vec<u32> {
    let whole_lines = text.rsplit_once('\n').map_or("", |(before, _)| before);
    whole_lines
        .lines()
        .filter_map(|line| u32::from_str_radix(line.trim().strip_prefix('T')?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_binary_is_what_the_source_assembles_to() {
        let directory = tempfile::tempdir().unwrap();
        let (object, binary) = (directory.path().join("o"), directory.path().join("bin"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/probe/payload.s");
        let run = |command: &mut Command| assert!(command.status().unwrap().success());
        run(Command::new("as").args(["--64", source, "-o"]).arg(&object));
        let link = ["-Ttext", "0x7c00", "--oformat", "binary"];
        run(Command::new("ld").args(link).arg(&object).arg("-o").arg(&binary));
        assert_eq!(std::fs::read(binary).unwrap(), PAYLOAD);
    }

    #[test]
    fn ticks_are_read_from_whole_lines() {
        assert_eq!(ticks("SeaBIOS\npando\nT0001\r\nT00ff\nTx\nT01"), [1, 255]);
        assert_eq!(ticks("T0001"), [] as [u32; 0]);
    }

    #[test]
    fn parameters_are_where_the_payload_reads_them() {
        let sector = boot_sector(AtTick::PowerOff(NonZeroU16::new(0x1234).unwrap()));
        assert_eq!(sector[LIMIT_OFFSET..], [0x34, 0x12, 1, 0x55, 0xaa]);
        assert_eq!(boot_sector(AtTick::Nothing), *PAYLOAD);
    }
}
