//! Edits of the bytes do what the same edits do on structs, and nothing else.

use super::samples::{Decoded, Dice, cases, dice, rewritten, signal};
use crate::batch::piece::Changes;
use crate::batch::wire::{Field, fields, text_attribute};
use crate::batch::{Batch, Edit, IdentityKeys, ProjectId, Request, Signal, Stream, TenantId, splice};
use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;

pub(super) fn stream() -> Stream {
    Stream { tenant: TenantId::new("acme").unwrap(), project: ProjectId::new("web").unwrap() }
}

pub(super) fn keys() -> IdentityKeys {
    IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() }
}

pub(super) fn whole(request: &Request) -> Batch {
    request.batch(stream(), &(0..request.resources.len()).collect::<Vec<_>>())
}

/// A request in the usual or an unusual form, and what it reads as.
pub(super) fn sample(signal: Signal, dice: &mut Dice<'_>) -> (Decoded, Request) {
    let reference = dice.request(signal);
    let mut bytes = reference.encode();
    if dice.below(2) == 1 {
        bytes = rewritten(signal, &bytes, dice);
    }
    (reference, Request::check(signal, bytes.into()).unwrap())
}

pub(super) fn read(batch: &Batch) -> Decoded {
    Request::check(batch.signal, batch.bytes.clone()).expect("what we write is well-formed");
    Decoded::decode(batch.signal, &batch.bytes).unwrap()
}

pub(super) fn text(key: &str, text: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// The field of a record that holds its attributes.
fn attributes_number(signal: Signal, kind: u8) -> u32 {
    match (signal, kind) {
        (Signal::Logs, _) => 6,
        (Signal::Traces, _) | (_, 9) => 9,
        (_, 10) => 1,
        _ => 7,
    }
}

/// What is done to one record.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Keep,
    Drop,
    RemoveFirst,
    RemoveAll,
    Replace,
    /// The text of the first attribute, if it is one.
    Mask,
    Append,
    Prepend,
}

const ACTS: [Act; 8] = [
    Act::Keep,
    Act::Drop,
    Act::RemoveFirst,
    Act::RemoveAll,
    Act::Replace,
    Act::Mask,
    Act::Append,
    Act::Prepend,
];

fn on_struct(act: Act, attributes: &mut Vec<KeyValue>) -> bool {
    match act {
        Act::Keep => {}
        Act::Drop => return false,
        Act::RemoveFirst if !attributes.is_empty() => {
            attributes.remove(0);
        }
        Act::RemoveAll => attributes.clear(),
        Act::Replace if !attributes.is_empty() => attributes[0] = text("replaced", "by this"),
        Act::Mask => {
            let first = attributes.first_mut().and_then(|first| first.value.as_mut());
            if let Some(AnyValue { value: Some(Value::StringValue(text)) }) = first {
                *text = "masked ".repeat(30);
            }
        }
        Act::Append => attributes.push(text("key", "value")),
        Act::Prepend => attributes.insert(0, text("key", "value")),
        _ => {}
    }
    true
}

/// The same as edits of the record at `item`.
fn on_bytes(act: Act, bytes: &[u8], item: &Field, number: u32) -> Vec<Edit> {
    let all: Vec<Field> =
        fields(bytes, item.content, item.end).filter(|field| field.is_message(number)).collect();
    let edit = |start, end, with: Vec<u8>| Edit {
        owner: item.content,
        range: start..end,
        is_content: false,
        with: with.into(),
    };
    let added = text_attribute(number, "key", "value");
    match (act, all.first()) {
        (Act::RemoveFirst, Some(first)) => vec![edit(first.start, first.end, Vec::new())],
        (Act::RemoveAll, _) => all.iter().map(|field| edit(field.start, field.end, Vec::new())).collect(),
        (Act::Replace, Some(first)) => {
            vec![edit(first.start, first.end, text_attribute(number, "replaced", "by this"))]
        }
        (Act::Mask, Some(first)) => mask(bytes, first).into_iter().collect(),
        (Act::Append, _) => vec![edit(item.end, item.end, added)],
        (Act::Prepend, _) => vec![edit(item.content, item.content, added)],
        _ => Vec::new(),
    }
}

fn mask(bytes: &[u8], attribute: &Field) -> Option<Edit> {
    let text = fields(bytes, attribute.content, attribute.end)
        .filter(|field| field.is_message(2))
        .find_map(|value| fields(bytes, value.content, value.end).find(|field| field.is_message(1)))?;
    let with = Bytes::from("masked ".repeat(30));
    Some(Edit { owner: text.content, range: text.content..text.end, is_content: true, with })
}

/// The records of a batch as fields of its bytes, with the number of their attributes.
fn records(batch: &Batch) -> Vec<(Field, u32)> {
    crate::batch::tree::Tree::over(batch.signal, &batch.bytes)
        .map(|standing| (standing.item.field, attributes_number(batch.signal, standing.kind)))
        .collect()
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn without_a_change_the_same_bytes_are_handed_back(signal in signal(), dice in dice()) {
        let (_, request) = sample(signal, &mut Dice(&dice));
        let batch = whole(&request);
        let written = batch.written(Vec::new(), &keys());
        prop_assert_eq!(written.batch.bytes.as_ptr(), request.bytes.as_ptr());
        prop_assert_eq!(written.batch.bytes, &request.bytes);
        prop_assert_eq!(splice(&request.bytes, &[]), request.bytes.to_vec());
    }

    #[test]
    fn edits_of_records_do_what_they_do_on_structs(
        signal in signal(),
        dice in dice(),
        acts in prop::collection::vec(prop::sample::select(ACTS.to_vec()), 60),
        cut in 1_u32..9,
    ) {
        let (mut reference, request) = sample(signal, &mut Dice(&dice));
        let batch = whole(&request);
        let records = records(&batch);
        reference.keep(|at, attributes| on_struct(acts[at as usize % 60], attributes));
        let mut changes = Vec::new();
        for (piece, items) in records.chunks(cut as usize).enumerate() {
            let mut edits = Vec::new();
            let mut dropped = Vec::new();
            for (row, (item, number)) in items.iter().enumerate() {
                let act = acts[(piece * cut as usize + row) % 60];
                edits.extend(on_bytes(act, &batch.bytes, item, *number));
                if act == Act::Drop {
                    dropped.push(row as u32);
                }
            }
            changes.push((items.len() as u32, Changes::Edits { edits, dropped }));
        }
        let keys = IdentityKeys { tenant: "not".into(), project: "there".into() };
        let (written, restored) = batch.edited(changes, &keys);
        let expected = reference.records() as u32;
        prop_assert_eq!(written.records, expected);
        prop_assert_eq!(restored, 0);
        prop_assert_eq!(read(&written), reference);
    }

    #[test]
    fn a_batch_split_by_records_holds_each_record_once(
        signal in signal(),
        dice in dice(),
        parts in prop::collection::vec(0_u32..4, 60),
    ) {
        let (reference, request) = sample(signal, &mut Dice(&dice));
        let batch = whole(&request);
        let split = batch.clone().split(&|at| parts[at as usize % 60]);
        let mut seen = 0;
        for (number, part) in split {
            let mut expected = reference.clone();
            expected.keep(|at, _| parts[at as usize % 60] == number);
            seen += part.records;
            prop_assert_eq!(part.records as usize, expected.records());
            prop_assert_eq!(read(&part), expected);
        }
        prop_assert_eq!(u64::from(seen), request.records);
    }

    #[test]
    fn the_records_of_a_batch_are_those_that_prost_reads(signal in signal(), dice in dice()) {
        let (mut reference, request) = sample(signal, &mut Dice(&dice));
        let batch = whole(&request);
        let resources = batch.resource_of_records();
        prop_assert_eq!(batch.items().count() as u64, request.records);
        prop_assert_eq!(Batch::over(signal, stream(), batch.bytes.clone()).records, batch.records);
        for (at, item) in batch.items().enumerate() {
            prop_assert_eq!(item.resource_number, resources[at]);
            let resource: Resource = prost::Message::decode(item.resource).unwrap();
            let expected = reference.resource(item.resource_number as usize).clone().unwrap_or_default();
            prop_assert_eq!(resource, expected);
        }
    }

    #[test]
    fn pieces_hold_all_records_in_order_within_their_bounds(
        signal in signal(),
        dice in dice(),
        records_max in 1_usize..6,
        bytes_max in 1_usize..2000,
    ) {
        let (_, request) = sample(signal, &mut Dice(&dice));
        let batch = whole(&request);
        let mut all = batch.rows(records_max, bytes_max).into_iter().peekable();
        let mut records = records(&batch).into_iter();
        while let Some(rows) = all.next() {
            let items = &rows.items;
            let bytes: u32 = items.iter().map(|row| row.content.1 - row.content.0).sum();
            prop_assert!(!items.is_empty() && items.len() <= records_max);
            prop_assert!(items.len() == 1 || bytes as usize <= bytes_max);
            for item in items {
                let (field, _) = records.next().unwrap();
                prop_assert_eq!((item.field, item.content.0), ((field.start as u32, field.end as u32), field.content as u32));
                let scopes = if signal == Signal::Metrics {
                    rows.metrics[item.parent as usize].parent
                } else {
                    item.parent
                };
                let resource = rows.resources[rows.scopes[scopes as usize].parent as usize];
                prop_assert!(resource.content.0 < item.field.0 && item.field.1 <= resource.content.1);
            }
            let last = all.peek().and_then(|next| next.items.first());
            if let Some(next) = last {
                let next = (next.content.1 - next.content.0) as usize;
                prop_assert!(items.len() == records_max || bytes as usize + next > bytes_max);
            }
        }
        prop_assert!(records.next().is_none());
    }

    #[test]
    fn after_a_stamp_each_resource_says_once_whose_it_is(signal in signal(), dice in dice(), add: bool) {
        let (mut reference, request) = sample(signal, &mut Dice(&dice));
        let mut batch = whole(&request);
        let stamped = batch.stamp(&keys(), add);
        let mut wanted = (0, 0);
        for at in 0..reference.resources() {
            let (overwritten, added) = stamp_struct(reference.resource(at), add);
            wanted = (wanted.0 + u32::from(overwritten), wanted.1 + u32::from(added));
        }
        let is_unusual = stamped.overwritten > wanted.0;
        prop_assert!(is_unusual || (stamped.overwritten, stamped.added) == wanted);
        prop_assert_eq!(stamped.added, wanted.1);
        let written = batch.written(Vec::new(), &keys()).batch;
        prop_assert_eq!(read(&written), reference);
        let mut again = written;
        prop_assert_eq!(again.stamp(&keys(), add).overwritten, 0);
    }

    #[test]
    fn edits_that_fit_nothing_never_panic(
        signal in signal(),
        dice in dice(),
        edits in prop::collection::vec((0_usize..600, 0_usize..600, 0_usize..50, any::<bool>()), 0..20),
    ) {
        let (_, request) = sample(signal, &mut Dice(&dice));
        let edits: Vec<Edit> = edits
            .into_iter()
            .map(|(owner, start, length, is_content)| {
                Edit { owner, range: start..start + length, is_content, with: Bytes::from_static(b"\x0a\x00") }
            })
            .collect();
        let _ = splice(&request.bytes, &edits);
        let _ = splice(&dice, &edits);
    }
}

/// The stamp on a struct: whether something was overwritten, and whether something was added.
pub(super) fn stamp_struct(resource: &mut Option<Resource>, add: bool) -> (bool, bool) {
    let mut did = (false, false);
    for (key, value) in [("tenant.id", "acme"), ("project.id", "web")] {
        let attributes = resource.as_ref().map(|resource| &resource.attributes[..]).unwrap_or_default();
        let stands: Vec<usize> = (0..attributes.len()).filter(|&at| attributes[at].key == key).collect();
        let right = text(key, value);
        match stands[..] {
            [] if add => {
                resource.get_or_insert_default().attributes.push(right);
                did.1 = true;
            }
            [] => {}
            [one] if attributes[one].value == right.value => {}
            [first, ..] => {
                let attributes = &mut resource.as_mut().unwrap().attributes;
                attributes[first] = right;
                let mut at = 0;
                attributes.retain(|attribute| {
                    at += 1;
                    at - 1 <= first || attribute.key != key
                });
                did.0 = true;
            }
        }
    }
    did
}
