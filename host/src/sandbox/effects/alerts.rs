//! Alerts of a call, made to fit: a text of any length has an answer, and a key is one key however often it is raised.

use super::super::mask::Mask;
use sha2::{Digest, Sha256};

/// Firings and resolutions of one call: a person reads fewer.
const CALL_ALERTS_MAX: usize = 32;
/// Keys of alerts and series.
const KEY_BYTES_MAX: usize = 256;
const TITLE_BYTES_MAX: usize = 256;
/// Four messages of Telegram; more is no message.
const TEXT_BYTES_MAX: usize = 16 << 10;
const LABELS_MAX: usize = 16;
const LABEL_NAME_BYTES_MAX: usize = 64;
const LABEL_VALUE_BYTES_MAX: usize = 256;

/// What a plugin wants people to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlertEffect {
    Fire(Alert),
    /// By key.
    Resolve(String),
}

/// Its texts are cut and escaped: one line each, but for `text`, which may have line breaks and tabs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    pub key: String,
    pub severity: AlertSeverity,
    pub title: String,
    pub text: String,
    /// How many events this firing adds.
    pub count: u32,
    pub labels: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertSeverity {
    Info,
    Warning,
    Critical,
}

impl AlertEffect {
    pub fn key(&self) -> &str {
        match self {
            AlertEffect::Fire(alert) => &alert.key,
            AlertEffect::Resolve(key) => key,
        }
    }

    fn fitted(self, key: String, mask: &Mask) -> AlertEffect {
        match self {
            AlertEffect::Fire(alert) => AlertEffect::Fire(alert.fitted(key, mask)),
            AlertEffect::Resolve(_) => AlertEffect::Resolve(key),
        }
    }
}

impl Alert {
    fn fitted(self, key: String, mask: &Mask) -> Alert {
        // Before it is cut: half a secret tells enough.
        let line = |text: &str, bytes_max| escaped(&mask.apply(text), bytes_max, |_| false);
        let label = |(name, value): &(String, String)| {
            (line(name, LABEL_NAME_BYTES_MAX), line(value, LABEL_VALUE_BYTES_MAX))
        };
        Alert {
            key,
            severity: self.severity,
            title: line(&self.title, TITLE_BYTES_MAX),
            text: escaped(&mask.apply(&self.text), TEXT_BYTES_MAX, |kept| matches!(kept, '\n' | '\t')),
            count: self.count,
            labels: self.labels.iter().take(LABELS_MAX).map(label).collect(),
        }
    }

    /// What a later firing says holds, and both count.
    fn add(&mut self, later: Alert) {
        let count = self.count.saturating_add(later.count);
        *self = Alert { count, ..later };
    }
}

/// Adds what was raised later. A key has one firing, with the sum of its counts and what was said last; of a firing and
/// a resolution the later one holds.
pub(super) fn raise(raised: &mut Vec<AlertEffect>, what: AlertEffect) {
    let alert = match what {
        AlertEffect::Fire(alert) => alert,
        AlertEffect::Resolve(key) => {
            let last = raised.iter().rfind(|one| one.key() == key);
            if !matches!(last, Some(AlertEffect::Resolve(_))) {
                raised.push(AlertEffect::Resolve(key));
            }
            return;
        }
    };
    let is_fired = |one: &AlertEffect| matches!(one, AlertEffect::Fire(known) if known.key == alert.key);
    let Some(at) = raised.iter().position(is_fired) else {
        return raised.push(AlertEffect::Fire(alert));
    };
    // It was resolved in between, and is not over.
    if let Some(later) = raised[at + 1..].iter().position(|one| one.key() == alert.key) {
        raised.remove(at + 1 + later);
    }
    if let AlertEffect::Fire(known) = &mut raised[at] {
        known.add(alert);
    }
}

/// The same within one call, where there is room for so many keys: `false` if there is none.
pub(super) fn raise_within_call(raised: &mut Vec<AlertEffect>, what: AlertEffect, mask: &Mask) -> bool {
    let key = fitted_key(&mask.apply(what.key()));
    if raised.len() >= CALL_ALERTS_MAX && !raised.iter().any(|known| known.key() == key) {
        return false;
    }
    raise(raised, what.fitted(key, mask));
    true
}

/// A key of 1 to 256 bytes of printable text, as it is; a longer one is cut and gets a hash, so that it differs from
/// others that begin so.
pub(in crate::sandbox) fn fitted_key(key: &str) -> String {
    let line = escaped(key, KEY_BYTES_MAX, |_| false);
    if line.len() <= KEY_BYTES_MAX {
        return line;
    }
    let hash: String = Sha256::digest(key)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let end = line.floor_char_boundary(KEY_BYTES_MAX - 1 - hash.len());
    format!("{}#{hash}", &line[..end])
}

/// Without characters that move or hide text where it is shown. What is cut ends in `…`, beyond its bytes.
fn escaped(text: &str, bytes_max: usize, is_kept: impl Fn(char) -> bool) -> String {
    let mut kept = String::with_capacity(text.len().min(bytes_max) + 3);
    for character in text.chars() {
        let start = kept.len();
        match is_harmful(character) && !is_kept(character) {
            true => kept.extend(character.escape_default()),
            false => kept.push(character),
        }
        if kept.len() > bytes_max {
            kept.truncate(start);
            kept.push('…');
            break;
        }
    }
    kept
}

/// Control characters, and those that turn the direction of the text after them.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(key: &str, count: u32, title: &str) -> Alert {
        let (key, title) = (key.into(), title.into());
        Alert { key, severity: AlertSeverity::Warning, title, text: String::new(), count, labels: vec![] }
    }

    /// `a+2` fires `a` with 2 events, `a-` resolves it.
    fn raised(words: &str) -> String {
        let mut all = Vec::new();
        for word in words.split_whitespace() {
            let what = match word.split_once('+') {
                Some((key, count)) => AlertEffect::Fire(alert(key, count.parse().unwrap(), word)),
                None => AlertEffect::Resolve(word.trim_end_matches('-').into()),
            };
            raise(&mut all, what);
        }
        let word = |one: &AlertEffect| match one {
            AlertEffect::Fire(alert) => format!("{}+{}", alert.key, alert.count),
            AlertEffect::Resolve(key) => format!("{key}-"),
        };
        all.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn firings_of_one_key_become_one_and_the_last_word_holds() {
        let check = |words, left| assert_eq!(raised(words), left, "{words}");
        check("a+1 b+2 a+3", "a+4 b+2");
        check("a+1 a-", "a+1 a-");
        check("a+1 a- a-", "a+1 a-");
        check("a+1 a- b- a+2", "a+3 b-");
        check("a- a+1", "a- a+1");
        check("a- a+1 a- a+2 a- a-", "a- a+3 a-");
        check("a+4294967295 a+1", "a+4294967295");
        check("", "");
    }

    #[test]
    fn what_the_last_firing_says_holds() {
        let mut all = Vec::new();
        raise(&mut all, AlertEffect::Fire(alert("a", 1, "first")));
        raise(&mut all, AlertEffect::Fire(alert("a", 1, "second")));
        assert_eq!(all, [AlertEffect::Fire(alert("a", 2, "second"))]);
    }

    #[test]
    fn a_call_has_room_for_a_number_of_keys_and_for_any_number_of_firings() {
        let mut all = Vec::new();
        let mut fire = |key: String| {
            raise_within_call(&mut all, AlertEffect::Fire(alert(&key, 1, "")), &Mask::default())
        };
        assert_eq!((0..10_000).filter(|key| fire(key.to_string())).count(), 32);
        assert_eq!((0..10_000).filter(|_| fire("7".into())).count(), 10_000);
        let AlertEffect::Fire(seventh) = &all[7] else { panic!("{:?}", all[7]) };
        assert_eq!((all.len(), seventh.count), (32, 10_001));
    }

    #[test]
    fn texts_of_any_length_are_cut_where_a_character_ends() {
        let long = Alert {
            key: "k".into(),
            severity: AlertSeverity::Critical,
            title: "é".repeat(1000),
            text: "漢".repeat(1 << 20),
            count: 1,
            labels: vec![("n".repeat(100), "v".repeat(1 << 20)); 20],
        };
        let AlertEffect::Fire(alert) = AlertEffect::Fire(long).fitted("k".into(), &Mask::default()) else {
            unreachable!()
        };
        assert_eq!(alert.title, "é".repeat(128) + "…");
        assert_eq!(alert.text, "漢".repeat(5461) + "…");
        assert_eq!(alert.labels, vec![("n".repeat(64) + "…", "v".repeat(256) + "…"); 16]);
    }

    #[test]
    fn a_text_keeps_its_lines_and_a_title_is_one() {
        let harm = "a\r\n\tb\u{1b}[2J\u{202e}नमस्ते 👨\u{200d}👩";
        let fitted = Alert { text: harm.into(), ..alert("k", 1, harm) };
        let AlertEffect::Fire(fitted) = AlertEffect::Fire(fitted).fitted("k".into(), &Mask::default()) else {
            unreachable!()
        };
        assert_eq!(fitted.title, "a\\r\\n\\tb\\u{1b}[2J\\u{202e}नमस्ते 👨\u{200d}👩");
        assert_eq!(fitted.text, "a\\r\n\tb\\u{1b}[2J\\u{202e}नमस्ते 👨\u{200d}👩");
    }

    #[test]
    fn long_keys_that_differ_stay_different() {
        let check = |key: &str, fitted: &str| assert_eq!(fitted_key(key), fitted);
        check("errors/checkout", "errors/checkout");
        check(&"k".repeat(256), &"k".repeat(256));
        check("a\nb", "a\\nb");
        let (one, two) = (fitted_key(&("é".repeat(200) + "1")), fitted_key(&("é".repeat(200) + "2")));
        assert!(one.len() <= 256 && one.starts_with(&"é".repeat(119)), "{one}");
        assert_ne!(one, two);
    }
}
