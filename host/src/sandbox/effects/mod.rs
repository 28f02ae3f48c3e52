//! What a call leaves beside its edits: counts, gauges, values of series, alerts.
//!
//! Each is bounded per call, so that a request of many pieces is bounded too.

mod alerts;
mod cell;
mod rate;

pub use alerts::{Alert, AlertEffect, AlertSeverity};
pub(super) use alerts::{Raised, fitted_key};
pub use cell::{Cell, Window};
pub(super) use rate::AlertRate;

use std::collections::BTreeMap;

/// Names that one call may count under.
const NAMES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 128;
/// Names in the effects of a whole request, 128 KiB.
const REQUEST_NAMES_MAX: usize = 1024;
/// Keys of series that one call may add to: a piece has 512 records of few services.
const CALL_SERIES_MAX: usize = 256;
/// Keys of series in the effects of a whole request, 1.3 MB.
const SERIES_MAX: usize = 4096;
/// What is added under more keys than that.
const OTHERS: &str = "_other";

/// They take effect when the request that the call belonged to is committed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Sums by name, in the order of their first use.
    pub counts: Vec<(String, u64)>,
    /// The last value by name.
    pub gauges: Vec<(String, f64)>,
    /// What was added to series, by key.
    pub series: BTreeMap<String, Cell>,
    /// By key; a key fires once.
    pub alerts: Vec<AlertEffect>,
}

/// What a call asked for beyond its share; counted if the call is ok.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Firings and resolutions.
    pub(super) alerts: u64,
    /// Values of series that are no finite numbers.
    pub(super) values: u64,
}

impl Effects {
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.gauges.is_empty() && self.series.is_empty() && self.alerts.is_empty()
    }

    /// Adds what a later call left.
    pub fn merge(&mut self, later: Effects) {
        for (name, by) in later.counts {
            let sum = merged(&mut self.counts, name);
            *sum = sum.saturating_add(by);
        }
        for (name, value) in later.gauges {
            *merged(&mut self.gauges, name) = value;
        }
        match self.series.is_empty() {
            true => self.series = later.series,
            false => later.series.into_iter().for_each(|(key, cell)| self.cell(key, SERIES_MAX).merge(&cell)),
        }
        match self.alerts.is_empty() || later.alerts.is_empty() {
            true => self.alerts.extend(later.alerts),
            false => {
                let mut raised = Raised::default();
                std::mem::take(&mut self.alerts).into_iter().for_each(|what| raised.raise(what));
                later.alerts.into_iter().for_each(|what| raised.raise(what));
                self.alerts = raised.into_effects();
            }
        }
    }

    /// Adds within one call. Beyond its keys, values are added under `_other`.
    pub(super) fn add_to_series(&mut self, key: String, value: f64) {
        self.cell(key, CALL_SERIES_MAX).add(value);
    }

    fn cell(&mut self, key: String, keys_max: usize) -> &mut Cell {
        let key = match self.series.len() < keys_max || self.series.contains_key(&key) {
            true => key,
            false => OTHERS.to_owned(),
        };
        self.series.entry(key).or_default()
    }

    pub(super) fn count(&mut self, name: String, by: u64) -> Result<(), NameRefused> {
        let sum = entry(&mut self.counts, name)?;
        *sum = sum.saturating_add(by);
        Ok(())
    }

    pub(super) fn gauge(&mut self, name: String, value: f64) -> Result<(), NameRefused> {
        *entry(&mut self.gauges, name)? = value;
        Ok(())
    }
}

/// Why nothing is counted under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameRefused {
    #[error("a name has 1 to {NAME_BYTES_MAX} bytes of printable text")]
    Unfit,
    #[error("a call may use {NAMES_MAX} names")]
    TooMany,
}

/// What stands under a name that a call was given. Beyond the names of a request it is `_other`.
fn merged<T: Default>(values: &mut Vec<(String, T)>, name: String) -> &mut T {
    let is_known = values.iter().any(|(known, _)| *known == name);
    let name = if is_known || values.len() < REQUEST_NAMES_MAX { name } else { OTHERS.to_owned() };
    let at = values.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
        values.push((name, T::default()));
        values.len() - 1
    });
    &mut values[at].1
}

fn entry<T: Default>(values: &mut Vec<(String, T)>, name: String) -> Result<&mut T, NameRefused> {
    if let Some(at) = values.iter().position(|(known, _)| *known == name) {
        return Ok(&mut values[at].1);
    }
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(NameRefused::Unfit);
    }
    if values.len() == NAMES_MAX {
        return Err(NameRefused::TooMany);
    }
    let at = values.len();
    values.push((name, T::default()));
    Ok(&mut values[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_gauges_keep_the_last() {
        let mut effects = Effects::default();
        effects.count("a".into(), 1).unwrap();
        effects.gauge("g".into(), 1.0).unwrap();
        let mut later = Effects::default();
        later.count("a".into(), 2).unwrap();
        later.count("b".into(), 3).unwrap();
        later.gauge("g".into(), 2.0).unwrap();
        effects.merge(later);
        assert_eq!(effects.counts, [("a".into(), 3), ("b".into(), 3)]);
        assert_eq!(effects.gauges, [("g".into(), 2.0)]);
    }

    #[test]
    fn names_are_bounded() {
        let mut effects = Effects::default();
        for name in ["", "a\nb", &"x".repeat(129)] {
            assert!(effects.count(name.into(), 1).is_err(), "{name}");
        }
        for at in 0..64 {
            effects.count(at.to_string(), 1).unwrap();
        }
        assert!(effects.count("64".into(), 1).is_err());
        assert!(effects.count("0".into(), 1).is_ok());
    }

    #[test]
    fn names_of_a_request_are_bounded_and_lose_no_count() {
        let mut all = Effects::default();
        for call in 0..20 {
            let mut effects = Effects::default();
            (0..64).for_each(|at| effects.count(format!("{call} {at}"), 2).unwrap());
            effects.gauge(format!("g{call}"), 1.0).unwrap();
            all.merge(effects);
        }
        assert_eq!((all.counts.len(), all.gauges.len()), (1025, 20));
        assert_eq!(all.counts.iter().map(|(_, count)| count).sum::<u64>(), 2_560);
        assert_eq!(all.counts.last(), Some(&("_other".into(), 512)));
    }

    fn with_series(keys: impl IntoIterator<Item = usize>) -> Effects {
        let mut effects = Effects::default();
        keys.into_iter().for_each(|key| effects.add_to_series(format!("key{key}"), 2.0));
        effects
    }

    #[test]
    fn a_series_beyond_the_keys_of_a_call_loses_its_name_and_no_value() {
        let effects = with_series((0..1000).chain(0..1000));
        assert_eq!(effects.series.len(), 257);
        assert_eq!(effects.series["key255"].count, 2);
        let others = &effects.series["_other"];
        assert_eq!((others.count, others.sum), (1488, 2976.0));
    }

    #[test]
    fn series_of_a_request_are_bounded_and_lose_no_value() {
        let mut all = Effects::default();
        (0..100).for_each(|call| all.merge(with_series(call * 256..(call + 1) * 256)));
        assert_eq!(all.series.len(), 4097);
        assert_eq!(all.series.values().map(|cell| cell.count).sum::<u64>(), 25_600);
        all.merge(with_series([0]));
        assert_eq!(all.series["key0"].count, 2);
    }

    #[test]
    fn alerts_of_pieces_become_one_for_each_key() {
        let fire = |key: &str, count| {
            let (key, title, text) = (key.to_owned(), String::new(), String::new());
            AlertEffect::Fire(Alert {
                key,
                severity: AlertSeverity::Info,
                title,
                text,
                count,
                labels: vec![],
            })
        };
        let resolve = |key: &str| AlertEffect::Resolve(key.to_owned());
        let of = |alerts: &[AlertEffect]| Effects { alerts: alerts.to_vec(), ..Effects::default() };
        let mut all = Effects::default();
        all.merge(of(&[fire("b", 1), resolve("b")]));
        all.merge(of(&[]));
        all.merge(of(&[fire("a", 1), fire("b", 2)]));
        all.merge(of(&[resolve("a")]));
        assert_eq!(all.alerts, [fire("a", 1), resolve("a"), fire("b", 3)]);
    }

    #[test]
    fn effects_of_pieces_are_those_of_the_whole() {
        let mut all = Effects::default();
        (0..4).for_each(|_| all.merge(with_series(0..10)));
        assert_eq!(all, with_series((0..40).map(|key| key % 10)));
    }
}
