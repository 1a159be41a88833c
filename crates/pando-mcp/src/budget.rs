//! Results that fit. Asked for little, a daemon leaves out by itself and says so (head and tail of
//! output, pages of lists); what is still too long is cut here, and every cut is named.

use pando_api::Verb;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::answer::Next;
use crate::limits::{OUTPUT_BYTES, PAGE_ROWS, RESULT_BYTES, TEXT_BYTES};

/// The tool whose bounds are not those of a result.
const CAPTURE: &str = "net_capture";
/// The tool that reads files.
const PULL: &str = "file_pull";
/// Bytes of a file that are read at once: in base64 they fit a result too.
const PULL_BYTES: u64 = 5600;
/// How the names of texts end that are of no use with a part missing.
const WHOLE: &str = "_base64";
/// What shows the rest of a file that is not text, in pieces that are not cut: from which byte, path.
const REST: &str = "tail -c \"+$1\" -- \"$2\" | head -c 2048 | base64 -w 0";
/// Bytes of a capture that are read at once unless more is asked for: in base64 a third longer.
const CAPTURE_BYTES: u64 = 4096;
/// Most bytes that are counted of what is asked for.
const MOST_READ: usize = 64 << 20;
/// Texts shorter than this are never cut, in bytes.
const SHORT_TEXT: usize = 256;
/// Objects with fewer entries are never cut.
const FEW_ENTRIES: usize = 16;
/// Bytes that every cut leaves for its own description.
const CUT_BYTES: usize = 160;
/// Most cuts: each takes the largest part there is, so a few are enough.
const MAX_CUTS: usize = 24;

/// Something that was left out of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// Where: a JSON pointer into the result.
    pub path: String,
    /// Bytes of a text, or entries of a list or an object, that there were.
    pub total: usize,
    /// How many of them are here.
    pub kept: usize,
    /// What was kept.
    pub how: &'static str,
}

/// Returns a verb's parameters that bound what it returns, with what they are unless more is asked for.
pub fn usual(verb: &Verb) -> Vec<(&'static str, u64)> {
    let rows = match verb.name {
        "exec_fanout" => 6,
        "node_exec_all" => 3,
        _ => 1,
    };
    let all = match verb.name {
        // Its other bounds are those of the file that it makes; only what is read is in the result.
        CAPTURE => vec![("limit", CAPTURE_BYTES)],
        name => vec![
            ("max_output_bytes", OUTPUT_BYTES / rows),
            ("max_bytes", if name == PULL { PULL_BYTES } else { TEXT_BYTES }),
            ("tail_bytes", TEXT_BYTES),
            ("limit", PAGE_ROWS),
        ],
    };
    let has = |name: &str| verb.properties().is_some_and(|known| known.contains_key(name));
    all.into_iter().filter(|(name, _)| has(name) && !verb.is_required(name)).collect()
}

/// Returns how many bytes a call's result may have, after giving the call the parameters that
/// keep it short where the caller gave none.
pub fn prepare(verb: &Verb, arguments: &mut Map<String, Value>) -> usize {
    let mut asked = 0;
    for (name, usual) in usual(verb) {
        match arguments.get(name).filter(|value| !value.is_null()) {
            // Asking for many rows does not raise the budget: a list can be continued.
            Some(_) if name == "limit" && verb.name != CAPTURE => {}
            Some(given) => asked += given.as_u64().unwrap_or(0),
            None => {
                arguments.insert(name.to_owned(), json!(usual));
                asked += if verb.name == CAPTURE { usual } else { 0 };
            }
        }
    }
    let asked = usize::try_from(asked).unwrap_or(usize::MAX).min(MOST_READ);
    // Both streams of a command may be that long, and JSON makes some bytes longer.
    RESULT_BYTES + asked * 2
}

/// Returns how many bytes a value takes as JSON.
pub fn size(value: &Value) -> usize {
    serde_json::to_string(value).map_or(usize::MAX, |text| text.len())
}

/// Returns how many rows of a page that is too long would fit; `None` if this is no such page.
pub fn rows_that_fit(result: &Value, budget: usize) -> Option<usize> {
    let object = result.as_object()?;
    object.get("returned")?;
    let mut lists = object.values().filter_map(Value::as_array);
    let (rows, None) = (lists.next()?, lists.next()) else { return None };
    let sizes: Vec<usize> = rows.iter().map(|row| size(row) + 1).collect();
    let frame = size(result).saturating_sub(sizes.iter().sum());
    let mut used = frame + CUT_BYTES;
    let fitting = sizes.iter().take_while(|row| {
        used += **row;
        used <= budget
    });
    let count = fitting.count();
    (count > 0 && count < rows.len()).then_some(count)
}

/// Cuts a value until it fits and returns what was cut.
pub fn fit(value: &mut Value, budget: usize) -> Vec<Cut> {
    let mut cuts: Vec<Cut> = Vec::new();
    for _ in 0..MAX_CUTS {
        let total = size(value) + cuts.len() * CUT_BYTES;
        if total <= budget {
            break;
        }
        let Some(path) = largest(value) else { break };
        let Some(part) = value.pointer_mut(&path) else { break };
        let own = size(part);
        let keep = own.saturating_sub(total - budget + CUT_BYTES);
        let cut = shorten(part, keep, &path);
        match cuts.iter_mut().find(|known| known.path == cut.path) {
            Some(known) => known.kept = cut.kept,
            None => cuts.push(cut),
        }
    }
    cuts
}

/// Returns where the part is whose cutting helps most.
fn largest(value: &Value) -> Option<String> {
    fn visit(value: &Value, path: &str, found: &mut Vec<(usize, bool, String)>) {
        match value {
            Value::String(text) if text.len() > SHORT_TEXT && !path.ends_with(WHOLE) => {
                found.push((size(value), true, path.to_owned()));
            }
            Value::Array(items) => {
                if items.len() > 1 {
                    found.push((size(value), false, path.to_owned()));
                }
                for (index, item) in items.iter().enumerate() {
                    visit(item, &format!("{path}/{index}"), found);
                }
            }
            Value::Object(entries) => {
                if entries.len() > FEW_ENTRIES && !path.is_empty() {
                    found.push((size(value), false, path.to_owned()));
                }
                for (name, item) in entries {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    visit(item, &format!("{path}/{name}"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    visit(value, "", &mut found);
    let text = found.iter().filter(|(_, is_text, _)| *is_text).max_by_key(|(size, _, _)| *size);
    let rows = found.iter().filter(|(_, is_text, _)| !*is_text).max_by_key(|(size, _, _)| *size);
    // A long text is cut before rows are left out, unless it is a small part of many.
    let part = match (text, rows) {
        (Some(text), Some(rows)) => Some(if text.0 * 4 >= rows.0 { text } else { rows }),
        (text, rows) => text.or(rows),
    };
    part.map(|(_, _, path)| path.clone())
}

fn shorten(part: &mut Value, keep: usize, path: &str) -> Cut {
    let path = path.to_owned();
    match part {
        Value::String(text) => {
            let total = text.len();
            let (short, kept) = head_and_tail(text, keep);
            *text = short;
            Cut { path, total, kept, how: "head and tail" }
        }
        Value::Array(items) => {
            let total = items.len();
            let mut used = 0;
            let fitting = items.iter().take_while(|item| {
                used += size(item) + 1;
                used <= keep
            });
            let kept = fitting.count().max(1).min(total.saturating_sub(1));
            items.truncate(kept);
            Cut { path, total, kept, how: "the first" }
        }
        Value::Object(entries) => {
            let total = entries.len();
            let kept = (total / 2).max(1);
            let gone: Vec<String> = entries.keys().skip(kept).cloned().collect();
            for name in gone {
                entries.remove(&name);
            }
            Cut { path, total, kept, how: "some" }
        }
        _ => Cut { path, total: 0, kept: 0, how: "all" },
    }
}

/// Returns the beginning and the end of a text that is about `keep` bytes long as JSON, and how
/// many bytes of it are left.
fn head_and_tail(text: &str, keep: usize) -> (String, usize) {
    // What JSON escapes is counted by what it becomes.
    let inflation = (size(&Value::from(text)) / text.len().max(1)).max(1);
    let half = keep.max(SHORT_TEXT / 2) / inflation / 2;
    let half = half.min(text.len() / 2);
    let head = (0..=half).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let from = text.len() - half;
    let tail = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let (first, last) = (text.get(..head).unwrap_or(""), text.get(tail..).unwrap_or(""));
    let left_out = tail.saturating_sub(head);
    (format!("{first}\n[{left_out} bytes left out]\n{last}"), first.len() + last.len())
}

/// Returns what a command's output is short of: a daemon keeps head and tail by itself.
pub fn short_of(result: &Value) -> Vec<Cut> {
    let stream = |name: &str| {
        if result.get(format!("{name}_truncated"))? != &Value::Bool(true) {
            return None;
        }
        let total = result.get(format!("{name}_bytes"))?.as_u64()?;
        Some(Cut {
            path: format!("/{name}"),
            total: usize::try_from(total).ok()?,
            kept: result.get(name)?.as_str()?.len(),
            how: "head and tail; to read the rest, write it to a file and search that",
        })
    };
    ["stdout", "stderr"].into_iter().filter_map(stream).collect()
}

/// Returns the call that shows what a result left out.
pub fn rest(verb: &Verb, arguments: &Map<String, Value>, result: &Value) -> Option<Next> {
    let mut arguments = arguments.clone();
    if let Some(cursor) = result.get("next_cursor").and_then(Value::as_str) {
        arguments.insert("cursor".to_owned(), json!(cursor));
        return Some(Next { tool: verb.name.to_owned(), arguments });
    }
    if verb.name == "file_pull" && result.get("truncated") == Some(&json!(true)) {
        let address = arguments.get("address").cloned();
        let path = arguments.get("path").and_then(Value::as_str).unwrap_or_default();
        let text = |name: &str| result.get(name).and_then(Value::as_str);
        let argv = match (text("content"), text("content_base64")) {
            (None, Some(encoded)) => {
                let padding = encoded.bytes().rev().take_while(|byte| *byte == b'=').count();
                let from = encoded.len() / 4 * 3 - padding + 1;
                json!(["sh", "-c", REST, "rest", from.to_string(), path])
            }
            (content, _) => {
                let from = content.unwrap_or_default().len() + 1;
                json!(["tail", "-c", format!("+{from}"), path])
            }
        };
        return Some(Next::new("exec_run", json!({"address": address, "argv": argv})));
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn long_texts_keep_head_and_tail() {
        let mut value = json!({"stdout": format!("first{}last", "x".repeat(50_000)), "code": 0});
        let cuts = fit(&mut value, 4096);
        assert!(size(&value) <= 4096);
        let text = value["stdout"].as_str().unwrap();
        assert!(text.starts_with("first") && text.ends_with("last"), "{text}");
        assert!(text.contains("bytes left out"));
        assert_eq!(cuts.len(), 1);
        assert_eq!((cuts[0].path.as_str(), cuts[0].total), ("/stdout", 50_009));
    }

    #[test]
    fn rows_are_left_out_from_the_end() {
        let rows: Vec<Value> = (0..500).map(|n| json!({"id": n, "name": "a machine"})).collect();
        let mut value = json!({"removed": rows, "count": 500});
        let cuts = fit(&mut value, 4096);
        assert!(size(&value) <= 4096);
        assert_eq!(cuts[0].total, 500);
        assert_eq!(value["removed"].as_array().map(Vec::len), Some(cuts[0].kept));
        assert!(cuts[0].kept > 50);
    }

    #[test]
    fn a_page_says_how_many_rows_fit() {
        let rows: Vec<Value> =
            (0..100).map(|n| json!({"id": n, "text": "y".repeat(200)})).collect();
        let page = json!({"vms": rows, "total": 100, "returned": 100, "truncated": false});
        let count = rows_that_fit(&page, 8192).unwrap();
        assert!((30..40).contains(&count), "{count}");
        assert_eq!(rows_that_fit(&json!({"vms": [], "returned": 0}), 8192), None);
        assert_eq!(rows_that_fit(&json!({"stdout": ""}), 8192), None);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Value::from),
            "[a-z\\n\u{1}é]{0,40}".prop_map(Value::from),
            (0..6000usize, "[a-zé\u{2}]").prop_map(|(n, c)| Value::from(c.repeat(n))),
        ];
        leaf.prop_recursive(4, 64, 12, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
                prop::collection::btree_map("[a-z/~]{1,6}", inner, 0..12)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn fitting_is_total_and_names_what_is_cut(mut value in any_value()) {
            let before = size(&value);
            let cuts = fit(&mut value, 2048);
            prop_assert!(size(&value) <= before + 64 * MAX_CUTS);
            prop_assert_eq!(cuts.is_empty(), before <= 2048 || largest(&value).is_none() && size(&value) == before);
        }
    }
}
