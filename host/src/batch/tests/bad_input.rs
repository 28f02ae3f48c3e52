//! What is refused, with the place and what was expected; what is mended; and large input in little time.

use crate::batch::wire::put_field;
use crate::batch::{Batch, Edit, Malformed, ProjectId, Request, Signal, Stream, TenantId, splice};
use bytes::Bytes;
use expect_test::{Expect, expect};

fn nest(numbers: &[u32], content: &[u8]) -> Vec<u8> {
    numbers.iter().rev().fold(content.to_vec(), |content, &number| {
        let mut out = Vec::new();
        put_field(&mut out, number, &content);
        out
    })
}

fn whole(request: &Request) -> Batch {
    let stream = Stream { tenant: TenantId::local(), project: ProjectId::default_project() };
    request.batch(stream, &(0..request.resources.len()).collect::<Vec<_>>())
}

#[test]
fn malformed_bytes_are_refused_with_the_place_and_what_was_expected() {
    let check = |signal, bytes: &[u8], expected: Expect| {
        let malformed = Request::check(signal, Bytes::copy_from_slice(bytes)).unwrap_err();
        expected.assert_eq(&malformed.to_string());
    };
    use Signal::{Logs, Metrics, Traces};
    check(
        Logs,
        b"{\"resourceLogs\":[]}",
        expect!["malformed at byte 2: expected a length that ends within the message"],
    );
    check(Logs, b"\x0a", expect!["malformed at byte 1: expected a length of at most 64 bits"]);
    check(
        Logs,
        b"\x0a\x05\x12\x03",
        expect!["malformed at byte 1: expected a length that ends within the message"],
    );
    check(
        Logs,
        b"\x0a\x80\x80\x80\x80\x04",
        expect!["malformed at byte 1: expected a length that ends within the message"],
    );
    check(
        Logs,
        b"\x08\x01",
        expect!["malformed at byte 0: expected wire type 2 (length-delimited) for this field"],
    );
    check(Logs, b"\x0a\x02\x0f\x00", expect!["malformed at byte 2: expected a wire type from 0 to 5"]);
    check(
        Logs,
        b"\x0a\x02\x02\x00",
        expect!["malformed at byte 2: expected a field number from 1 to 536870911"],
    );
    check(
        Logs,
        b"\x0a\x02\x1c\x00",
        expect!["malformed at byte 2: expected wire type 2 (length-delimited) for this field"],
    );
    check(Logs, b"\x0a\x01\x2c", expect!["malformed at byte 2: expected a field, not the end of a group"]);
    check(Logs, b"\x0a\x01\x2b", expect!["malformed at byte 3: expected a field's key"]);
    check(
        Logs,
        b"\x0a\x02\x2b\x34",
        expect!["malformed at byte 3: expected the end of the group that is open"],
    );
    check(Logs, &nest(&[1, 2, 2], b"\x09\x01\x02"), expect!["malformed at byte 7: expected 8 bytes"]);
    check(Logs, &nest(&[1, 2, 2], b"\x45\x01"), expect!["malformed at byte 7: expected 4 bytes"]);
    check(
        Logs,
        &nest(&[1, 2, 2], b"\x10"),
        expect!["malformed at byte 7: expected a varint of at most 64 bits"],
    );
    check(
        Logs,
        &nest(&[1, 2, 2], b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
        expect!["malformed at byte 7: expected a varint of at most 64 bits"],
    );
    check(
        Traces,
        &nest(&[1, 2, 2], b"\x0d\x00\x00\x00\x00"),
        expect!["malformed at byte 6: expected wire type 2 (length-delimited) for this field"],
    );
    check(
        Metrics,
        &nest(&[1, 2, 2], b"\x2a\x02\x0a\x00\x3a\x00"),
        expect!["malformed at byte 10: expected only one of the fields that exclude each other"],
    );
    check(
        Metrics,
        &nest(&[1, 2, 2, 9, 1], b"\x32\x01\x00"),
        expect!["malformed at byte 12: expected a packed list of 8 bytes each"],
    );
    check(
        Metrics,
        &nest(&[1, 2, 2, 10, 1, 8], b"\x12\x01\x80"),
        expect!["malformed at byte 14: expected a packed list of varints"],
    );
}

/// A body of lists or maps within each other.
fn nested(levels: usize, is_map: bool) -> Vec<u8> {
    let level: &[u32] = if is_map { &[6, 1, 2] } else { &[5, 1] };
    let path = [&[1, 2, 2, 5][..], &level.repeat(levels)].concat();
    nest(&path, b"\x10\x01")
}

#[test]
fn values_nest_in_64_levels_and_no_deeper() {
    for is_map in [false, true] {
        for levels in [1, 30, 64] {
            assert_eq!(Request::check(Signal::Logs, nested(levels, is_map).into()).unwrap().records, 1);
        }
        for levels in [65, 66, 1000, 100_000] {
            let Malformed { offset, expected } =
                Request::check(Signal::Logs, nested(levels, is_map).into()).unwrap_err();
            assert_eq!(expected, "at most 64 levels of nested values");
            assert!(offset > 64 * 2);
        }
    }
}

#[test]
fn groups_nest_in_64_levels_and_no_deeper() {
    let groups = |levels| [b"\x7b".repeat(levels), b"\x7c".repeat(levels)].concat();
    assert!(Request::check(Signal::Logs, groups(64).into()).is_ok());
    let malformed = Request::check(Signal::Logs, groups(65).into()).unwrap_err();
    assert_eq!(malformed, Malformed { offset: 64, expected: "at most 64 levels of groups" });
    assert!(Request::check(Signal::Logs, groups(1_000_000).into()).is_err());
}

#[test]
fn what_costs_more_memory_than_bytes_is_bounded() {
    let check = |bytes: Vec<u8>, fine: Vec<u8>, expected: &str| {
        assert!(Request::check(Signal::Logs, fine.into()).is_ok());
        assert_eq!(Request::check(Signal::Logs, bytes.into()).unwrap_err().expected, expected);
    };
    let resources = |count| b"\x0a\x00".repeat(count);
    check(resources((1 << 20) + 1), resources(1 << 20), "at most 1048576 resources");
    let texts = |count| nest(&[1, 1, 3], &b"\x1a\x01\xff".repeat(count));
    check(texts((1 << 16) + 1), texts(1 << 16), "at most 65536 strings that are not UTF-8");
}

#[test]
fn an_empty_request_is_one_without_records() {
    for signal in Signal::ALL {
        let request = Request::check(signal, Bytes::new()).unwrap();
        assert_eq!((request.records, request.resources.len()), (0, 0));
        let batch = whole(&request);
        assert_eq!((batch.pieces(512, 1 << 18).len(), batch.items().count()), (0, 0));
    }
}

#[test]
fn strings_that_are_not_utf8_are_mended_and_counted_for_their_resource() {
    let bad = |text: &[u8]| {
        let mut record = Vec::new();
        put_field(&mut record, 3, text);
        put_field(&mut record, 12, b"fine");
        put_field(&mut record, 9, b"\xff\xff bytes stay");
        nest(&[1, 2, 2], &record)
    };
    let mut bytes = bad(b"caf\xe9 au lait");
    bytes.extend(bad(b"fine"));
    bytes.extend(bad(b"\xff\xfe\xf0\x9f\x92"));
    let request = Request::check(Signal::Logs, bytes.into()).unwrap();
    let mut expected = bad("caf\u{fffd} au lait".as_bytes());
    expected.extend(bad(b"fine"));
    expected.extend(bad("\u{fffd}\u{fffd}\u{fffd}".as_bytes()));
    assert_eq!(request.bytes, expected);
    assert_eq!(request.mended, 2);
    let mended: Vec<u32> = request.resources.iter().map(|resource| resource.mended).collect();
    assert_eq!(mended, [1, 0, 1]);
    assert_eq!(request.resources[2].range.end, request.bytes.len());
}

#[test]
fn a_record_of_100_000_attributes_is_read_and_edited_in_one_pass() {
    let mut record = Vec::new();
    for at in 0..100_000_u32 {
        let mut attribute = Vec::new();
        put_field(
            &mut attribute,
            1,
            &at.to_be_bytes()[2..].iter().map(|byte| byte & 0x7f).collect::<Vec<_>>(),
        );
        put_field(&mut record, 6, &attribute);
    }
    let bytes = nest(&[1, 2, 2], &record);
    let request = Request::check(Signal::Logs, bytes.into()).unwrap();
    let batch = whole(&request);
    let owner = batch.bytes.len() - record.len();
    let edits: Vec<Edit> = (0..100_000)
        .map(|at| owner + at * 6)
        .map(|at| Edit {
            owner: at + 4,
            range: at + 4..at + 6,
            is_content: true,
            with: Bytes::from_static(b"key"),
        })
        .collect();
    let out = splice(&batch.bytes, &edits);
    let request = Request::check(Signal::Logs, out.into()).unwrap();
    assert_eq!(request.records, 1);
    assert_eq!(request.bytes.windows(3).filter(|window| window == b"key").count(), 100_000);
    let removals: Vec<Edit> = (0..100_000)
        .map(|at| owner + at * 6)
        .map(|at| Edit { owner, range: at..at + 6, is_content: false, with: Bytes::new() })
        .collect();
    assert_eq!(splice(&batch.bytes, &removals), nest(&[1, 2, 2], b""));
}

#[test]
fn a_request_of_700_000_minimal_records_is_cut_into_pieces_of_512() {
    let bytes = nest(&[1, 2], &b"\x12\x00".repeat(700_000));
    let mut request = Request::check(Signal::Logs, bytes.into()).unwrap();
    assert_eq!(request.records, 700_000);
    let mut batch = whole(&request);
    assert_eq!(batch.pieces(512, 256 << 10).len(), 700_000_usize.div_ceil(512));
    assert_eq!(batch.items().count(), 700_000);
    assert_eq!(batch.reject_larger(1 << 20), 0);
    let mut parts = batch.split(&|at| at % 2);
    assert_eq!(parts.len(), 2);
    let (_, odd) = parts.pop().unwrap();
    request = Request::check(Signal::Logs, odd.bytes).unwrap();
    assert_eq!((request.records, odd.records), (350_000, 350_000));
}

#[test]
fn a_record_that_is_too_large_leaves_with_the_envelope_it_empties() {
    let large = vec![b'x'; 5000];
    let mut record = Vec::new();
    put_field(&mut record, 3, &large);
    let mut bytes = nest(&[1, 2, 2], &record);
    let small = nest(&[1, 2, 2], b"\x10\x09");
    bytes.extend_from_slice(&small);
    let mut batch = whole(&Request::check(Signal::Logs, bytes.into()).unwrap());
    assert_eq!(batch.clone().reject_larger(record.len()), 0);
    assert_eq!(batch.reject_larger(record.len() - 1), 1);
    assert_eq!((batch.records, &batch.bytes[..]), (1, &small[..]));
    assert_eq!(batch.reject_larger(1), 1);
    assert_eq!((batch.records, batch.bytes.len()), (0, 0));
}

#[test]
fn a_length_in_more_bytes_than_it_needs_stays_as_it_is_unless_its_message_changes() {
    let bytes = b"\x0a\x84\x00\x12\x02\x12\x00\x0a\x84\x80\x00\x12\x02\x12\x00";
    assert_eq!(Request::check(Signal::Logs, Bytes::from_static(bytes)).unwrap().records, 2);
    let drop_second = Edit { owner: 13, range: 13..15, is_content: false, with: Bytes::new() };
    assert_eq!(splice(bytes, &[drop_second]), b"\x0a\x84\x00\x12\x02\x12\x00\x0a\x02\x12\x00");
    let same_length =
        Edit { owner: 13, range: 13..15, is_content: false, with: Bytes::from_static(b"\x1a\x00") };
    assert_eq!(
        splice(bytes, &[same_length]),
        b"\x0a\x84\x00\x12\x02\x12\x00\x0a\x84\x80\x00\x12\x02\x1a\x00"
    );
}

#[test]
fn what_otlp_has_once_is_refused_if_it_comes_twice_and_what_it_has_often_is_not() {
    let once = |signal, bytes: Vec<u8>| {
        let malformed = Request::check(signal, bytes.into()).unwrap_err();
        assert!(malformed.expected.starts_with("this field only once"), "{malformed}");
    };
    let often = |signal, bytes: Vec<u8>| assert!(Request::check(signal, bytes.into()).is_ok());
    use Signal::{Logs, Metrics, Traces};
    for signal in Signal::ALL {
        once(signal, nest(&[1], b"\x0a\x00\x0a\x00"));
        once(signal, nest(&[1], b"\x1a\x00\x12\x00\x1a\x00"));
        often(signal, nest(&[1], b"\x12\x00\x12\x00"));
        often(signal, nest(&[1, 1], b"\x0a\x00\x0a\x00\x1a\x00\x1a\x00"));
        often(signal, b"\x0a\x00\x0a\x00".to_vec());
        often(signal, nest(&[1, 2, 2], b"\xc2\x3e\x00\xc2\x3e\x00"));
    }
    once(Logs, nest(&[1, 2, 2], b"\x2a\x00\x2a\x00"));
    once(Logs, nest(&[1, 2, 2, 6], b"\x12\x00\x12\x00"));
    once(Traces, nest(&[1, 2, 2], b"\x85\x01\x01\x00\x00\x00\x85\x01\x01\x00\x00\x00"));
    once(Metrics, nest(&[1, 2, 2], b"\x3a\x00\x3a\x00"));
    often(Metrics, nest(&[1, 2, 2, 9, 1], b"\x32\x00\x31\x01\x02\x03\x04\x05\x06\x07\x08\x32\x00"));
}
