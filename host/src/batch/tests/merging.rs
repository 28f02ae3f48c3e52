//! What the pieces of one batch changed comes together.

use super::samples::{kv, resource_attributes};
use crate::batch::piece::Changes;
use crate::batch::wire::{put_field, text_attribute};
use crate::batch::{Batch, Edit, IdentityKeys, ProjectId, Request, Signal, Stream, TenantId};
use bytes::Bytes;
use expect_test::{Expect, expect};

fn keys() -> IdentityKeys {
    IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() }
}

/// Two resources, each `tenant.id=acme project.id=web a=b`, with three empty records each.
fn batch() -> Batch {
    let mut resource = Vec::new();
    for attribute in [kv("tenant.id", "acme"), kv("project.id", "web"), kv("a", "b")] {
        put_field(&mut resource, 1, &attribute);
    }
    let mut content = Vec::new();
    put_field(&mut content, 1, &resource);
    put_field(&mut content, 2, b"\x12\x00\x12\x00\x12\x00");
    let mut one = Vec::new();
    put_field(&mut one, 1, &content);
    let request = Request::check(Signal::Logs, one.repeat(2).into()).unwrap();
    let stream = Stream { tenant: TenantId::new("acme").unwrap(), project: ProjectId::new("web").unwrap() };
    request.batch(stream, &[0, 1])
}

/// Where the content of the first Resource begins and ends in it, and the places of its attributes.
const RESOURCE: (usize, usize) = (4, 56);
const TENANT: std::ops::Range<usize> = 4..25;
const A: std::ops::Range<usize> = 46..56;

fn add(key: &str, text: &str) -> Edit {
    let with = text_attribute(1, key, text).into();
    Edit { owner: RESOURCE.0, range: RESOURCE.1..RESOURCE.1, is_content: false, with }
}

fn replace(range: std::ops::Range<usize>, with: Vec<u8>) -> Edit {
    Edit { owner: RESOURCE.0, range, is_content: false, with: with.into() }
}

fn check(changes: Vec<(u32, Vec<Edit>, Vec<u32>)>, expected: Expect) {
    let changes = changes
        .into_iter()
        .map(|(records, edits, dropped)| (records, Changes::Edits { edits, dropped }))
        .collect();
    let (batch, restored) = batch().edited(changes, &keys());
    let request = Request::check(Signal::Logs, batch.bytes.clone()).unwrap();
    assert_eq!(request.records, u64::from(batch.records));
    let mut text = format!("{} records, {restored} restored", batch.records);
    for resource in resource_attributes(&batch.bytes) {
        text += &format!("\n{resource}");
    }
    expected.assert_eq(&text);
}

#[test]
fn the_places_of_the_sample_are_right() {
    let batch = batch();
    let half = batch.bytes.len() / 2;
    let resource = &batch.bytes[RESOURCE.0..RESOURCE.1];
    assert_eq!(batch.bytes[..half], batch.bytes[half..]);
    assert!(batch.bytes[A].ends_with(b"\x0a\x01b") && resource.ends_with(b"\x0a\x01b"));
    assert!(batch.bytes[TENANT].ends_with(b"acme"));
}

#[test]
fn what_two_pieces_add_to_one_resource_is_added_once() {
    check(
        vec![(2, vec![add("x", "1")], vec![]), (4, vec![add("x", "1")], vec![])],
        expect![[r#"
            6 records, 0 restored
            tenant.id=acme project.id=web a=b x=1
            tenant.id=acme project.id=web a=b"#]],
    );
    let both = Edit {
        with: [text_attribute(1, "y", "2"), text_attribute(1, "x", "3")].concat().into(),
        ..add("", "")
    };
    check(
        vec![(2, vec![add("x", "1"), add("z", "4")], vec![]), (4, vec![both], vec![])],
        expect![[r#"
            6 records, 0 restored
            tenant.id=acme project.id=web a=b x=3 z=4 y=2
            tenant.id=acme project.id=web a=b"#]],
    );
}

#[test]
fn what_two_pieces_replace_in_one_resource_is_what_the_later_one_says() {
    check(
        vec![
            (2, vec![replace(A, text_attribute(1, "a", "1"))], vec![]),
            (1, vec![], vec![]),
            (3, vec![replace(A, text_attribute(1, "a", "2"))], vec![]),
        ],
        expect![[r#"
            6 records, 0 restored
            tenant.id=acme project.id=web a=2
            tenant.id=acme project.id=web a=b"#]],
    );
}

#[test]
fn dropped_records_leave_with_the_envelopes_they_empty() {
    check(
        vec![(2, vec![], vec![0, 1]), (4, vec![], vec![0])],
        expect![[r#"
            3 records, 0 restored
            tenant.id=acme project.id=web a=b"#]],
    );
    // The edits of a resource that goes are gone with it.
    check(
        vec![(3, vec![add("x", "1")], vec![0, 1, 2]), (3, vec![], vec![1])],
        expect![[r#"
            2 records, 0 restored
            tenant.id=acme project.id=web a=b"#]],
    );
    check(
        vec![(3, vec![add("x", "1")], vec![0, 1, 2]), (3, vec![], vec![0, 1, 2])],
        expect!["0 records, 0 restored"],
    );
}

#[test]
fn identity_that_a_plugin_touched_is_restored_and_counted() {
    let touched = [
        replace(TENANT, text_attribute(1, "tenant.id", "other")),
        add("tenant.id", "other"),
        add("tenant.id", "acme"),
    ];
    for edit in touched {
        check(
            vec![(6, vec![edit], vec![])],
            expect![[r#"
                6 records, 1 restored
                tenant.id=acme project.id=web a=b
                tenant.id=acme project.id=web a=b"#]],
        );
    }
    // Removed: it comes back at the end, because it was there.
    check(
        vec![(6, vec![replace(TENANT, vec![])], vec![])],
        expect![[r#"
            6 records, 1 restored
            project.id=web a=b tenant.id=acme
            tenant.id=acme project.id=web a=b"#]],
    );
    // The first resource is gone; what was there in the second is still known.
    let half = batch().bytes.len() / 2;
    let in_second = Edit {
        owner: RESOURCE.0 + half,
        range: TENANT.start + half..TENANT.end + half,
        is_content: false,
        with: Bytes::new(),
    };
    check(
        vec![(6, vec![in_second], vec![0, 1, 2])],
        expect![[r#"
            3 records, 1 restored
            project.id=web a=b tenant.id=acme"#]],
    );
}

#[test]
fn stamps_and_edits_of_plugins_meet_in_one_splice() {
    let mut batch = batch();
    let keys = IdentityKeys { tenant: "t".into(), project: "p".into() };
    assert_eq!(batch.stamp(&keys, true).added, 2);
    let changes = vec![
        (3, Changes::Edits { edits: vec![add("x", "1")], dropped: vec![] }),
        (3, Changes::Edits { edits: vec![add("x", "2")], dropped: vec![2] }),
    ];
    let (batch, restored) = batch.edited(changes, &keys);
    assert_eq!((batch.records, restored), (5, 0));
    assert_eq!(
        resource_attributes(&batch.bytes),
        [
            "tenant.id=acme project.id=web a=b t=acme p=web x=2",
            "tenant.id=acme project.id=web a=b t=acme p=web"
        ]
    );
}
