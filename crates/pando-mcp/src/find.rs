//! `tool_find`: verbs by words. The whole catalogue is a hundred-odd short texts, so a search is a
//! count of matching words and needs no index.

use pando_api::{ApiError, Verb};
use serde_json::{Map, Value, json};

use crate::limits::{FOUND, FOUND_IN_FULL, MAX_QUERY_BYTES};
use crate::profile::Profile;
use crate::tools;

/// Words that say nothing.
const NOISE: &[&str] =
    &["a", "an", "and", "how", "in", "of", "or", "the", "to", "with", "for", "do", "i"];

/// Answers a query.
///
/// # Errors
/// `invalid_parameter`.
pub fn find(profile: &Profile, arguments: &Map<String, Value>) -> Result<Value, ApiError> {
    let wrong = |name: &str, message: String| {
        ApiError::parameter(name, message).hint("tool_find{query: \"build an image\"}")
    };
    if let Some(name) = arguments.keys().find(|name| *name != "query") {
        let shown: String = name.chars().take(64).collect();
        return Err(wrong(&shown, format!("tool_find has no parameter `{shown}`")));
    }
    let query = match arguments.get("query") {
        Some(Value::String(query)) if query.len() <= MAX_QUERY_BYTES => query,
        Some(Value::String(_)) => {
            let message = format!("`query` has more than {MAX_QUERY_BYTES} bytes");
            return Err(wrong("query", message));
        }
        Some(_) => return Err(wrong("query", "`query` is not a string".to_owned())),
        None => return Err(wrong("query", "tool_find needs `query`".to_owned())),
    };
    if let Some((verb, _)) = Verb::resolve(query.trim())
        && profile.permits(verb)
    {
        let mut shown = described(profile, verb);
        if let Some(shown) = shown.as_object_mut() {
            shown.insert("result".to_owned(), verb.result.clone());
        }
        return Ok(json!({"query": query, "total": 1, "returned": 1, "tools": [shown]}));
    }
    let words = words(query);
    let mut scored: Vec<(u32, &Verb)> = profile
        .permitted()
        .map(|verb| (score(verb, &words), verb))
        .filter(|(score, _)| *score > 0 || words.is_empty())
        .collect();
    scored.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    let total = scored.len();
    let rows: Vec<Value> = scored
        .into_iter()
        .take(FOUND)
        .enumerate()
        .map(|(rank, (_, verb))| {
            if rank < FOUND_IN_FULL {
                return described(profile, verb);
            }
            json!({"name": verb.name, "description": verb.summary})
        })
        .collect();
    let mut result = json!({"query": query, "total": total, "returned": rows.len(), "tools": rows});
    if total == 0
        && let Some(object) = result.as_object_mut()
    {
        let all: Vec<&str> = profile.permitted().map(|verb| verb.name).collect();
        object.insert("names".to_owned(), json!(all));
    }
    Ok(result)
}

fn described(profile: &Profile, verb: &Verb) -> Value {
    let mut tool = tools::of_verb(verb);
    if tools::takes_key(verb)
        && let Some(properties) = tool.input.get_mut("properties").and_then(Value::as_object_mut)
    {
        let text = "Made again with the same key, the call finds the first one's operation.";
        properties.insert(tools::KEY.to_owned(), json!({"type": "string", "description": text}));
    }
    json!({
        "name": tool.name, "description": tool.description, "toolset": verb.toolset,
        "effect": verb.effect, "listed": profile.lists(verb), "arguments": tool.input,
    })
}

fn words(query: &str) -> Vec<String> {
    let words = query.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
    words.filter(|word| !word.is_empty() && !NOISE.contains(&word.as_str())).collect()
}

/// Returns the part of a word that its other forms share.
fn stem(word: &str) -> &str {
    let ended = ["ing", "es", "ed", "s"].iter().find_map(|end| word.strip_suffix(end));
    ended.filter(|stem| stem.len() >= 3).unwrap_or(word)
}

fn score(verb: &Verb, words: &[String]) -> u32 {
    let names = || std::iter::once(verb.name).chain(verb.aliases.iter().map(|alias| alias.name));
    let text = verb.description().to_lowercase();
    let parameters = || verb.properties().into_iter().flat_map(Map::keys);
    words
        .iter()
        .map(|word| {
            let word = stem(word);
            let in_name = names().any(|name| name.split(['_', '.']).any(|part| stem(part) == word));
            let in_text = text.split(|c: char| !c.is_alphanumeric()).any(|own| stem(own) == word);
            let in_parameters = parameters().any(|name| name.contains(word));
            let in_toolset = stem(verb.toolset.as_str()) == word;
            u32::from(in_name) * 6
                + u32::from(in_text) * 3
                + u32::from(in_toolset) * 2
                + u32::from(in_parameters)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(query: &str) -> String {
        let arguments = json!({"query": query}).as_object().cloned().unwrap_or_default();
        let found = find(&Profile::default(), &arguments).unwrap();
        found["tools"][0]["name"].as_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn words_lead_to_their_verb() {
        let cases = [
            ("build an image from packages", "image_build"),
            ("ssh login", "connect_info"),
            ("remove a tag", "tag_delete"),
            ("free disk space, remove what nothing refers to", "gc"),
            ("import a cloud image", "image_import"),
            ("delete a commit", "commit_delete"),
            ("verify checksums", "commit_verify"),
            ("vers_rollback", "branch_rollback"),
        ];
        for (query, name) in cases {
            assert_eq!(first(query), name, "{query}");
        }
    }

    #[test]
    fn nothing_found_lists_all_names() {
        let arguments = json!({"query": "zzz"}).as_object().cloned().unwrap_or_default();
        let found = find(&Profile::default(), &arguments).unwrap();
        assert_eq!(found["total"], 0);
        assert!(found["names"].as_array().is_some_and(|names| names.len() > 30));
    }
}
