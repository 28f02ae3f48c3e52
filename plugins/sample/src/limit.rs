//! Which records of a service pass when it sends more than its limit.

use crate::settings::{Limit, Settings};
use crate::trace_state;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use trommel_sdk::{Level, TextColumn, batch, host};

/// As long as the collector takes them; under a longer one nothing would pass.
const KEY_BYTES_MAX: usize = 256;
/// Records without `service.name`.
const NAMELESS: &str = "";

/// Log records over the limit: the severe ones are kept first, and among equals the ones that came first. `rows` are
/// those that may pass as far as the ratio is concerned; what is left over of them ascends.
pub(crate) fn cut_logs(mut rows: Vec<u32>, granted: usize, severities: &[u8]) -> Vec<u32> {
    rows.sort_by_key(|row| (Reverse(severities[*row as usize]), *row));
    rest(rows, granted)
}

/// Spans over the limit: the traces with the highest random number are kept first. They are the ones that a
/// sampler by ratio keeps, and the same in every batch and for every service, so that traces stay whole where they can.
pub(crate) fn cut_spans(mut rows: Vec<u32>, granted: usize, randomness: &[u64]) -> Vec<u32> {
    rows.sort_by_key(|row| (Reverse(randomness[*row as usize]), *row));
    rest(rows, granted)
}

fn rest(mut rows: Vec<u32>, granted: usize) -> Vec<u32> {
    let mut cut = rows.split_off(granted.min(rows.len()));
    cut.sort_unstable();
    cut
}

/// The limits of the services in the batch at hand.
pub(crate) struct Limits<'a> {
    services: Vec<(String, Limit)>,
    /// For each resource, which of them; `None` if it has no limit.
    of_resource: Vec<Option<usize>>,
    /// For each row.
    resources: &'a [u32],
}

/// What limits did to a batch. Rows ascend for each service.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Limited {
    pub(crate) cut: Vec<u32>,
    /// What passed where others were cut.
    pub(crate) passed: Vec<u32>,
}

impl<'a> Limits<'a> {
    pub(crate) fn of_batch(settings: &Settings, resources: &'a [u32]) -> Limits<'a> {
        let names = batch::text_attribute(Level::Resource, "service.name");
        Limits::new(settings, &names, batch::rows(Level::Resource) as usize, resources)
    }

    fn new(settings: &Settings, names: &TextColumn, rows: usize, resources: &'a [u32]) -> Limits<'a> {
        let mut limits = Limits { services: Vec::new(), of_resource: Vec::new(), resources };
        let mut name_of = vec![NAMELESS; rows];
        names.iter().for_each(|(row, name)| name_of[row as usize] = name);
        for name in name_of {
            let number = limits.services.iter().position(|(known, _)| known == name).or_else(|| {
                let limit = settings.limit_of_service.get(name).copied().or(settings.limit)?;
                limits.services.push((name.to_owned(), limit));
                Some(limits.services.len() - 1)
            });
            limits.of_resource.push(number);
        }
        limits
    }

    /// Takes from the buckets what the rows that were not dropped want, and lets `cut` choose where that is too much.
    pub(crate) fn apply(
        &self,
        signal: &str,
        dropped: &[u32],
        cut: impl Fn(Vec<u32>, usize) -> Vec<u32>,
    ) -> Limited {
        let project = batch::project();
        self.apply_with(dropped, cut, |service, limit, want| {
            host::limit(&key(signal, &project, service), want, limit.per_second, limit.burst)
        })
    }

    fn apply_with(
        &self,
        dropped: &[u32],
        cut: impl Fn(Vec<u32>, usize) -> Vec<u32>,
        take: impl Fn(&str, Limit, u32) -> u32,
    ) -> Limited {
        let mut limited = Limited::default();
        for ((service, limit), rows) in self.services.iter().zip(self.by_service(dropped)) {
            if rows.is_empty() {
                continue;
            }
            let granted = take(service, *limit, rows.len() as u32) as usize;
            if granted >= rows.len() {
                continue;
            }
            let over = cut(rows.clone(), granted);
            limited.passed.extend(rows.into_iter().filter(|row| over.binary_search(row).is_err()));
            limited.cut.extend(over);
        }
        limited
    }

    fn by_service(&self, dropped: &[u32]) -> Vec<Vec<u32>> {
        let mut is_left = vec![true; self.resources.len()];
        dropped.iter().for_each(|row| is_left[*row as usize] = false);
        let mut of_service = vec![Vec::new(); self.services.len()];
        for (row, (resource, is_left)) in (0..).zip(self.resources.iter().zip(is_left)) {
            if let Some(service) = self.of_resource[*resource as usize].filter(|_| is_left) {
                of_service[service].push(row);
            }
        }
        of_service
    }
}

/// Spans that passed where others were cut: how many each of them stands for is not known.
pub(crate) fn unmark(marks: &mut Vec<(u32, String)>, states: &[String], passed: &[u32]) {
    let marked: HashMap<u32, usize> = (0..).zip(marks.iter()).map(|(at, (row, _))| (*row, at)).collect();
    for row in passed {
        match marked.get(row) {
            Some(at) => {
                let mark = &mut marks[*at].1;
                *mark = trace_state::without_threshold(mark).unwrap_or_default();
            }
            None => {
                let without = trace_state::without_threshold(&states[*row as usize]);
                marks.extend(without.map(|state| (*row, state)));
            }
        }
    }
}

/// The name of a bucket. The parts cannot run into each other, and whatever they are, it is short.
fn key(signal: &str, project: &str, service: &str) -> String {
    let key = format!("{signal}|{}|{project}|{service}", project.len());
    if key.len() <= KEY_BYTES_MAX {
        return key;
    }
    // Of fixed keys: the same in all instances.
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    format!("{}~{:016x}", &key[..key.floor_char_boundary(KEY_BYTES_MAX - 17)], hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severe_records_pass_first_and_then_the_first() {
        let severities = [9, 17, 9, 21, 9];
        let cut = |granted| cut_logs(vec![0, 1, 2, 3, 4], granted, &severities);
        assert_eq!(cut(0), [0, 1, 2, 3, 4]);
        assert_eq!(cut(1), [0, 1, 2, 4]);
        assert_eq!(cut(3), [2, 4]);
        assert_eq!(cut(5), [0; 0]);
        assert_eq!(cut(9), [0; 0]);
        assert_eq!(cut_logs(vec![4, 0], 1, &severities), [4]);
    }

    #[test]
    fn spans_of_the_same_traces_pass_in_every_batch() {
        let one = [5, 900, 5, 700, 900];
        assert_eq!(cut_spans(vec![0, 1, 2, 3, 4], 2, &one), [0, 2, 3]);
        assert_eq!(cut_spans(vec![0, 1, 2, 3, 4], 3, &one), [0, 2]);
        let other = [700, 900, 5];
        assert_eq!(cut_spans(vec![0, 1, 2], 1, &other), [0, 2]);
    }

    /// Services `a` (may have 2), `b` (3), one without a name, and `free`, which has no limit.
    fn limited(resources: &[u32], dropped: &[u32], is_for_all: bool) -> Limited {
        let all = if is_for_all { r#""limit": {"per_second": 1, "burst": 3},"# } else { "" };
        let json = format!(r#"{{{all} "limits": {{"a": {{"per_second": 1, "burst": 2}}}}}}"#);
        let settings = crate::settings::parse(&json).unwrap();
        let names = [(0, "a"), (1, "b"), (3, "a")].into_iter().collect();
        let limits = Limits::new(&settings, &names, 4, resources);
        let first = |mut rows: Vec<u32>, granted: usize| rows.split_off(granted);
        limits.apply_with(dropped, first, |_, limit, want| want.min(limit.burst))
    }

    #[test]
    fn each_service_has_its_limit_over_all_its_resources() {
        let check = |resources: &[u32], dropped: &[u32], cut: &[u32], passed: &[u32]| {
            let limited = limited(resources, dropped, true);
            assert_eq!((limited.cut.as_slice(), limited.passed.as_slice()), (cut, passed), "{resources:?}");
        };
        check(&[0, 3, 0, 3], &[], &[2, 3], &[0, 1]);
        check(&[0, 3, 0, 3], &[0], &[3], &[1, 2]);
        check(&[0, 3, 0, 3], &[0, 1], &[], &[]);
        check(&[1, 1, 1, 0, 2, 2, 2, 2], &[], &[7], &[4, 5, 6]);
        check(&[], &[], &[], &[]);
    }

    #[test]
    fn who_has_no_limit_passes() {
        assert_eq!(limited(&[1, 1, 1, 1, 2, 2, 2, 2], &[], false), Limited::default());
    }

    #[test]
    fn spans_of_which_others_were_cut_lose_their_threshold_and_nothing_else() {
        let states = ["ot=th:c;rv:0123456789abcd", "", "a=1", "ot=th:c"].map(String::from);
        let mut marks = vec![(1, "ot=th:8".to_owned()), (2, "ot=th:8,a=1".to_owned())];
        unmark(&mut marks, &states, &[0, 1]);
        marks.sort();
        let expected = [(0, "ot=rv:0123456789abcd"), (1, ""), (2, "ot=th:8,a=1")];
        assert_eq!(marks, expected.map(|(row, state)| (row, state.to_owned())));
    }

    #[test]
    fn buckets_of_different_services_have_different_names_that_are_short_enough() {
        let long = "é".repeat(1000);
        let keys = [
            key("logs", "a", "b"),
            key("traces", "a", "b"),
            key("logs", "a|b", "c"),
            key("logs", "a", "b|c"),
            key("logs", &long, "1"),
            key("logs", &long, "2"),
        ];
        for (at, one) in keys.iter().enumerate() {
            assert!(one.len() <= 256 && !keys[..at].contains(one), "{one}");
        }
    }
}
