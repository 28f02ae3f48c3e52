//! What a plugin may read and write: the manifest's words as a table that every host call looks into.
//!
//! A word is a fixed name (`body`, `severity`, …) or a level and a key (`item:http.method`); a key may end in `*`.
//! Words are checked once, when the plugin is loaded.

use crate::batch::{Level, Places};
use std::collections::BTreeSet;

/// The words that are no attributes. The order has no meaning.
const NAMES: [&str; 15] = [
    "body",
    "name",
    "event-name",
    "description",
    "severity",
    "kind",
    "status",
    "time",
    "number",
    "trace-id",
    "span-id",
    "trace-state",
    "raw",
    "drop",
    "route",
];

const LEVELS: [(&str, Level); 5] = [
    ("item", Level::Item),
    ("event", Level::Event),
    ("metric", Level::Metric),
    ("scope", Level::Scope),
    ("resource", Level::Resource),
];

/// The places of the WIT, bit by bit, as the words that open them.
const PLACES: [(Places, Need<'static>); 9] = [
    (Places::BODY, Need::Name("body")),
    (Places::NAME, Need::Name("name")),
    (Places::EVENT_NAME, Need::Name("event-name")),
    (Places::DESCRIPTION, Need::Name("description")),
    (Places::ITEM_ATTRIBUTES, Need::All(Level::Item)),
    (Places::EVENT_ATTRIBUTES, Need::All(Level::Event)),
    (Places::METRIC_ATTRIBUTES, Need::All(Level::Metric)),
    (Places::SCOPE_ATTRIBUTES, Need::All(Level::Scope)),
    (Places::RESOURCE_ATTRIBUTES, Need::All(Level::Resource)),
];

/// What a host call needs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need<'a> {
    Name(&'static str),
    /// One attribute.
    Key(Level, &'a str),
    /// All attributes of a level.
    All(Level),
}

/// One list of words: `reads` or `writes`.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    names: BTreeSet<&'static str>,
    keys: Vec<(Level, Key)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Exact(String),
    Prefix(String),
}

impl Words {
    /// The error names the word. `may_edit`: the list is `writes`, which knows `drop` and `route`.
    pub(super) fn parse(words: &[String], may_edit: bool) -> Result<Words, String> {
        let mut parsed = Words::default();
        for word in words {
            match word.split_once(':') {
                Some((level, key)) => {
                    parsed.keys.push(attribute(level, key).ok_or_else(|| wrong(word, may_edit))?)
                }
                None => {
                    let name = NAMES.into_iter().find(|name| name == word);
                    let name = name.filter(|name| may_edit || !["drop", "route"].contains(name));
                    parsed.names.insert(name.ok_or_else(|| wrong(word, may_edit))?);
                }
            }
        }
        Ok(parsed)
    }

    /// Whether a call may have what it needs; the error is the word that is missing.
    pub(super) fn check(&self, need: Need<'_>) -> Result<(), String> {
        let is_open = match need {
            Need::Name(name) => self.names.contains(name),
            Need::Key(level, key) => self.keys.iter().any(|(of, word)| *of == level && word.opens(key)),
            Need::All(level) => {
                self.keys.iter().any(|(of, word)| *of == level && *word == Key::Prefix(String::new()))
            }
        };
        if is_open { Ok(()) } else { Err(need.word()) }
    }

    /// The same for a set of places, each as a whole.
    pub(super) fn check_places(&self, places: Places) -> Result<(), String> {
        for (place, need) in PLACES {
            if places.0 & place.0 != 0 {
                self.check(need)?;
            }
        }
        Ok(())
    }

    /// The words of `asked` that these do not cover.
    pub(super) fn missing(&self, asked: &Words) -> Vec<String> {
        let names = asked.names.difference(&self.names).map(|name| name.to_string());
        let keys = asked
            .keys
            .iter()
            .filter(|(level, key)| !self.keys.iter().any(|(of, word)| of == level && word.covers(key)));
        names.chain(keys.map(|(level, key)| format!("{}:{}", level_name(*level), key.text()))).collect()
    }
}

impl Need<'_> {
    fn word(self) -> String {
        match self {
            Need::Name(name) => name.into(),
            Need::Key(level, key) => format!("{}:{}", level_name(level), super::logs::printable(key, 128)),
            Need::All(level) => format!("{}:*", level_name(level)),
        }
    }
}

impl Key {
    fn opens(&self, key: &str) -> bool {
        match self {
            Key::Exact(exact) => exact == key,
            Key::Prefix(prefix) => key.starts_with(prefix),
        }
    }

    fn covers(&self, other: &Key) -> bool {
        match (self, other) {
            (Key::Exact(exact), Key::Exact(key)) => exact == key,
            (Key::Exact(_), Key::Prefix(_)) => false,
            (Key::Prefix(prefix), Key::Exact(key) | Key::Prefix(key)) => key.starts_with(prefix),
        }
    }

    fn text(&self) -> String {
        match self {
            Key::Exact(key) => key.clone(),
            Key::Prefix(prefix) => format!("{prefix}*"),
        }
    }
}

fn attribute(level: &str, key: &str) -> Option<(Level, Key)> {
    let (_, level) = LEVELS.into_iter().find(|(name, _)| *name == level)?;
    let key = match key.strip_suffix('*') {
        Some(prefix) => Key::Prefix(prefix.into()),
        None => Key::Exact(key.into()),
    };
    let is_right = match &key {
        Key::Exact(exact) => !exact.is_empty() && !exact.contains('*'),
        Key::Prefix(prefix) => !prefix.contains('*'),
    };
    is_right.then_some((level, key))
}

fn level_name(level: Level) -> &'static str {
    LEVELS.into_iter().find(|(_, of)| *of == level).expect("every level has a name").0
}

fn wrong(word: &str, may_edit: bool) -> String {
    let names = if may_edit { &NAMES[..] } else { &NAMES[..13] };
    format!(
        "`{}` is no right: use {}, or an attribute such as `item:http.method`, `resource:*` (levels: item, event, metric, scope, resource)",
        super::logs::printable(word, 128),
        names.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Words {
        Words::parse(&text.split_whitespace().map(String::from).collect::<Vec<_>>(), true).unwrap()
    }

    #[test]
    fn a_word_opens_what_it_names_and_nothing_else() {
        let may = words("body item:http.* resource:service.name scope:* drop");
        let key = |level, key| may.check(Need::Key(level, key));
        assert_eq!(may.check(Need::Name("body")), Ok(()));
        assert_eq!(may.check(Need::Name("route")), Err("route".into()));
        assert_eq!(key(Level::Item, "http.method"), Ok(()));
        assert_eq!(key(Level::Item, "user"), Err("item:user".into()));
        assert_eq!(key(Level::Event, "http.method"), Err("event:http.method".into()));
        assert_eq!(key(Level::Resource, "service.name"), Ok(()));
        assert_eq!(key(Level::Resource, "service.namespace"), Err("resource:service.namespace".into()));
        assert_eq!(may.check(Need::All(Level::Scope)), Ok(()));
        assert_eq!(may.check(Need::All(Level::Item)), Err("item:*".into()));
        assert_eq!(may.check_places(Places(Places::BODY.0 | Places::SCOPE_ATTRIBUTES.0)), Ok(()));
        assert_eq!(may.check_places(Places(511)), Err("name".into()));
    }

    #[test]
    fn a_grant_covers_the_narrower_words_only() {
        let check = |grant, asked, missing: &[&str]| {
            assert_eq!(words(grant).missing(&words(asked)), missing, "{grant} | {asked}")
        };
        check("item:*", "item:a item:b.* item:*", &[]);
        check("item:b.*", "item:b.c item:b item:b.c.* item:*", &["item:b", "item:*"]);
        check("item:a", "item:a resource:a item:a*", &["resource:a", "item:a*"]);
        check("body drop", "body severity drop route", &["route", "severity"]);
    }

    #[test]
    fn a_word_that_is_none_is_named() {
        for word in ["severiti", "item:", "item:a*b", "items:a", "drop", ":a", "", "item:**"] {
            let error = Words::parse(&[word.into()], false).unwrap_err();
            assert!(error.starts_with(&format!("`{word}` is no right: use body, name")), "{error}");
        }
    }
}
