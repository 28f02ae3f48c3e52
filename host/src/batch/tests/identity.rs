//! Whose a resource says it is, and how it is put right.

use super::samples::kv;
use crate::batch::wire::put_field;
use crate::batch::{Batch, Claimed, IdentityKeys, ProjectId, Request, Signal, Stamped, Stream, TenantId};
use expect_test::{Expect, expect};

fn keys() -> IdentityKeys {
    IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() }
}

fn stream() -> Stream {
    Stream { tenant: TenantId::new("acme").unwrap(), project: ProjectId::new("web").unwrap() }
}

/// A ResourceLogs field whose Resource has these attributes, each in wire form.
fn resource(attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut inner = Vec::new();
    for attribute in attributes {
        put_field(&mut inner, 1, attribute);
    }
    envelope(&[inner])
}

/// A ResourceLogs field with one record and these Resource messages.
fn envelope(resources: &[Vec<u8>]) -> Vec<u8> {
    let mut content = Vec::new();
    for resource in resources {
        put_field(&mut content, 1, resource);
    }
    content.extend_from_slice(b"\x12\x02\x12\x00");
    let mut out = Vec::new();
    put_field(&mut out, 1, &content);
    out
}

/// A KeyValue of these fields.
fn raw(parts: &[(u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    parts.iter().for_each(|(number, content)| put_field(&mut out, *number, content));
    out
}

fn batch(bytes: Vec<u8>) -> Batch {
    let request = Request::check(Signal::Logs, bytes.into()).unwrap();
    request.batch(stream(), &(0..request.resources.len()).collect::<Vec<_>>())
}

#[test]
fn a_claim_is_what_protobuf_reads() {
    let check = |bytes: Vec<u8>, expected: Claimed| {
        let request = Request::check(Signal::Logs, bytes.into()).unwrap();
        assert_eq!(request.claim(0, &keys()).tenant, expected);
    };
    let one = |text: &str| Claimed::One(text.to_owned());
    check(resource(&[]), Claimed::Absent);
    check(envelope(&[]), Claimed::Absent);
    check(resource(&[kv("tenant", "acme")]), Claimed::Absent);
    check(resource(&[kv("a", "b"), kv("tenant.id", "acme")]), one("acme"));
    check(resource(&[kv("tenant.id", "")]), one(""));
    check(resource(&[kv("tenant.id", "acme"), kv("a", "b"), kv("tenant.id", "acme")]), one("acme"));
    check(resource(&[kv("tenant.id", "acme"), kv("tenant.id", "other")]), Claimed::Conflict);
    // An integer, no value, an empty value.
    check(resource(&[raw(&[(1, b"tenant.id"), (2, b"\x18\x05")])]), Claimed::Conflict);
    check(resource(&[raw(&[(1, b"tenant.id")])]), Claimed::Conflict);
    check(resource(&[raw(&[(1, b"tenant.id"), (2, b"")])]), Claimed::Conflict);
}

#[test]
fn what_two_readers_could_read_in_two_ways_is_refused() {
    let check = |bytes: Vec<u8>, expected: Expect| {
        expected.assert_eq(&Request::check(Signal::Logs, bytes.into()).unwrap_err().to_string());
    };
    let part = |attribute: Vec<u8>| raw(&[(1, &attribute)]);
    check(
        resource(&[raw(&[(1, b"x"), (1, b"tenant.id"), (2, b"\x0a\x01a")])]),
        expect!["malformed at byte 9: expected this field only once"],
    );
    check(
        resource(&[raw(&[(1, b"tenant.id"), (2, b"\x0a\x01a"), (2, b"\x0a\x01b")])]),
        expect!["malformed at byte 22: expected this field only once"],
    );
    check(
        resource(&[raw(&[(1, b"tenant.id"), (2, b"\x0a\x01a\x18\x05")])]),
        expect!["malformed at byte 22: expected only one of the fields that exclude each other"],
    );
    check(
        envelope(&[part(kv("a", "b")), part(kv("tenant.id", "acme"))]),
        expect!["malformed at byte 14: expected this field only once"],
    );
}

/// The attributes of each resource after the stamp, and what was counted.
fn stamped(bytes: Vec<u8>, add: bool, expected: Expect) {
    let mut batch = batch(bytes);
    let Stamped { overwritten, added } = batch.stamp(&keys(), add);
    let batch = batch.written(Vec::new(), &keys()).batch;
    let request = Request::check(Signal::Logs, batch.bytes.clone()).unwrap();
    assert_eq!(request.records, u64::from(batch.records));
    let mut text = format!("overwritten {overwritten}, added {added}");
    for resource in super::samples::resource_attributes(&batch.bytes) {
        text += &format!("\n{resource}");
    }
    expected.assert_eq(&text);
}

#[test]
fn a_stamp_leaves_each_key_once_with_the_verified_value() {
    let (tenant, project) = (kv("tenant.id", "acme"), kv("project.id", "web"));
    stamped(
        resource(&[tenant.clone(), kv("a", "b"), project.clone()]),
        true,
        expect![[r#"
            overwritten 0, added 0
            tenant.id=acme a=b project.id=web"#]],
    );
    stamped(
        [resource(&[kv("a", "b")]), envelope(&[]), resource(&[])].concat(),
        true,
        expect![[r#"
            overwritten 0, added 3
            a=b tenant.id=acme project.id=web
            tenant.id=acme project.id=web
            tenant.id=acme project.id=web"#]],
    );
    stamped(
        [resource(&[kv("a", "b")]), envelope(&[])].concat(),
        false,
        expect![[r#"
            overwritten 0, added 0
            a=b
            -"#]],
    );
    stamped(
        resource(&[kv("tenant.id", "other"), kv("a", "b"), tenant.clone(), tenant.clone()]),
        true,
        expect![[r#"
            overwritten 1, added 1
            tenant.id=acme a=b project.id=web"#]],
    );
    stamped(
        resource(&[tenant.clone(), tenant.clone(), kv("project.id", "x")]),
        false,
        expect![[r#"
            overwritten 1, added 0
            tenant.id=acme project.id=web"#]],
    );
}

#[test]
fn a_batch_of_neighbours_is_a_slice_and_of_others_a_copy() {
    let all: Vec<Vec<u8>> = ["a", "b", "c", "d"].iter().map(|name| resource(&[kv("n", name)])).collect();
    let request = Request::check(Signal::Logs, all.concat().into()).unwrap();
    let batch = request.batch(stream(), &[1, 2]);
    assert_eq!(batch.bytes, all[1..3].concat());
    assert_eq!(batch.bytes.as_ptr(), request.bytes[request.resources[1].range.start..].as_ptr());
    let batch = request.batch(stream(), &[0, 2, 3]);
    assert_eq!(batch.bytes, [&all[0][..], &all[2], &all[3]].concat());
    assert_eq!(batch.records, 3);
    assert_eq!(batch.resource_texts("n"), ["a", "c", "d"].map(|name| Some(name.to_owned())));
    assert_eq!(batch.resource_texts("m"), [None, None, None]);
    assert_eq!(request.batch(stream(), &[]).bytes.len(), 0);
    assert_eq!(request.batch(stream(), &[0, 1, 2, 3]).bytes.as_ptr(), request.bytes.as_ptr());
}
