//! Lists in pages. A cursor is opaque to callers: where the page before it ended.

use pando_api::ApiError;
use pando_api::page::Page;

use crate::failure::Result;

/// Returns the part of `all` after `cursor`, at most `limit` long, with what a result says about
/// it. `key` must be unique, and `all` sorted so that new rows do not move old ones apart.
pub(crate) fn page<T>(
    all: Vec<T>,
    limit: u32,
    cursor: Option<&str>,
    key: impl Fn(&T) -> String,
) -> Result<(Vec<T>, Page)> {
    let total = all.len();
    let start = match cursor {
        None => 0,
        Some(cursor) => match all.iter().position(|row| key(row) == cursor) {
            Some(place) => place + 1,
            None => {
                return Err(ApiError::parameter("cursor", "the cursor is not of this list")
                    .hint("leave it out to start again: what it named may be gone")
                    .into());
            }
        },
    };
    let rows: Vec<T> = all.into_iter().skip(start).take(limit as usize).collect();
    let truncated = start + rows.len() < total;
    let next_cursor = rows.last().map(key).filter(|_| truncated);
    let page = Page { total: total as u64, returned: rows.len() as u64, truncated, next_cursor };
    Ok((rows, page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_one_another_without_gaps() {
        let all: Vec<u32> = (0..7).collect();
        let mut seen = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let (rows, said) =
                page(all.clone(), 3, cursor.as_deref(), ToString::to_string).unwrap();
            assert_eq!((said.total, said.returned), (7, rows.len() as u64));
            assert_eq!(said.truncated, said.next_cursor.is_some());
            seen.extend(rows);
            match said.next_cursor {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, all);
        let error = page(all, 3, Some("99"), ToString::to_string).unwrap_err();
        assert_eq!(error.0.subject.as_deref(), Some("cursor"));
    }
}
