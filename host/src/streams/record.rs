//! One record as the store keeps it, and the names that lead to it.
//!
//! A stored value is the full tenant and project, then a whole `ExportLogsServiceRequest` with this one record in
//! its resource and scope. It is put together from slices of the committed bytes: nothing is decoded on the way in,
//! and what we do not know survives. The names stand in full because a key holds only eight bytes of their hash.

use super::wire::{Value, next_field};
use crate::batch::{Entry, Stream};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::ops::Range;

/// The head of SHA-256 over tenant and project, each after its length (four bytes, big-endian).
pub fn stream_hash(stream: &Stream) -> [u8; 8] {
    let mut hash = Sha256::new();
    for name in [stream.tenant.as_str(), stream.project.as_str()] {
        let length = u32::try_from(name.len()).expect("a name is at most 128 bytes");
        hash.update(length.to_be_bytes());
        hash.update(name.as_bytes());
    }
    let digest = hash.finalize();
    let mut head = [0; 8];
    head.copy_from_slice(&digest[..8]);
    head
}

const VERSION: u8 = 1;

/// Version | length and tenant | length and project. Every stored value of the stream begins with it.
pub(super) fn header(stream: &Stream) -> Vec<u8> {
    let mut header = vec![VERSION];
    for name in [stream.tenant.as_str(), stream.project.as_str()] {
        header.push(u8::try_from(name.len()).expect("a name is at most 128 bytes"));
        header.extend_from_slice(name.as_bytes());
    }
    header
}

/// The two names of a header, and what follows it. `None` for bytes that no version of ours wrote.
pub(super) fn names_of(value: &[u8]) -> Option<(&str, &str, &[u8])> {
    let (&version, rest) = value.split_first()?;
    if version != VERSION {
        return None;
    }
    let (tenant, rest) = name_of(rest)?;
    let (project, rest) = name_of(rest)?;
    Some((tenant, project, rest))
}

fn name_of(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(length))?;
    Some((std::str::from_utf8(name).ok()?, rest))
}

/// The record's request, if the value is of this stream.
pub(super) fn content_of<'v>(value: &'v [u8], stream: &Stream) -> Option<&'v [u8]> {
    let (tenant, project, content) = names_of(value)?;
    (tenant == stream.tenant.as_str() && project == stream.project.as_str()).then_some(content)
}

/// Where one record and what it stands in lie in the bytes of an entry; contents, without tag and length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans {
    pub(super) resource: Range<usize>,
    pub(super) resource_schema_url: Range<usize>,
    pub(super) scope: Range<usize>,
    pub(super) scope_schema_url: Range<usize>,
    pub(super) item: Range<usize>,
}

impl Spans {
    /// Whether another record of the same bytes stands in the same resource and scope.
    pub(super) fn has_same_envelope(&self, other: &Spans) -> bool {
        self.resource == other.resource
            && self.scope == other.scope
            && self.resource_schema_url == other.resource_schema_url
            && self.scope_schema_url == other.scope_schema_url
    }
}

/// Walks the log records of committed bytes, in order. Owns its place and no bytes, so that a reader can stop after
/// any record and go on later.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    /// The next number of a record within the entry.
    pub(super) at: u32,
    end: u32,
    top: Range<usize>,
    resource: Range<usize>,
    scope: Range<usize>,
    spans: Spans,
}

impl Walk {
    pub(super) fn of(entry: &Entry) -> Walk {
        Walk {
            at: 0,
            end: entry.records,
            top: 0..entry.bytes.len(),
            resource: 0..0,
            scope: 0..0,
            spans: Spans::default(),
        }
    }

    /// The next record: its number within the entry, and where it lies. Bytes that are no OTLP end the walk.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Option<(u32, Spans)> {
        if self.at >= self.end {
            return None;
        }
        loop {
            if let Some(item) = next_message(bytes, &mut self.scope, 2) {
                let at = self.at;
                self.at += 1;
                return Some((at, Spans { item, ..self.spans.clone() }));
            }
            if let Some(scope) = next_message(bytes, &mut self.resource, 2) {
                self.spans.scope = last_message(bytes, scope.clone(), 1);
                self.spans.scope_schema_url = last_message(bytes, scope.clone(), 3);
                self.scope = scope;
                continue;
            }
            let resource = next_message(bytes, &mut self.top, 1)?;
            self.spans.resource = last_message(bytes, resource.clone(), 1);
            self.spans.resource_schema_url = last_message(bytes, resource.clone(), 3);
            self.resource = resource;
        }
    }
}

/// Takes fields off the front of `range` up to and including the next length-delimited one with this number.
fn next_message(bytes: &[u8], range: &mut Range<usize>, number: u64) -> Option<Range<usize>> {
    while let Some(field) = next_field(bytes, range) {
        if field.number == number
            && let Value::Bytes(content) = field.value
        {
            return Some(content);
        }
    }
    None
}

/// The last field with this number, since the last one counts; empty where there is none.
fn last_message(bytes: &[u8], mut range: Range<usize>, number: u64) -> Range<usize> {
    let mut last = range.start..range.start;
    while let Some(content) = next_message(bytes, &mut range, number) {
        last = content;
    }
    last
}

/// A request with this one record: ResourceLogs { resource, ScopeLogs { scope, record, schema }, schema }.
pub(super) fn request_of(bytes: &[u8], spans: &Spans, into: &mut Vec<u8>) {
    let (scope, item) = (&bytes[spans.scope.clone()], &bytes[spans.item.clone()]);
    let (resource, scope_schema) = (&bytes[spans.resource.clone()], &bytes[spans.scope_schema_url.clone()]);
    let resource_schema = &bytes[spans.resource_schema_url.clone()];
    let scope_logs = field_bytes(scope) + message_bytes(item.len()) + field_bytes(scope_schema);
    let resource_logs = field_bytes(resource) + message_bytes(scope_logs) + field_bytes(resource_schema);
    into.reserve(message_bytes(resource_logs));
    put_head(into, 1, resource_logs);
    put_field(into, 1, resource);
    put_head(into, 2, scope_logs);
    put_field(into, 1, scope);
    put_head(into, 2, item.len());
    into.extend_from_slice(item);
    put_field(into, 3, scope_schema);
    put_field(into, 3, resource_schema);
}

/// The bytes of a field with this content; an empty one is left out.
fn field_bytes(content: &[u8]) -> usize {
    if content.is_empty() { 0 } else { message_bytes(content.len()) }
}

fn message_bytes(length: usize) -> usize {
    let bits = usize::BITS - (length | 1).leading_zeros();
    1 + bits.div_ceil(7) as usize + length
}

fn put_field(into: &mut Vec<u8>, number: u8, content: &[u8]) {
    if !content.is_empty() {
        put_head(into, number, content.len());
        into.extend_from_slice(content);
    }
}

fn put_head(into: &mut Vec<u8>, number: u8, mut length: usize) {
    into.push(number << 3 | 2);
    while length >= 0x80 {
        into.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    into.push(length as u8);
}

/// One record by itself: its place in an entry, as a request of its own.
pub(super) fn single(entry: &Entry, spans: &Spans) -> Bytes {
    let mut request = Vec::new();
    request_of(&entry.bytes, spans, &mut request);
    request.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{ProjectId, Signal, TenantId};
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use proptest::prelude::*;
    use prost::Message;

    fn stream(tenant: &str, project: &str) -> Stream {
        Stream { tenant: TenantId::new(tenant).unwrap(), project: ProjectId::new(project).unwrap() }
    }

    fn entry(bytes: Vec<u8>, records: u32) -> Entry {
        let stream = stream("acme", "web");
        Entry {
            stream,
            signal: Signal::Logs,
            first: 1,
            records,
            time_ms: 1,
            node: [0; 4],
            bytes: bytes.into(),
        }
    }

    fn singles(entry: &Entry) -> Vec<ExportLogsServiceRequest> {
        let mut walk = Walk::of(entry);
        std::iter::from_fn(|| walk.next(&entry.bytes))
            .map(|(_, spans)| ExportLogsServiceRequest::decode(single(entry, &spans)).unwrap())
            .collect()
    }

    #[test]
    fn streams_whose_names_run_together_have_different_hashes() {
        assert_ne!(stream_hash(&stream("ab", "c")), stream_hash(&stream("a", "bc")));
        // SHA-256 of 00000004 acme 00000003 web.
        assert_eq!(stream_hash(&stream("acme", "web")), [0xd2, 0xc8, 0x67, 0x78, 0xa9, 0x27, 0x85, 0x6f]);
    }

    #[test]
    fn a_value_is_read_by_its_own_stream_alone() {
        let mut value = header(&stream("acme", "web"));
        value.extend_from_slice(b"content");
        assert_eq!(content_of(&value, &stream("acme", "web")), Some(&b"content"[..]));
        for other in [stream("acme", "we"), stream("globex", "web"), stream("acmew", "eb")] {
            assert_eq!(content_of(&value, &other), None);
        }
        for length in 0..header(&stream("acme", "web")).len() {
            assert_eq!(content_of(&value[..length], &stream("acme", "web")), None, "cut to {length}");
        }
        value[0] = 2;
        assert_eq!(content_of(&value, &stream("acme", "web")), None, "another version");
    }

    fn requests() -> impl Strategy<Value = ExportLogsServiceRequest> {
        let record = ("[a-z]{0,200}", any::<u64>()).prop_map(|(event_name, time_unix_nano)| LogRecord {
            event_name,
            time_unix_nano,
            ..LogRecord::default()
        });
        let scope = ("[a-z]{0,3}", "[a-z]{0,3}", prop::collection::vec(record, 0..4));
        let scope = scope.prop_map(|(name, schema_url, log_records)| ScopeLogs {
            scope: (!name.is_empty())
                .then(|| InstrumentationScope { name, ..InstrumentationScope::default() }),
            schema_url,
            log_records,
        });
        let resource = ("[a-z]{0,3}", "[a-z]{0,3}", prop::collection::vec(scope, 0..3));
        let resource = resource.prop_map(|(key, schema_url, scope_logs)| {
            let attributes = vec![KeyValue { key, ..KeyValue::default() }];
            let resource = Some(Resource { attributes, ..Resource::default() });
            ResourceLogs { resource, schema_url, scope_logs }
        });
        prop::collection::vec(resource, 0..3)
            .prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
    }

    proptest! {
        #[test]
        fn each_record_stands_alone_in_its_own_resource_and_scope(request in requests()) {
            let mut expected = Vec::new();
            for resource in &request.resource_logs {
                for scope in &resource.scope_logs {
                    for record in &scope.log_records {
                        let scope_logs = vec![ScopeLogs { log_records: vec![record.clone()], ..scope.clone() }];
                        let resource_logs = vec![ResourceLogs { scope_logs, ..resource.clone() }];
                        expected.push(ExportLogsServiceRequest { resource_logs });
                    }
                }
            }
            let records = u32::try_from(expected.len()).unwrap();
            prop_assert_eq!(singles(&entry(request.encode_to_vec(), records)), expected);
        }

        #[test]
        fn no_bytes_panic_and_none_give_more_records_than_the_entry_has(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let entry = entry(bytes, 3);
            let mut walk = Walk::of(&entry);
            let found = std::iter::from_fn(|| walk.next(&entry.bytes)).count();
            prop_assert!(found <= 3);
        }
    }
}
