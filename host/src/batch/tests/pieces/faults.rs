//! Wrong edits: the call fails with a message that names them, and the piece is as it was.

use super::super::samples::Decoded;
use super::{attribute, batch_of, logs, model, piece};
use crate::batch::piece::Changes;
use crate::batch::{Call, Hits, IntColumn, Level, Piece, Places, Signal, TextColumn};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValueList, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};

fn hits(all: &[(u32, u32, u32)]) -> Hits {
    Hits {
        texts: all.iter().map(|hit| hit.0).collect(),
        patterns: vec![0; all.len()],
        starts: all.iter().map(|hit| hit.1).collect(),
        ends: all.iter().map(|hit| hit.2).collect(),
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The fault of a call that did this, beside edits that are right.
fn fault(piece: Piece, edit: impl FnOnce(&mut Call)) -> String {
    let before = piece.standalone();
    let mut call = piece.call(None);
    call.drop(&[0]);
    call.replace_texts(Places::BODY, &[1], &texts(&["other"]));
    edit(&mut call);
    let Err((piece, fault)) = call.commit() else { panic!("the edit was taken") };
    assert_eq!(piece.standalone(), before, "nothing is applied");
    assert!(matches!(piece.changes(), Changes::None));
    fault.0
}

#[test]
fn wrong_edits_are_named_with_their_number_and_the_bound() {
    let check =
        |edit: &dyn Fn(&mut Call), expected: &str| assert_eq!(fault(logs(2), |call| edit(call)), expected);
    check(&|call| call.drop(&[0, 2]), "drop: there is no item 2, the batch has 2");
    check(&|call| call.route("r", &[9]), "route: there is no item 9, the batch has 2");
    check(&|call| call.set_severity(&[2], 9), "set-severity: there is no item 2, the batch has 2");
    check(
        &|call| call.set_severity(&[1], 25),
        "set-severity: there is no severity 25, they are 1 to 24, or 0 for none",
    );
    check(&|call| call.set_trace_states(&[0], &texts(&["a"])), "set-trace-states: logs have no trace state");
    let column = |rows: &[u32], index: &[u32]| TextColumn {
        rows: rows.to_vec(),
        index: index.to_vec(),
        strings: texts(&["v"]),
    };
    check(
        &|call| call.set_text_attribute(Level::Resource, "k", &column(&[1], &[0])),
        "set-text-attribute: there is no resource 1, the batch has 1",
    );
    check(
        &|call| call.set_text_attribute(Level::Event, "k", &column(&[0], &[0])),
        "set-text-attribute: there is no event 0, the batch has 0",
    );
    check(
        &|call| call.set_text_attribute(Level::Item, "k", &column(&[0, 1], &[0])),
        "set-text-attribute: `rows` has 2 entries, `index` has 1",
    );
    check(
        &|call| call.set_text_attribute(Level::Item, "k", &column(&[0], &[1])),
        "set-text-attribute: there is no string 1, `strings` has 1",
    );
    check(
        &|call| call.set_int_attribute(Level::Item, "k", &IntColumn { rows: vec![0], values: vec![] }),
        "set-int-attribute: `rows` has 1 entries, `values` has 0",
    );
    check(
        &|call| call.copy_attribute(Level::Scope, "k", "l", &[4]),
        "copy-attribute: there is no scope 4, the batch has 1",
    );
    check(
        &|call| call.remove_attribute_from(Level::Item, "n", &[2]),
        "remove-attribute-from: there is no item 2, the batch has 2",
    );
}

#[test]
fn wrong_hits_are_named_with_their_number_and_the_bound() {
    let of = Places::BODY;
    let check =
        |edit: &dyn Fn(&mut Call), expected: &str| assert_eq!(fault(logs(2), |call| edit(call)), expected);
    check(
        &|call| call.replace(of, &hits(&[(2, 0, 1)]), &texts(&["x"])),
        "replace: there is no text 2, these places have 2",
    );
    check(
        &|call| call.replace(of, &hits(&[(0, 0, 7)]), &texts(&["x"])),
        "replace: text 0 has no bytes 0 to 7, it has 6",
    );
    check(
        &|call| call.replace(of, &hits(&[(0, 4, 3)]), &texts(&["x"])),
        "replace: text 0 has no bytes 4 to 3, it has 6",
    );
    check(&|call| call.replace(of, &hits(&[(0, 0, 1)]), &[]), "replace: `by` is empty");
    check(
        &|call| call.replace_each(of, &hits(&[(0, 0, 1)]), &[]),
        "replace-each: `texts` has 1 entries, `by` has 0",
    );
    let short = Hits { ends: Vec::new(), ..hits(&[(0, 0, 1)]) };
    check(&|call| call.replace(of, &short, &texts(&["x"])), "replace: `texts` has 1 entries, `ends` has 0");
    check(
        &|call| call.replace_texts(of, &[2], &texts(&["x"])),
        "replace-texts: there is no text 2, these places have 2",
    );
    check(
        &|call| call.hash(of, &hits(&[(7, 0, 1)]), &mut |_| String::new()),
        "hash: there is no text 7, these places have 2",
    );
    check(
        &|call| {
            call.replace(of, &hits(&[(0, 0, 3)]), &texts(&["x"]));
            call.replace_each(of, &hits(&[(0, 2, 4)]), &texts(&["y"]));
        },
        "replace-each: bytes 2 to 4 of a string are edited twice: bytes 0 to 3 by `replace`",
    );
    check(
        &|call| {
            call.mask_keys(of, &mut |_| Some(0), &[]);
        },
        "mask-keys: `by` is empty",
    );
    let mut call = logs(1).call(None);
    assert_eq!(call.matches(of, &hits(&[(0, 0, 9)])).unwrap_err().0, "text 0 has no bytes 0 to 9, it has 6");
    assert_eq!(call.matches(of, &hits(&[(0, 5, 6), (0, 0, 4)])).unwrap(), ["0", "body"]);
}

#[test]
fn hits_that_touch_are_right() {
    let mut call = logs(1).call(None);
    call.replace(Places::BODY, &hits(&[(0, 4, 6), (0, 0, 4)]), &texts(&["x"]));
    let mut call = call.commit().unwrap().piece.call(None);
    assert_eq!(call.texts(Places::BODY).unwrap().at(0), "xx");
}

#[test]
fn a_range_inside_a_character_is_a_fault() {
    let mut call = logs(1).call(None);
    call.replace_texts(Places::BODY, &[0], &texts(&["zwölf"]));
    let mut call = call.commit().unwrap().piece.call(None);
    call.replace(Places::BODY, &hits(&[(0, 0, 3)]), &texts(&["x"]));
    assert_eq!(call.fault().unwrap().0, "replace: byte 3 of text 0 is inside a character");
    assert_eq!(call.commit().unwrap_err().1.0, "replace: byte 3 of text 0 is inside a character");
}

#[test]
fn the_first_fault_counts_and_later_edits_are_not_kept() {
    let mut call = logs(2).call(None);
    call.drop(&[7]);
    let bytes = call.edit_bytes();
    call.drop(&[8]);
    call.route("r", &[0]);
    assert_eq!(call.remove_keys(Places(511), &mut |_| Some(0)), 0);
    assert_eq!(call.edit_bytes(), bytes);
    assert_eq!(call.fault().unwrap().0, "drop: there is no item 7, the batch has 2");
}

#[test]
fn edits_weigh_what_they_write() {
    let mut call = logs(3).call(None);
    let value = "x".repeat(1000);
    let column = TextColumn { rows: vec![0, 1, 2], index: vec![0; 3], strings: vec![value.clone()] };
    call.set_text_attribute(Level::Item, "k", &column);
    assert!(call.edit_bytes() >= 3000);
    let before = call.edit_bytes();
    call.replace(Places::BODY, &hits(&[(0, 0, 1), (0, 1, 2)]), &[value]);
    assert!(call.edit_bytes() >= before + 2000);
    let before = call.edit_bytes();
    call.copy_attribute(Level::Item, "n", "m", &[0, 1, 2]);
    assert!(call.edit_bytes() >= before + 3 * 7);
}

/// A record with this body and these attributes.
fn one_record(body: AnyValue, attributes: u32) -> Piece {
    let attributes = (0..attributes).map(|number| attribute(&format!("key {number}"), "value")).collect();
    let record = LogRecord { body: Some(body), attributes, ..LogRecord::default() };
    let scope = ScopeLogs { log_records: vec![record], ..ScopeLogs::default() };
    let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
    let request = Decoded::Logs(ExportLogsServiceRequest { resource_logs: vec![resource] });
    piece(&batch_of(Signal::Logs, request.encode())).unwrap()
}

#[test]
fn strings_under_64_levels_are_found_and_edited() {
    let mut body = model::text_value("deep");
    for _ in 0..64 {
        let entry = super::KeyValue { key: "k".into(), value: Some(body), key_strindex: 0 };
        body = AnyValue { value: Some(Value::KvlistValue(KeyValueList { values: vec![entry] })) };
    }
    let mut call = one_record(body, 0).call(None);
    call.replace(
        Places::BODY,
        &hits(&[(0, 0, 4)]),
        &texts(&["a text so long that every length around it grows: ".repeat(9).as_str()]),
    );
    let piece = call.commit().unwrap().piece;
    let mut call = piece.call(None);
    assert_eq!(call.texts(Places::BODY).unwrap().len(), 1);
    assert!(call.texts(Places::BODY).unwrap().at(0).starts_with("a text so long"));
    assert_eq!(call.remove_keys(Places::BODY, &mut |key| (key == "k").then_some(0)), 1);
    let mut call = call.commit().unwrap().piece.call(None);
    assert_eq!(call.texts(Places::BODY).unwrap().len(), 0);
}

#[test]
fn a_hundred_thousand_attributes_in_one_record_take_a_moment() {
    let start = tokio::time::Instant::now();
    let mut call = one_record(model::text_value("body"), 100_000).call(None);
    assert_eq!(call.attribute_keys(Level::Item).unwrap().len(), 100_000);
    let of = Places::ITEM_ATTRIBUTES;
    let all: Vec<(u32, u32, u32)> = (0..100_000).map(|text| (text, 0, 1)).collect();
    call.replace(of, &hits(&all), &texts(&["V"]));
    call.set_text_attribute(
        Level::Item,
        "key 9",
        &TextColumn { rows: vec![0; 100_000], index: vec![0; 100_000], strings: texts(&["set"]) },
    );
    assert_eq!(call.remove_keys(of, &mut |key| key.ends_with('7').then_some(0)), 10_000);
    for number in 0..100 {
        call.remove_attribute(Level::Item, &format!("key {number}"));
    }
    let piece = call.commit().unwrap().piece;
    let mut call = piece.call(None);
    assert_eq!(call.texts(of).unwrap().len(), 100_000 - 10_000 - 90);
    assert_eq!(call.texts(of).unwrap().at(100), "Value");
    // Quadratic work would take minutes.
    assert!(start.elapsed() < std::time::Duration::from_secs(20));
}
