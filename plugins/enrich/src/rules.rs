//! What a rule is, and which rules meet a resource.

use std::collections::HashMap;
use trommel_sdk::Level;

pub(crate) struct Rule {
    /// Where it stands in the settings, for messages: `rules[2]`, `table line 7`.
    pub(crate) place: String,
    pub(crate) who: Selector,
    pub(crate) actions: Vec<Action>,
}

/// Whom a rule is for; what is `None` may be anything.
#[derive(Default)]
pub(crate) struct Selector {
    pub(crate) tenant: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) service: Option<String>,
}

pub(crate) struct Action {
    pub(crate) at: Level,
    pub(crate) what: What,
}

pub(crate) enum What {
    Set { key: String, value: Value, only_missing: bool },
    Copy { from: String, to: String },
    Rename { from: String, to: String },
    Delete { key: String },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
}

/// A selector as numbers: equal texts have equal numbers, and 0 stands for anything.
pub(crate) type Numbers = [u32; 3];

/// Of which parts a selector tells something: bit `i` for number `i`.
pub(crate) fn mask(numbers: Numbers) -> u8 {
    (0..3).filter(|part| numbers[*part] != 0).map(|part| 1 << part).sum()
}

/// The numbers of these parts only.
pub(crate) fn project(numbers: Numbers, mask: u8) -> Numbers {
    std::array::from_fn(|part| if mask & (1 << part) == 0 { 0 } else { numbers[part] })
}

/// Gives numbers to texts.
#[derive(Default)]
pub(crate) struct Names {
    known: [HashMap<String, u32>; 3],
}

impl Names {
    pub(crate) fn learn(&mut self, who: &Selector) -> Numbers {
        let parts = [&who.tenant, &who.project, &who.service];
        let mut numbers = [0; 3];
        for ((part, known), number) in parts.into_iter().zip(&mut self.known).zip(&mut numbers) {
            if let Some(text) = part {
                let next = known.len() as u32 + 1;
                *number = *known.entry(text.clone()).or_insert(next);
            }
        }
        numbers
    }

    /// A text that no rule names has a number that no rule has.
    fn of(&self, part: usize, text: &str) -> u32 {
        self.known[part].get(text).copied().unwrap_or(u32::MAX)
    }
}

/// Rules by whom they are for: as many look-ups as there are kinds of selectors, however many rules.
pub(crate) struct Index {
    names: Names,
    masks: Vec<u8>,
    rules: HashMap<Numbers, Vec<usize>>,
}

impl Index {
    pub(crate) fn new(rules: &[Rule]) -> Index {
        let mut index = Index { names: Names::default(), masks: Vec::new(), rules: HashMap::new() };
        for (number, rule) in rules.iter().enumerate() {
            let numbers = index.names.learn(&rule.who);
            if !index.masks.contains(&mask(numbers)) {
                index.masks.push(mask(numbers));
            }
            index.rules.entry(numbers).or_default().push(number);
        }
        index
    }

    /// Whether any rule asks for the tenant, the project, the service.
    pub(crate) fn asks_for(&self) -> [bool; 3] {
        [0b001, 0b010, 0b100].map(|part| self.masks.iter().any(|mask| mask & part != 0))
    }

    /// The rules for a resource, in no order that matters: no two of them touch one key.
    pub(crate) fn meeting(&self, tenant: &str, project_name: &str, service: Option<&str>) -> Vec<usize> {
        let service = service.map_or(u32::MAX, |service| self.names.of(2, service));
        let numbers = [self.names.of(0, tenant), self.names.of(1, project_name), service];
        let of_mask = |mask: &u8| self.rules.get(&project(numbers, *mask));
        self.masks.iter().filter_map(of_mask).flatten().copied().collect()
    }
}

#[cfg(test)]
pub(crate) fn selector(tenant: &str, project: &str, service: &str) -> Selector {
    let part = |text: &str| (!text.is_empty()).then(|| text.to_string());
    Selector { tenant: part(tenant), project: part(project), service: part(service) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_meets_the_rules_whose_every_part_fits() {
        let whom = [
            ("", "", ""),
            ("acme", "", ""),
            ("acme", "shop", ""),
            ("", "", "web"),
            ("acme", "", "web"),
            ("b", "", ""),
        ];
        let rules: Vec<Rule> = whom
            .iter()
            .map(|(tenant, project, service)| Rule {
                place: String::new(),
                who: selector(tenant, project, service),
                actions: Vec::new(),
            })
            .collect();
        let index = Index::new(&rules);
        let check = |tenant, project, service, expected: &[usize]| {
            let mut meeting = index.meeting(tenant, project, service);
            meeting.sort();
            assert_eq!(meeting, expected, "{tenant} {project} {service:?}");
        };
        assert_eq!(index.asks_for(), [true; 3]);
        check("acme", "shop", Some("web"), &[0, 1, 2, 3, 4]);
        check("acme", "other", Some("web"), &[0, 1, 3, 4]);
        check("acme", "shop", None, &[0, 1, 2]);
        check("unknown", "unknown", Some("unknown"), &[0]);
        check("b", "shop", Some("web"), &[0, 3, 5]);
        check("", "", Some(""), &[0]);
    }
}
