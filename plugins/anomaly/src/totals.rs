//! Sums that only grow: a rate is the difference between two totals of one series.
//!
//! `process` forgets, so it adds each total as it comes, and its time, to the collector's series, and `tick` compares with what
//! it kept. Of each metric of a service so many series are followed, and `process` reads from the store which.

use crate::signature::hash;
use trommel_sdk::Window;

/// Of one metric of one service. A counter is mostly as wrong in one series as in all.
const SERIES_MAX: usize = 8;
/// A series that has ended makes room after five minutes: a service that is rolled out anew has none of the old ones.
const FORGOTTEN_AFTER_S: f64 = 300.0;
/// Two totals closer than this are one.
const SECONDS_MIN: f64 = 0.1;
/// What each takes in the store.
pub(crate) const SERIES_BYTES: usize = 24;

/// The series of one metric that are followed; the last total of each, and its time in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Followed {
    series: Vec<(u64, f64, f64)>,
}

impl Followed {
    pub(crate) fn decode(bytes: &[u8]) -> Followed {
        let part = |bytes: &[u8; SERIES_BYTES], at: usize| {
            let part = bytes[at..].first_chunk().expect("three parts of eight bytes");
            u64::from_le_bytes(*part)
        };
        let series = bytes.as_chunks::<SERIES_BYTES>().0.iter();
        let series = series.map(|b| (part(b, 0), f64::from_bits(part(b, 8)), f64::from_bits(part(b, 16))));
        Followed { series: series.take(SERIES_MAX).collect() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let parts = self.series.iter().flat_map(|(id, total, at)| [*id, total.to_bits(), at.to_bits()]);
        parts.flat_map(u64::to_le_bytes).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    /// Of these series of a batch, those to be added: the ones that are followed, and others while there is room.
    pub(crate) fn choose(&self, mut series: Vec<u64>, latest: f64) -> Vec<u64> {
        series.sort_unstable();
        series.dedup();
        let is_followed = |id: &u64| self.series.iter().any(|(followed, ..)| followed == id);
        let alive = self.series.iter().filter(|(_, _, at)| *at + FORGOTTEN_AFTER_S >= latest).count();
        let (mut chosen, others): (Vec<u64>, Vec<u64>) = series.into_iter().partition(is_followed);
        // By their ids, so that each batch chooses the same.
        chosen.extend(others.into_iter().take(SERIES_MAX.saturating_sub(alive)));
        chosen
    }

    /// Takes the totals of a window; gives the rates per second of those series that were known before.
    pub(crate) fn take(&mut self, totals: &[(u64, f64, f64)]) -> Vec<f64> {
        let latest = totals.iter().map(|(_, _, at)| *at).fold(0.0, f64::max);
        self.series.retain(|(_, _, at)| *at + FORGOTTEN_AFTER_S >= latest);
        let mut rates = Vec::new();
        for &(id, total, at) in totals {
            let has_room = self.series.len() < SERIES_MAX;
            match self.series.iter_mut().find(|(followed, ..)| *followed == id) {
                Some((_, before, before_at)) if at >= *before_at + SECONDS_MIN => {
                    // One that is smaller has begun anew.
                    if total >= *before {
                        rates.push((total - *before) / (at - *before_at));
                    }
                    (*before, *before_at) = (total, at);
                }
                Some(_) => {}
                None if has_room => self.series.push((id, total, at)),
                None => {}
            }
        }
        rates
    }
}

/// What `process` adds for one total: it and its time under one key. The largest is the total, since it only
/// grows, and the smallest is the latest time, since it is below zero.
pub(crate) fn values(total: f64, time_ns: u64) -> Option<[f64; 2]> {
    let is_total = total.is_finite() && total >= 0.0 && time_ns > 0;
    is_total.then_some([total, -(time_ns as f64 / 1e9)])
}

/// The total and the time of a window, in seconds.
pub(crate) fn of_window(window: &Window) -> Option<(f64, f64)> {
    let is_one = window.count > 0 && window.max >= 0.0 && window.min < 0.0 && window.max.is_finite();
    is_one.then_some((window.max, -window.min))
}

/// The id of a series, by what stands in its attributes and who sent it, in any order.
pub(crate) fn id(parts: &mut [u64]) -> u64 {
    parts.sort_unstable();
    let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_le_bytes()).collect();
    hash(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_a_series_grew_by() {
        let mut followed = Followed::default();
        assert_eq!(followed.take(&[(1, 100.0, 10.0), (2, 5.0, 10.0)]), [0.0; 0]);
        assert_eq!(followed.take(&[(1, 150.0, 20.0), (2, 5.0, 20.0)]), [5.0, 0.0]);
        assert_eq!(followed.take(&[(1, 150.0, 20.0)]), [0.0; 0], "the same once more");
        assert_eq!(followed.take(&[(1, 10.0, 40.0)]), [0.0; 0], "it began anew");
        assert_eq!(followed.take(&[(1, 30.0, 50.0)]), [2.0]);
        assert_eq!(Followed::decode(&followed.encode()), followed);
        followed.take(&[(3, 0.0, 4_000.0)]);
        assert_eq!(followed.len(), 1, "the others are over");
    }

    #[test]
    fn so_many_series_are_followed_and_each_batch_chooses_the_same() {
        let mut followed = Followed::default();
        let all: Vec<u64> = (0..100).rev().collect();
        let chosen = followed.choose(all.clone(), 1.0);
        assert_eq!(chosen, [0, 1, 2, 3, 4, 5, 6, 7]);
        followed.take(&chosen.iter().map(|id| (id + 50, 1.0, 1.0)).collect::<Vec<_>>());
        assert_eq!(followed.choose(all.clone(), 2.0), [50, 51, 52, 53, 54, 55, 56, 57]);
        let others: Vec<u64> = (0..20).collect();
        assert_eq!(followed.choose(others.clone(), 2.0), [0; 0]);
        let chosen = followed.choose(others, 400.0);
        assert_eq!(chosen.len(), SERIES_MAX, "those that are followed have ended");
        followed.take(&chosen.iter().map(|id| (*id, 1.0, 400.0)).collect::<Vec<_>>());
        assert_eq!(followed.choose(all, 401.0), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(Followed::decode(&[1; 1_000]).len(), SERIES_MAX);
        assert_eq!(Followed::decode(&[1; 23]).len(), 0);
    }

    #[test]
    fn a_total_and_its_time_travel_under_one_key() {
        assert_eq!(values(7.0, 2_500_000_000), Some([7.0, -2.5]));
        assert_eq!(values(-1.0, 1), None);
        assert_eq!(values(f64::NAN, 1), None);
        assert_eq!(values(1.0, 0), None);
    }
}
