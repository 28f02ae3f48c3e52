//! Each field of each message: the tables say what `prost` says.

use super::acceptance::compare;
use crate::batch::Signal;
use crate::batch::walk::schema::{Kind, MESSAGE, look, request};
use crate::batch::wire::{put_field, put_varint};
use std::collections::BTreeMap;

/// For each kind of message in a request of this signal, the numbers of the fields that lead to it.
fn paths(signal: Signal) -> BTreeMap<Kind, Vec<u32>> {
    let mut paths = BTreeMap::from([(request(signal), Vec::new())]);
    let mut fresh = vec![request(signal)];
    while let Some(kind) = fresh.pop() {
        for number in 1..=20 {
            let Ok(op @ MESSAGE..) = look(kind, number, 2) else { continue };
            let inner = op - MESSAGE;
            if !paths.contains_key(&inner) {
                let path = [&paths[&kind][..], &[number as u32]].concat();
                paths.insert(inner, path);
                fresh.push(inner);
            }
        }
    }
    paths
}

fn wrap(path: &[u32], content: Vec<u8>) -> Vec<u8> {
    path.iter().rev().fold(content, |content, &number| {
        let mut out = Vec::new();
        put_field(&mut out, number, &content);
        out
    })
}

#[test]
fn every_field_of_every_message_is_taken_as_prost_takes_it() {
    // Right or wrong, depending on what is expected: numbers, lengths, text, bytes that are no text and no message,
    // packed numbers, a message with one field of each kind.
    let values: [&[u8]; 9] = [
        b"",
        b"\x00",
        b"\x80\x01",
        b"\x03abc",
        b"\x02\xff\xfe",
        b"\x08\x01\x02\x03\x04\x05\x06\x07\x08",
        b"\x02\x08\x01",
        b"\x02\x0a\x00",
        b"\x02\x12\x00",
    ];
    let mut kinds = 0;
    for signal in Signal::ALL {
        for path in paths(signal).values() {
            kinds += 1;
            for (number, wire) in (0..=20).flat_map(|number| (0..8).map(move |wire| (number, wire))) {
                for value in values {
                    let mut content = Vec::new();
                    put_varint(&mut content, number << 3 | wire);
                    content.extend_from_slice(value);
                    compare(signal, &wrap(path, content));
                }
            }
        }
    }
    assert!(kinds > 40, "all messages are reached: {kinds}");
}
