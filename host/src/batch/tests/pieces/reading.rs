//! Columns read what `prost` reads.

use super::super::samples::{Decoded, Dice, cases, dice, signal};
use super::model::{self, ATTRIBUTES, Item, Node, visit};
use super::{LEVELS, PLACES, piece, sample};
use crate::batch::{Call, Level, Places, Signal, Wanted};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point};
use proptest::prelude::*;

/// The fixed fields of one record.
#[derive(Debug, Default, PartialEq)]
struct Fixed {
    severity: u8,
    kind: u8,
    status: u8,
    times: (u64, u64),
    number: f64,
    count: f64,
    temporality: u8,
    trace_id: Vec<u8>,
    span_id: Vec<u8>,
    parent_id: Vec<u8>,
    trace_state: String,
}

fn id(bytes: &[u8], length: usize) -> Vec<u8> {
    if bytes.len() == length { bytes.to_vec() } else { vec![0; length] }
}

fn fixed(decoded: &mut Decoded) -> Vec<Fixed> {
    let (mut all, mut kind, mut temporality) = (Vec::new(), 0, 0);
    visit(decoded, &mut |node| match node {
        Node::Metric(metric) => {
            (kind, temporality) = match &metric.data {
                Some(Data::Gauge(_)) => (5, 0),
                Some(Data::Sum(sum)) => {
                    (7, sum.aggregation_temporality as u8 + if sum.is_monotonic { 16 } else { 0 })
                }
                Some(Data::Histogram(data)) => (9, data.aggregation_temporality as u8),
                Some(Data::ExponentialHistogram(data)) => (10, data.aggregation_temporality as u8),
                _ => (11, 0),
            };
        }
        Node::Item(item) => all.push(of_item(&item, kind, temporality)),
        _ => {}
    });
    all
}

fn of_item(item: &Item<'_>, kind: u8, temporality: u8) -> Fixed {
    let none =
        Fixed { trace_id: vec![0; 16], span_id: vec![0; 8], parent_id: vec![0; 8], ..Fixed::default() };
    let point = |times, number, count| Fixed { kind, temporality, times, number, count, ..none };
    match item {
        Item::Log(log) => Fixed {
            severity: log.severity_number as u8,
            times: (log.time_unix_nano, log.observed_time_unix_nano),
            trace_id: id(&log.trace_id, 16),
            span_id: id(&log.span_id, 8),
            parent_id: vec![0; 8],
            ..Fixed::default()
        },
        Item::Span(span) => Fixed {
            kind: span.kind as u8,
            status: span.status.as_ref().map_or(0, |status| status.code as u8),
            times: (span.start_time_unix_nano, span.end_time_unix_nano),
            trace_id: id(&span.trace_id, 16),
            span_id: id(&span.span_id, 8),
            parent_id: id(&span.parent_span_id, 8),
            trace_state: span.trace_state.clone(),
            ..Fixed::default()
        },
        Item::Number(one) => {
            let number = match one.value {
                Some(number_data_point::Value::AsDouble(value)) => value,
                Some(number_data_point::Value::AsInt(value)) => value as f64,
                None => 0.0,
            };
            point((one.time_unix_nano, one.start_time_unix_nano), number, 1.0)
        }
        Item::Histogram(one) => {
            point((one.time_unix_nano, one.start_time_unix_nano), one.sum.unwrap_or(0.0), one.count as f64)
        }
        Item::Exponential(one) => {
            point((one.time_unix_nano, one.start_time_unix_nano), one.sum.unwrap_or(0.0), one.count as f64)
        }
        Item::Summary(one) => {
            point((one.time_unix_nano, one.start_time_unix_nano), one.sum, one.count as f64)
        }
    }
}

fn fixed_of(call: &mut Call) -> Vec<Fixed> {
    let (severities, kinds, statuses) =
        (call.severities().unwrap(), call.kinds().unwrap(), call.statuses().unwrap());
    let (times, end_times) = (call.times().unwrap(), call.end_times().unwrap());
    let (numbers, counts) = (call.numbers().unwrap(), call.counts().unwrap());
    let temporalities = call.temporalities().unwrap();
    let (trace_ids, span_ids) = (call.trace_ids().unwrap(), call.span_ids().unwrap());
    let (parents, states) = (call.parent_span_ids().unwrap(), call.trace_states().unwrap());
    (0..call.rows(Level::Item) as usize)
        .map(|row| Fixed {
            severity: severities[row],
            kind: kinds[row],
            status: statuses[row],
            times: (times[row], end_times[row]),
            number: numbers[row],
            count: counts[row],
            temporality: temporalities[row],
            trace_id: trace_ids[row * 16..][..16].to_vec(),
            span_id: span_ids[row * 8..][..8].to_vec(),
            parent_id: parents[row * 8..][..8].to_vec(),
            trace_state: states[row].clone(),
        })
        .collect()
}

fn texts_of(call: &mut Call, of: Places) -> Vec<String> {
    let texts = call.texts(of).unwrap();
    (0..texts.len()).map(|at| texts.at(at).to_owned()).collect()
}

/// Rows and values of one attribute, by type.
type Typed = (Vec<(u32, String)>, Vec<(u32, i64)>, Vec<(u32, u64)>, Vec<(u32, bool)>);

fn typed(rows: &[Vec<KeyValue>], key: &str) -> Typed {
    let mut typed = Typed::default();
    for (row, attributes) in rows.iter().enumerate() {
        let row = row as u32;
        let Some(first) = attributes.iter().find(|attribute| attribute.key == key) else { continue };
        match first.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Value::StringValue(text)) => typed.0.push((row, text.clone())),
            Some(Value::IntValue(value)) => typed.1.push((row, *value)),
            Some(Value::DoubleValue(value)) => typed.2.push((row, value.to_bits())),
            Some(Value::BoolValue(value)) => typed.3.push((row, *value)),
            _ => {}
        }
    }
    typed
}

fn typed_of(call: &mut Call, at: Level, key: &str) -> Typed {
    let texts = call.text_attribute(at, key).unwrap();
    let mut distinct = texts.strings.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), texts.strings.len(), "equal strings come once");
    let text = |index: &u32| texts.strings[*index as usize].clone();
    let (ints, doubles) = (call.int_attribute(at, key).unwrap(), call.double_attribute(at, key).unwrap());
    let bools = call.bool_attribute(at, key).unwrap();
    (
        texts.rows.iter().copied().zip(texts.index.iter().map(text)).collect(),
        ints.rows.into_iter().zip(ints.values).collect(),
        doubles.rows.into_iter().zip(doubles.values.into_iter().map(f64::to_bits)).collect(),
        bools.rows.into_iter().zip(bools.values).collect(),
    )
}

fn compare(call: &mut Call, reference: &mut Decoded) {
    assert_eq!(fixed_of(call), fixed(reference));
    for place in PLACES {
        let (mut texts, mut rows) = (Vec::new(), Vec::new());
        model::texts(reference, place, &mut |row, text| {
            rows.push(row);
            texts.push(text.clone());
        });
        assert_eq!(texts_of(call, place), texts, "{place:?}");
        assert_eq!(call.text_rows(place).unwrap(), rows, "{place:?}");
    }
    let mut all = Vec::new();
    model::texts(reference, Places(511), &mut |_, text| all.push(text.clone()));
    assert_eq!(texts_of(call, Places(511)), all);
    let packed = call.packed_texts(Places(511)).unwrap();
    assert_eq!(
        packed.data,
        all.iter().flat_map(|text| [text.as_bytes(), b"\0"].concat()).collect::<Vec<u8>>()
    );
    for (_, level) in ATTRIBUTES {
        let (mut rows, mut keys) = (Vec::new(), Vec::new());
        model::owners(reference, level, &mut |attributes| {
            for attribute in attributes.iter() {
                if !keys.contains(&attribute.key) {
                    keys.push(attribute.key.clone());
                }
            }
            rows.push(attributes.clone());
        });
        assert_eq!(call.rows(level) as usize, rows.len(), "{level:?}");
        assert_eq!(call.attribute_keys(level).unwrap(), keys, "{level:?}");
        for key in keys {
            let has = |row: &u32| rows[*row as usize].iter().any(|attribute| attribute.key == key);
            let expected: Vec<u32> = (0..rows.len() as u32).filter(has).collect();
            assert_eq!(call.attribute_rows(level, &key).unwrap(), expected);
            assert_eq!(typed_of(call, level, &key), typed(&rows, &key), "{level:?} {key}");
        }
    }
}

/// The row of each level that each item stands in.
fn parents(reference: &mut Decoded) -> [Vec<u32>; 3] {
    let (mut seen, mut rows) = ([0_u32; 3], [const { Vec::new() }; 3]);
    visit(reference, &mut |node| match node {
        Node::Resource(_) => seen[0] += 1,
        Node::Scope(_) => seen[1] += 1,
        Node::Metric(_) => seen[2] += 1,
        Node::Item(_) => rows.iter_mut().zip(seen).for_each(|(rows, seen)| rows.push(seen.saturating_sub(1))),
    });
    rows
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn columns_read_what_prost_reads(signal in signal(), dice in dice(), expected: u16) {
        let (mut reference, batch) = sample(signal, &mut Dice(&dice));
        let Some(mut piece) = piece(&batch) else { return Ok(()) };
        piece.expect(Wanted(expected));
        let mut call = piece.call(None);
        compare(&mut call, &mut reference);
        let [resources, scopes, metrics] = parents(&mut reference);
        prop_assert_eq!(call.parents(Level::Item, Level::Resource).unwrap(), resources);
        prop_assert_eq!(call.parents(Level::Item, Level::Scope).unwrap(), scopes);
        if signal == Signal::Metrics {
            prop_assert_eq!(call.parents(Level::Item, Level::Metric).unwrap(), metrics);
        }
    }

    #[test]
    fn a_part_reads_as_if_the_rest_were_not_there(signal in signal(), dice in dice(), from in 0_u32..9, to in 0_u32..9) {
        let (mut reference, batch) = sample(signal, &mut Dice(&dice));
        let Some(piece) = piece(&batch) else { return Ok(()) };
        let others: Vec<u32> = (0..piece.records()).filter(|item| !(from..to).contains(item)).collect();
        model::drop_items(&mut reference, &others);
        let mut call = piece.call(Some(from..to));
        compare(&mut call, &mut reference);
        let mut seen = Decoded::decode(signal, &call.raw().unwrap()).unwrap();
        model::strip(&mut seen);
        prop_assert_eq!(model::lines(&seen), model::lines(&reference));
    }

    #[test]
    fn pieces_by_themselves_are_the_records_in_order(signal in signal(), dice in dice(), cut in 1_usize..5) {
        let (reference, batch) = sample(signal, &mut Dice(&dice));
        let mut lines = Vec::new();
        for piece in batch.pieces(cut, usize::MAX) {
            let alone = Decoded::decode(signal, &piece.standalone()).unwrap();
            prop_assert_eq!(alone.records() as u32, piece.records());
            lines.extend(model::lines(&alone));
        }
        prop_assert_eq!(lines, model::lines(&reference));
    }
}

#[test]
fn levels_that_do_not_stand_in_each_other_are_refused() {
    let mut call = super::logs(1).call(None);
    for (child, parent) in LEVELS.into_iter().flat_map(|child| LEVELS.map(|parent| (child, parent))) {
        let is_right = matches!(
            (child, parent),
            (Level::Scope, Level::Resource)
                | (Level::Item, Level::Resource | Level::Scope)
                | (Level::Event, Level::Resource | Level::Scope | Level::Item)
        );
        assert_eq!(call.parents(child, parent).is_ok(), is_right, "{child:?} in {parent:?}");
    }
}
