//! One entry into a configuration that belongs to somebody else: every other byte stays what and
//! where it was.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why a configuration cannot be merged into.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// It is not what its name says.
    #[error("{0}")]
    Unreadable(String),
    /// Something else is where servers are listed.
    #[error("`{0}` is no object")]
    NoObject(String),
}

/// A JSON object's entries in their order, each value as it stands in the text.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry::<String, &'de RawValue>()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Returns where a part of a text is in it.
fn place(whole: &str, part: &str) -> (usize, usize) {
    let from = part.as_ptr() as usize - whole.as_ptr() as usize;
    (from, from + part.len())
}

/// Returns a JSON text with `entry` (an object in one piece) as `LIST.NAME`.
///
/// # Errors
/// When the text is no JSON object, or its list is none.
pub fn json(text: &str, list: &str, name: &str, entry: &str) -> Result<String, MergeError> {
    if text.trim().is_empty() {
        let entry = indented(entry, "    ");
        return Ok(format!("{{\n  \"{list}\": {{\n    \"{name}\": {entry}\n  }}\n}}\n"));
    }
    let unreadable = |source: serde_json::Error| MergeError::Unreadable(source.to_string());
    let top: Entries<'_> = serde_json::from_str(text).map_err(unreadable)?;
    let unit = unit(text);
    let Some((_, servers)) = top.0.iter().find(|(key, _)| key == list) else {
        let inner = format!("{unit}{unit}");
        let entry = indented(entry, &inner);
        let value = format!("{{\n{inner}\"{name}\": {entry}\n{unit}}}");
        return Ok(added(text, (0, text.len()), &top, &format!("\"{list}\": {value}"), &unit, ""));
    };
    let servers = servers.get();
    let inner: Entries<'_> =
        serde_json::from_str(servers).map_err(|_| MergeError::NoObject(list.to_owned()))?;
    let indent = format!("{unit}{unit}");
    let entry = indented(entry, &indent);
    if let Some((_, old)) = inner.0.iter().find(|(key, _)| key == name) {
        let (from, to) = place(text, old.get());
        let same = serde_json::from_str::<serde_json::Value>(old.get()).ok()
            == serde_json::from_str::<serde_json::Value>(&entry).ok();
        if same {
            return Ok(text.to_owned());
        }
        return Ok(format!("{}{entry}{}", &text[..from], &text[to..]));
    }
    let entry = format!("\"{name}\": {entry}");
    Ok(added(text, place(text, servers), &inner, &entry, &indent, &unit))
}

/// Returns the text with an entry at the end of the object that stands at `object`.
fn added(
    text: &str,
    object: (usize, usize),
    entries: &Entries<'_>,
    entry: &str,
    indent: &str,
    outer: &str,
) -> String {
    if let Some((_, last)) = entries.0.last() {
        let (_, to) = place(text, last.get());
        return format!("{},\n{indent}{entry}{}", &text[..to], &text[to..]);
    }
    let (from, to) = object;
    let open = text[from..to].find('{').map_or(from, |at| from + at);
    let close = text[from..to].rfind('}').map_or(to, |at| from + at);
    format!("{}{{\n{indent}{entry}\n{outer}{}", &text[..open], &text[close..])
}

/// Returns what the text indents its first line by.
fn unit(text: &str) -> String {
    let line = text.lines().skip(1).find(|line| line.trim_start().starts_with('"'));
    let unit: String = line.unwrap_or("").chars().take_while(|c| c.is_whitespace()).collect();
    if unit.is_empty() { "  ".to_owned() } else { unit }
}

fn indented(entry: &str, indent: &str) -> String {
    entry.replace('\n', &format!("\n{indent}"))
}

/// Returns a TOML text with `keys` in the table `LIST.NAME`, and without those that are `stale`
/// there.
///
/// # Errors
/// When the text is no TOML, or its list is no table.
pub fn toml(
    text: &str,
    list: &str,
    name: &str,
    keys: &[(&str, toml_edit::Value)],
    stale: &[&str],
) -> Result<String, MergeError> {
    use toml_edit::{DocumentMut, Item, Table};
    let mut document: DocumentMut = text
        .parse()
        .map_err(|source: toml_edit::TomlError| MergeError::Unreadable(source.to_string()))?;
    let servers = document.entry(list).or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let servers =
        servers.as_table_like_mut().ok_or_else(|| MergeError::NoObject(list.to_owned()))?;
    let entry = servers.entry(name).or_insert_with(|| Item::Table(Table::new()));
    let entry =
        entry.as_table_like_mut().ok_or_else(|| MergeError::NoObject(format!("{list}.{name}")))?;
    for key in stale {
        entry.remove(key);
    }
    for (key, new) in keys {
        let same =
            entry.get(key).is_some_and(|old| old.to_string().trim() == new.to_string().trim());
        if !same {
            entry.insert(key, Item::Value(new.clone()));
        }
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = "{\n  \"command\": \"pando\",\n  \"args\": [\"mcp\"]\n}";

    fn merged(text: &str) -> String {
        let merged = json(text, "mcpServers", "pando", ENTRY).unwrap();
        let value: serde_json::Value = serde_json::from_str(&merged).unwrap();
        assert_eq!(value["mcpServers"]["pando"]["args"][0], "mcp", "{merged}");
        // Merging again changes nothing.
        assert_eq!(json(&merged, "mcpServers", "pando", ENTRY).unwrap(), merged);
        merged
    }

    #[test]
    fn an_entry_is_added_and_nothing_else_moves() {
        assert_eq!(
            merged(""),
            "{\n  \"mcpServers\": {\n    \"pando\": {\n      \"command\": \"pando\",\n      \
             \"args\": [\"mcp\"]\n    }\n  }\n}\n"
        );
        merged("{}");
        merged("{ }\n");
        merged("{\"mcpServers\":{}}");
        merged("{\"mcpServers\":\n{\n}, \"z\":1}");
        let theirs = "{\n\t\"zebra\":  1.50,\n\t\"mcpServers\": {\n\t\t\"other\": {\"command\": \
                      \"x\"}\n\t},\n\t\"apple\": [1,\n2]\n}\n";
        let ours = merged(theirs);
        assert!(ours.starts_with("{\n\t\"zebra\":  1.50,\n\t\"mcpServers\": {\n\t\t\"other\": {\"command\": \"x\"},\n\t\t\"pando\": {\n"), "{ours}");
        assert!(ours.ends_with("\n\t},\n\t\"apple\": [1,\n2]\n}\n"), "{ours}");
    }

    #[test]
    fn an_older_entry_is_replaced_alone() {
        let old = "{\"mcpServers\": {\"pando\": {\"command\": \"/old\"}, \"b\": 1}, \"c\": 2}";
        let new = merged(old);
        assert!(!new.contains("/old") && new.ends_with(", \"b\": 1}, \"c\": 2}"), "{new}");
    }

    #[test]
    fn what_is_no_json_is_left_alone() {
        for text in ["// a comment\n{}", "{\"a\": 1,}", "[]", "{\"mcpServers\": []}"] {
            assert!(json(text, "mcpServers", "pando", ENTRY).is_err(), "{text}");
        }
    }

    #[test]
    fn a_toml_table_is_added_and_comments_stay() {
        let theirs = "# mine\nmodel = \"x\" # why\n\n[mcp_servers.other]\ncommand = \"y\"\n";
        let arguments: toml_edit::Array = ["mcp"].into_iter().collect();
        let keys = [("command", "pando".into()), ("args", arguments.into())];
        let merge = |text: &str| toml(text, "mcp_servers", "pando", &keys, &["url"]).unwrap();
        let ours = merge(theirs);
        assert_eq!(
            ours,
            format!("{theirs}\n[mcp_servers.pando]\ncommand = \"pando\"\nargs = [\"mcp\"]\n")
        );
        assert_eq!(merge(&ours), ours);
        assert_eq!(merge(""), "[mcp_servers.pando]\ncommand = \"pando\"\nargs = [\"mcp\"]\n");
        // What another form of the entry needed goes.
        let url = [("url", "http://127.0.0.1:7717/mcp".into())];
        let other = toml(&ours, "mcp_servers", "pando", &url, &["command", "args"]).unwrap();
        assert!(
            other.ends_with("\n[mcp_servers.pando]\nurl = \"http://127.0.0.1:7717/mcp\"\n"),
            "{other}"
        );
        assert_eq!(merge(&other), ours);
        assert!(toml("a = [", "mcp_servers", "pando", &keys, &[]).is_err());
        assert!(toml("mcp_servers = 1", "mcp_servers", "pando", &keys, &[]).is_err());
    }
}
