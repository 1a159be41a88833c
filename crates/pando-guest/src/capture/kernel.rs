//! The kernel's messages, from `/dev/kmsg`: one record per read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use pando_model::capture::{Aspect, CaptureRecord, Coverage, KernelLine};

use super::{Teller, Told, short};
use crate::limits::MAX_KERNEL_LINES;

/// Longest record that the kernel gives (`CONSOLE_EXT_LOG_MAX`).
const MAX_RECORD_BYTES: usize = 8192;
/// Most records that are read: more than the kernel's buffer holds.
const MAX_READS: usize = 100_000;

/// Tells the newest messages.
pub fn lines(teller: &mut Teller<'_>) -> Told {
    let mut open = File::options();
    open.read(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK);
    let Ok(mut log) = open.open("/dev/kmsg") else {
        let why = "/dev/kmsg cannot be read".to_owned();
        return teller.covered(Aspect::Kernel, Coverage::Absent(why));
    };
    let mut newest = VecDeque::new();
    let mut record = vec![0; MAX_RECORD_BYTES];
    let mut coverage = Coverage::Complete;
    for _ in 0..MAX_READS {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(count) => {
                let text = String::from_utf8_lossy(record.get(..count).unwrap_or_default());
                if newest.len() == MAX_KERNEL_LINES {
                    newest.pop_front();
                    let why = format!("only the newest {MAX_KERNEL_LINES} messages");
                    coverage = Coverage::Partial(why);
                }
                newest.extend(line(&text));
            }
            // Overwritten while it was read: the next one is there.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    for line in newest {
        teller.tell(&CaptureRecord::Kernel(line))?;
    }
    teller.covered(Aspect::Kernel, coverage)
}

/// Returns a record of the form `priority,sequence,time,flags[,…];text\n`, the text escaped.
fn line(record: &str) -> Option<KernelLine> {
    let (prefix, text) = record.split_once(';')?;
    let mut fields = prefix.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    let at_us = fields.next()?.parse().ok()?;
    let level = u8::try_from(priority & 7).ok()?;
    Some(KernelLine {
        sequence,
        level,
        at_us,
        text: short(text.lines().next().unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_with_their_level() {
        let told = line("30,12,345678,-,caller=T1;hello; world\n SUBSYSTEM=x\n").unwrap();
        let expected =
            KernelLine { sequence: 12, level: 6, at_us: 345_678, text: "hello; world".into() };
        assert_eq!(told, expected);
        for record in ["", "a,b,c;x", "6,1;x", ";"] {
            assert_eq!(line(record), None, "{record}");
        }
    }
}
