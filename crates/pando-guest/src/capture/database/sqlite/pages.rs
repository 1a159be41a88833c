//! The pages of a database: from its file, or newer ones from its write-ahead log.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::Trouble;
use crate::limits::MAX_LOG_BYTES;

/// What a database's file begins with.
pub const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Bytes of the log's header, and of each frame's.
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Where the newest version of each page is, and how many pages there are.
type Committed = (HashMap<u32, u64>, u32);

/// How texts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Utf16Le,
    Utf16Be,
}

/// The pages of a database as of its last commit.
pub struct Pages<'a> {
    file: File,
    /// The log, and where in it the newest version of a page is.
    log: Option<(File, HashMap<u32, u64>)>,
    size: usize,
    /// Bytes of a page that hold content.
    pub usable: usize,
    /// How many there are.
    pub count: u32,
    pub encoding: Encoding,
    /// How many bytes may still be read.
    left: &'a mut u64,
}

/// Returns a big-endian number.
pub fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl<'a> Pages<'a> {
    /// Opens a database's file with its log.
    pub fn open(file: File, log: Option<File>, left: &'a mut u64) -> Result<Self, Trouble> {
        let mut header = [0; 100];
        file.read_exact_at(&mut header, 0).map_err(|_| Trouble::Unreadable)?;
        let damaged = || Trouble::Damaged("its header");
        let size = match half(&header, 16).ok_or_else(damaged)? {
            1 => 65536,
            size if size.is_power_of_two() && size >= 512 => usize::from(size),
            _ => return Err(damaged()),
        };
        let reserved = usize::from(*header.get(20).ok_or_else(damaged)?);
        let usable = size.checked_sub(reserved).filter(|usable| *usable >= 480);
        let usable = usable.ok_or_else(damaged)?;
        let length = file.metadata().map_err(|_| Trouble::Unreadable)?.len();
        let mut count = u32::try_from(length / size as u64).unwrap_or(u32::MAX);
        let mut pages =
            Self { file, log: None, size, usable, count, encoding: Encoding::Utf8, left };
        if let Some(log) = log
            && let Some((newest, after)) = pages.newest(&log)?
        {
            count = after;
            pages.log = Some((log, newest));
        }
        pages.count = count;
        let first = pages.read(1)?;
        pages.encoding = match number(&first, 56).ok_or_else(damaged)? {
            // Nothing was ever written.
            0 | 1 => Encoding::Utf8,
            2 => Encoding::Utf16Le,
            3 => Encoding::Utf16Be,
            _ => return Err(Trouble::Foreign("its texts")),
        };
        if first.get(19).is_none_or(|version| *version > 2) {
            return Err(Trouble::Foreign("its version"));
        }
        Ok(pages)
    }

    /// Returns a page. Pages are numbered from 1.
    pub fn read(&mut self, page: u32) -> Result<Vec<u8>, Trouble> {
        if page == 0 || page > self.count {
            return Err(Trouble::Damaged("a page's number"));
        }
        let bytes = self.size as u64;
        *self.left = self.left.checked_sub(bytes).ok_or(Trouble::TooMuch)?;
        let mut buffer = vec![0; self.size];
        let logged = self.log.as_ref().and_then(|(log, places)| Some((log, *places.get(&page)?)));
        let read = match logged {
            Some((log, at)) => log.read_exact_at(&mut buffer, at),
            None => self.file.read_exact_at(&mut buffer, u64::from(page - 1) * bytes),
        };
        read.map_err(|_| Trouble::Unreadable)?;
        Ok(buffer)
    }

    /// Returns where the log holds pages that were committed, and how many pages the database has
    /// with them. `None` if the log holds no commit.
    fn newest(&mut self, log: &File) -> Result<Option<Committed>, Trouble> {
        let length = log.metadata().map_err(|_| Trouble::Unreadable)?.len();
        if length > MAX_LOG_BYTES {
            return Err(Trouble::TooMuch);
        }
        *self.left = self.left.checked_sub(length).ok_or(Trouble::TooMuch)?;
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| Trouble::TooMuch)?];
        log.read_exact_at(&mut bytes, 0).map_err(|_| Trouble::Busy)?;
        Ok(committed(&bytes, self.size))
    }
}

/// Returns where a log holds the newest committed version of each page, and how many pages there are
/// after its last commit.
fn committed(log: &[u8], size: usize) -> Option<Committed> {
    let order = match number(log, 0)? {
        0x377f_0682 => u32::from_le_bytes,
        0x377f_0683 => u32::from_be_bytes,
        _ => return None,
    };
    if number(log, 8)? as usize != size {
        return None;
    }
    let salts = (number(log, 16)?, number(log, 20)?);
    let mut sum = checksum((0, 0), log.get(..24)?, order);
    if sum != (number(log, 24)?, number(log, 28)?) {
        return None;
    }
    let mut places = HashMap::new();
    let mut pending = Vec::new();
    let mut pages = None;
    let mut at = LOG_HEADER;
    while let Some(frame) = log.get(at..at + FRAME_HEADER + size) {
        let (page, after) = (number(frame, 0)?, number(frame, 4)?);
        sum = checksum(sum, frame.get(..8)?, order);
        sum = checksum(sum, frame.get(FRAME_HEADER..)?, order);
        // What an earlier use of the log left behind.
        let own = (number(frame, 8)?, number(frame, 12)?) == salts;
        if !own || sum != (number(frame, 16)?, number(frame, 20)?) {
            break;
        }
        pending.push((page, (at + FRAME_HEADER) as u64));
        if after != 0 {
            places.extend(pending.drain(..));
            pages = Some(after);
        }
        at += FRAME_HEADER + size;
    }
    Some((places, pages?))
}

fn checksum(sum: (u32, u32), bytes: &[u8], order: fn([u8; 4]) -> u32) -> (u32, u32) {
    let (pairs, _) = bytes.as_chunks::<8>();
    pairs.iter().fold(sum, |(one, two), pair| {
        let [a, b, c, d, e, f, g, h] = *pair;
        let one = one.wrapping_add(order([a, b, c, d])).wrapping_add(two);
        let two = two.wrapping_add(order([e, f, g, h])).wrapping_add(one);
        (one, two)
    })
}
