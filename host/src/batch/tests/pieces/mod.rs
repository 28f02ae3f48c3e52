//! Pieces and calls against `prost`: what a plugin reads, and what its edits do.

mod editing;
mod faults;
mod model;
mod raw;
mod reading;
mod values;

use super::samples::{Decoded, Dice, rewritten};
use crate::batch::{Batch, Level, Piece, Places, ProjectId, Request, Signal, Stream, TenantId};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};

const LEVELS: [Level; 5] = [Level::Resource, Level::Scope, Level::Metric, Level::Item, Level::Event];

const PLACES: [Places; 9] = [
    Places::BODY,
    Places::NAME,
    Places::EVENT_NAME,
    Places::DESCRIPTION,
    Places::ITEM_ATTRIBUTES,
    Places::EVENT_ATTRIBUTES,
    Places::METRIC_ATTRIBUTES,
    Places::SCOPE_ATTRIBUTES,
    Places::RESOURCE_ATTRIBUTES,
];

fn stream() -> Stream {
    Stream { tenant: TenantId::new("acme").unwrap(), project: ProjectId::new("web").unwrap() }
}

fn batch_of(signal: Signal, bytes: Vec<u8>) -> Batch {
    let request = Request::check(signal, bytes.into()).unwrap();
    request.batch(stream(), &(0..request.resources.len()).collect::<Vec<_>>())
}

/// A batch in the usual or an unusual form, and what it reads as, without the envelopes that are empty.
fn sample(signal: Signal, dice: &mut Dice<'_>) -> (Decoded, Batch) {
    let mut reference = dice.request(signal);
    let mut bytes = reference.encode();
    if dice.below(2) == 1 {
        bytes = rewritten(signal, &bytes, dice);
    }
    model::strip(&mut reference);
    (reference, batch_of(signal, bytes))
}

/// The whole batch as one piece, unless it has no records.
fn piece(batch: &Batch) -> Option<Piece> {
    batch.pieces(usize::MAX, usize::MAX).pop()
}

fn attribute(key: &str, text: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(model::text_value(text)), key_strindex: 0 }
}

/// So many log records in one scope: number `n` has the body `body n` and the attribute `n` = `value n`.
fn logs(records: u32) -> Piece {
    let record = |number: u32| LogRecord {
        body: Some(model::text_value(&format!("body {number}"))),
        attributes: vec![attribute("n", &format!("value {number}"))],
        severity_number: 9,
        ..LogRecord::default()
    };
    let scope = ScopeLogs { log_records: (0..records).map(record).collect(), ..ScopeLogs::default() };
    let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
    let request = Decoded::Logs(ExportLogsServiceRequest { resource_logs: vec![resource] });
    piece(&batch_of(Signal::Logs, request.encode())).unwrap()
}
