//! The reference under `docs/reference`: pages and the OpenAPI document, made from the catalogue,
//! the command line, the error codes and the settings, so that none of them can say what is not so.

mod commands;
mod markdown;
mod verbs;

use std::collections::BTreeMap;

use pando_api::{Toolset, catalogue};
use pando_model::ErrorCode;

use crate::reference::markdown::{Table, cell};
use crate::settings::{FOREIGN, Meaning, Settings, Sources, key_of, variable};

/// The file with the OpenAPI document.
const OPENAPI: &str = "openapi.json";
/// The file with the JSON Schema of topologies.
const TOPOLOGY: &str = "topology.schema.json";

/// Returns every file of the reference by its name.
pub fn files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::from([
        ("README.md".to_owned(), contents()),
        ("cli.md".to_owned(), commands::page()),
        ("errors.md".to_owned(), errors()),
        ("settings.md".to_owned(), settings()),
        (OPENAPI.to_owned(), openapi()),
        (TOPOLOGY.to_owned(), format!("{:#}\n", pando_topology::schema())),
    ]);
    let toolsets = Toolset::ALL.iter();
    files.extend(toolsets.map(|toolset| (verbs::file(*toolset), verbs::page(*toolset))));
    for (name, text) in &mut files {
        if is_page(name) {
            *text = format!("{}\n", text.trim_end());
        }
    }
    files
}

/// Whether a file is a page to read.
fn is_page(name: &str) -> bool {
    name.ends_with(".md")
}

/// Returns the OpenAPI document as a file.
pub fn openapi() -> String {
    format!("{:#}\n", pando_api::openapi())
}

fn contents() -> String {
    let mut page = String::from(
        "# Reference\n\nEvery verb is a command, an HTTP route and an MCP tool, with the same \
         parameters and the same result. These pages are made from the verbs themselves: `pando gen \
         docs/reference` writes them, and `./test` fails when they are out of date.\n\n",
    );
    for toolset in Toolset::ALL {
        let file = verbs::file(*toolset);
        page.push_str(&format!(
            "## [{}]({file})\n\n{}\n\n",
            verbs::title(*toolset),
            toolset.about()
        ));
        let mut table = Table::new(&["verb", "command", "what it does"]);
        for verb in catalogue().iter().filter(|verb| verb.toolset == *toolset) {
            table.row([
                format!("[`{0}`]({file}#{0})", verb.name),
                format!("`pando {}`", verb.cli.path.join(" ")),
                cell(verb.title()),
            ]);
        }
        page.push_str(&table.to_string());
    }
    page.push_str(
        "## Beyond verbs\n\n\
         - [Commands](cli.md): the whole command line\n\
         - [Errors](errors.md): every code, and what it means\n\
         - [Settings](settings.md): the configuration file and its variables\n\
         - [OpenAPI](openapi.json): the HTTP API for programs; a daemon serves it at \
         `/v1/openapi.json`\n\
         - [Topologies](topology.schema.json): the JSON Schema of what a cluster is defined from, for \
         editors\n",
    );
    page
}

fn errors() -> String {
    let mut page = String::from(
        "# Errors\n\nA call that does not do what it was asked says why, in the same words on every \
         front end: `code` (from this closed list), `message`, and where they help `hint` (the exact \
         next call or command), `remedy` (what repairs what the failure met or left), `subject` (the \
         parameter, address or id that it is about) and `operation`. Where `recoverable` is true, the \
         same call may succeed later, or after the remedy.\n\n",
    );
    let mut table = Table::new(&["code", "meaning", "recoverable", "HTTP status", "exit status"]);
    for code in ErrorCode::ALL {
        table.row([
            format!("`{code}`"),
            cell(&pando_api::error::describe(*code).unwrap_or_default()),
            if code.recoverable() { "yes" } else { "no" }.to_owned(),
            code.http_status().to_string(),
            code.exit_status().to_string(),
        ]);
    }
    page.push_str(&table.to_string());
    page.push_str(
        "`pando exec` ends with the command's own exit status, with 124 when its time was up, and with \
         127 when it could not be started.\n",
    );
    page
}

fn settings() -> String {
    let mut page = String::from(
        "# Settings\n\nThe environment goes before `config.toml` in the home, and that before the \
         default. `pando config show --origin` says what is in force and where it comes from; `pando \
         config set KEY VALUE` writes the file.\n\n",
    );
    let mut table = Table::new(&["setting", "default", "variable", "what it is"]);
    let defaults = Settings::resolve(&Sources::default());
    for shown in defaults.into_iter().flat_map(|(_, shown)| shown) {
        let value =
            if shown.value.is_empty() { String::new() } else { format!("`{}`", shown.value) };
        table.row([
            format!("`{}`", shown.key),
            value,
            format!("`{}`", variable(shown.key)),
            cell(shown.doc),
        ]);
    }
    page.push_str(&table.to_string());
    page.push_str(
        "## Settings of vmcluster-mcp\n\nThey are accepted. Variables that mean something here stand below \
         pando's own and above `config.toml`; keys of the YAML file that `VMCLUSTER_CONFIG` names (by an \
         absolute path) stand below `config.toml`. What means nothing is told by `pando config show \
         --origin` and `pando doctor`.\n\nWhat a cluster was defined with stays with it: changing \
         `cluster.ssh_user` or `cluster.ssh_key_path` is drift of the clusters that are there, and \
         reaches new ones.\n\n",
    );
    let mut table = Table::new(&["variable", "key of the file", "what it means here"]);
    for (name, meaning) in FOREIGN {
        let means = match meaning {
            Meaning::Setting(key) => format!("`{key}`"),
            Meaning::File => "the path of the file".to_owned(),
            Meaning::Nothing(why) => format!("not used: {why}"),
        };
        let key = match meaning {
            Meaning::File => String::new(),
            _ => format!("`{}`", key_of(name)),
        };
        table.row([format!("`{name}`"), key, cell(&means)]);
    }
    page.push_str(&table.to_string());
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_between_pages_lead_somewhere() {
        let files = files();
        for (name, text) in files.iter().filter(|(name, _)| is_page(name)) {
            for (_, rest) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
                let target = rest.split(')').next().unwrap_or_default();
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let file = if file.is_empty() { name } else { file };
                let page = files.get(file).unwrap_or_else(|| panic!("{name}: {target}"));
                let heading = |line: &str| {
                    let line = line.trim_start_matches('#').trim().to_lowercase();
                    line.replace('`', "").replace(' ', "-")
                };
                let found =
                    page.lines().any(|line| line.starts_with('#') && heading(line) == anchor);
                assert!(anchor.is_empty() || found, "{name}: {target}");
            }
        }
    }

    #[test]
    fn every_verb_code_and_setting_is_there() {
        let files = files();
        for verb in catalogue() {
            let page = &files[&verbs::file(verb.toolset)];
            assert!(page.contains(&format!("\n## {}\n", verb.name)), "{}", verb.name);
            for name in verb.properties().into_iter().flatten().map(|(name, _)| name) {
                assert!(page.contains(&format!("| `{name}` |")), "{} {name}", verb.name);
            }
        }
        assert!(ErrorCode::ALL.iter().all(|code| files["errors.md"].contains(code.as_str())));
        assert!(crate::settings::KEYS.iter().all(|key| files["settings.md"].contains(key)));
    }

    #[test]
    fn tables_are_whole() {
        for (name, text) in files() {
            let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
            for pair in rows.windows(2) {
                if pair[1].starts_with("| ---") {
                    let columns = |row: &str| row.replace("\\|", "").matches('|').count();
                    assert_eq!(columns(pair[0]), columns(pair[1]), "{name}: {}", pair[0]);
                }
            }
        }
    }
}
