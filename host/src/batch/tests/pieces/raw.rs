//! `raw` and `splice`: where a piece of bytes may begin and end, and what becomes of the call.

use super::super::samples::{Decoded, Dice, cases, dice, signal};
use super::{logs, model, piece, sample};
use crate::batch::piece::Changes;
use crate::batch::wire::{LENGTH, fields, put_field};
use crate::batch::{Call, IdentityKeys, Level, Places, Request, Signal};
use proptest::prelude::*;

/// Where `text` stands in the bytes that the call sees.
fn find(call: &mut Call, text: &str) -> u32 {
    let raw = call.raw().unwrap();
    raw.windows(text.len()).position(|window| window == text.as_bytes()).unwrap() as u32
}

fn bodies(call: &mut Call) -> Vec<String> {
    let texts = call.texts(Places::BODY).unwrap();
    (0..texts.len()).map(|at| texts.at(at).to_owned()).collect()
}

fn fault(splice: impl FnOnce(&mut Call)) -> String {
    let piece = logs(3);
    let before = piece.standalone();
    let mut call = piece.call(None);
    splice(&mut call);
    let (piece, fault) = call.commit().unwrap_err();
    assert_eq!(piece.standalone(), before);
    assert!(matches!(piece.changes(), Changes::None));
    fault.0
}

#[test]
fn a_string_is_replaced_and_the_lengths_around_it_are_put_right() {
    let mut call = logs(3).call(None);
    let at = find(&mut call, "body 1");
    call.splice(&[at], &[6], &[b"a body that is longer than 128 bytes ".repeat(5)]);
    let done = call.commit().unwrap();
    assert_eq!((done.dropped, done.added), (0, 0));
    let mut call = done.piece.call(None);
    assert_eq!(bodies(&mut call)[1].len(), 37 * 5);
    assert_eq!(call.attribute_rows(Level::Item, "n").unwrap(), [0, 1, 2]);
}

#[test]
fn items_that_are_cut_out_are_dropped_and_those_put_in_are_added() {
    let mut call = logs(3).call(None);
    let raw = call.raw().unwrap();
    let resource = fields(&raw, 0, raw.len()).next().unwrap();
    let scope = fields(&raw, resource.content, resource.end).find(|field| field.is_message(2)).unwrap();
    let items: Vec<_> = fields(&raw, scope.content, scope.end).filter(|field| field.is_message(2)).collect();
    let length = |at: usize| (items[at].end - items[at].start) as u32;
    call.splice(&[items[0].start as u32, items[1].start as u32], &[length(0), length(1)], &[vec![], vec![]]);
    let done = call.commit().unwrap();
    assert_eq!((done.dropped, done.added, done.piece.records()), (2, 0, 1));
    let mut call = done.piece.call(None);
    assert_eq!(bodies(&mut call), ["body 2"]);
    let raw = call.raw().unwrap();
    let more = raw.to_vec();
    call.splice(&[raw.len() as u32], &[0], &[[more.clone(), more].concat()]);
    let done = call.commit().unwrap();
    assert_eq!((done.dropped, done.added, done.piece.records()), (0, 2, 3));
}

#[test]
fn wrong_splices_are_named() {
    let check = |splice: &dyn Fn(&mut Call), expected: &str| assert_eq!(fault(|call| splice(call)), expected);
    check(
        &|call| {
            let at = find(call, "body 1");
            call.splice(&[at], &[3], &[b"x".to_vec()]);
        },
        "splice: bytes 42 to 45 are no whole fields of one message, and no content of a string or bytes field",
    );
    check(
        &|call| call.splice(&[0, 0], &[0], &[vec![], vec![]]),
        "splice: `offsets` has 2 entries, `lengths` has 1",
    );
    check(
        &|call| call.splice(&[90], &[9999], &[vec![]]),
        &format!("splice: there are no bytes 90 to 10089, `raw` has {}", logs(3).standalone().len()),
    );
    check(
        &|call| {
            let at = find(call, "body 1");
            call.splice(&[at, at], &[6, 6], &[b"x".to_vec(), b"y".to_vec()]);
        },
        "splice: bytes 42 to 48 are edited twice",
    );
    check(
        &|call| call.splice(&[0], &[0], &[b"\x0a\x7f".to_vec()]),
        "splice: what it leaves is malformed at byte 1: expected a length that ends within the message",
    );
    check(
        &|call| {
            call.splice(&[0], &[0], &[vec![]]);
            call.remove_attribute(Level::Item, "n");
        },
        "splice: of the other edits, only `drop` and `route` may go with it in one call",
    );
    check(
        &|call| {
            let raw = call.raw().unwrap();
            call.splice(&[0], &[raw.len() as u32], &[vec![]]);
            call.drop(&[1]);
        },
        "splice: it makes 0 items of 3: `drop` and `route` cannot go with it",
    );
}

#[test]
fn drops_and_routes_go_with_a_splice_that_keeps_the_items() {
    let mut call = logs(3).call(None);
    let at = find(&mut call, "body 1");
    call.splice(&[at], &[6], &[b"other".to_vec()]);
    call.drop(&[0]);
    call.route("r", &[1]);
    let done = call.commit().unwrap();
    assert_eq!((done.dropped, done.added), (1, 0));
    let routes: Vec<bool> = done.piece.routes().unwrap().iter().map(Option::is_some).collect();
    assert_eq!(routes, [true, false]);
    assert_eq!(bodies(&mut done.piece.call(None)), ["other", "body 2"]);
}

#[test]
fn a_part_is_spliced_alone_and_the_others_stay() {
    let mut call = logs(5).call(None);
    call.drop(&[0]);
    call.route("r", &[4]);
    let mut call = call.commit().unwrap().piece.call(Some(1..3));
    assert_eq!(bodies(&mut call), ["body 2", "body 3"]);
    let at = find(&mut call, "body 3");
    call.splice(&[at], &[6], &[b"other".to_vec()]);
    let piece = call.commit().unwrap().piece;
    assert_eq!(piece.routes().unwrap().iter().filter(|route| route.is_some()).count(), 1);
    let mut call = piece.call(None);
    assert_eq!(bodies(&mut call), ["body 1", "body 2", "other", "body 4"]);
    call.drop(&[0]);
    call.set_severity(&[1], 21);
    let piece = call.commit().unwrap().piece;
    let Changes::Rewritten(request) = piece.changes() else { panic!("it was written anew") };
    assert_eq!(request.records, 3);
}

#[test]
fn everything_may_be_cut_out() {
    let mut call = logs(2).call(None);
    let raw = call.raw().unwrap();
    call.splice(&[0], &[raw.len() as u32], &[Vec::new()]);
    let done = call.commit().unwrap();
    assert_eq!((done.dropped, done.piece.records(), done.piece.standalone().len()), (2, 0, 0));
    let mut call = done.piece.call(None);
    assert!(call.severities().unwrap().is_empty());
    assert!(call.raw().unwrap().is_empty());
}

/// A place in the bytes that may be spliced: each field, and each content of a string.
fn places(signal: Signal, raw: &[u8]) -> Vec<(usize, usize)> {
    fn walk(raw: &[u8], (start, end): (usize, usize), depth: u32, places: &mut Vec<(usize, usize)>) {
        for field in fields(raw, start, end) {
            places.push((field.start, field.end));
            // The first levels are messages in all signals.
            if field.wire == LENGTH && depth < 2 && field.number == 2 {
                walk(raw, (field.content, field.end), depth + 1, places);
            }
        }
    }
    let mut places = Vec::new();
    let _ = signal;
    for resource in fields(raw, 0, raw.len()).filter(|field| field.is_message(1)) {
        places.push((resource.start, resource.end));
        walk(raw, (resource.content, resource.end), 0, &mut places);
    }
    places
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn any_bytes_spliced_anywhere_are_right_or_a_fault(
        signal in signal(),
        dice in dice(),
        at in any::<prop::sample::Index>(),
        length in 0_usize..40,
        by in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let (_, batch) = sample(signal, &mut Dice(&dice));
        let Some(piece) = piece(&batch) else { return Ok(()) };
        let mut call = piece.call(None);
        let raw = call.raw().unwrap();
        let start = at.index(raw.len() + 1);
        let length = length.min(raw.len() - start);
        call.splice(&[start as u32], &[length as u32], &[by]);
        match call.commit() {
            Ok(done) => {
                let alone = done.piece.standalone();
                let request = Request::check(signal, alone.into()).unwrap();
                prop_assert_eq!(request.records, u64::from(done.piece.records()));
            }
            Err((piece, fault)) => {
                prop_assert!(fault.0.starts_with("splice: "));
                prop_assert_eq!(piece.standalone(), raw.to_vec());
            }
        }
    }

    #[test]
    fn whole_fields_are_replaced_by_themselves(
        signal in signal(),
        dice in dice(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let (reference, batch) = sample(signal, &mut Dice(&dice));
        let Some(piece) = piece(&batch) else { return Ok(()) };
        let mut call = piece.call(None);
        let raw = call.raw().unwrap();
        let all = places(signal, &raw);
        let mut chosen: Vec<(usize, usize)> = picks.iter().map(|pick| all[pick.index(all.len())]).collect();
        chosen.sort_unstable();
        chosen.dedup_by(|next, one| next.0 < one.1);
        let offsets: Vec<u32> = chosen.iter().map(|place| place.0 as u32).collect();
        let lengths: Vec<u32> = chosen.iter().map(|place| (place.1 - place.0) as u32).collect();
        let by: Vec<Vec<u8>> = chosen.iter().map(|place| raw[place.0..place.1].to_vec()).collect();
        call.splice(&offsets, &lengths, &by);
        let piece = call.commit().map_err(|(_, fault)| TestCaseError::fail(fault.0))?.piece;
        let alone = Decoded::decode(signal, &piece.standalone()).unwrap();
        prop_assert_eq!(model::lines(&alone), model::lines(&reference));
        let keys = IdentityKeys { tenant: "not".into(), project: "there".into() };
        let written = batch.written(vec![piece], &keys);
        let written = Decoded::decode(signal, &written.batch.bytes).unwrap();
        prop_assert_eq!(model::lines(&written), model::lines(&reference));
    }
}

#[test]
fn a_message_at_the_end_of_another_is_reached() {
    // An attribute is put at the start of a record's content: its end is also the end of what stands around it.
    let mut call = logs(1).call(None);
    let raw = call.raw().unwrap();
    let resource = fields(&raw, 0, raw.len()).next().unwrap();
    let scope = fields(&raw, resource.content, resource.end).find(|field| field.is_message(2)).unwrap();
    let item = fields(&raw, scope.content, scope.end).find(|field| field.is_message(2)).unwrap();
    let mut attribute = Vec::new();
    put_field(&mut attribute, 6, b"\x0a\x01k\x12\x03\x0a\x01v");
    call.splice(&[item.content as u32], &[0], &[attribute]);
    let mut call = call.commit().unwrap().piece.call(None);
    assert_eq!(call.text_attribute(Level::Item, "k").unwrap().strings, ["v"]);
}
