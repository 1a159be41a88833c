//! Memory for guest pages: aligned, so that files can be written from it without a copy, and in huge
//! pages where the kernel has them, so that touching it is cheap.

use std::io;
use std::ops::{Deref, DerefMut};

use memmap2::{Advice, MmapMut, MmapOptions};

use crate::PAGE;

/// A buffer of whole pages, at a page's boundary, given back to the kernel when it is dropped.
#[derive(Debug, Default)]
pub struct PageBuffer(Option<MmapMut>);

impl PageBuffer {
    /// Returns a buffer of `pages` zero pages, all of them touched: no page fault is left for
    /// whoever fills it.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(pages: usize) -> io::Result<Self> {
        if pages == 0 {
            return Ok(Self(None));
        }
        let mut map = MmapOptions::new().len(pages.saturating_mul(PAGE)).map_anon()?;
        // Only a kernel without huge pages refuses; small ones do as well.
        let _ = map.advise(Advice::HugePage);
        if map.advise(Advice::PopulateWrite).is_err() {
            // Linux before 5.14.
            map.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        }
        Ok(Self(Some(map)))
    }
}

impl Deref for PageBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl DerefMut for PageBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_writable() {
        let mut buffer = PageBuffer::new(3).unwrap();
        assert_eq!(buffer.len(), 3 * PAGE);
        assert_eq!(buffer.as_ptr() as usize % PAGE, 0);
        buffer.fill(7);
        assert!(buffer.iter().all(|byte| *byte == 7));
        assert!(PageBuffer::new(0).unwrap().is_empty());
        assert!(PageBuffer::new(usize::MAX / PAGE).is_err());
    }
}
