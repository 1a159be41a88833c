//! Commands that are written in messages and documents, read by the command line itself: who types
//! what a hint says must not be told that it is wrong.

use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

use crate::cli;

/// What stands in a command for a value that is known later.
const VALUE: &str = "shop";

fn files(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
}

/// Returns what stands between each `begin` and the next `end`.
fn spans<'a>(text: &'a str, begin: &str, end: char) -> Vec<&'a str> {
    let rest = text.split(begin).skip(1);
    rest.filter_map(|rest| rest.split(end).next()).collect()
}

/// Returns the source text of the messages of a file, with strings on one line.
fn messages(source: &str) -> String {
    let mut joined = String::new();
    for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
        match line.strip_suffix('\\') {
            Some(begun) => joined.push_str(begun),
            None => {
                joined.push_str(line.trim_start());
                joined.push('\n');
            }
        }
    }
    joined
}

fn commands() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = Vec::new();
    for crate_ in fs::read_dir(root.join("crates")).unwrap() {
        files(&crate_.unwrap().path().join("src"), "rs", &mut sources);
    }
    let mut documents = vec![root.join("README.md")];
    files(&root.join("docs"), "md", &mut documents);
    let mut found = Vec::new();
    for path in sources.iter().filter(|path| !path.ends_with("cli/hints.rs")) {
        let text = messages(&fs::read_to_string(path).unwrap());
        let quoted = spans(&text, "`pando ", '`');
        // What repairs an operation is a command, or several.
        let is_operation = path.parent().is_some_and(|parent| parent.ends_with("ops"));
        let whole = if is_operation { spans(&text, "\"pando ", '"') } else { Vec::new() };
        let whole = whole.into_iter().flat_map(|text| text.split(", then pando "));
        let whole = whole.flat_map(|text| text.split(", or pando "));
        let all = quoted.into_iter().chain(whole);
        found.extend(all.map(|command| (command.to_owned(), path.clone())));
    }
    for path in documents {
        let text = fs::read_to_string(&path).unwrap().replace('\n', " ");
        let quoted = spans(&text, "`pando ", '`').into_iter().map(str::to_owned);
        found.extend(quoted.map(|command| (command, path.clone())));
    }
    found
}

/// Returns the words of a command, with values in place of `{}` and `NAME`; `None` if it is a form
/// (`[NAME]`, `…`), its first word is known later, or it is not for people.
fn words(command: &str) -> Option<Vec<String>> {
    let stands_for_one = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_uppercase())
            && word.chars().all(|c| c.is_ascii_uppercase() || matches!(c, '_' | '-'))
    };
    let first = command.split_whitespace().next().unwrap_or_default();
    let is_open = first.starts_with('{') || stands_for_one(first);
    if command.contains(['[', '…', '<', '|', '(']) || is_open || first == "keeper" {
        return None;
    }
    let word = |word: String| match word.contains('{') || stands_for_one(&word) {
        true => VALUE.to_owned(),
        false => word,
    };
    let mut words = Vec::new();
    for (index, part) in command.split('\'').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(|text| word(text.to_owned()))),
            _ => words.push(part.to_owned()),
        }
    }
    Some(words)
}

/// Returns what is wrong with a command. One that is only named lacks its arguments, and a value
/// that is known later may be of any kind.
fn unreadable(command: &str) -> Option<ErrorKind> {
    let words = words(command)?;
    let root = cli::root();
    let is_named =
        words.iter().try_fold(&root, |above, word| above.find_subcommand(word)).is_some();
    let typed = std::iter::once("pando").chain(words.iter().map(String::as_str));
    let kind = root.clone().try_get_matches_from(typed).err()?.kind();
    let passes = match kind {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            words.iter().any(|word| word == VALUE)
        }
        _ => is_named,
    };
    (!passes).then_some(kind)
}

#[test]
fn every_command_that_is_written_somewhere_can_be_typed() {
    let commands = commands();
    assert!(commands.len() > 200, "{} were found", commands.len());
    let wrong: Vec<String> = commands
        .iter()
        .filter_map(|(command, path)| {
            let kind = unreadable(command)?;
            Some(format!("{}: pando {command}: {kind:?}", path.display()))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(unreadable("image import FILE --name NAME"), Some(ErrorKind::UnknownArgument));
    assert_eq!(unreadable("image import {} {file}"), Some(ErrorKind::MissingRequiredArgument));
}
