//! What the log tells of plugins that fail or want too much: each kind once a minute, with how often it came since.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

const EVERY_NS: u64 = 60_000_000_000;
/// Kinds of one plugin; those beyond are one.
const KINDS_MAX: usize = 64;
const OTHERS: &str = "others";

/// What was told of, and when.
#[derive(Debug, Default)]
pub struct Told {
    kinds: Mutex<HashMap<String, Kind>>,
}

#[derive(Debug)]
struct Kind {
    told_ns: u64,
    /// Since then, and not told.
    since: u64,
}

impl Told {
    /// Whether one of this kind is to be told now; then how many came untold before it.
    pub fn is_due(&self, kind: &str, now_ns: u64) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = if kinds.contains_key(kind) || kinds.len() < KINDS_MAX { kind } else { OTHERS };
        let Some(known) = kinds.get_mut(kind) else {
            kinds.insert(kind.to_owned(), Kind { told_ns: now_ns, since: 0 });
            return Some(0);
        };
        // A clock that went back is no reason to be silent for long.
        if known.told_ns.abs_diff(now_ns) < EVERY_NS {
            known.since += 1;
            return None;
        }
        known.told_ns = now_ns;
        Some(std::mem::take(&mut known.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn each_kind_is_told_once_a_minute_with_how_often_it_came() {
        let told = Told::default();
        assert_eq!(told.is_due("trap", 100 * SECOND), Some(0));
        assert_eq!(told.is_due("time", 101 * SECOND), Some(0));
        (0..1000).for_each(|at| assert_eq!(told.is_due("trap", (101 + at % 50) * SECOND), None));
        assert_eq!(told.is_due("trap", 160 * SECOND), Some(1000));
        assert_eq!(told.is_due("trap", 161 * SECOND), None);
        assert_eq!(told.is_due("trap", SECOND), Some(1), "the clock went back");
    }

    #[test]
    fn a_plugin_that_makes_up_kinds_is_told_of_as_one() {
        let told = Told::default();
        let due = (0..10_000).filter(|kind| told.is_due(&kind.to_string(), SECOND).is_some()).count();
        assert_eq!(due, KINDS_MAX + 1);
    }
}
