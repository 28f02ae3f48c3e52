//! Any bytes as a request of any signal: nothing panics, what the walk accepts `prost` accepts, and what we write
//! of it is well-formed again and holds the records that it should.
//!
//! The first byte is the signal, the second decides what is done to the records, the rest is the request.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the module stands here alone, without its callers"
)]

#[path = "../../src/batch/mod.rs"]
mod batch;

use batch::{
    Batch, Edit, IdentityKeys, Level, Piece, Places, ProjectId, Request, Signal, Stream, TenantId,
    TextColumn, splice,
};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let [signal, act, bytes @ ..] = data else { return };
    let signal = Signal::ALL[usize::from(signal % 3)];
    let request = match Request::check(signal, Bytes::copy_from_slice(bytes)) {
        Ok(request) => request,
        // These `prost` takes: deep nesting, and what OTLP has once but comes twice.
        Err(malformed)
            if ["levels of", "only once", "only one"].iter().any(|text| malformed.expected.contains(text)) =>
        {
            return;
        }
        Err(malformed) => {
            assert!(read(signal, bytes).is_err(), "{malformed}, but prost accepts it");
            return;
        }
    };
    let recount =
        |bytes: &Bytes| Request::check(signal, bytes.clone()).expect("what we write is well-formed").records;
    assert_eq!(recount(&request.bytes), request.records);
    agree(signal, &request.bytes);

    let keys = IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() };
    let stream = Stream { tenant: TenantId::local(), project: ProjectId::default_project() };
    for at in 0..request.resources.len() {
        let _ = request.claim(at, &keys);
    }
    let mut batch = request.batch(stream, &(0..request.resources.len()).collect::<Vec<_>>());
    assert_eq!(batch.items().count() as u64, request.records);

    let in_pieces = batch.pieces(3, 100);
    for piece in &in_pieces {
        let _ = Request::check(signal, piece.standalone().into()).expect("a piece is well-formed");
    }

    for (_, part) in batch.clone().split(&|at| (at ^ u32::from(*act)) % 3) {
        assert_eq!(recount(&part.bytes), u64::from(part.records));
    }
    let edits = edits(&batch, *act);
    let spliced = splice(&batch.bytes, &edits).into();
    assert_eq!(recount(&spliced), request.records);

    let mut smaller = batch.clone();
    smaller.reject_larger(usize::from(*act));
    assert_eq!(recount(&smaller.bytes), u64::from(smaller.records));

    batch.stamp(&keys, act % 2 == 1);
    let worked: Vec<Piece> = in_pieces.into_iter().map(|piece| work(piece, *act)).collect();
    let left: u64 = worked.iter().map(|piece| u64::from(piece.records())).sum();
    let written = batch.written(worked, &keys).batch;
    assert_eq!((recount(&written.bytes), u64::from(written.records)), (left, left));
    agree(signal, &written.bytes);
    let mut again = written.clone();
    assert_eq!(again.stamp(&keys, act % 2 == 1), batch::Stamped::default());
});

/// `prost` accepts it, unless a value is nested deeper than `prost` goes.
fn agree(signal: Signal, bytes: &[u8]) {
    if let Err(error) = read(signal, bytes) {
        assert!(error.to_string().contains("recursion limit"), "{error}");
    }
}

fn read(signal: Signal, bytes: &[u8]) -> Result<(), prost::DecodeError> {
    match signal {
        Signal::Logs => ExportLogsServiceRequest::decode(bytes).map(drop),
        Signal::Traces => ExportTraceServiceRequest::decode(bytes).map(drop),
        Signal::Metrics => ExportMetricsServiceRequest::decode(bytes).map(drop),
    }
}

/// Every kind of edit that a plugin may ask for, in two calls.
fn work(mut piece: Piece, act: u8) -> Piece {
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
    const LEVELS: [Level; 5] = [Level::Resource, Level::Scope, Level::Metric, Level::Item, Level::Event];
    for round in 0..2 {
        let act = act.rotate_left(round * 3);
        let mut call = piece.call(None);
        for (at, place) in PLACES.into_iter().enumerate().filter(|(at, _)| act >> (at % 8) & 1 == 1) {
            let Ok(texts) = call.texts(place).map(|texts| texts.len() as u32) else { continue };
            let which: Vec<u32> = (0..texts).filter(|text| (text + at as u32) % 2 == 0).collect();
            let by = vec!["replaced".repeat(at); which.len()];
            call.replace_texts(place, &which, &by);
        }
        for (at, level) in LEVELS.into_iter().enumerate().filter(|(at, _)| act >> at & 1 == 0) {
            let rows: Vec<u32> = (0..call.rows(level)).filter(|row| (row + at as u32) % 3 != 0).collect();
            let key = ["tenant.id", "added", "a"][(usize::from(act) + at) % 3];
            let keys = call.attribute_keys(level).unwrap_or_default();
            if let Some(key) = keys.first() {
                call.remove_attribute_from(level, key, &rows);
            }
            let text = TextColumn { index: vec![0; rows.len()], rows, strings: vec!["set".to_owned()] };
            call.set_text_attribute(level, key, &text);
        }
        let drops: Vec<u32> = (0..call.rows(Level::Item)).filter(|row| act >> (row % 8) & 3 == 3).collect();
        call.drop(&drops);
        call.route("aside", &drops);
        piece = call.commit().map_or_else(|(piece, _)| piece, |committed| committed.piece);
    }
    piece
}

/// Records emptied, or given an unknown field at their end.
fn edits(batch: &Batch, act: u8) -> Vec<Edit> {
    let start = batch.bytes.as_ptr().addr();
    let place = |item: &[u8]| {
        let owner = item.as_ptr().addr() - start;
        (owner, owner + item.len())
    };
    batch
        .items()
        .enumerate()
        .filter(|(at, _)| act >> (at % 8) & 1 == 1)
        .map(|(at, parts)| {
            let (owner, end) = place(parts.item);
            match at % 2 {
                0 => Edit { owner, range: owner..end, is_content: true, with: Bytes::new() },
                _ => Edit {
                    owner,
                    range: end..end,
                    is_content: false,
                    with: Bytes::from_static(b"\xc2\x3e\x03abc"),
                },
            }
        })
        .collect()
}
