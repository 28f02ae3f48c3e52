//! What `process` counts of a batch: records and errors by service, and errors that the service is not known by.

use crate::keys;
use crate::known::Known;
use crate::messages::Messages;
use crate::settings::Settings;
use crate::signature::Signature;
use trommel_sdk::{Level, batch, series, store};

/// The severity number of `ERROR`.
const ERROR: u8 = 17;
/// Records without `service.name`.
const NAMELESS: &str = "unknown";
/// Errors of one batch of which the message is looked at; the services that have some share them. To look at all would
/// cost a storm of errors more than all other plugins.
const LOOKED_AT_MAX: usize = 8;
/// Of one service, however many share.
const LOOKED_AT_MIN: usize = 2;
/// New errors of one service that one batch may name.
const NEW_MAX: usize = 8;

/// One service in the batch at hand.
struct Service {
    name: String,
    records: u32,
    errors: Vec<u32>,
}

pub(crate) fn count(settings: &Settings) {
    let severities = batch::severities();
    if severities.is_empty() {
        return;
    }
    let (mut services, of_resource) = services();
    // One resource is the usual case, and needs no parents.
    if of_resource.len() == 1 {
        services[0].add(0, &severities);
    } else {
        let parents = batch::parents(Level::Item, Level::Resource);
        let (mut first, mut rest) = (0, &severities[..]);
        for resource in parents.chunk_by(u32::eq) {
            let (here, after) = rest.split_at(resource.len());
            services[of_resource[resource[0] as usize]].add(first, here);
            (first, rest) = (first + resource.len() as u32, after);
        }
    }
    services.retain(|service| service.records > 0 && !settings.ignore.contains(&service.name));
    if services.is_empty() {
        return;
    }
    let project = batch::project();
    let mut sums = Sums::default();
    let mut suspects = Vec::new();
    for service in services {
        let who = keys::who(&project, &service.name);
        sums.add(keys::total(&who), service.records);
        if !service.errors.is_empty() {
            sums.add(keys::errors(&who), service.errors.len() as u32);
            let known = store::get(&keys::known(&who)).map(|bytes| Known::decode(&bytes)).unwrap_or_default();
            if !known.is_unsteady {
                suspects.push((who, known, service.errors));
            }
        }
    }
    if let Some(share) = LOOKED_AT_MAX.checked_div(suspects.len()) {
        for (_, _, rows) in &mut suspects {
            *rows = spread(rows, share.max(LOOKED_AT_MIN));
        }
        let messages = Messages::read(suspects.iter().flat_map(|(_, _, rows)| rows.iter().copied()));
        for (who, known, rows) in suspects {
            for (signature, count) in unknown(&messages, &known, &rows) {
                sums.add(keys::new(&who, signature.hash, &signature.template), count);
            }
        }
    }
    series::add_all(&sums.keys, &sums.values);
}

/// The services of the batch, and for each resource the number of its service.
fn services() -> (Vec<Service>, Vec<usize>) {
    let names = batch::text_attribute(Level::Resource, "service.name");
    let new = |name: String| Service { name, records: 0, errors: Vec::new() };
    let (rows, index) = (names.rows, names.index);
    let mut services: Vec<Service> = names.strings.into_iter().map(new).collect();
    let nameless = services.iter().position(|service| service.name == NAMELESS).unwrap_or_else(|| {
        services.push(new(NAMELESS.to_owned()));
        services.len() - 1
    });
    let mut of_resource = vec![nameless; batch::rows(Level::Resource) as usize];
    for (row, service) in rows.into_iter().zip(index) {
        of_resource[row as usize] = service as usize;
    }
    if of_resource.len() == 1 {
        services.swap(0, of_resource[0]);
    }
    (services, of_resource)
}

impl Service {
    /// Records in a row, from row `first` on.
    fn add(&mut self, first: u32, severities: &[u8]) {
        self.records += severities.len() as u32;
        let rows = (first..).zip(severities);
        self.errors.extend(rows.filter(|(_, severity)| **severity >= ERROR).map(|(row, _)| row));
    }
}

/// At most so many of the rows, as far from each other as can be: what repeats stands together.
fn spread(rows: &[u32], most: usize) -> Vec<u32> {
    let most = most.min(rows.len());
    (0..most).map(|at| rows[at * rows.len() / most]).collect()
}

#[derive(Default)]
struct Sums {
    keys: Vec<String>,
    values: Vec<f64>,
}

impl Sums {
    fn add(&mut self, key: String, value: u32) {
        self.keys.push(key);
        self.values.push(f64::from(value));
    }
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
        assert_eq!(spread(&[], 16), [0; 0]);
    }
}
