//! Hints in the words of tools: errors name commands, and who reads them here makes calls.

use pando_api::{ApiError, Call, Effect, Verb, catalogue};
use serde_json::{Map, Value, json};

use crate::answer::Next;

/// A call that a command between backticks makes.
struct Made {
    verb: &'static Verb,
    arguments: Map<String, Value>,
    /// Whether all of its words are meant as they stand: no `ADDRESS` is left to fill in.
    is_whole: bool,
}

/// Puts an error's hints into the words of tools.
pub fn in_tools(error: ApiError) -> ApiError {
    let translated = |text: String| {
        let parts = text.split('`').enumerate().map(|(number, part)| match number % 2 {
            1 => made(part).map_or_else(|| part.to_owned(), |made| made.to_string()),
            _ => part.to_owned(),
        });
        parts.collect::<Vec<_>>().join("`")
    };
    ApiError { hint: error.hint.map(translated), remedy: error.remedy.map(translated), ..error }
}

/// Returns the first call that an error's hint names whole and that loses nothing.
pub fn next(error: &ApiError) -> Option<Next> {
    let quoted = error.hint.as_deref()?.split('`').skip(1).step_by(2);
    let mut calls = quoted.filter_map(made);
    let call = calls.find(|made| {
        let parameters = Value::Object(made.arguments.clone());
        made.is_whole
            && made.verb.effect != Effect::Destructive
            && Call::parse(made.verb.name, parameters).is_ok()
    })?;
    Some(Next { tool: call.verb.name.to_owned(), arguments: call.arguments })
}

/// Returns the call that a command makes, if it is one verb's, given in full.
fn made(command: &str) -> Option<Made> {
    let words: Vec<&str> = command.strip_prefix("pando ")?.split_whitespace().collect();
    let of = || catalogue().iter().filter(|verb| words.starts_with(verb.cli.path));
    let length = of().map(|verb| verb.cli.path.len()).max()?;
    let mut verbs = of().filter(|verb| verb.cli.path.len() == length);
    let (Some(verb), None) = (verbs.next(), verbs.next()) else { return None };
    let (mut arguments, mut is_whole) = (Map::new(), true);
    let mut positionals = verb.cli.positionals.iter();
    let mut words = words.get(length..)?.iter();
    while let Some(word) = words.next() {
        let (name, value) = match word.strip_prefix("--") {
            Some(flag) => {
                let flag = flag.replace('-', "_");
                match (switch(verb, &flag), flag.strip_prefix("no_")) {
                    (Some(true), _) => (flag, json!(true)),
                    (None, Some(off)) if switch(verb, off) == Some(true) => {
                        (off.to_owned(), json!(false))
                    }
                    (Some(false), _) => {
                        let value = typed(verb, &flag, words.next()?)?;
                        (flag, value)
                    }
                    (None, _) => return None,
                }
            }
            None if word.starts_with('-') => return None,
            None => {
                let name = *positionals.next()?;
                (name.to_owned(), typed(verb, name, word)?)
            }
        };
        is_whole &= value.as_str().is_none_or(|text| !is_placeholder(text));
        arguments.insert(name, value);
    }
    Some(Made { verb, arguments, is_whole })
}

/// Returns whether a verb's parameter is a switch; `None` if it has no such parameter.
fn switch(verb: &Verb, name: &str) -> Option<bool> {
    Some(verb.properties()?.get(name)?["type"] == "boolean")
}

/// Returns a word as a value of the type that its parameter has; a list has it alone.
fn typed(verb: &Verb, name: &str, word: &str) -> Option<Value> {
    Some(match verb.properties()?.get(name)?["type"].as_str() {
        Some("integer") if !is_placeholder(word) => json!(word.parse::<i64>().ok()?),
        Some("array") => json!([word]),
        _ => json!(word),
    })
}

fn is_placeholder(word: &str) -> bool {
    word == "…" || word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

impl std::fmt::Display for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let argument = |(name, value): (&String, &Value)| match value.as_str() {
            Some(text) if is_placeholder(text) => format!("{name}: {text}"),
            _ => format!("{name}: {value}"),
        };
        let arguments: Vec<String> = self.arguments.iter().map(argument).collect();
        write!(f, "{}{{{}}}", self.verb.name, arguments.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use pando_model::ErrorCode;

    use super::*;

    fn hint(text: &str) -> (String, Option<Value>) {
        let error = ApiError::new(ErrorCode::WrongState, "no").hint(text);
        let next = next(&error).map(|next| json!({(next.tool): next.arguments}));
        (in_tools(error).hint.unwrap_or_default(), next)
    }

    #[test]
    fn commands_become_calls() {
        let cases = [
            (
                "`pando cluster start trio` boots it",
                "`cluster_start{cluster_name: \"trio\"}` boots it",
                Some(json!({"cluster_start": {"cluster_name": "trio"}})),
            ),
            (
                "`pando vm control ADDRESS resume`, or `pando operation list --status stuck`",
                "`vm_control{action: \"resume\", address: ADDRESS}`, or `operation_list{status: \"stuck\"}`",
                Some(json!({"operation_list": {"status": "stuck"}})),
            ),
            (
                "`pando snapshot revert a b --no-save`",
                "`snapshot_revert{cluster_name: \"a\", save: false, snapshot_name: \"b\"}`",
                None,
            ),
            (
                "`pando net partition trio a`, or `pando history shop --limit 5`",
                "`net_partition{cluster_name: \"trio\", partition_a: [\"a\"]}`, or \
                 `journal_list{address: \"shop\", limit: 5}`",
                Some(json!({"net_partition": {"cluster_name": "trio", "partition_a": ["a"]}})),
            ),
            ("`pando history shop --limit x`", "`pando history shop --limit x`", None),
            // Not one verb's, or not to be understood: as it stands.
            ("`pando rm --disks a`; `pando doctor`", "`pando rm --disks a`; `pando doctor`", None),
            ("`pando exec a -- ls`", "`pando exec a -- ls`", None),
            ("did you mean `shop`?", "did you mean `shop`?", None),
        ];
        for (text, said, call) in cases {
            assert_eq!(hint(text), (said.to_owned(), call), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_hint_is_told(text in "[a-z `-]{0,60}", words in "(pando |vm |list |--|`| ){0,12}") {
            let (said, _) = hint(&format!("{text}{words}"));
            proptest::prop_assert!(!said.is_empty() || (text.is_empty() && words.is_empty()));
        }
    }
}
