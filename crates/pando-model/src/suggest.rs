//! The nearest known word to a mistyped one.

/// Longest word that is compared; hostile input is not worth quadratic work.
const MAX_WORD_BYTES: usize = 64;

/// Returns the candidate that `word` was probably meant to be: one that it is a part of, or that
/// is at most a third of its letters away.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > MAX_WORD_BYTES {
        return None;
    }
    let normal = |text: &str| text.to_ascii_lowercase().replace(['-', '.', ' '], "_");
    let word = normal(word);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let distance = strsim::damerau_levenshtein(&word, &normal(candidate));
            let related =
                word.len() >= 3 && (candidate.starts_with(&word) || word.starts_with(candidate));
            let limit = (word.len().max(candidate.len()) / 3).max(1);
            (distance <= limit || related).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn mistyped_words_find_what_was_meant() {
        let known = ["name", "memory_mib", "timeout_s", "image"];
        let cases = [
            ("nmae", Some("name")),
            ("memory", Some("memory_mib")),
            ("memory-mib", Some("memory_mib")),
            ("timeout", Some("timeout_s")),
            ("colour", None),
            ("", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
    }
}
