//! Reading on: what a queue has on the disk comes into memory, a few entries at a time, once nothing waits there.

use super::SinkId;
use super::disk::{Kind, Position, Read, Reader};
use super::keep::{Journal, State};
use super::payload;
use super::queue::Waiting;
use super::write::OnDisk;
use crate::batch::Entry;
use bytes::Bytes;
use std::sync::Arc;

/// How much is read before it is handed to the queue.
const READ_BYTES: usize = 4 << 20;

impl Journal {
    /// If nothing waits in memory for this sink, but on the disk: the cursor is woken when that was read. Whether it is
    /// so.
    pub(super) fn start_reading(self: &Arc<Journal>, sink: SinkId) -> bool {
        let looked = self.with_queue(sink, |queue| {
            let starts = queue.wants_reading();
            queue.is_reading |= starts;
            (starts, queue.turn, queue.waiting.is_empty() && queue.behind.is_some())
        });
        let (starts, turn, is_behind) = looked.unwrap_or_default();
        if starts {
            let reading = Reading { journal: self.clone(), sink, turn, is_failed: false };
            // It goes on when the cursor that asked is gone: what is read waits for the next.
            drop(tokio::task::spawn_blocking(move || reading.run()));
        }
        is_behind
    }
}

/// One at a time for each sink.
struct Reading {
    journal: Arc<Journal>,
    sink: SinkId,
    /// Of the queue.
    turn: u32,
    is_failed: bool,
}

/// What was read, and where the next is.
struct Chunk {
    entries: Vec<Waiting>,
    next: Position,
    /// Up to which it could have been read, if it was read up to there.
    is_end: bool,
}

impl Reading {
    fn run(mut self) {
        let Some(number) = self.journal.sinks.load().get(self.sink).map(|sink| sink.number) else { return };
        while let Some((from, until)) = self.rest() {
            match self.chunk(number, from, until) {
                Ok(chunk) => self.hand_over(chunk, until),
                Err(error) => {
                    // Not at once again: the next upkeep tries it.
                    tracing::warn!(%error, "the journal cannot be read");
                    self.is_failed = true;
                    return;
                }
            }
        }
    }

    /// From where and up to where; `None` if something waits in memory, or nothing is left.
    fn rest(&self) -> Option<(Position, Position)> {
        let state = self.journal.state();
        let queue = state.queues.get(usize::from(self.sink.0))?;
        let from = queue.behind.filter(|_| queue.waiting.is_empty() && queue.turn == self.turn)?;
        Some((from, state.end))
    }

    fn chunk(&self, number: u16, from: Position, until: Position) -> std::io::Result<Chunk> {
        let Some(on_disk) = &self.journal.on_disk else { return Ok(Chunk::none(until)) };
        let bytes_max = READ_BYTES.min(self.journal.memory_share_bytes());
        let mut reader = Reader::new(on_disk.disk.clone(), from);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max {
            match reader.next(until)? {
                None => return Ok(Chunk { entries, ..Chunk::none(until) }),
                Some(Read::Frame { at, kind: Kind::Entry, payload }) => {
                    bytes += payload.len();
                    self.take_frame(on_disk, number, at, payload, &mut entries);
                }
                Some(Read::Frame { .. }) => {}
                Some(Read::Skipped(skipped)) => {
                    on_disk.tell_skipped(&skipped);
                    on_disk.notice_damage();
                }
            }
        }
        Ok(Chunk { entries, next: reader.at(), is_end: false })
    }

    /// The parts that go to this sink.
    fn take_frame(
        &self,
        on_disk: &OnDisk,
        number: u16,
        at: Position,
        payload: Vec<u8>,
        entries: &mut Vec<Waiting>,
    ) {
        let Some((frame, mut start)) = payload::Entry::decode(&payload) else {
            tracing::warn!(
                segment = at.segment,
                offset = at.offset,
                "an entry of the journal has no known form"
            );
            return on_disk.notice_damage();
        };
        let mut first = frame.first;
        let payload = Bytes::from(payload);
        for part in frame.parts {
            let end = start + part.bytes as usize;
            if part.sinks.contains(&number) && part.records > 0 {
                let bytes = payload.slice(start..end);
                let entry = Entry {
                    stream: part.stream,
                    signal: part.signal,
                    first,
                    records: part.records,
                    time_ms: frame.time_ms,
                    node: self.journal.node,
                    // A small part must not hold the whole frame in memory.
                    bytes: if bytes.len() < payload.len() / 2 {
                        Bytes::copy_from_slice(&bytes)
                    } else {
                        bytes
                    },
                };
                let is_resend = first < self.journal.recovered_until;
                entries.push(Waiting { entry: Arc::new(entry), is_resend, at });
            }
            first += u64::from(part.records);
            start = end;
        }
    }

    fn hand_over(&self, chunk: Chunk, until: Position) {
        let mut state = self.journal.state();
        let is_end = chunk.is_end && state.end == until;
        let State { queues, starts, .. } = &mut *state;
        let queue = queues.get_mut(usize::from(self.sink.0)).filter(|queue| queue.turn == self.turn);
        if let Some(queue) = queue {
            let is_void = |waiting: &Waiting| starts.is_void(waiting.at.segment, waiting.entry.first);
            let entries = chunk.entries.into_iter().filter(|waiting| !is_void(waiting));
            entries.for_each(|waiting| queue.push_read(waiting));
            queue.behind = (!is_end).then_some(chunk.next);
            if is_end {
                // They were damaged.
                queue.unread.clear();
                // So was what it is charged for and was not there: a segment is gone, or was cut between two frames.
                if queue.charged_bytes > queue.memory_bytes
                    && let Some(on_disk) = &self.journal.on_disk
                {
                    on_disk.notice_damage();
                }
            }
        }
        state.changes += 1;
        self.journal.expire_due(&mut state, self.sink);
    }
}

impl Chunk {
    fn none(until: Position) -> Chunk {
        Chunk { entries: Vec::new(), next: until, is_end: true }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.journal.with_queue(self.sink, |queue| queue.is_reading &= queue.turn != self.turn);
        if !self.is_failed
            && !std::thread::panicking()
            && let Some(waiting) = self.journal.waiting(self.sink)
        {
            waiting.notify_one();
        }
    }
}
