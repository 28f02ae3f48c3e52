//! Keys of series and alerts: whatever services are called, a key is short, and no two of them mean the same.
//!
//! `total|PROJECT|SERVICE` counts log records, `errors` those that are errors, `spans` and `failed` the same of traces,
//! `points` data points. `latency|PROJECT|SERVICE` holds durations, `metric|PROJECT|SERVICE|NAME` the numbers of a metric,
//! `rate|PROJECT|SERVICE|NAME|SERIES` the totals of one of its series, `new|PROJECT|SERVICE|SIGNATURE|TEMPLATE` errors.
//! What separates the parts, here and in the keys of alerts, is escaped inside the names.

use crate::signature::hash;
use std::fmt::Write;

/// Of an escaped name: two of them, a signature and a template make a key of at most 256 bytes.
const NAME_BYTES_MAX: usize = 48;
/// Of what is left of a longer one; a hash of the whole follows.
const HEAD_BYTES_MAX: usize = NAME_BYTES_MAX - 17;

/// A service of a project, as keys have it: `PROJECT|SERVICE`.
pub(crate) fn who(project: &str, service: &str) -> String {
    format!("{}|{}", escaped(project), escaped(service))
}

/// The service in `who`, as keys have it.
pub(crate) fn service(who: &str) -> &str {
    who.split_once('|').map_or("", |(_, service)| service)
}

/// What is counted of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Records,
    Errors,
    Spans,
    Failed,
    Points,
    /// Not counted but spread over buckets.
    Latency,
}

impl Count {
    const ALL: [(&str, Count); 6] = [
        ("total", Count::Records),
        ("errors", Count::Errors),
        ("spans", Count::Spans),
        ("failed", Count::Failed),
        ("points", Count::Points),
        ("latency", Count::Latency),
    ];

    pub(crate) fn of(self, who: &str) -> String {
        let name = Count::ALL.iter().find(|(_, count)| *count == self).map_or("", |(name, _)| name);
        format!("{name}|{who}")
    }
}

pub(crate) fn new(who: &str, signature: u64, template: &str) -> String {
    format!("new|{who}|{signature:016x}|{template}")
}

/// Of numbers that count as they are. `metric` is a name as keys have it.
pub(crate) fn numbers(who: &str, metric: &str) -> String {
    format!("metric|{who}|{metric}")
}

/// Of totals since some start, of one series of a metric.
pub(crate) fn totals(who: &str, metric: &str, series: u64) -> String {
    format!("rate|{who}|{metric}|{series:016x}")
}

/// Of the store: the signatures that a service is known by.
pub(crate) fn known(who: &str) -> String {
    format!("known|{who}")
}

/// Of the store: the series of a metric that are followed, and their last totals.
pub(crate) fn followed(who: &str, metric: &str) -> String {
    format!("series|{who}|{metric}")
}

/// What a key of a series means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    Count(Count),
    New { signature: u64, template: &'a str },
    Numbers { metric: &'a str },
    Totals { metric: &'a str, series: u64 },
}

/// Whose it is, and what it means. `None` if it is none of ours.
pub(crate) fn meaning(key: &str) -> Option<(&str, Meaning<'_>)> {
    let (kind, rest) = key.split_once('|')?;
    let project = rest.find('|')?;
    let end = rest[project + 1..].find('|').map_or(rest.len(), |end| project + 1 + end);
    let (who, rest) = rest.split_at(end);
    let Some(rest) = rest.strip_prefix('|') else {
        let (_, count) = Count::ALL.iter().find(|(name, _)| *name == kind)?;
        return Some((who, Meaning::Count(*count)));
    };
    let number = |hexadecimal: &str| u64::from_str_radix(hexadecimal, 16).ok();
    let meaning = match kind {
        "new" => {
            let (signature, template) = rest.split_once('|')?;
            Meaning::New { signature: number(signature)?, template }
        }
        "metric" => Meaning::Numbers { metric: rest },
        "rate" => {
            let (metric, series) = rest.split_once('|')?;
            Meaning::Totals { metric, series: number(series)? }
        }
        _ => return None,
    };
    Some((who, meaning))
}

/// One name for people.
pub(crate) fn name_shown(name: &str) -> String {
    unescaped(name)
}

/// Names of project and service for people.
pub(crate) fn shown(who: &str) -> (String, String) {
    let (project, service) = who.split_once('|').unwrap_or((who, ""));
    (unescaped(project), unescaped(service))
}

pub(crate) fn escaped(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.len() <= NAME_BYTES_MAX && name.bytes().all(is_plain) {
        return name.to_owned();
    }
    let (mut whole, mut head_end) = (String::new(), 0);
    for character in name.chars() {
        match is_special(character) {
            true => {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a string cannot fail.
                    let _ = write!(whole, "%{byte:02X}");
                }
            }
            false => whole.push(character),
        }
        if whole.len() <= HEAD_BYTES_MAX {
            head_end = whole.len();
        }
        if whole.len() > NAME_BYTES_MAX {
            return format!("{}~{:016x}", &whole[..head_end], hash(name.as_bytes()));
        }
    }
    whole
}

/// What separates, what escapes, and what would be escaped on the way of the key.
fn is_special(character: char) -> bool {
    character.is_control()
        || matches!(character, '|' | '/' | '%' | '~')
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// A name that was cut ends in `…`.
fn unescaped(name: &str) -> String {
    let (name, end) = name.split_once('~').map_or((name, ""), |(head, _)| (head, "…"));
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let digits = others.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &others[2..];
            }
            _ => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned() + end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_understood_whatever_the_names_are() {
        for (project, service) in [
            ("shop", "web"),
            ("", ""),
            ("a|b", "c/d|e"),
            ("50%", "~x%41"),
            ("größe", "\u{202e}\n\0"),
            ("|", "|"),
        ] {
            let who = who(project, service);
            assert_eq!(shown(&who), (project.to_owned(), service.to_owned()));
            for (_, count) in Count::ALL {
                assert_eq!(meaning(&count.of(&who)), Some((who.as_str(), Meaning::Count(count))));
            }
            let template = "a | b||c";
            let expected = Meaning::New { signature: 7, template };
            assert_eq!(meaning(&new(&who, 7, template)), Some((who.as_str(), expected)));
            let metric = &escaped(service);
            let expected = Meaning::Numbers { metric };
            assert_eq!(meaning(&numbers(&who, metric)), Some((who.as_str(), expected)));
            let expected = Meaning::Totals { metric, series: u64::MAX };
            assert_eq!(meaning(&totals(&who, metric, u64::MAX)), Some((who.as_str(), expected)));
        }
    }

    #[test]
    fn names_that_differ_have_keys_that_differ() {
        let names =
            ["a", "a|b", "a%7Cb", "a/b", "a~b", &"x".repeat(49), &("x".repeat(49) + "y"), &"|".repeat(17)];
        let mut keys: Vec<String> = names.iter().map(|name| escaped(name)).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), names.len());
    }

    #[test]
    fn a_long_name_is_cut_between_characters_and_escapes() {
        for name in
            ["x".repeat(10_000), "ü".repeat(100), "漢".repeat(17), "|".repeat(50), "\u{202e}".repeat(9)]
        {
            let cut = escaped(&name);
            assert!(cut.len() <= NAME_BYTES_MAX, "{cut}");
            let shown = unescaped(&cut);
            assert!(name.starts_with(shown.strip_suffix('…').unwrap()), "{shown}");
            let key = new(&who(&name, &name), u64::MAX, &"t".repeat(crate::signature::TEMPLATE_BYTES_MAX));
            assert!(key.len() <= 256, "{}", key.len());
            let key = totals(&who(&name, &name), &cut, u64::MAX);
            assert!(key.len() <= 256, "{}", key.len());
        }
        assert_eq!(escaped(&"x".repeat(48)), "x".repeat(48));
    }

    #[test]
    fn other_keys_are_not_ours() {
        for key in [
            "_other",
            "total",
            "total|a",
            "total|a|b|c",
            "new|a|b",
            "new|a|b|zz|t",
            "new|a|b|00",
            "rate|a|b|c",
            "rate|a|b|c|zz",
            "metric|a",
            "x|a|b",
            "",
        ] {
            assert_eq!(meaning(key), None, "{key}");
        }
    }
}
