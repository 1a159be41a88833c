//! Other tools' settings in YAML: one mapping of keys to single values. Read by the reader of
//! topologies, so that its limits hold.

use crate::error::{Place, TopologyError};
use crate::limits::Limits;
use crate::yaml::{self, Kind};

/// What a key has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Single {
    /// Nothing, or `null`.
    Nothing,
    /// A text, number or boolean, as it is written.
    Text(String),
    /// A list or a mapping.
    Several,
}

/// One key of the mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub key: String,
    /// Where its value is.
    pub place: Place,
    /// Its value.
    pub value: Single,
}

/// Returns the keys of the one mapping that `text` is, in its order; none if it is empty.
///
/// # Errors
/// The first thing that is no YAML or beyond `limits`, or that the text is no mapping.
pub fn settings(text: &str, limits: &Limits) -> Result<Vec<Setting>, TopologyError> {
    let Some(root) = yaml::document(text, limits)? else { return Ok(Vec::new()) };
    let Kind::Map(entries) = root.kind else {
        return Err(TopologyError {
            path: String::new(),
            place: root.place,
            message: "this is no mapping".to_owned(),
            fix: "write lines of `key: value`".to_owned(),
        });
    };
    let setting = |(key, value): (yaml::Key, yaml::Value)| Setting {
        key: key.text,
        place: value.place,
        value: match value.kind {
            Kind::Null => Single::Nothing,
            Kind::Scalar { text, .. } => Single::Text(text),
            Kind::List(_) | Kind::Map(_) => Single::Several,
        },
    };
    Ok(entries.into_iter().map(setting).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, Single)>, String> {
        settings(text, &Limits::default())
            .map(|settings| settings.into_iter().map(|one| (one.key, one.value)).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_mapping_of_single_values_is_read_as_it_is_written() {
        let text = "a: no\nb: 0x10\nc: ~\nd: 'x: y'\ne: [1]\nf: {g: 1}\n";
        let single = |text: &str| Single::Text(text.to_owned());
        let expected = [
            ("a", single("no")),
            ("b", single("0x10")),
            ("c", Single::Nothing),
            ("d", single("x: y")),
            ("e", Single::Several),
            ("f", Single::Several),
        ];
        assert_eq!(read(text), Ok(expected.map(|(key, value)| (key.to_owned(), value)).into()));
        for empty in ["", "# nothing\n", "---\n", "~"] {
            assert_eq!(read(empty), Ok(Vec::new()), "{empty:?}");
        }
    }

    #[test]
    fn what_is_no_mapping_or_a_bomb_is_refused() {
        let bomb: String = (1..40)
            .map(|n| {
                format!(
                    "k{n}: &k{n} [{0}, {0}]\n",
                    if n == 1 { "x".into() } else { format!("*k{}", n - 1) }
                )
            })
            .collect();
        for (text, why) in [
            ("- a", "no mapping"),
            ("word", "no mapping"),
            ("a: 1\na: 2", "there twice"),
            ("a: [", "not YAML"),
            (&"[".repeat(100), "nested"),
            (bomb.as_str(), "with its aliases"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
