//! `tool_find`: verbs by words. The whole catalogue is a hundred-odd short texts, so a search is a
//! count of matching words and needs no index.

use pando_api::{ApiError, Verb};
use serde_json::{Map, Value, json};

use crate::limits::{FOUND, FOUND_IN_FULL, MAX_QUERY_BYTES};
use crate::profile::Profile;
use crate::tools;

/// Words that say nothing.
const NOISE: &[&str] = &[
    "a", "add", "an", "and", "are", "between", "do", "each", "for", "from", "how", "i", "in", "is",
    "my", "of", "or", "the", "this", "to", "two", "what", "which", "with",
];

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
    let permitted: Vec<&Verb> = profile.permitted().collect();
    let found = ranked(&permitted, &words);
    let total = found.len();
    let rows: Vec<Value> = found
        .into_iter()
        .take(FOUND)
        .enumerate()
        .map(|(rank, verb)| {
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

/// How much a word's place says: a verb's name or what else it is known as, its description, its
/// toolset, one of its parameters.
const PLACES: [f64; 4] = [3.0, 2.0, 1.0, 0.7];

/// What people call what verbs do, in words that their descriptions do not have.
const KNOWN_AS: &[(&str, &str)] = &[
    ("branch_create", "fork clone copy duplicate try"),
    ("branch_rollback", "undo restore revert reset go back earlier state"),
    ("branch_checkout", "switch"),
    ("commit_create", "save checkpoint snapshot state"),
    ("commit_list", "log history"),
    ("connect_info", "login key port"),
    ("console_read", "boot log serial output"),
    ("exec_run", "shell script"),
    ("file_pull", "download copy"),
    ("file_push", "upload copy"),
    ("gc", "cleanup clean prune unused space"),
    ("image_import", "qcow2 cloud vmdk"),
    ("journal_list", "who did audit history"),
    ("net_capture", "tcpdump sniff record packet traffic"),
    ("net_heal_all", "repair reconnect undo"),
    ("net_impair", "slow latency delay drop packet bandwidth limit lossy chaos network"),
    ("net_partition", "split isolate disconnect unreachable cut"),
    ("net_probe", "ping reach reachable test"),
    ("node_crash", "kill reboot restart"),
    ("operation_cancel", "abort stop long running"),
    ("snapshot_revert", "restore undo"),
    ("state_diff", "compare difference changed branches"),
    ("system_status", "health version daemon host"),
    ("tag_set", "rename label"),
    ("vm_control", "pause resume shutdown reboot"),
    ("vm_usage", "cpu memory disk top"),
];

/// Returns how strongly a word speaks for a verb, rare words and frequent ones alike.
fn place(verb: &Verb, word: &str) -> Option<f64> {
    let is = |text: &str| text.split(|c: char| !c.is_alphanumeric()).any(|own| stem(own) == word);
    let mut names = std::iter::once(verb.name).chain(verb.aliases.iter().map(|alias| alias.name));
    let known_as = KNOWN_AS.iter().find(|(name, _)| *name == verb.name).map(|(_, words)| *words);
    let mut parameters = verb.properties().into_iter().flat_map(Map::keys);
    let [name, text, toolset, parameter] = PLACES;
    if names.any(|name| is(&name.replace('_', " "))) || known_as.is_some_and(is) {
        Some(name)
    } else if is(&verb.description().to_lowercase()) {
        Some(text)
    } else if stem(verb.toolset.as_str()) == word {
        Some(toolset)
    } else {
        parameters.any(|name| is(&name.replace('_', " "))).then_some(parameter)
    }
}

/// Returns the verbs for which some word speaks, the likeliest first. A word counts the more the fewer
/// verbs it speaks for.
fn ranked<'a>(verbs: &[&'a Verb], words: &[String]) -> Vec<&'a Verb> {
    let mut scores = vec![0.0; verbs.len()];
    for word in words {
        let places: Vec<Option<f64>> = verbs.iter().map(|verb| place(verb, stem(word))).collect();
        let matching = places.iter().flatten().count();
        #[expect(clippy::cast_precision_loss, reason = "a hundred verbs")]
        let rarity = ((verbs.len() + 1) as f64 / (matching + 1) as f64).ln();
        for (score, place) in scores.iter_mut().zip(places) {
            *score += place.unwrap_or(0.0) * rarity;
        }
    }
    let mut found: Vec<(f64, &Verb)> = scores.into_iter().zip(verbs.iter().copied()).collect();
    found.retain(|(score, _)| *score > 0.0 || words.is_empty());
    // Stable: of equals, the catalogue's first.
    found.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    found.into_iter().map(|(_, verb)| verb).collect()
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
            ("slow network link", "net_impair"),
            ("add latency between two nodes", "net_impair"),
            ("kill a node", "node_crash"),
            ("run a command on all nodes", "node_exec_all"),
            ("restore a snapshot", "snapshot_revert"),
            ("go back to an earlier state", "branch_rollback"),
            ("what changed between branches", "state_diff"),
            ("boot log of a machine", "console_read"),
            ("who did what", "journal_list"),
            ("packet capture pcap", "net_capture"),
            ("test whether nodes can reach each other", "net_probe"),
            ("download a file", "file_pull"),
            ("fork a machine", "branch_create"),
            ("which faults are active", "net_fault_list"),
            ("cpu and memory usage", "vm_usage"),
            ("cancel long running work", "operation_cancel"),
            ("clean up unused files", "gc"),
        ];
        for (query, name) in cases {
            assert_eq!(first(query), name, "{query}");
        }
    }

    #[test]
    fn what_verbs_are_known_as_is_about_verbs() {
        for (name, words) in KNOWN_AS {
            assert!(pando_api::catalogue().iter().any(|verb| verb.name == *name), "{name}");
            assert!(words.split(' ').all(|word| !word.is_empty()), "{name}");
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
