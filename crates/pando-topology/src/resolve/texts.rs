//! Texts with rules: images, paths, users, variables, labels.

use std::collections::BTreeMap;

use pando_model::Name;

use crate::record::Entries;
use crate::report::{At, Report};
use crate::scalar::{Contents, Text};
use crate::topology::ImageRef;
use crate::yaml::shown;

/// Longest user name, in bytes: what Linux programs agree on.
const MAX_USER_BYTES: usize = 32;

/// Returns an image: a name, an id, or the path of a disk file.
pub fn image(report: &mut Report<'_>, at: &At<Text>) -> Option<ImageRef> {
    let Text(text) = &at.value;
    if !text.contains('/') {
        let is_name = text.parse::<Name>().is_ok();
        if is_name || text.parse::<pando_model::ImageId>().is_ok() {
            return Some(ImageRef { name: text.clone(), file: None });
        }
        let message = format!("`{}` is no image's name", shown(text));
        report.wrong(at, message, "write a name that `pando image list` shows");
        return None;
    }
    if !is_clean_path(text) {
        let message = format!("`{}` is not an absolute path without `..`", shown(text));
        report.wrong(at, message, "write an image's name, or the whole path of a disk file");
        return None;
    }
    let file = text.rsplit('/').next().unwrap_or_default();
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let made: String = stem
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .collect();
    let Ok(name) = made.parse::<Name>() else {
        let message = format!("no image's name can be made of `{}`", shown(file));
        report.wrong(at, message, "import it under a name and write that: `image: NAME`");
        return None;
    };
    report.note(
        at,
        format!(
            "the image `{name}` is used; if there is none: `pando image import --kind disk {name} {text}`"
        ),
    );
    Some(ImageRef { name: name.to_string(), file: Some(text.clone()) })
}

/// Returns whether a path is absolute, without `.`, `..`, empty parts and control characters.
pub fn is_clean_path(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    let clean = |part: &str| !part.is_empty() && part != "." && part != "..";
    rest.split('/').all(clean) && !path.chars().any(char::is_control)
}

/// Returns an absolute path in a guest.
pub fn path(report: &mut Report<'_>, at: &At<Text>) -> Option<String> {
    let Text(text) = &at.value;
    if is_clean_path(text) {
        return Some(text.clone());
    }
    let message = format!("`{}` is not an absolute path without `..`", shown(text));
    report.wrong(at, message, "write the whole path in the node: /etc/app.conf");
    None
}

/// Returns the path of a key on the host.
pub fn key_path(report: &mut Report<'_>, at: &At<Text>) -> Option<String> {
    let Text(text) = &at.value;
    if is_clean_path(text) {
        return Some(text.clone());
    }
    let message = format!("`{}` is not an absolute path without `..`", shown(text));
    report.wrong(at, message, "write the whole path of a private key: /home/me/.ssh/id_ed25519");
    None
}

/// Returns whether a text is a user's name: one that can be made if it is not there.
pub fn is_user_name(text: &str) -> bool {
    let begins = |c: char| c.is_ascii_lowercase() || c == '_';
    let goes_on = |c: char| begins(c) || c.is_ascii_digit() || matches!(c, '-' | '.');
    text.starts_with(begins) && text.chars().all(goes_on) && text.len() <= MAX_USER_BYTES
}

fn is_number(text: &str) -> bool {
    text.parse::<u32>().is_ok() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Returns a user's name or number.
pub fn user(report: &mut Report<'_>, at: &At<Text>) -> Option<String> {
    let Text(text) = &at.value;
    if is_number(text) || is_user_name(text) {
        return Some(text.clone());
    }
    let message = format!("`{}` is no user", shown(text));
    report.wrong(at, message, "write a user's name or number in the node");
    None
}

/// Returns a user's name.
pub fn user_name(report: &mut Report<'_>, at: &At<Text>) -> Option<String> {
    let user = user(report, at)?;
    if is_number(&user) {
        report.wrong(at, format!("`{user}` is a number"), "write the user's name");
        return None;
    }
    Some(user)
}

/// Returns one word of free text.
pub fn word(report: &mut Report<'_>, at: &At<Text>) -> Option<String> {
    let Text(text) = &at.value;
    let fits = !text.is_empty() && text.len() <= 63;
    if fits && !text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Some(text.clone());
    }
    report.wrong(
        at,
        format!("`{}` is not one word", shown(text)),
        "write one word, at most 63 bytes",
    );
    None
}

/// Returns a script or cloud-config.
pub fn user_data(report: &mut Report<'_>, at: &At<Contents>) -> Option<String> {
    let Contents(text) = &at.value;
    if text.starts_with("#!") || text.starts_with("#cloud-config") {
        return Some(text.clone());
    }
    let message = format!("`{}` begins neither a script nor cloud-config", shown(text));
    report.wrong(at, message, "begin with `#!/bin/sh` or `#cloud-config`");
    None
}

/// Returns the entries of a map that are within the limit.
pub fn entries<T>(
    report: &mut Report<'_>,
    map: Option<At<Entries<T>>>,
) -> Vec<(At<String>, At<T>)> {
    let Some(map) = map else { return Vec::new() };
    let (count, most) = (map.value.0.len(), report.limits.entries);
    if count > most {
        let message = format!("there are {count} entries, but at most {most} are possible");
        report.wrong(&map, message, format!("keep {most}"));
        return Vec::new();
    }
    map.value.0
}

/// Returns an environment, whose values have none of the characters in `never`.
pub fn environment(
    report: &mut Report<'_>,
    map: Option<At<Entries<Text>>>,
    never: &[char],
) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for (key, value) in entries(report, map) {
        let name = &key.value;
        let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
        let goes_on = |c: char| begins(c) || c.is_ascii_digit();
        if !name.starts_with(begins) || !name.chars().all(goes_on) || name.len() > 128 {
            let message = format!("`{}` is not a variable's name", shown(name));
            report.wrong(&key, message, "use letters, digits and `_`, beginning with a letter");
            continue;
        }
        if value.value.0.contains(never) {
            let message = format!("`{name}` has a character that a variable cannot have here");
            report.wrong(&value, message, "write it on one line, or put it into a file");
            continue;
        }
        environment.insert(key.value, value.value.0);
    }
    environment
}

/// Returns labels.
pub fn labels(report: &mut Report<'_>, map: Option<At<Entries<Text>>>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, value) in entries(report, map) {
        let name = &key.value;
        let odd = |c: char| c == '=' || c.is_control() || c.is_whitespace();
        if name.is_empty() || name.len() > 128 || name.chars().any(odd) {
            let message = format!("`{}` is not a label's key", shown(name));
            report.wrong(&key, message, "use no spaces and no `=`");
            continue;
        }
        labels.insert(key.value, value.value.0);
    }
    labels
}
