//! Sets of guest pages, as runs in ascending order that do not touch.

/// A run of guest pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRun {
    /// First page number in guest RAM.
    pub start: u32,
    /// Number of pages, at least one.
    pub count: u32,
}

impl PageRun {
    /// Returns the page numbers of the run.
    pub fn pages(self) -> std::ops::Range<u32> {
        self.start..self.start + self.count
    }
}

/// Returns the number of pages in all runs.
pub fn page_count(runs: &[PageRun]) -> usize {
    runs.iter().map(|run| run.count as usize).sum()
}

/// Appends pages that come after all others, or overlap with the last run.
pub(crate) fn push(runs: &mut Vec<PageRun>, start: u32, count: u32) {
    match runs.last_mut() {
        Some(last) if last.start + last.count >= start => {
            last.count = last.count.max(start + count - last.start);
        }
        _ => runs.push(PageRun { start, count }),
    }
}

/// Returns the pages that are in either set.
pub fn union(a: &[PageRun], b: &[PageRun]) -> Vec<PageRun> {
    let mut merged = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    loop {
        let next = match (a.peek(), b.peek()) {
            (Some(left), Some(right)) if left.start <= right.start => a.next(),
            (Some(_), None) => a.next(),
            _ => b.next(),
        };
        let Some(run) = next else { return merged };
        push(&mut merged, run.start, run.count);
    }
}

/// Returns the pages of `pages`, in ascending order, that are in none of `runs`.
pub fn missing_from(runs: &[PageRun], pages: impl IntoIterator<Item = u32>) -> Vec<PageRun> {
    let mut missing = Vec::new();
    let mut runs = runs.iter().peekable();
    for page in pages {
        while runs.next_if(|run| run.pages().end <= page).is_some() {}
        if !runs.peek().is_some_and(|run| run.pages().contains(&page)) {
            push(&mut missing, page, 1);
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn runs_of(pages: &BTreeSet<u32>) -> Vec<PageRun> {
        let mut runs = Vec::new();
        pages.iter().for_each(|page| push(&mut runs, *page, 1));
        runs
    }

    proptest! {
        #[test]
        fn unions_and_differences_are_those_of_sets(
            a in prop::collection::btree_set(0..60u32, 0..40),
            b in prop::collection::btree_set(0..60u32, 0..40),
        ) {
            let (left, right) = (runs_of(&a), runs_of(&b));
            prop_assert_eq!(page_count(&left), a.len());
            prop_assert_eq!(union(&left, &right), runs_of(&(&a | &b)));
            prop_assert_eq!(missing_from(&left, b.iter().copied()), runs_of(&(&b - &a)));
        }
    }
}
