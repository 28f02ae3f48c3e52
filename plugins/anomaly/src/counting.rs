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
/// Errors of one service in one batch of which the message is looked at.
const LOOKED_AT_MAX: usize = 32;
/// New errors of one service that one batch may name.
const NEW_MAX: usize = 8;

/// One service in the batch at hand.
struct Service {
    name: String,
    records: u32,
    errors: u32,
    /// The first of them.
    error_rows: Vec<u32>,
}

pub(crate) fn count(settings: &Settings) {
    let severities = batch::severities();
    if severities.is_empty() {
        return;
    }
    let (mut services, of_resource) = services();
    // One resource is the usual case, and needs no parents.
    if of_resource.len() == 1 {
        add(&mut services[0], 0.., &severities);
    } else {
        for ((row, severity), resource) in
            (0..).zip(&severities).zip(batch::parents(Level::Item, Level::Resource))
        {
            add(&mut services[of_resource[resource as usize]], row.., &[*severity]);
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
        if service.errors > 0 {
            sums.add(keys::errors(&who), service.errors);
            let known = store::get(&keys::known(&who)).map(|bytes| Known::decode(&bytes)).unwrap_or_default();
            if !known.is_unsteady {
                suspects.push((who, known, service.error_rows));
            }
        }
    }
    if !suspects.is_empty() {
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
    let new = |name: String| Service { name, records: 0, errors: 0, error_rows: Vec::new() };
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

fn add(service: &mut Service, rows: std::ops::RangeFrom<u32>, severities: &[u8]) {
    service.records += severities.len() as u32;
    for (row, severity) in rows.zip(severities) {
        if *severity >= ERROR {
            service.errors += 1;
            if service.error_rows.len() < LOOKED_AT_MAX {
                service.error_rows.push(row);
            }
        }
    }
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
        let signature = messages.signature(*row);
        if known.has(signature.hash) {
            continue;
        }
        match unknown.iter().position(|(one, _)| one.hash == signature.hash) {
            Some(at) => unknown[at].1 += 1,
            None if unknown.len() < NEW_MAX => unknown.push((signature, 1)),
            None => {}
        }
    }
    unknown
}
