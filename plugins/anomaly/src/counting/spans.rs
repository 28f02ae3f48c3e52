//! Of spans: how many there are, how many failed and with which exceptions, and how long requests took.

use super::{Services, Sums, Suspects, spread};
use crate::keys::{self, Count};
use crate::latency;
use crate::messages::Messages;
use crate::settings::Settings;
use trommel_sdk::{Level, Places, batch};

/// Status code `error`.
const FAILED: u8 = 2;
/// Kinds of span in which a service answers others: server and consumer. How long it waits for others is theirs.
const ANSWERING: [u8; 2] = [2, 5];
/// Durations that one batch adds; the services share them. Spread over the batch, so many tell a median as well as all.
const DURATIONS_MAX: usize = 128;
/// Of one service, however many share.
const DURATIONS_MIN: usize = 8;
/// The name that OpenTelemetry gives to an event that is an exception.
const EXCEPTION: &[u8] = b"exception";

#[derive(Default)]
struct Counted {
    spans: usize,
    failed: Vec<u32>,
    durations: Vec<u64>,
}

pub(super) fn sums(settings: &Settings) -> Sums {
    let mut sums = Sums::default();
    let statuses = batch::statuses();
    if statuses.is_empty() {
        return sums;
    }
    let (kinds, starts, ends) = (batch::kinds(), batch::times(), batch::end_times());
    let services = Services::read();
    let mut counted: Vec<Counted> = services.names.iter().map(|_| Counted::default()).collect();
    for (service, rows) in services.runs(statuses.len()) {
        let counted = &mut counted[service];
        counted.spans += rows.len();
        for row in rows {
            if statuses[row] == FAILED {
                counted.failed.push(row as u32);
            }
            if ANSWERING.contains(&kinds[row]) && starts[row] > 0 && ends[row] >= starts[row] {
                counted.durations.push(ends[row] - starts[row]);
            }
        }
    }
    let project = batch::project();
    let share = (DURATIONS_MAX / services.names.len().max(1)).max(DURATIONS_MIN);
    let mut suspects = Suspects(Vec::new());
    let mut failed = Vec::new();
    for (name, counted) in services.names.iter().zip(counted) {
        if counted.spans == 0 || settings.ignore.contains(name) {
            continue;
        }
        let who = keys::who(&project, name);
        sums.count(Count::Spans, &who, counted.spans);
        sums.count(Count::Failed, &who, counted.failed.len());
        for duration in spread(&counted.durations, share) {
            sums.add(Count::Latency.of(&who), latency::value(duration));
        }
        if !counted.failed.is_empty() {
            failed.push((who, counted.failed));
        }
    }
    if !failed.is_empty() {
        let exceptions = exceptions();
        for (who, spans) in failed {
            let is_its = |(_, span): &&(u32, u32)| spans.binary_search(span).is_ok();
            suspects.add(&who, exceptions.iter().filter(is_its).map(|(event, _)| *event).collect());
        }
        suspects.name(&mut sums, Messages::of_events);
    }
    sums
}

/// Events that are exceptions, and the span of each.
fn exceptions() -> Vec<(u32, u32)> {
    let names = batch::packed_texts(Places::EVENT_NAME);
    if !names.iter().any(|name| name == EXCEPTION) {
        return Vec::new();
    }
    let spans = batch::parents(Level::Event, Level::Item);
    let rows = batch::text_rows(Places::EVENT_NAME);
    let exceptions = rows.iter().zip(names.iter()).filter(|(_, name)| *name == EXCEPTION);
    exceptions.filter_map(|(row, _)| Some((*row, *spans.get(*row as usize)?))).collect()
}
