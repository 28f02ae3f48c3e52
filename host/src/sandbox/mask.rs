//! What a plugin's settings were filled in with: never shown, whatever the plugin makes of it.

use crate::telemetry::Secret;

/// Shorter texts stand in ordinary words, and hiding those would hide the error.
const CHARACTERS_MIN: usize = 6;

/// Replaces what was filled in by `…`.
#[derive(Clone, Default)]
pub(super) struct Mask(Vec<String>);

impl Mask {
    /// Each text, and each line of it: a file may hold many patterns, and an error names one.
    pub(super) fn new(filled: &[Secret]) -> Mask {
        let mut hidden = Vec::new();
        for text in filled.iter().map(Secret::expose) {
            for part in text.lines().chain([text]).map(str::trim) {
                // As it is, and as a plugin's language quotes it.
                let quoted = serde_json::Value::from(part).to_string();
                let quoted = quoted.trim_matches('"').to_owned();
                hidden.extend([part.to_owned(), quoted, part.escape_debug().to_string()]);
            }
        }
        hidden.retain(|part| part.chars().count() >= CHARACTERS_MIN);
        // The longest first: a part of it may be hidden by itself.
        hidden.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        hidden.dedup();
        Mask(hidden)
    }

    pub(super) fn apply(&self, text: &str) -> String {
        let mut shown = text.to_owned();
        for hidden in self.0.iter().filter(|hidden| text.contains(hidden.as_str())) {
            shown = shown.replace(hidden, "…");
        }
        shown
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_filled_in_is_hidden_in_any_form() {
        let check = |filled: &[&str], text: &str, expected: &str| {
            let filled: Vec<Secret> = filled.iter().map(|text| Secret::new(*text)).collect();
            assert_eq!(Mask::new(&filled).apply(text), expected, "{text}");
        };
        check(&["hunter2secret"], "no pattern is called `hunter2secret`", "no pattern is called `…`");
        check(&["hunter2secret"], "no pattern", "no pattern");
        check(&["first line\nsecond line\n"], "`second line` is no pattern", "`…` is no pattern");
        check(&["a\"quoted\\one"], r#"`a\"quoted\\one` and `a"quoted\one`"#, "`…` and `…`");
        check(&["secret", "secrets of two"], "secrets of two, secret", "…, …");
        check(&["short"], "short", "short");
        check(&[], "anything", "anything");
    }
}
