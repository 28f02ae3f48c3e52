//! What the operator writes, checked.

use crate::patterns;
use serde::Deserialize;
use serde_json::Value;
use trommel_sdk::{Places, Signal};

/// The name of the secret that hashes are keyed with.
pub(crate) const SECRET: &str = "join";

pub(crate) struct Settings {
    pub(crate) patterns: Vec<Pattern>,
    /// The first whose pattern matches a key decides about its value.
    pub(crate) keys: Vec<KeyRule>,
    pub(crate) places: Places,
}

pub(crate) struct Pattern {
    pub(crate) name: String,
    pub(crate) regex: String,
    /// Whether a hit is a region that may hold cards.
    pub(crate) is_card: bool,
    pub(crate) action: Action,
}

/// What becomes of a match.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    Mask { text: String, keep_last: usize },
    Hash,
}

pub(crate) struct KeyRule {
    pub(crate) regex: String,
    pub(crate) action: KeyAction,
}

/// What becomes of a value by its key.
#[derive(Debug, PartialEq)]
pub(crate) enum KeyAction {
    Remove,
    Mask(String),
    Hash,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    patterns: Option<Vec<Value>>,
    keys: Option<Vec<Value>>,
    places: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPattern {
    name: String,
    regex: Option<String>,
    mask: Option<String>,
    #[serde(default)]
    keep_last: usize,
    #[serde(default, rename = "do")]
    action: WrittenAction,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    #[serde(rename = "match")]
    regex: String,
    #[serde(default, rename = "do")]
    action: WrittenAction,
    mask: Option<String>,
}

#[derive(Default, Deserialize, PartialEq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum WrittenAction {
    #[default]
    Mask,
    Remove,
    Hash,
}

pub(crate) fn parse(json: &str) -> Result<Settings, String> {
    let written: Written = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let patterns = match written.patterns {
        Some(entries) => numbered("patterns", entries, pattern)?,
        None => patterns::DEFAULT.iter().map(|name| named(name)).collect::<Result<_, _>>()?,
    };
    for (number, pattern) in patterns.iter().enumerate() {
        if patterns[..number].iter().any(|earlier| earlier.name == pattern.name) {
            return Err(format!("patterns: `{}` stands there twice", pattern.name));
        }
    }
    let keys = match written.keys {
        Some(entries) => numbered("keys", entries, key_rule)?,
        None => vec![default_keys()],
    };
    let places = written.places.map_or(Ok(Places::all()), places)?;
    Ok(Settings { patterns, keys, places })
}

/// Parses each entry of a list; an error says which it was.
fn numbered<T>(
    list: &str,
    entries: Vec<Value>,
    parse: impl Fn(Value) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let number = |(number, entry)| parse(entry).map_err(|error| format!("{list}[{number}]: {error}"));
    entries.into_iter().enumerate().map(number).collect()
}

fn pattern(entry: Value) -> Result<Pattern, String> {
    if let Value::String(name) = &entry {
        return named(name);
    }
    let written: WrittenPattern = serde_json::from_value(entry).map_err(|error| error.to_string())?;
    let (regex, is_card) = match written.regex {
        Some(_) if patterns::named(&written.name).is_some() => {
            return Err(format!(
                "`{}` is the name of a pattern that exists; choose another name",
                written.name
            ));
        }
        Some(regex) => (regex, false),
        None => (known(&written.name)?.into(), written.name == "card"),
    };
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if written.name.is_empty() || written.name.len() > 64 || !written.name.bytes().all(is_word) {
        return Err(format!("the name `{}` is not made of 1 to 64 of a-z, 0-9 and _", written.name));
    }
    let action = match written.action {
        WrittenAction::Remove => return Err("`do: remove` is for keys; a match takes `mask: \"\"`".into()),
        WrittenAction::Hash if written.mask.is_some() || written.keep_last > 0 => {
            return Err("`do: hash` takes neither `mask` nor `keep_last`".into());
        }
        WrittenAction::Hash => Action::Hash,
        WrittenAction::Mask => Action::Mask {
            text: written.mask.unwrap_or_else(|| format!("[{}]", written.name)),
            keep_last: written.keep_last,
        },
    };
    Ok(Pattern { name: written.name, regex, is_card, action })
}

fn named(name: &str) -> Result<Pattern, String> {
    let action = Action::Mask { text: format!("[{name}]"), keep_last: 0 };
    Ok(Pattern { name: name.into(), regex: known(name)?.into(), is_card: name == "card", action })
}

fn known(name: &str) -> Result<&'static str, String> {
    patterns::named(name).ok_or_else(|| {
        let names: Vec<&str> = patterns::NAMED.iter().map(|(name, _)| *name).collect();
        format!("no pattern is called `{name}`; there are {}, and your own with a `regex`", names.join(", "))
    })
}

fn key_rule(entry: Value) -> Result<KeyRule, String> {
    match &entry {
        Value::String(word) if word == "default" => return Ok(default_keys()),
        Value::String(word) => return Err(format!("`{word}` is neither `default` nor a rule with `match`")),
        _ => {}
    }
    let written: WrittenKey = serde_json::from_value(entry).map_err(|error| error.to_string())?;
    if written.mask.is_some() && written.action != WrittenAction::Mask {
        return Err("`mask` goes with `do: mask` only".into());
    }
    let action = match written.action {
        WrittenAction::Mask => KeyAction::Mask(written.mask.unwrap_or_else(|| "[redacted]".into())),
        WrittenAction::Remove => KeyAction::Remove,
        WrittenAction::Hash => KeyAction::Hash,
    };
    Ok(KeyRule { regex: written.regex, action })
}

fn default_keys() -> KeyRule {
    KeyRule { regex: patterns::SECRET_KEYS.into(), action: KeyAction::Mask("[redacted]".into()) }
}

fn places(words: Vec<String>) -> Result<Places, String> {
    words.iter().try_fold(Places::empty(), |places, word| {
        let place = match word.as_str() {
            "body" => Places::BODY,
            "name" => Places::NAME,
            "event-name" => Places::EVENT_NAME,
            "description" => Places::DESCRIPTION,
            "item-attributes" => Places::ITEM_ATTRIBUTES,
            "event-attributes" => Places::EVENT_ATTRIBUTES,
            "metric-attributes" => Places::METRIC_ATTRIBUTES,
            "scope-attributes" => Places::SCOPE_ATTRIBUTES,
            "resource-attributes" => Places::RESOURCE_ATTRIBUTES,
            _ => {
                return Err(format!(
                    "places: `{word}` is none of body, name, event-name, description, item-attributes, \
                     event-attributes, metric-attributes, scope-attributes, resource-attributes"
                ));
            }
        };
        Ok(places | place)
    })
}

impl Settings {
    /// Where it looks in a batch of this signal. The name of a metric is not looked at: it is written by a
    /// programmer, and a changed one is another metric.
    pub(crate) fn places_of(&self, signal: Signal) -> Places {
        let absent = match signal {
            Signal::Logs => {
                Places::EVENT_NAME
                    | Places::EVENT_ATTRIBUTES
                    | Places::METRIC_ATTRIBUTES
                    | Places::DESCRIPTION
            }
            Signal::Traces => Places::BODY | Places::METRIC_ATTRIBUTES,
            Signal::Metrics => Places::BODY | Places::NAME | Places::EVENT_NAME,
        };
        self.places - absent
    }
}

impl Pattern {
    /// What stands in the place of a match of which nothing is kept.
    pub(crate) fn mask(&self) -> &str {
        match &self.action {
            Action::Mask { text, .. } => text,
            Action::Hash => "",
        }
    }

    /// The mask and the last letters and digits of a match; of a match with less than twice as many, nothing
    /// is kept, because too little would be hidden.
    pub(crate) fn masked(&self, found: &str) -> String {
        let Action::Mask { text, keep_last } = &self.action else { return String::new() };
        let mut mask = text.clone();
        let shown: Vec<char> = found.chars().filter(|char| char.is_alphanumeric()).collect();
        if shown.len() >= keep_last.saturating_mul(2) {
            mask.extend(&shown[shown.len() - keep_last..]);
        }
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> String {
        parse(json).err().unwrap()
    }

    #[test]
    fn nothing_written_means_the_defaults() {
        let settings = parse("{}").unwrap();
        let names: Vec<&str> = settings.patterns.iter().map(|pattern| pattern.name.as_str()).collect();
        assert_eq!(names, patterns::DEFAULT);
        assert_eq!(settings.keys.len(), 1);
        assert!(settings.places == Places::all());
    }

    #[test]
    fn names_and_own_patterns_stand_in_one_list() {
        let settings = parse(
            r#"{"patterns": ["email", {"name": "card", "mask": "****", "keep_last": 4},
                             {"name": "order", "regex": "ORD-[0-9]+", "do": "hash"}]}"#,
        )
        .unwrap();
        let [email, card, order] = &settings.patterns[..] else { panic!() };
        assert_eq!(email.action, Action::Mask { text: "[email]".into(), keep_last: 0 });
        assert_eq!(card.action, Action::Mask { text: "****".into(), keep_last: 4 });
        assert!(card.is_card && !order.is_card);
        assert_eq!((order.regex.as_str(), &order.action), ("ORD-[0-9]+", &Action::Hash));
    }

    #[test]
    fn rules_for_keys_are_read_in_order() {
        let settings = parse(
            r#"{"keys": [{"match": "user\\.id", "do": "hash"}, {"match": "x", "do": "remove"},
                         {"match": "y", "mask": "-"}, "default"]}"#,
        )
        .unwrap();
        let actions: Vec<&KeyAction> = settings.keys.iter().map(|rule| &rule.action).collect();
        let (dash, redacted) = (KeyAction::Mask("-".into()), KeyAction::Mask("[redacted]".into()));
        assert_eq!(actions, [&KeyAction::Hash, &KeyAction::Remove, &dash, &redacted]);
    }

    #[test]
    fn the_last_digits_are_kept_of_what_is_long_enough() {
        let settings = parse(r#"{"patterns": [{"name": "card", "mask": "****", "keep_last": 4}]}"#).unwrap();
        let masked = |found| settings.patterns[0].masked(found);
        assert_eq!(masked("4111 1111 1111 12-34"), "****1234");
        assert_eq!(masked("12345678"), "****5678");
        assert_eq!(masked("1234567"), "****");
        assert_eq!(masked("äöüßäöüß"), "****äöüß");
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let cases = [
            (r#"{"pattern": []}"#, "unknown field `pattern`"),
            (r#"{"patterns": ["email", "emial"]}"#, "patterns[1]: no pattern is called `emial`"),
            (r#"{"patterns": ["email", "email"]}"#, "`email` stands there twice"),
            (r#"{"patterns": [{"name": "email", "regex": "x"}]}"#, "choose another name"),
            (r#"{"patterns": [{"name": "A b", "regex": "x"}]}"#, "the name `A b`"),
            (r#"{"patterns": [{"name": "email", "do": "remove"}]}"#, "`do: remove` is for keys"),
            (r#"{"patterns": [{"name": "email", "do": "hash", "mask": "x"}]}"#, "takes neither"),
            (r#"{"keys": [{"match": "x", "do": "hide"}]}"#, "keys[0]: unknown variant `hide`"),
            (r#"{"keys": ["defaults"]}"#, "neither `default`"),
            (r#"{"keys": [{"match": "x", "do": "hash", "mask": "y"}]}"#, "`mask` goes with"),
            (r#"{"places": ["bodies"]}"#, "places: `bodies` is none of"),
            ("7", "invalid type"),
        ];
        for (json, expected) in cases {
            let message = refused(json);
            assert!(message.contains(expected), "{json}: {message}");
        }
    }

    #[test]
    fn the_name_of_a_metric_is_left_alone() {
        let settings = parse("{}").unwrap();
        assert!(!settings.places_of(Signal::Metrics).contains(Places::NAME));
        assert!(settings.places_of(Signal::Metrics).contains(Places::DESCRIPTION | Places::EVENT_ATTRIBUTES));
        assert!(settings.places_of(Signal::Traces).contains(Places::NAME | Places::EVENT_NAME));
        assert!(settings.places_of(Signal::Logs).contains(Places::BODY | Places::NAME));
    }
}
