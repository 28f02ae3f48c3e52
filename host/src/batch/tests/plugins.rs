//! The whole way through the plugins: stamp, pieces, two calls on each, one splice. The result is that of the same
//! work done on structs.

use super::edits::{keys, read, sample, stamp_struct, stream, text, whole};
use super::samples::{Decoded, Dice, cases, dice, signal};
use crate::batch::piece::{Call, Level, Piece, Places, TextColumn};
use crate::batch::{Batch, Signal};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use proptest::prelude::*;
use std::sync::Arc;

/// What the two plugins do to one record.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Acts {
    is_marked: bool,
    is_dropped: bool,
    is_routed: bool,
    is_stripped: bool,
}

const KEY: &str = "a";

fn acts() -> impl Strategy<Value = Acts> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(is_marked, is_dropped, is_routed, is_stripped)| Acts {
            is_marked,
            is_dropped,
            is_routed,
            is_stripped,
        },
    )
}

/// The rows for which `does` holds.
fn rows(acts: &[Acts], does: impl Fn(&Acts) -> bool) -> Vec<u32> {
    (0..acts.len() as u32).filter(|row| does(&acts[*row as usize])).collect()
}

fn column(rows: Vec<u32>, text: &str) -> TextColumn {
    TextColumn { index: vec![0; rows.len()], rows, strings: vec![text.to_owned()] }
}

fn commit(call: Call) -> Piece {
    match call.commit() {
        Ok(committed) => committed.piece,
        Err((_, fault)) => panic!("{fault}"),
    }
}

/// Masks texts, marks records, and then strips attributes, drops, and adds to the resource.
fn work(piece: Piece, acts: &[Acts]) -> Piece {
    let mut call = piece.call(None);
    let texts = call.texts(Places::ITEM_ATTRIBUTES).unwrap();
    let found: Vec<u32> = (0..texts.len() as u32).filter(|at| texts.at(*at as usize).contains('@')).collect();
    let masks = vec!["[email]".to_owned(); found.len()];
    call.replace_texts(Places::ITEM_ATTRIBUTES, &found, &masks);
    call.set_text_attribute(Level::Item, "mark", &column(rows(acts, |acts| acts.is_marked), "yes"));
    let mut call = commit(call).call(None);
    call.remove_attribute_from(Level::Item, KEY, &rows(acts, |acts| acts.is_stripped));
    call.drop(&rows(acts, |acts| acts.is_dropped));
    call.route("aside", &rows(acts, |acts| acts.is_routed));
    let resources = (0..call.rows(Level::Resource)).collect();
    call.set_text_attribute(Level::Resource, "shared", &column(resources, "once"));
    commit(call)
}

/// The same on the attributes of a record.
fn work_on_struct(acts: Acts, attributes: &mut Vec<KeyValue>) -> bool {
    attributes.iter_mut().filter_map(|attribute| attribute.value.as_mut()).for_each(mask);
    if acts.is_marked {
        attributes.push(text("mark", "yes"));
    }
    if acts.is_stripped {
        attributes.retain(|attribute| attribute.key != KEY);
    }
    !acts.is_dropped
}

fn mask(value: &mut AnyValue) {
    match &mut value.value {
        Some(Value::StringValue(text)) if text.contains('@') => *text = "[email]".to_owned(),
        Some(Value::ArrayValue(array)) => array.values.iter_mut().for_each(mask),
        Some(Value::KvlistValue(map)) => {
            map.values.iter_mut().filter_map(|entry| entry.value.as_mut()).for_each(mask)
        }
        _ => {}
    }
}

/// How many records each resource has.
fn records_of(batch: &Batch, resources: usize) -> Vec<u32> {
    let mut records = vec![0; resources];
    batch.resource_of_records().into_iter().for_each(|at| records[at as usize] += 1);
    records
}

fn expected(mut reference: Decoded, batch: &Batch, acts: &[Acts]) -> Decoded {
    for (at, records) in records_of(batch, reference.resources()).into_iter().enumerate() {
        let resource = reference.resource(at);
        stamp_struct(resource, true);
        if records > 0 {
            resource.get_or_insert_default().attributes.push(text("shared", "once"));
        }
    }
    reference.keep(|at, attributes| work_on_struct(acts[at as usize % acts.len()], attributes));
    reference
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn what_plugins_do_in_pieces_is_what_they_do_on_structs(
        signal in signal(),
        dice in dice(),
        acts in prop::collection::vec(acts(), 60),
        records_max in 1_usize..9,
    ) {
        let (reference, request) = sample(signal, &mut Dice(&dice));
        let mut batch = whole(&request);
        let expected = expected(reference, &batch, &acts);
        batch.stamp(&keys(), true);
        let mut before = 0;
        let mut routes = Vec::new();
        let mut pieces = Vec::new();
        for piece in batch.pieces(records_max, 1 << 20) {
            let acts: Vec<Acts> = (0..piece.records() as usize).map(|row| acts[(before + row) % 60]).collect();
            before += acts.len();
            let left = acts.iter().filter(|acts| !acts.is_dropped);
            routes.extend(left.map(|acts| acts.is_routed.then(|| Arc::<str>::from("aside"))));
            pieces.push(work(piece, &acts));
        }
        let is_any_routed = routes.iter().any(Option::is_some);
        let written = batch.written(pieces, &keys());
        prop_assert_eq!(written.restored, 0);
        prop_assert_eq!(written.batch.records as usize, expected.records());
        prop_assert_eq!(read(&written.batch), expected);
        if is_any_routed {
            prop_assert_eq!(written.routes, Some(routes));
        }
    }

    #[test]
    fn a_piece_by_itself_is_a_request_of_its_records(signal in signal(), dice in dice(), records_max in 1_usize..5) {
        let (_, request) = sample(signal, &mut Dice(&dice));
        let batch = whole(&request);
        let items = |batch: &Batch| batch.items().map(|parts| parts.item.to_vec()).collect::<Vec<_>>();
        let mut joined = Vec::new();
        for piece in batch.pieces(records_max, 1 << 20) {
            let records = piece.records();
            let alone = Batch::over(signal, stream(), piece.standalone().into());
            prop_assert_eq!(alone.records, records);
            read(&alone);
            joined.extend(items(&alone));
        }
        prop_assert_eq!(joined, items(&batch));
    }
}

/// One piece is written anew by `splice`, in the others a plugin forges the identity.
#[test]
fn where_a_plugin_wrote_a_piece_anew_the_pieces_are_joined_and_identity_is_restored() {
    let mut record = Vec::new();
    crate::batch::wire::put_field(&mut record, 3, b"INFO");
    let mut scope = Vec::new();
    (0..6).for_each(|_| crate::batch::wire::put_field(&mut scope, 2, &record));
    let mut content = Vec::new();
    crate::batch::wire::put_field(&mut content, 2, &scope);
    let mut bytes = Vec::new();
    crate::batch::wire::put_field(&mut bytes, 1, &content);
    let request = crate::batch::Request::check(Signal::Logs, bytes.into()).unwrap();
    let mut batch = whole(&request);
    batch.stamp(&keys(), true);
    let mut pieces = Vec::new();
    for (at, piece) in batch.pieces(2, 1 << 20).into_iter().enumerate() {
        let mut call = piece.call(None);
        match at {
            0 => {}
            1 => {
                let raw = call.raw().unwrap();
                let at = raw.windows(4).position(|window| window == b"INFO").unwrap();
                call.splice(&[at as u32], &[4], &[b"ERROR".to_vec()]);
            }
            _ => call.set_text_attribute(Level::Resource, "tenant.id", &column(vec![0], "other")),
        }
        pieces.push(commit(call));
    }
    let written = batch.written(pieces, &keys());
    assert_eq!((written.batch.records, written.restored), (6, 1));
    let all = super::samples::resource_attributes(&written.batch.bytes);
    assert!(!all.is_empty() && all.iter().all(|one| one == "tenant.id=acme project.id=web"), "{all:?}");
    let texts: Vec<&[u8]> = written.batch.items().map(|parts| &parts.item[2..]).collect();
    assert_eq!(texts, [b"INFO".as_slice(), b"INFO", b"ERROR", b"INFO", b"INFO", b"INFO"]);
}
