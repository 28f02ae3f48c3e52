//! Rules that would get in each other's way.
//!
//! All rules read the batch as it came, and their order means nothing. So no two that can meet on one
//! resource may write one key, and none may read a key that another writes: what it reads would not be
//! what its author sees in the result.

use crate::rules::{Action, Names, Numbers, Rule, What, mask, project};
use std::collections::HashMap;
use trommel_sdk::Level;

/// Which rule and which of its actions.
#[derive(Clone, Copy, PartialEq)]
struct Owner {
    rule: usize,
    action: usize,
}

/// Who writes one key: found by whom the rules are for, not by comparing each with each, since a table has
/// thousands of lines.
#[derive(Default)]
struct Writers {
    /// By kind of selector, the parts that two kinds have in common, and the numbers of these parts.
    by_common: HashMap<(u8, u8, Numbers), Owner>,
}

impl Writers {
    fn meeting(&self, numbers: Numbers, masks: &[u8]) -> Option<Owner> {
        masks.iter().find_map(|other| {
            let common = other & mask(numbers);
            self.by_common.get(&(*other, common, project(numbers, common))).copied()
        })
    }

    fn add(&mut self, numbers: Numbers, masks: &[u8], owner: Owner) {
        for other in masks {
            let common = other & mask(numbers);
            self.by_common.entry((mask(numbers), common, project(numbers, common))).or_insert(owner);
        }
    }
}

pub(crate) fn check(rules: &[Rule]) -> Result<(), String> {
    let mut names = Names::default();
    let numbers: Vec<Numbers> = rules.iter().map(|rule| names.learn(&rule.who)).collect();
    let mut masks: Vec<u8> = numbers.iter().map(|numbers| mask(*numbers)).collect();
    masks.sort_unstable();
    masks.dedup();

    let mut writers = HashMap::<(u8, &str), Writers>::new();
    for (owner, action) in actions(rules) {
        for key in writes(&action.what) {
            let writers = writers.entry((level_number(action.at), key)).or_default();
            if let Some(other) = writers.meeting(numbers[owner.rule], &masks) {
                return Err(told(rules, other, owner, &format!("both write `{key}`")));
            }
            writers.add(numbers[owner.rule], &masks, owner);
        }
    }
    for (owner, action) in actions(rules) {
        let Some(key) = reads(&action.what) else { continue };
        let writers = writers.get(&(level_number(action.at), key));
        let other = writers.and_then(|writers| writers.meeting(numbers[owner.rule], &masks));
        if let Some(other) = other.filter(|other| *other != owner) {
            return Err(told(
                rules,
                owner,
                other,
                &format!("the first reads `{key}` and the second writes it"),
            ));
        }
    }
    let writers_of_service = writers.get(&(level_number(Level::Resource), "service.name"));
    for (rule, numbers) in numbers.iter().enumerate().filter(|(rule, _)| rules[*rule].who.service.is_some()) {
        let other = writers_of_service.and_then(|writers| writers.meeting(*numbers, &masks));
        if let Some(other) = other.filter(|other| other.rule != rule) {
            let owner = Owner { rule, action: 0 };
            return Err(told(
                rules,
                owner,
                other,
                "the first asks for the service and the second writes `service.name`",
            ));
        }
    }
    Ok(())
}

fn actions(rules: &[Rule]) -> impl Iterator<Item = (Owner, &Action)> {
    rules.iter().enumerate().flat_map(|(rule, of)| {
        of.actions.iter().enumerate().map(move |(number, action)| (Owner { rule, action: number }, action))
    })
}

fn writes(what: &What) -> Vec<&str> {
    match what {
        What::Set { key, .. } | What::Delete { key } => vec![key],
        What::Copy { to, .. } => vec![to],
        What::Rename { from, to } => vec![from, to],
    }
}

fn reads(what: &What) -> Option<&str> {
    match what {
        What::Copy { from, .. } | What::Rename { from, .. } => Some(from),
        // Whether a key is missing is read by the rule that writes it.
        What::Set { .. } | What::Delete { .. } => None,
    }
}

fn told(rules: &[Rule], first: Owner, second: Owner, what: &str) -> String {
    let (first, second) = (&rules[first.rule].place, &rules[second.rule].place);
    match first == second {
        true => format!("{first}: two of its entries cannot both be done: {what}"),
        false => format!("{first} and {second} can meet: {what}"),
    }
}

fn level_number(level: Level) -> u8 {
    level as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Value, selector};

    fn set(key: &str) -> What {
        What::Set { key: key.into(), value: Value::Bool(true), only_missing: false }
    }

    fn copy(from: &str, to: &str) -> What {
        What::Copy { from: from.into(), to: to.into() }
    }

    fn rename(from: &str, to: &str) -> What {
        What::Rename { from: from.into(), to: to.into() }
    }

    fn delete(key: &str) -> What {
        What::Delete { key: key.into() }
    }

    type Who<'a> = (&'a str, &'a str, &'a str);

    /// Each rule: for whom, and what it does at the resource.
    fn check(written: Vec<(Who, Vec<What>)>) -> Result<(), String> {
        let mut rules = Vec::new();
        for (number, ((tenant, project, service), whats)) in written.into_iter().enumerate() {
            let actions = whats.into_iter().map(|what| Action { at: Level::Resource, what }).collect();
            rules.push(Rule {
                place: format!("rules[{number}]"),
                who: selector(tenant, project, service),
                actions,
            });
        }
        super::check(&rules)
    }

    const ALL: Who<'static> = ("", "", "");

    #[test]
    fn rules_for_different_people_may_write_one_key() {
        check(vec![(("a", "", ""), vec![set("x")]), (("b", "", ""), vec![set("x")])]).unwrap();
        check(vec![(("a", "p", ""), vec![set("x")]), (("a", "q", ""), vec![set("x")])]).unwrap();
        check(vec![(("a", "p", "s"), vec![set("x")]), (("a", "", "t"), vec![set("x")])]).unwrap();
        check(vec![(ALL, vec![set("x"), delete("y"), copy("z", "w"), rename("u", "v")])]).unwrap();
    }

    #[test]
    fn rules_that_meet_may_not_write_one_key() {
        let meeting = [
            (ALL, ALL),
            (ALL, ("a", "", "")),
            (("a", "", ""), ("", "p", "")),
            (("a", "", "s"), ("a", "p", "")),
        ];
        for (first, second) in meeting {
            let message = check(vec![
                (first, vec![set("x")]),
                (("other", "q", "t"), vec![]),
                (second, vec![delete("x")]),
            ]);
            assert_eq!(
                message.unwrap_err(),
                "rules[0] and rules[2] can meet: both write `x`",
                "{first:?} {second:?}"
            );
        }
        let message = check(vec![(ALL, vec![set("x"), copy("y", "x")])]).unwrap_err();
        assert_eq!(message, "rules[0]: two of its entries cannot both be done: both write `x`");
        assert!(check(vec![(ALL, vec![rename("x", "y"), set("x")])]).is_err());
    }

    #[test]
    fn no_rule_reads_what_another_writes() {
        let message = check(vec![(("a", "", ""), vec![copy("x", "y")]), (ALL, vec![set("x")])]).unwrap_err();
        assert_eq!(message, "rules[0] and rules[1] can meet: the first reads `x` and the second writes it");
        assert!(check(vec![(ALL, vec![copy("x", "y"), copy("y", "z")])]).is_err());
        assert!(check(vec![(ALL, vec![copy("x", "y"), delete("x")])]).is_err());
        check(vec![(("a", "", ""), vec![copy("x", "y")]), (("b", "", ""), vec![set("x")])]).unwrap();
        check(vec![(ALL, vec![copy("x", "y"), copy("x", "z")])]).unwrap();
    }

    #[test]
    fn asking_for_the_service_is_reading_it() {
        let renaming = || (ALL, vec![rename("app", "service.name")]);
        assert!(
            check(vec![renaming(), (("", "", "web"), vec![set("x")])])
                .unwrap_err()
                .contains("asks for the service")
        );
        check(vec![renaming(), (("a", "", ""), vec![set("x")])]).unwrap();
        check(vec![(("", "", "old"), vec![set("service.name")])]).unwrap();
    }

    #[test]
    fn one_key_at_two_levels_is_two_keys() {
        let at = |at| Action { at, what: set("x") };
        let rule = Rule {
            place: "it".into(),
            who: selector("", "", ""),
            actions: vec![at(Level::Resource), at(Level::Item)],
        };
        super::check(&[rule]).unwrap();
    }

    /// The look-up finds a conflict exactly when comparing each with each does.
    #[test]
    fn the_lookup_is_right() {
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ["", "", "a", "b"][(seed >> 33) as usize % 4]
        };
        let (mut refused, mut taken) = (0, 0);
        for round in 0..3000 {
            let whom: Vec<_> = (0..2 + round % 3).map(|_| (random(), random(), random())).collect();
            let fit = |a: &str, b: &str| a.is_empty() || b.is_empty() || a == b;
            let meets = |a: &Who, b: &Who| fit(a.0, b.0) && fit(a.1, b.1) && fit(a.2, b.2);
            let pairs = (0..whom.len()).flat_map(|second| (0..second).map(move |first| (first, second)));
            let expected = pairs.into_iter().any(|(first, second)| meets(&whom[first], &whom[second]));
            let result = check(whom.iter().map(|who| (*who, vec![set("x")])).collect());
            assert_eq!(result.is_err(), expected, "{whom:?}");
            *(if expected { &mut refused } else { &mut taken }) += 1;
        }
        assert!(refused > 100 && taken > 100, "{refused} {taken}");
    }
}
