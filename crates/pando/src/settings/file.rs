//! `config.toml`: read as texts by key, edited without touching comments and order.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use pando_api::ApiError;
use pando_model::ErrorCode;
use toml_edit::{DocumentMut, Item, Table, Value};

fn invalid(path: &Path, detail: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::ConfigInvalid, format!("{}: {detail}", path.display()))
        .hint("pando config show --origin")
}

fn document(path: &Path) -> Result<DocumentMut, ApiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => text.parse().map_err(|error| invalid(path, &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(DocumentMut::new()),
        Err(error) => Err(invalid(path, &error)),
    }
}

/// Returns the file's values as texts, by `section.name`; none if there is no file.
///
/// # Errors
/// `config_invalid` when it is not TOML of that shape.
pub fn read(path: &Path) -> Result<BTreeMap<String, String>, ApiError> {
    let mut values = BTreeMap::new();
    for (section, item) in document(path)?.iter() {
        let table = item
            .as_table_like()
            .ok_or_else(|| invalid(path, &format!("`{section}` stands outside a section")))?;
        for (name, item) in table.iter() {
            let key = format!("{section}.{name}");
            let text = match item.as_value() {
                Some(Value::String(text)) => text.value().clone(),
                Some(Value::Integer(number)) => number.value().to_string(),
                Some(Value::Boolean(flag)) => flag.value().to_string(),
                _ => return Err(invalid(path, &format!("`{key}` is no text, number or boolean"))),
            };
            values.insert(key, text);
        }
    }
    Ok(values)
}

/// Writes one value, or removes it with `None`. The file changes whole or not at all.
///
/// # Errors
/// `config_invalid` when the file cannot be read or written.
pub fn write(path: &Path, key: &str, text: Option<&str>) -> Result<(), ApiError> {
    let mut document = document(path)?;
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    let table = document.entry(section).or_insert(Item::Table(Table::new()));
    let table = table.as_table_like_mut().ok_or_else(|| invalid(path, &"a section is no table"))?;
    match text {
        Some(text) => {
            table.insert(name, Item::Value(value(text)));
        }
        None => {
            table.remove(name);
        }
    }
    let failed = |error: io::Error| invalid(path, &error);
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    io::Write::write_all(&mut file, document.to_string().as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn value(text: &str) -> Value {
    match (text.parse::<i64>(), text.parse::<bool>()) {
        (Ok(number), _) => number.into(),
        (_, Ok(flag)) => flag.into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_keep_comments_and_other_keys() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        assert!(read(&path).unwrap().is_empty());
        std::fs::write(&path, "# mine\n[daemon]\nlog = \"info\" # quiet\n").unwrap();
        write(&path, "limits.max_parked", Some("4")).unwrap();
        write(&path, "daemon.log", Some("debug")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# mine\n") && text.contains("max_parked = 4"), "{text}");
        let values = read(&path).unwrap();
        assert_eq!(values["daemon.log"], "debug");
        write(&path, "daemon.log", None).unwrap();
        assert!(!read(&path).unwrap().contains_key("daemon.log"));
    }

    #[test]
    fn files_of_another_shape_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        for text in ["log = 1", "[daemon", "[daemon]\nlog = [1]", "[daemon.log]\na = 1", "\u{0}"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path).unwrap_err().code, ErrorCode::ConfigInvalid, "{text}");
        }
        std::fs::write(&path, b"\xff").unwrap();
        assert!(read(&path).is_err());
    }
}
