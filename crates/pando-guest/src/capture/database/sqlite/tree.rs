//! The trees of pages that tables are kept in, walked in the order of their keys.

use sha2::{Digest, Sha256};

use super::Trouble;
use super::pages::{Encoding, Pages, number};
use crate::capture::database::hex;

/// Deepest tree that there can be: each level at least doubles the number of pages.
const MAX_DEPTH: u32 = 32;
/// Longest row of the schema that is read, in bytes.
const MAX_RECORD_BYTES: usize = 256 * 1024;

const INDEX_INTERIOR: u8 = 2;
const TABLE_INTERIOR: u8 = 5;
const INDEX_LEAF: u8 = 10;
const TABLE_LEAF: u8 = 13;

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Integer(i64),
    Text(String),
    /// Anything else.
    Other,
}

/// A row as it is stored.
pub struct Record(Vec<u8>);

/// What a table holds.
pub struct Contents {
    pub rows: u64,
    /// Of all rows in their order, in hex; none if they are too many.
    pub digest: Option<String>,
}

/// Walks trees.
pub struct Tree<'a, 'b> {
    pages: &'a mut Pages<'b>,
    /// How many pages may still be visited: a tree has none twice.
    left: u32,
}

/// A page of a tree.
struct Node {
    bytes: Vec<u8>,
    kind: u8,
    cells: Vec<usize>,
    /// The last child of an interior page.
    right: u32,
}

/// A cell's content on its page, and where it goes on.
struct Cell<'a> {
    key: i64,
    total: usize,
    local: &'a [u8],
    overflow: u32,
}

type Visit<'v> = dyn FnMut(&mut Pages<'_>, &Cell<'_>) -> Result<(), Trouble> + 'v;

impl<'a, 'b> Tree<'a, 'b> {
    pub fn new(pages: &'a mut Pages<'b>) -> Self {
        let left = pages.count;
        Self { pages, left }
    }

    /// Visits the rows of a table with their keys.
    pub fn rows(
        &mut self,
        root: u32,
        visit: &mut dyn FnMut(i64, Record) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        self.walk(root, 0, &mut |pages, cell| {
            if cell.total > MAX_RECORD_BYTES {
                return Err(Trouble::TooMuch);
            }
            let mut record = Vec::new();
            payload(pages, cell, &mut |bytes| record.extend_from_slice(bytes))?;
            visit(cell.key, Record(record))
        })
    }

    /// Counts the rows of a table, and digests them if they are no more bytes than `most`.
    pub fn contents(&mut self, root: u32, most: u64) -> Result<Contents, Trouble> {
        let mut hasher = Some(Sha256::new());
        let (mut rows, mut size) = (0, 0u64);
        self.walk(root, 0, &mut |pages, cell| {
            rows += 1;
            size = size.saturating_add(cell.total as u64);
            if size > most {
                hasher = None;
            }
            if let Some(hasher) = &mut hasher {
                hasher.update(cell.key.to_le_bytes());
                hasher.update((cell.total as u64).to_le_bytes());
                payload(pages, cell, &mut |bytes| hasher.update(bytes))?;
            }
            Ok(())
        })?;
        Ok(Contents { rows, digest: hasher.map(|hasher| hex(&hasher.finalize())) })
    }

    fn walk(&mut self, page: u32, depth: u32, visit: &mut Visit<'_>) -> Result<(), Trouble> {
        let damaged = Trouble::Damaged("a tree of pages");
        self.left = self.left.checked_sub(1).ok_or(damaged.clone())?;
        if depth > MAX_DEPTH {
            return Err(damaged);
        }
        let node = self.node(page)?;
        for &at in &node.cells {
            let bytes = node.bytes.get(at..).ok_or(damaged.clone())?;
            if matches!(node.kind, INDEX_INTERIOR | TABLE_INTERIOR) {
                let child = number(bytes, 0).ok_or(damaged.clone())?;
                self.walk(child, depth + 1, visit)?;
            }
            if let Some(cell) = cell(node.kind, bytes, self.pages.usable).ok_or(damaged.clone())? {
                visit(self.pages, &cell)?;
            }
        }
        match node.kind {
            INDEX_INTERIOR | TABLE_INTERIOR => self.walk(node.right, depth + 1, visit),
            _ => Ok(()),
        }
    }

    fn node(&mut self, page: u32) -> Result<Node, Trouble> {
        let bytes = self.pages.read(page)?;
        // The first page begins with the file's header.
        let start = if page == 1 { 100 } else { 0 };
        parse(bytes, start).ok_or(Trouble::Damaged("a page"))
    }
}

fn parse(bytes: Vec<u8>, start: usize) -> Option<Node> {
    let header = bytes.get(start..)?;
    let kind = *header.first()?;
    let count = usize::from(u16::from_be_bytes(*header.get(3..)?.first_chunk()?));
    let (right, length): (u32, usize) = match kind {
        INDEX_INTERIOR | TABLE_INTERIOR => (number(header, 8)?, 12),
        INDEX_LEAF | TABLE_LEAF => (0, 8),
        _ => return None,
    };
    let (pointers, _) = header.get(length..length.checked_add(count * 2)?)?.as_chunks::<2>();
    let cells = pointers.iter().map(|pair| usize::from(u16::from_be_bytes(*pair))).collect();
    Some(Node { bytes, kind, cells, right })
}

/// Returns a cell's row; inside, `None` for a cell that only leads on.
fn cell(kind: u8, bytes: &[u8], usable: usize) -> Option<Option<Cell<'_>>> {
    let bytes = match kind {
        TABLE_INTERIOR => return Some(None),
        INDEX_INTERIOR => bytes.get(4..)?,
        _ => bytes,
    };
    let (total, bytes) = varint(bytes)?;
    let total = usize::try_from(total).ok()?;
    let (key, bytes) = if kind == TABLE_LEAF { varint(bytes)? } else { (0, bytes) };
    let most = match kind {
        TABLE_LEAF => usable.checked_sub(35)?,
        _ => (usable.checked_sub(12)? * 64 / 255).checked_sub(23)?,
    };
    if total <= most {
        return Some(Some(Cell { key, total, local: bytes.get(..total)?, overflow: 0 }));
    }
    let least = (usable.checked_sub(12)? * 32 / 255).checked_sub(23)?;
    let kept = least + (total - least) % usable.checked_sub(4)?;
    let here = if kept <= most { kept } else { least };
    let overflow = number(bytes, here)?;
    Some(Some(Cell { key, total, local: bytes.get(..here)?, overflow }))
}

/// Passes on the bytes of a row, from its page and those that it goes on in.
fn payload(
    pages: &mut Pages<'_>,
    cell: &Cell<'_>,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), Trouble> {
    let damaged = || Trouble::Damaged("a long row");
    take(cell.local);
    let mut left = cell.total.checked_sub(cell.local.len()).ok_or_else(damaged)?;
    let mut next = cell.overflow;
    while left > 0 {
        let page = pages.read(next)?;
        next = number(&page, 0).ok_or_else(damaged)?;
        let bytes = page.get(4..pages.usable).ok_or_else(damaged)?;
        let bytes = bytes.get(..left.min(bytes.len())).ok_or_else(damaged)?;
        take(bytes);
        left -= bytes.len();
    }
    Ok(())
}

/// Returns a number of one to nine bytes, and what follows it.
fn varint(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        let rest = bytes.get(at + 1..)?;
        if at == 8 {
            return Some(((value << 8 | u64::from(*byte)).cast_signed(), rest));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value.cast_signed(), rest));
        }
    }
    None
}

impl Record {
    /// Returns the values of the row.
    pub fn values(&self, encoding: Encoding) -> Result<Vec<Value>, Trouble> {
        values(&self.0, encoding).ok_or(Trouble::Damaged("a row of its schema"))
    }
}

fn values(record: &[u8], encoding: Encoding) -> Option<Vec<Value>> {
    let (length, _) = varint(record)?;
    let (header, mut body) = record.split_at_checked(usize::try_from(length).ok()?)?;
    let (_, mut header) = varint(header)?;
    let mut values = Vec::new();
    while !header.is_empty() {
        let (kind, rest) = varint(header)?;
        header = rest;
        let size = match kind {
            0 | 8 | 9 | 10 | 11 => 0,
            1..=4 => usize::try_from(kind).ok()?,
            5 => 6,
            6 | 7 => 8,
            _ => usize::try_from((kind - 12) / 2).ok()?,
        };
        let (bytes, rest) = body.split_at_checked(size)?;
        body = rest;
        values.push(match kind {
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            1..=6 => Value::Integer(integer(bytes)),
            kind if kind >= 13 && kind % 2 == 1 => Value::Text(text(bytes, encoding)),
            _ => Value::Other,
        });
    }
    Some(values)
}

fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let start = if negative { -1 } else { 0 };
    bytes.iter().fold(start, |value: i64, byte| value << 8 | i64::from(*byte))
}

fn text(bytes: &[u8], encoding: Encoding) -> String {
    let order = match encoding {
        Encoding::Utf8 => return String::from_utf8_lossy(bytes).into_owned(),
        Encoding::Utf16Le => u16::from_le_bytes,
        Encoding::Utf16Be => u16::from_be_bytes,
    };
    let (pairs, _) = bytes.as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().map(|pair| order(*pair)).collect();
    String::from_utf16_lossy(&units)
}
