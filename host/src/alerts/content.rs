//! What an incident says, cut to what is kept.
//!
//! Plugins write it, and behind them whoever sends records: every part has a bound, and what was cut ends with `…`.

use sha2::{Digest, Sha256};

/// Telegram shows 4,096 UTF-16 units at most: as bytes of most scripts that is no more than this.
const TEXT_BYTES_MAX: usize = 8 << 10;
/// A line.
const TITLE_BYTES_MAX: usize = 256;
const KEY_BYTES_MAX: usize = 256;
/// More than anybody reads, and enough for what dashboards and routers need.
const LABELS_MAX: usize = 32;
const LABEL_NAME_BYTES_MAX: usize = 128;
const LABEL_VALUE_BYTES_MAX: usize = 256;

/// Title, text and labels of an incident, within their bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) title: Box<str>,
    pub(super) text: Box<str>,
    pub(super) labels: Box<[(Box<str>, Box<str>)]>,
    /// Labels beyond the bound.
    pub(super) labels_left_out: usize,
}

impl Content {
    pub(super) fn new(title: String, text: String, labels: Vec<(String, String)>) -> Content {
        let labels_left_out = labels.len().saturating_sub(LABELS_MAX);
        let labels = labels.into_iter().take(LABELS_MAX);
        let labels =
            labels.map(|(name, value)| (cut(name, LABEL_NAME_BYTES_MAX), cut(value, LABEL_VALUE_BYTES_MAX)));
        Content {
            title: cut(title, TITLE_BYTES_MAX),
            text: cut(text, TEXT_BYTES_MAX),
            labels: labels.collect(),
            labels_left_out,
        }
    }

    /// What it takes of the memory.
    pub(super) fn bytes(&self) -> usize {
        // A label is two pointers with their lengths, beside its texts.
        let labels = self.labels.iter().map(|(name, value)| name.len() + value.len() + 32);
        self.title.len() + self.text.len() + labels.sum::<usize>()
    }
}

/// The text itself, or its head and `…`: never more than `bytes_max`, and nothing of a larger one stays allocated.
pub(super) fn cut(text: String, bytes_max: usize) -> Box<str> {
    if text.len() <= bytes_max {
        return text.into_boxed_str();
    }
    let head = &text[..text.floor_char_boundary(bytes_max.saturating_sub('…'.len_utf8()))];
    format!("{head}…").into_boxed_str()
}

/// A key that is too long to keep is its head and its hash: two of them stay two.
pub(super) fn cut_key(key: String) -> Box<str> {
    if key.len() <= KEY_BYTES_MAX {
        return key.into_boxed_str();
    }
    let hash = hex(&Sha256::digest(key.as_bytes())[..16]);
    format!("{}…{hash}", &key[..key.floor_char_boundary(KEY_BYTES_MAX - 35)]).into_boxed_str()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_kept_as_it_is_and_what_does_not_ends_with_dots() {
        for (text, bytes_max, expected) in [
            ("", 4, ""),
            ("abcd", 4, "abcd"),
            ("abcde", 4, "a…"),
            ("aéé", 5, "aéé"),
            ("aééb", 5, "a…"),
            ("🔥🔥", 7, "🔥…"),
            ("🔥🔥", 6, "…"),
        ] {
            assert_eq!(&*cut(text.into(), bytes_max), expected, "{text} in {bytes_max}");
        }
    }

    #[test]
    fn a_megabyte_in_each_part_is_kept_within_twenty_five_kilobytes() {
        let long = || "<b>".repeat(350_000);
        let content = Content::new(long(), long(), (0..1000).map(|_| (long(), long())).collect());
        assert!(content.bytes() <= 25 << 10, "{}", content.bytes());
        assert_eq!((content.labels.len(), content.labels_left_out), (32, 968));
        assert!(content.text.ends_with('…') && content.title.ends_with('…'));
    }

    #[test]
    fn long_keys_stay_apart() {
        let key = |end: &str| cut_key("k".repeat(10_000) + end);
        assert_ne!(key("a"), key("b"));
        assert_eq!(key("a"), key("a"));
        assert!(key("a").len() <= KEY_BYTES_MAX);
        assert_eq!(&*cut_key("errors:shop".into()), "errors:shop");
    }
}
