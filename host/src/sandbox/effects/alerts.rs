//! Alerts of a call, made to fit: a text of any length has an answer, and a key is one key however often it is raised.

use super::super::mask::Mask;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Alerts that one call may fire or resolve: as many as a tenant has series, since a plugin may resolve what is well
/// without knowing whether it was ever fired.
const CALL_KEYS_MAX: usize = 1024;
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

/// What was raised, by key: however often a key is raised, little is kept of it, and counts are exact.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Raised {
    of_keys: BTreeMap<String, OfKey>,
    fired: usize,
}

#[derive(Debug, Default)]
struct OfKey {
    /// What was open before is over.
    is_resolved_before: bool,
    fired: Option<Alert>,
    /// The last word.
    is_resolved_after: bool,
}

impl Raised {
    /// A key has one firing, with the sum of its counts and what was said last; of a firing and a resolution the later one
    /// holds.
    pub(super) fn raise(&mut self, what: AlertEffect) {
        match what {
            AlertEffect::Resolve(key) => {
                let of_key = self.of_keys.entry(key).or_default();
                match of_key.fired {
                    Some(_) => of_key.is_resolved_after = true,
                    None => of_key.is_resolved_before = true,
                }
            }
            AlertEffect::Fire(alert) => {
                let of_key = self.of_keys.entry(alert.key.clone()).or_default();
                // If it was resolved in between, it is not over.
                of_key.is_resolved_after = false;
                match &mut of_key.fired {
                    Some(known) => known.add(alert),
                    None => {
                        of_key.fired = Some(alert);
                        self.fired += 1;
                    }
                }
            }
        }
    }

    /// The same within one call, which may fire so many keys: `false` if there is no room.
    pub(in crate::sandbox) fn raise_within_call(
        &mut self,
        what: AlertEffect,
        mask: &Mask,
        fired_max: usize,
    ) -> bool {
        let key = fitted_key(mask.apply(what.key()));
        let of_key = self.of_keys.get(&key);
        let has_room = match &what {
            AlertEffect::Fire(_) => {
                self.fired < fired_max || of_key.is_some_and(|known| known.fired.is_some())
            }
            AlertEffect::Resolve(_) => self.of_keys.len() < CALL_KEYS_MAX || of_key.is_some(),
        };
        if has_room {
            self.raise(what.fitted(key, mask));
        }
        has_room
    }

    /// By key; what belongs to one key, in the order in which it holds.
    pub(in crate::sandbox) fn into_effects(self) -> Vec<AlertEffect> {
        let effects = |(key, of_key): (String, OfKey)| {
            let before = of_key.is_resolved_before.then(|| AlertEffect::Resolve(key.clone()));
            let after = of_key.is_resolved_after.then_some(AlertEffect::Resolve(key));
            before.into_iter().chain(of_key.fired.map(AlertEffect::Fire)).chain(after)
        };
        self.of_keys.into_iter().flat_map(effects).collect()
    }
}

/// A key of 1 to 256 bytes of printable text, as it is; a longer one is cut and gets a hash, so that it differs from
/// others that begin so.
pub(in crate::sandbox) fn fitted_key(key: String) -> String {
    if key.len() <= KEY_BYTES_MAX && !key.contains(is_harmful) {
        return key;
    }
    let line = escaped(&key, KEY_BYTES_MAX, |_| false);
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
        let mut all = Raised::default();
        for word in words.split_whitespace() {
            let what = match word.split_once('+') {
                Some((key, count)) => AlertEffect::Fire(alert(key, count.parse().unwrap(), word)),
                None => AlertEffect::Resolve(word.trim_end_matches('-').into()),
            };
            all.raise(what);
        }
        let word = |one: &AlertEffect| match one {
            AlertEffect::Fire(alert) => format!("{}+{}", alert.key, alert.count),
            AlertEffect::Resolve(key) => format!("{key}-"),
        };
        all.into_effects().iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn firings_of_one_key_become_one_and_the_last_word_holds() {
        let check = |words, left| assert_eq!(raised(words), left, "{words}");
        check("a+1 b+2 a+3", "a+4 b+2");
        check("a+1 a-", "a+1 a-");
        check("a+1 a- a-", "a+1 a-");
        check("b- a+1 a- a+2", "a+3 b-");
        check("a- a+1", "a- a+1");
        check("a- a+1 a- a+2 a- a-", "a- a+3 a-");
        check("a+4294967295 a+1", "a+4294967295");
        check("", "");
    }

    #[test]
    fn what_the_last_firing_says_holds() {
        let mut all = Raised::default();
        all.raise(AlertEffect::Fire(alert("a", 1, "first")));
        all.raise(AlertEffect::Fire(alert("a", 1, "second")));
        assert_eq!(all.into_effects(), [AlertEffect::Fire(alert("a", 2, "second"))]);
    }

    #[test]
    fn a_call_has_room_for_a_number_of_keys_and_for_any_number_of_firings() {
        let mut all = Raised::default();
        let mut raise = |what| all.raise_within_call(what, &Mask::default(), 32);
        let fire = |key: usize| AlertEffect::Fire(alert(&key.to_string(), 1, ""));
        let resolve = |key: usize| AlertEffect::Resolve(key.to_string());
        assert_eq!((0..10_000).filter(|key| raise(fire(*key))).count(), 32);
        assert_eq!((0..10_000).filter(|_| raise(fire(7))).count(), 10_000);
        assert_eq!((0..10_000).filter(|key| raise(resolve(*key))).count(), 1024);
        assert!(!raise(fire(40)) && raise(fire(7)) && raise(resolve(7)) && !raise(resolve(2000)));
        let effects = all.into_effects();
        assert_eq!(effects.len(), 1024 + 32);
        let seventh: Vec<_> = effects.into_iter().filter(|what| what.key() == "7").collect();
        assert_eq!(seventh, [AlertEffect::Fire(alert("7", 10_002, "")), resolve(7)]);
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
        let check = |key: &str, fitted: &str| assert_eq!(fitted_key(key.into()), fitted);
        check("errors/checkout", "errors/checkout");
        check(&"k".repeat(256), &"k".repeat(256));
        check("a\nb", "a\\nb");
        let (one, two) = (fitted_key("é".repeat(200) + "1"), fitted_key("é".repeat(200) + "2"));
        assert!(one.len() <= 256 && one.starts_with(&"é".repeat(119)), "{one}");
        assert_ne!(one, two);
    }
}
