//! A comparison's result, page by page: nothing is looked at again for the next one.

use std::sync::{Arc, PoisonError};

use pando_api::ApiError;
use pando_api::page::Page;
use pando_api::state::StateDiffResult;
use pando_model::JournalId;

use crate::engine::Engine;
use crate::failure::Result;

/// Comparisons that may be read on.
const MAX_COMPARED: usize = 8;

/// A comparison that was made.
pub(crate) struct Compared {
    id: JournalId,
    result: StateDiffResult,
}

impl Engine {
    pub(super) fn first_page(&self, result: StateDiffResult, max_bytes: u64) -> StateDiffResult {
        let compared = Arc::new(Compared { id: JournalId::random(), result });
        let shown = page_of(&compared, 0, max_bytes);
        if shown.page.truncated {
            let mut all = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
            all.push_back(compared);
            while all.len() > MAX_COMPARED {
                all.pop_front();
            }
        }
        shown
    }

    pub(super) fn read_on(&self, cursor: &str, max_bytes: u64) -> Result<StateDiffResult> {
        let gone = || {
            ApiError::parameter("cursor", "the comparison is not kept any more")
                .hint("leave the cursor out to compare again")
        };
        let (id, start) = cursor.split_once(':').ok_or_else(gone)?;
        let start = start.parse().map_err(|_| gone())?;
        let all = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        let compared = all.iter().find(|compared| compared.id.as_str() == id).ok_or_else(gone)?;
        Ok(page_of(compared, start, max_bytes))
    }
}

/// Returns as many differences from `start` on as fit, with everything else.
fn page_of(compared: &Compared, start: usize, max_bytes: u64) -> StateDiffResult {
    let all = &compared.result;
    let total = all.differences.len();
    let rest = StateDiffResult { differences: Vec::new(), ..all.clone() };
    let size =
        |value: &dyn Fn() -> serde_json::Result<String>| value().map_or(0, |text| text.len());
    // The envelope and the page's own fields take some as well.
    let mut used = size(&|| serde_json::to_string(&rest)) + 256;
    let budget = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let mut differences = Vec::new();
    for change in all.differences.iter().skip(start) {
        used += size(&|| serde_json::to_string(change)) + 1;
        if used > budget && !differences.is_empty() {
            break;
        }
        differences.push(change.clone());
    }
    let end = start + differences.len();
    let truncated = end < total;
    let page = Page {
        total: total as u64,
        returned: differences.len() as u64,
        truncated,
        next_cursor: truncated.then(|| format!("{}:{end}", compared.id)),
    };
    StateDiffResult { differences, page, ..rest }
}
