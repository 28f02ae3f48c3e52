//! What `process` counts of a batch, by service. What is common to the three signals stands here.

mod points;
mod records;
mod spans;

use crate::keys::{self, Count};
use crate::known::Known;
use crate::messages::Messages;
use crate::settings::Settings;
use crate::signature::Signature;
use std::ops::Range;
use trommel_sdk::{Level, Signal, batch, series, store};

/// A resource without `service.name`.
const NAMELESS: &str = "unknown";
/// Errors of one batch of which the message is looked at; the services that have some share them. To look at all would
/// cost a storm of errors more than all other plugins.
const LOOKED_AT_MAX: usize = 8;
/// Of one service, however many share.
const LOOKED_AT_MIN: usize = 2;
/// New errors of one service that one batch may name.
const NEW_MAX: usize = 8;

pub(crate) fn count(settings: &Settings) {
    let sums = match batch::holds() {
        Signal::Logs => records::sums(settings),
        Signal::Traces => spans::sums(settings),
        Signal::Metrics => points::sums(settings),
    };
    if !sums.keys.is_empty() {
        series::add_all(&sums.keys, &sums.values);
    }
}

/// The services of the batch at hand.
struct Services {
    names: Vec<String>,
    /// For each resource the number of its service.
    of_resource: Vec<usize>,
}

impl Services {
    fn read() -> Services {
        let names = batch::text_attribute(Level::Resource, "service.name");
        let (rows, index, mut names) = (names.rows, names.index, names.strings);
        let nameless = names.iter().position(|name| name == NAMELESS).unwrap_or_else(|| {
            names.push(NAMELESS.to_owned());
            names.len() - 1
        });
        let mut of_resource = vec![nameless; batch::rows(Level::Resource) as usize];
        for (row, service) in rows.into_iter().zip(index) {
            of_resource[row as usize] = service as usize;
        }
        Services { names, of_resource }
    }

    /// The items of the batch, in runs of one service each.
    fn runs(&self, items: usize) -> Vec<(usize, Range<usize>)> {
        // One resource is the usual case, and needs no parents.
        if let [service] = self.of_resource[..] {
            return vec![(service, 0..items)];
        }
        let parents = batch::parents(Level::Item, Level::Resource);
        let mut first = 0;
        let run = |resource: &[u32]| {
            let rows = first..first + resource.len();
            first = rows.end;
            (self.of_resource[resource[0] as usize], rows)
        };
        parents.chunk_by(u32::eq).map(run).collect()
    }
}

/// What is added to the collector's series.
#[derive(Default)]
struct Sums {
    keys: Vec<String>,
    values: Vec<f64>,
}

impl Sums {
    fn add(&mut self, key: String, value: f64) {
        self.keys.push(key);
        self.values.push(value);
    }

    /// Nothing, if it is nothing.
    fn count(&mut self, count: Count, who: &str, number: usize) {
        if number > 0 {
            self.add(count.of(who), number as f64);
        }
    }
}

/// Errors of services whose messages are worth looking at.
struct Suspects(Vec<(String, Known, Vec<u32>)>);

impl Suspects {
    fn add(&mut self, who: &str, rows: Vec<u32>) {
        if rows.is_empty() {
            return;
        }
        let known = store::get(&keys::known(who)).map(|bytes| Known::decode(&bytes)).unwrap_or_default();
        if !known.is_unsteady {
            self.0.push((who.to_owned(), known, rows));
        }
    }

    /// Names those of them that their services are not known by. `read` is given the rows that are looked at.
    fn name(self, sums: &mut Sums, read: impl Fn(&[u32]) -> Messages) {
        let Suspects(mut suspects) = self;
        let Some(share) = LOOKED_AT_MAX.checked_div(suspects.len()) else { return };
        for (_, _, rows) in &mut suspects {
            *rows = spread(rows, share.max(LOOKED_AT_MIN));
        }
        let rows: Vec<u32> = suspects.iter().flat_map(|(_, _, rows)| rows).copied().collect();
        let messages = read(&rows);
        for (who, known, rows) in suspects {
            for (signature, count) in unknown(&messages, &known, &rows) {
                sums.add(keys::new(&who, signature.hash, &signature.template), f64::from(count));
            }
        }
    }
}

/// At most so many of the rows, as far from each other as can be: what repeats stands together.
fn spread<T: Copy>(rows: &[T], most: usize) -> Vec<T> {
    let most = most.min(rows.len());
    (0..most).map(|at| rows[at * rows.len() / most]).collect()
}

/// Errors that are not known, each once, with their number.
fn unknown(messages: &Messages, known: &Known, rows: &[u32]) -> Vec<(Signature, u32)> {
    let mut unknown: Vec<(Signature, u32)> = Vec::new();
    for row in rows {
        let hash = messages.hash(*row);
        if known.has(hash) {
            continue;
        }
        match unknown.iter().position(|(one, _)| one.hash == hash) {
            Some(at) => unknown[at].1 += 1,
            None if unknown.len() < NEW_MAX => unknown.push((messages.signature(*row), 1)),
            None => {}
        }
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn rows_are_taken_evenly_from_first_to_last() {
        let rows: Vec<u32> = (100..110).collect();
        assert_eq!(spread(&rows, 3), [100, 103, 106]);
        assert_eq!(spread(&rows, 10), rows);
        assert_eq!(spread(&rows, 16), rows);
        assert_eq!(spread::<u32>(&[], 16), [0; 0]);
    }
}
