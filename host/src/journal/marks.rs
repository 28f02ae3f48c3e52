//! Marks: how far everybody is. They stand before the entries of their round.

use super::disk::{Kind, Start, WriteError};
use super::keep::Journal;
use super::payload::{AccountMark, Marks, SinkMark};
use super::write::{Came, Round, set_full};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How often marks are written while anything changes.
const MARKS_EVERY: Duration = Duration::from_secs(1);

impl Round<'_> {
    /// If they are due, or a segment begins.
    pub(super) fn write_marks(&mut self, came: &mut Came) -> Result<(), WriteError> {
        if self.writer.log.wants_segment() {
            let start = self.journal.segment_start();
            match self.writer.log.start_segment(&start) {
                Err(WriteError::Full) => {
                    set_full(self.on_disk);
                    self.use_reserve()?;
                }
                started => {
                    started?;
                    self.note_start(&start);
                }
            }
            self.writer.wants_full_marks = true;
        } else if self.on_disk.is_full.load(Ordering::Relaxed) && self.writer.log.has_reserve() {
            // What filled the disk is removed once another segment is begun, and not before.
            self.use_reserve()?;
            self.writer.wants_full_marks = true;
        }
        let is_due = self.writer.marked.is_none_or(|(at, changes)| {
            let state = self.journal.state();
            let is_time = self.is_upkeep || at.elapsed() >= MARKS_EVERY;
            state.wants_marks || is_time && state.changes != changes
        });
        if !is_due && !self.writer.wants_full_marks {
            return Ok(());
        }
        match self.append_marks(came) {
            Err(WriteError::Full) if self.writer.log.has_reserve() => {
                set_full(self.on_disk);
                self.use_reserve()?;
                self.append_marks(came)
            }
            appended => appended,
        }
    }

    fn use_reserve(&mut self) -> Result<(), WriteError> {
        let start = self.journal.segment_start();
        self.writer.log.use_reserve(&start)?;
        self.note_start(&start);
        Ok(())
    }

    fn note_start(&self, start: &Start) {
        if let Some(end) = self.writer.log.end() {
            self.journal.state().starts.0.insert(end.segment, start.first);
        }
    }

    fn append_marks(&mut self, came: &mut Came) -> Result<(), WriteError> {
        let is_full = std::mem::replace(&mut self.writer.wants_full_marks, true);
        let (marks, needed, changes) = self.journal.marks(is_full);
        self.writer.log.append(Kind::Marks, &[&marks.encode()])?;
        self.writer.wants_full_marks = false;
        self.writer.marked = Some((Instant::now(), changes));
        came.needed = needed.or(self.writer.log.end().map(|end| end.segment));
        Ok(())
    }
}

impl Journal {
    fn segment_start(&self) -> Start {
        let state = self.state();
        Start { node: self.node, created_ms: state.time_ms, first: state.next_number }
    }

    /// At one moment: the marks, the oldest segment that is needed, and after which changes that is.
    fn marks(&self, is_full: bool) -> (Marks, Option<u64>, u64) {
        let mut state = self.state();
        // Who cannot write them tries again.
        state.wants_marks = false;
        let (next, time_ms) = (state.next_number, state.time_ms);
        let gone = |number: u16, name: &str| SinkMark {
            number,
            name: name.to_owned(),
            frontier: next,
            ..SinkMark::default()
        };
        let known = self.sinks.load();
        let sinks = known.known.iter().zip(&state.queues).map(|(sink, queue)| match sink.terms {
            Some(_) => queue.mark(sink.number, &sink.name, next),
            None => gone(sink.number, &sink.name),
        });
        let sinks = sinks.collect();
        let accounts = self.ledger.kept(is_full, &known.numbers()).into_iter();
        let accounts =
            accounts.map(|((tenant, signal), kept)| AccountMark { tenant, signal, kept }).collect();
        let needed = state.queues.iter().filter_map(super::queue::Queue::oldest_segment).min();
        (Marks { is_full, next, time_ms, sinks, accounts }, needed, state.changes)
    }
}
