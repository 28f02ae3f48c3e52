//! How many alerts a second: a plugin that raises thousands tells nobody anything.
//!
//! What counts is keys. A key that passed in this second passes again and again, because adding to an incident is cheap
//! and its count should be exact; a plugin that makes up keys is stopped.

use super::AlertEffect;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

/// Most resolve what was never fired, which costs a look.
const RESOLVED_PER_SECOND: usize = 2_000;
/// A clock that goes back further than this begins anew; less is two workers at the turn of a second.
const BACK_SECONDS_MAX: u64 = 5;

/// The alerts of one plugin in the second at hand.
#[derive(Debug)]
pub(in crate::sandbox) struct AlertRate {
    /// Keys that may fire in a second, for each tenant.
    fired_max: usize,
    second: Mutex<Second>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Second {
    number: u64,
    tenants: HashMap<String, Passed>,
}

/// Hashes of the keys that passed.
#[derive(Debug, Default)]
struct Passed {
    fired: HashSet<u64>,
    resolved: HashSet<u64>,
}

impl AlertRate {
    pub(in crate::sandbox) fn new(fired_max: usize) -> AlertRate {
        AlertRate { fired_max, second: Mutex::default(), hasher: RandomState::new() }
    }

    /// Takes out what is too much, and says how many that were.
    pub(in crate::sandbox) fn admit(&self, tenant: &str, raised: &mut Vec<AlertEffect>, now_ns: u64) -> u64 {
        if raised.is_empty() {
            return 0;
        }
        let mut second = self.second.lock().expect("no panic while the lock is held");
        second.turn_to(now_ns / 1_000_000_000);
        if !second.tenants.contains_key(tenant) {
            second.tenants.insert(tenant.to_owned(), Passed::default());
        }
        let passed = second.tenants.get_mut(tenant).expect("it was just put there");
        let before = raised.len();
        raised.retain(|what| {
            let key = self.hasher.hash_one(what.key());
            let (keys, keys_max) = match what {
                AlertEffect::Fire(_) => (&mut passed.fired, self.fired_max),
                AlertEffect::Resolve(_) => (&mut passed.resolved, RESOLVED_PER_SECOND),
            };
            keys.contains(&key) || (keys.len() < keys_max && keys.insert(key))
        });
        (before - raised.len()) as u64
    }
}

impl Second {
    fn turn_to(&mut self, number: u64) {
        if number > self.number || number + BACK_SECONDS_MAX < self.number {
            *self = Second { number, tenants: HashMap::new() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Alert, AlertSeverity};
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn raised(keys: std::ops::Range<usize>) -> Vec<AlertEffect> {
        let alert = |key: usize| Alert {
            key: key.to_string(),
            severity: AlertSeverity::Info,
            title: String::new(),
            text: String::new(),
            count: 1,
            labels: Vec::new(),
        };
        keys.map(|key| AlertEffect::Fire(alert(key))).collect()
    }

    #[test]
    fn a_hundred_keys_pass_in_a_second_and_each_as_often_as_it_likes() {
        let rate = AlertRate::new(100);
        let left_out = |tenant: &str, keys, now| {
            let mut all = raised(keys);
            let before = all.len();
            let left_out = rate.admit(tenant, &mut all, now);
            assert_eq!(all.len() as u64 + left_out, before as u64);
            left_out
        };
        assert_eq!(left_out("acme", 0..60, SECOND), 0);
        assert_eq!(left_out("acme", 0..60, SECOND), 0);
        assert_eq!(left_out("acme", 60..160, SECOND), 60);
        assert_eq!(left_out("acme", 0..100, SECOND + 1), 0, "these passed before");
        assert_eq!(left_out("other", 0..150, SECOND), 50, "each tenant has its own");
        assert_eq!(left_out("acme", 100..200, 2 * SECOND), 0);
        assert_eq!(left_out("acme", 200..201, SECOND), 1, "the second is over");
        assert_eq!(left_out("acme", 0..0, SECOND), 0);
    }

    #[test]
    fn more_may_be_resolved_than_fired() {
        let rate = AlertRate::new(100);
        let mut all: Vec<_> = (0..3000).map(|key| AlertEffect::Resolve(key.to_string())).collect();
        assert_eq!(rate.admit("acme", &mut all, SECOND), 1000);
        assert_eq!(rate.admit("acme", &mut raised(0..100), SECOND), 0);
    }

    #[test]
    fn a_clock_that_was_put_back_begins_anew() {
        let rate = AlertRate::new(100);
        assert_eq!(rate.admit("acme", &mut raised(0..200), 1000 * SECOND), 100);
        assert_eq!(rate.admit("acme", &mut raised(0..200), 999 * SECOND), 100);
        assert_eq!(rate.admit("acme", &mut raised(200..210), 10 * SECOND), 0);
    }
}
