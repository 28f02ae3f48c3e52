//! A batch that was committed: with its number and its time, on the way to the sinks.

use super::{RecordId, Signal, Stream, rows};
use bytes::Bytes;
use std::ops::Range;

/// What the journal keeps and hands to each sink, and what the live tail publishes.
#[derive(Clone, Debug)]
pub struct Entry {
    pub stream: Stream,
    pub signal: Signal,
    /// The number of its first record; the others follow without a gap.
    pub first: u64,
    pub records: u32,
    /// Commit time in ms since 1970; never goes back from one entry to the next.
    pub time_ms: u64,
    /// Four random bytes of this journal.
    pub node: [u8; 4],
    /// An Export*ServiceRequest; requests of one signal concatenate into a valid larger one.
    pub bytes: Bytes,
}

impl Entry {
    /// The id of record `at` (from 0). `stream` is the head of the stream's hash.
    pub fn record_id(&self, stream: [u8; 8], at: u32) -> RecordId {
        RecordId::new(stream, self.time_ms, self.node, self.first + u64::from(at))
    }

    /// These of its records (from 0) alone, each in its own resource, scope and metric. Envelopes that hold none of them
    /// are left out. All of them: the same bytes. Rows that it does not have are ignored.
    pub fn rows(&self, rows: Range<u32>) -> Entry {
        let end = rows.end.min(self.records);
        let rows = rows.start.min(end)..end;
        let bytes = match rows.len() as u32 {
            all if all == self.records => self.bytes.clone(),
            _ => rows::only(self.signal, &self.bytes, rows.clone()).into(),
        };
        let first = self.first + u64::from(rows.start);
        Entry { first, records: rows.len() as u32, bytes, ..self.clone() }
    }
}
