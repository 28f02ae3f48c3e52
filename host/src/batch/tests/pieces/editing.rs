//! Edits do what the same edits do on structs, in one call after the other.

use super::super::samples::{Decoded, Dice, cases, dice, signal};
use super::model::{self, ATTRIBUTES, Item, Node, text_value, visit};
use super::{LEVELS, logs, piece, sample};
use crate::batch::{
    BoolColumn, Call, DoubleColumn, Hits, IdentityKeys, IntColumn, Level, Places, Signal, TextColumn, Wanted,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

/// One edit of a call. Rows and texts are numbers of the call.
#[derive(Clone, Debug)]
enum Op {
    Parts { of: Places, hits: Hits, by: Vec<String> },
    Strings { of: Places, which: Vec<u32>, by: Vec<String> },
    Entries { of: Places, key: String, by: Option<String> },
    Set { at: Level, key: String, rows: Vec<u32>, to: Value },
    Remove { at: Level, key: String, rows: Option<Vec<u32>> },
    Copy { at: Level, key: String, to: String, rows: Vec<u32> },
    Hash { at: Level, key: String },
    Severity { items: Vec<u32>, to: u8 },
    TraceStates { items: Vec<u32>, to: Vec<String> },
    Drop { items: Vec<u32> },
}

const KEYS: [&str; 4] = ["a", "tenant.id", "日本語", "new"];

/// Draws an edit that is right for what the call sees.
fn draw(call: &mut Call, dice: &mut Dice<'_>, is_edited: &mut Vec<(u16, u32)>) -> Option<Op> {
    let at = LEVELS[dice.below(5) as usize];
    let key = KEYS[dice.below(4) as usize].to_owned();
    let one_place = Places(1 << dice.below(9));
    let rows =
        |dice: &mut Dice<'_>, rows: u32| -> Vec<u32> { (0..rows).filter(|_| dice.below(2) == 1).collect() };
    let level_rows = call.rows(at);
    let items = call.rows(Level::Item);
    Some(match dice.below(11) {
        0 => {
            let texts = call.texts(one_place).unwrap();
            let (mut hits, mut by) = (Hits::default(), Vec::new());
            for text in 0..texts.len() as u32 {
                let bounds: Vec<usize> = (0..=texts.at(text as usize).len())
                    .filter(|at| texts.at(text as usize).is_char_boundary(*at))
                    .collect();
                let start = bounds[dice.below(bounds.len().min(200) as u8) as usize];
                let end = *bounds.iter().filter(|end| **end >= start).nth(dice.below(3) as usize)?;
                if dice.below(2) == 0 || is_edited.contains(&(one_place.0, text)) {
                    continue;
                }
                is_edited.push((one_place.0, text));
                hits.texts.push(text);
                hits.patterns.push(0);
                hits.starts.push(start as u32);
                hits.ends.push(end as u32);
                by.push(dice.text());
            }
            Op::Parts { of: one_place, hits, by }
        }
        1 => {
            let which = rows(dice, call.texts(one_place).unwrap().len() as u32);
            let by = which.iter().map(|_| dice.text() + "!").collect();
            Op::Strings { of: one_place, which, by }
        }
        2 => {
            let by = (dice.below(2) == 1).then(|| "masked".to_owned());
            Op::Entries { of: Places(u16::from(dice.below(2)) << 8 | u16::from(dice.below(255))), key, by }
        }
        3 | 4 => {
            let to = match dice.below(4) {
                0 => Value::StringValue(dice.text()),
                1 => Value::IntValue(dice.number().cast_signed()),
                2 => Value::DoubleValue(0.25),
                _ => Value::BoolValue(true),
            };
            Op::Set { at, key, rows: rows(dice, level_rows), to }
        }
        5 => Op::Remove { at, key, rows: None },
        6 => Op::Remove { at, key, rows: Some(rows(dice, level_rows)) },
        7 => {
            let to = KEYS[dice.below(4) as usize].to_owned();
            Op::Copy { at, key, to, rows: rows(dice, level_rows) }
        }
        8 => Op::Hash { at, key },
        9 => match call.holds() {
            Signal::Logs => Op::Severity { items: rows(dice, items), to: dice.below(25) },
            Signal::Traces => {
                let items = rows(dice, items);
                let to = items.iter().map(|_| dice.text()).collect();
                Op::TraceStates { items, to }
            }
            Signal::Metrics => return None,
        },
        _ => Op::Drop { items: (0..items).filter(|_| dice.below(4) == 3).collect() },
    })
}

fn hashed(text: &str) -> String {
    format!("hash of {} bytes", text.len())
}

fn on_call(call: &mut Call, op: &Op) -> u32 {
    match op.clone() {
        Op::Parts { of, hits, by } => call.replace_each(of, &hits, &by),
        Op::Strings { of, which, by } => call.replace_texts(of, &which, &by),
        Op::Entries { of, key, by } => {
            let mut matches = |one: &str| (one == key).then_some(0);
            return match by {
                None => call.remove_keys(of, &mut matches),
                Some(by) => call.mask_keys(of, &mut matches, &[by]),
            };
        }
        Op::Set { at, key, rows, to } => match to {
            Value::StringValue(text) => {
                let index = vec![0; rows.len()];
                call.set_text_attribute(at, &key, &TextColumn { rows, index, strings: vec![text] });
            }
            Value::IntValue(value) => {
                let values = vec![value; rows.len()];
                call.set_int_attribute(at, &key, &IntColumn { rows, values });
            }
            Value::DoubleValue(value) => {
                let values = vec![value; rows.len()];
                call.set_double_attribute(at, &key, &DoubleColumn { rows, values });
            }
            _ => {
                let values = vec![true; rows.len()];
                call.set_bool_attribute(at, &key, &BoolColumn { rows, values });
            }
        },
        Op::Remove { at, key, rows: None } => call.remove_attribute(at, &key),
        Op::Remove { at, key, rows: Some(rows) } => call.remove_attribute_from(at, &key, &rows),
        Op::Copy { at, key, to, rows } => call.copy_attribute(at, &key, &to, &rows),
        Op::Hash { at, key } => call.hash_attribute(at, &key, &mut hashed),
        Op::Severity { items, to } => call.set_severity(&items, to),
        Op::TraceStates { items, to } => call.set_trace_states(&items, &to),
        Op::Drop { items } => call.drop(&items),
    }
    0
}

/// An attribute while a call's edits of whole values are applied.
struct Cell {
    key: String,
    /// `None`: removed.
    value: Option<Option<AnyValue>>,
    /// How it was before the call.
    before: Option<Option<AnyValue>>,
}

/// Applies the edits of one call. Returns what each of the `-keys` functions counts, in order.
fn on_structs(decoded: &mut Decoded, ops: &[Op]) -> Vec<u32> {
    let before = decoded.clone();
    apply_strings(decoded, ops);
    let mut counts = vec![0; ops.len()];
    // Entries of maps, inside values.
    for (op, count) in ops.iter().zip(&mut counts) {
        let Op::Entries { of, key, by } = op else { continue };
        *count += edit_entries(&mut before.clone(), *of, key, by.as_deref());
        edit_entries(decoded, *of, key, by.as_deref());
    }
    for (place, level) in ATTRIBUTES {
        apply_wholes(decoded, &mut before.clone(), (place, level), ops, &mut counts);
    }
    for op in ops {
        apply_fixed(decoded, op);
    }
    let dropped: Vec<u32> = ops
        .iter()
        .flat_map(|op| if let Op::Drop { items } = op { items.clone() } else { Vec::new() })
        .collect();
    if !dropped.is_empty() {
        model::drop_items(decoded, &dropped);
    }
    counts
}

fn apply_strings(decoded: &mut Decoded, ops: &[Op]) {
    let mut parts: BTreeMap<(u16, u32), (usize, usize, String)> = BTreeMap::new();
    let mut wholes: BTreeMap<(u16, u32), String> = BTreeMap::new();
    for op in ops {
        match op {
            Op::Parts { of, hits, by } => {
                for (at, text) in hits.texts.iter().enumerate() {
                    let range = (hits.starts[at] as usize, hits.ends[at] as usize, by[at].clone());
                    parts.insert((of.0, *text), range);
                }
            }
            Op::Strings { of, which, by } => {
                wholes.extend(which.iter().map(|text| (of.0, *text)).zip(by.iter().cloned()));
            }
            _ => {}
        }
    }
    for place in super::PLACES {
        let mut number = 0;
        model::texts(decoded, place, &mut |_, text| {
            if let Some((start, end, by)) = parts.get(&(place.0, number)) {
                text.replace_range(start..end, by);
            }
            if let Some(by) = wholes.get(&(place.0, number)) {
                text.clone_from(by);
            }
            number += 1;
        });
    }
}

/// Edits the entries of maps inside bodies, and inside attributes that do not have the key themselves.
fn edit_entries(decoded: &mut Decoded, of: Places, key: &str, by: Option<&str>) -> u32 {
    let mut edited = 0;
    visit(decoded, &mut |node| {
        if let (Node::Item(Item::Log(log)), true) = (node, of.0 & Places::BODY.0 != 0) {
            edited += log.body.as_mut().map_or(0, |body| model::edit_entries(body, key, by));
        }
    });
    for (_, level) in ATTRIBUTES.into_iter().filter(|(place, _)| of.0 & place.0 != 0) {
        model::owners(decoded, level, &mut |attributes| {
            for attribute in attributes.iter_mut().filter(|attribute| attribute.key != key) {
                edited += attribute.value.as_mut().map_or(0, |value| model::edit_entries(value, key, by));
            }
        });
    }
    edited
}

fn apply_wholes(
    decoded: &mut Decoded,
    before: &mut Decoded,
    (place, level): (Places, Level),
    ops: &[Op],
    counts: &mut [u32],
) {
    let mut snapshot = Vec::new();
    model::owners(before, level, &mut |attributes| snapshot.push(attributes.clone()));
    let mut row = 0;
    model::owners(decoded, level, &mut |attributes| {
        let old = &snapshot[row as usize];
        let mut cells: Vec<Cell> = attributes
            .drain(..)
            .zip(old)
            .map(|(now, old)| Cell { key: now.key, value: Some(now.value), before: Some(old.value.clone()) })
            .collect();
        for (op, count) in ops.iter().zip(counts.iter_mut()) {
            *count += apply_whole(&mut cells, op, (place, level), row);
        }
        let strindex = |at: usize| old.get(at).map_or(0, |old| old.key_strindex);
        attributes.extend(cells.into_iter().enumerate().filter_map(|(at, cell)| {
            Some(KeyValue { key: cell.key, value: cell.value?, key_strindex: strindex(at) })
        }));
        row += 1;
    });
}

fn apply_whole(cells: &mut Vec<Cell>, op: &Op, (place, level): (Places, Level), row: u32) -> u32 {
    let mut count = 0;
    match op {
        Op::Entries { of, key, by } if of.0 & place.0 != 0 => {
            for cell in cells.iter_mut().filter(|cell| cell.key == *key && cell.before.is_some()) {
                cell.value = by.as_deref().map(|by| Some(text_value(by)));
                count += 1;
            }
        }
        Op::Set { at, key, rows, to } if *at == level && rows.contains(&row) => {
            put(cells, key, Some(Some(AnyValue { value: Some(to.clone()) })));
        }
        Op::Remove { at, key, rows }
            if *at == level && rows.as_ref().is_none_or(|rows| rows.contains(&row)) =>
        {
            put(cells, key, None);
        }
        Op::Copy { at, key, to, rows } if *at == level && rows.contains(&row) => {
            let from = cells.iter().find(|cell| cell.key == *key && cell.before.is_some());
            if let Some(value) = from.and_then(|cell| cell.before.clone()) {
                // A value that is absent is written as an empty one.
                put(cells, to, Some(Some(value.unwrap_or_default())));
            }
        }
        Op::Hash { at, key } if *at == level => {
            for cell in cells.iter_mut().filter(|cell| cell.key == *key) {
                let Some(Some(mut value)) = cell.before.clone() else { continue };
                let mut has_strings = false;
                model::strings(&mut value, &mut |text| {
                    has_strings = true;
                    *text = hashed(text);
                });
                if has_strings {
                    cell.value = Some(Some(value));
                }
            }
        }
        _ => {}
    }
    count
}

/// Sets the first that was there before the call, and removes the others; else the one that was added, else adds it.
fn put(cells: &mut Vec<Cell>, key: &str, value: Option<Option<AnyValue>>) {
    let mut value = Some(value);
    let mut is_there = false;
    for cell in cells.iter_mut().filter(|cell| cell.key == key && cell.before.is_some()) {
        cell.value = value.take().unwrap_or(None);
        is_there = true;
    }
    let Some(value) = value.filter(|_| !is_there) else { return };
    match cells.iter_mut().find(|cell| cell.key == key) {
        Some(added) => added.value = value,
        None => cells.push(Cell { key: key.to_owned(), value, before: None }),
    }
}

fn apply_fixed(decoded: &mut Decoded, op: &Op) {
    let mut row = 0;
    visit(decoded, &mut |node| {
        let Node::Item(item) = node else { return };
        match (item, op) {
            (Item::Log(log), Op::Severity { items, to }) if items.contains(&row) => {
                log.severity_number = i32::from(*to);
            }
            (Item::Span(span), Op::TraceStates { items, to }) => {
                if let Some(at) = items.iter().position(|item| *item == row) {
                    span.trace_state.clone_from(&to[at]);
                }
            }
            _ => {}
        }
        row += 1;
    });
}

/// The attributes that a call adds stand in the order of the keys' first use in the call.
fn sorted(mut decoded: Decoded) -> Decoded {
    for level in LEVELS {
        model::owners(&mut decoded, level, &mut |attributes| {
            attributes.sort_by(|one, next| one.key.cmp(&next.key));
        });
    }
    // One that was made for an attribute that is gone again says nothing.
    visit(&mut decoded, &mut |node| match node {
        Node::Resource(resource) => {
            *resource = resource.take().filter(|resource| *resource != Default::default())
        }
        Node::Scope(scope) => *scope = scope.take().filter(|scope| *scope != Default::default()),
        _ => {}
    });
    model::strip(&mut decoded);
    decoded
}

/// Whether they say the same; shows the first record that differs.
fn same(one: &Decoded, other: &Decoded, ops: &[(u8, Op)]) -> Result<(), TestCaseError> {
    let (one, other) = (sorted(one.clone()), sorted(other.clone()));
    let (lines, others) = (model::lines(&one), model::lines(&other));
    let pair = lines.iter().zip(&others).find(|(one, other)| one != other);
    prop_assert!(pair.is_none(), "after {:?}\n{}\ninstead of\n{}", ops, pair.unwrap().0, pair.unwrap().1);
    prop_assert_eq!(one, other);
    Ok(())
}

fn no_keys() -> IdentityKeys {
    IdentityKeys { tenant: "not".into(), project: "there".into() }
}

proptest! {
    #![proptest_config(cases(800))]

    #[test]
    fn edits_of_two_calls_do_what_they_do_on_structs(
        signal in signal(),
        shape in dice(),
        edits in prop::collection::vec(any::<u8>(), 0..600),
        subset in prop::option::of((0_u32..6, 0_u32..9)),
        expected: u16,
    ) {
        let (mut reference, batch) = sample(signal, &mut Dice(&shape));
        let Some(mut piece) = piece(&batch) else { return Ok(()) };
        piece.expect(Wanted(expected));
        let mut dice = Dice(&edits);
        let mut all = Vec::new();
        for round in 0..2 {
            let subset = subset.filter(|_| round == 1 && signal != Signal::Metrics).map(|(from, to)| from..to);
            let records = piece.records();
            let mut call = piece.call(subset.clone());
            let mut is_edited = Vec::new();
            let mut ops = Vec::new();
            let mut counts = Vec::new();
            for _ in 0..dice.below(7) {
                let Some(op) = draw(&mut call, &mut dice, &mut is_edited) else { continue };
                // The structs do not remember what the last of two such edits would bring back.
                let is_same = |other: &Op| matches!((&op, other), (Op::Entries { key: one, .. }, Op::Entries { key, .. }) if key == one);
                if ops.iter().any(is_same) {
                    continue;
                }
                counts.push(on_call(&mut call, &op));
                all.push((round, op.clone()));
                ops.push(op);
            }
            let seen = Decoded::decode(signal, &call.raw().unwrap()).unwrap();
            let done = call.commit().map_err(|(_, fault)| TestCaseError::fail(fault.0))?;
            piece = done.piece;
            prop_assert_eq!(records - done.dropped, piece.records());
            let Some(subset) = subset else {
                prop_assert_eq!(on_structs(&mut reference, &ops), counts, "{:?}", ops);
                continue;
            };
            {
                // The part by itself, put back among the others.
                let mut part = seen;
                model::strip(&mut part);
                let (drops, edits): (Vec<Op>, Vec<Op>) =
                    ops.into_iter().partition(|op| matches!(op, Op::Drop { .. }));
                on_structs(&mut part, &edits);
                reference = joined(reference, &part, &subset, &drops);
            }
        }
        let alone = Decoded::decode(signal, &piece.standalone()).unwrap();
        same(&alone, &reference, &all)?;
        let written = batch.written(vec![piece], &no_keys());
        prop_assert_eq!(written.restored, 0);
        prop_assert_eq!(u64::from(written.batch.records), reference.records() as u64);
        let written = Decoded::decode(signal, &written.batch.bytes).unwrap();
        same(&written, &reference, &all)?;
    }
}

/// The whole with the part's records, resources and scopes instead of those that the call saw.
fn joined(mut whole: Decoded, part: &Decoded, subset: &Range<u32>, drops: &[Op]) -> Decoded {
    let seen: Vec<u32> = (0..whole.records() as u32).filter(|item| subset.contains(item)).collect();
    let dropped: Vec<u32> = drops
        .iter()
        .flat_map(|op| if let Op::Drop { items } = op { items.clone() } else { Vec::new() })
        .map(|item| seen[item as usize])
        .collect();
    match (&mut whole, part) {
        (Decoded::Logs(whole), Decoded::Logs(part)) => {
            let mut parts = part.resource_logs.iter().flat_map(|resource| {
                resource.scope_logs.iter().flat_map(move |scope| {
                    scope.log_records.iter().map(move |log| (&resource.resource, &scope.scope, log))
                })
            });
            let mut row = 0;
            for resource in &mut whole.resource_logs {
                for scope in &mut resource.scope_logs {
                    for log in &mut scope.log_records {
                        if seen.contains(&row) {
                            let (around, within, record) = parts.next().unwrap();
                            resource.resource.clone_from(around);
                            scope.scope.clone_from(within);
                            log.clone_from(record);
                        }
                        row += 1;
                    }
                }
            }
        }
        (Decoded::Traces(whole), Decoded::Traces(part)) => {
            let mut parts = part.resource_spans.iter().flat_map(|resource| {
                resource.scope_spans.iter().flat_map(move |scope| {
                    scope.spans.iter().map(move |span| (&resource.resource, &scope.scope, span))
                })
            });
            let mut row = 0;
            for resource in &mut whole.resource_spans {
                for scope in &mut resource.scope_spans {
                    for span in &mut scope.spans {
                        if seen.contains(&row) {
                            let (around, within, record) = parts.next().unwrap();
                            resource.resource.clone_from(around);
                            scope.scope.clone_from(within);
                            span.clone_from(record);
                        }
                        row += 1;
                    }
                }
            }
        }
        _ => {}
    }
    model::drop_items(&mut whole, &dropped);
    whole
}

#[test]
fn an_edit_that_is_taken_back_leaves_only_the_other() {
    let mut call = logs(3).call(None);
    call.set_text_attribute(
        Level::Item,
        "k",
        &TextColumn { rows: vec![0, 1], index: vec![0, 0], strings: vec!["v".into()] },
    );
    call.remove_attribute_from(Level::Item, "k", &[0]);
    call.remove_attribute(Level::Item, "n");
    let piece = call.commit().unwrap().piece;
    let mut call = piece.call(None);
    assert_eq!(call.attribute_rows(Level::Item, "k").unwrap(), [1]);
    assert!(call.attribute_rows(Level::Item, "n").unwrap().is_empty());
}

#[test]
fn own_edits_do_not_show_and_numbers_do_not_move() {
    let mut call = logs(3).call(None);
    call.drop(&[0, 2]);
    call.set_severity(&[1], 17);
    call.replace_texts(Places::BODY, &[1], &["other".into()]);
    assert_eq!(call.severities().unwrap(), [9, 9, 9]);
    assert_eq!(call.texts(Places::BODY).unwrap().at(1), "body 1");
    let done = call.commit().unwrap();
    assert_eq!((done.dropped, done.piece.records()), (2, 1));
    let mut call = done.piece.call(None);
    assert_eq!(call.severities().unwrap(), [17]);
    assert_eq!(call.texts(Places::BODY).unwrap().at(0), "other");
}

#[test]
fn routes_are_those_of_the_records_that_are_left() {
    let mut call = logs(4).call(None);
    call.route("slow", &[1, 2]);
    call.route("fast", &[2]);
    let piece = call.commit().unwrap().piece;
    let mut call = piece.call(None);
    call.drop(&[0, 1]);
    let piece = call.commit().unwrap().piece;
    let routes: Vec<Option<String>> =
        piece.routes().unwrap().into_iter().map(|route| route.map(|route| route.to_string())).collect();
    assert_eq!(routes, [Some("fast".to_owned()), None]);
}

#[test]
fn a_route_that_nobody_gave_is_none() {
    assert!(logs(2).routes().is_none());
}
