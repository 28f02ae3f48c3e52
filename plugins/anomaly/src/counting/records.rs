//! Of log records: how many there are, how many are errors, and what these say.

use super::{Services, Sums, Suspects};
use crate::keys::{self, Count};
use crate::messages::Messages;
use crate::settings::Settings;
use trommel_sdk::batch;

/// The severity number of `ERROR`.
const ERROR: u8 = 17;

#[derive(Default)]
struct Counted {
    records: usize,
    errors: Vec<u32>,
}

pub(super) fn sums(settings: &Settings) -> Sums {
    let mut sums = Sums::default();
    let severities = batch::severities();
    if severities.is_empty() {
        return sums;
    }
    let services = Services::read();
    let mut counted: Vec<Counted> = services.names.iter().map(|_| Counted::default()).collect();
    for (service, rows) in services.runs(severities.len()) {
        let counted = &mut counted[service];
        counted.records += rows.len();
        let numbered = (rows.start as u32..).zip(&severities[rows]);
        counted.errors.extend(numbered.filter(|(_, severity)| **severity >= ERROR).map(|(row, _)| row));
    }
    let project = batch::project();
    let mut suspects = Suspects(Vec::new());
    for (name, Counted { records, errors }) in services.names.iter().zip(counted) {
        if records == 0 || settings.ignore.contains(name) {
            continue;
        }
        let who = keys::who(&project, name);
        sums.count(Count::Records, &who, records);
        sums.count(Count::Errors, &who, errors.len());
        suspects.add(&who, errors);
    }
    suspects.name(&mut sums, Messages::of_records);
    sums
}
