//! Gives a piece to a plugin, and finds the records that it fails on.
//!
//! A call that fails is made again with each half of its records, until those that fail stand alone; the failure
//! policy applies to them, and all others have passed. Later halves go first: what a call drops then moves no row of
//! those that wait.

use super::limits::thread_cpu;
use super::{Effects, OnFailure, Plugin, PluginError};
use crate::batch::Piece;
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// One run takes at most so many times the CPU time of a call: looking for one record among 512 that loops would
/// take ten times. What was not tried by then gets the policy too.
const CPU_FACTOR: u32 = 4;
/// After a call that took too long, its parts get this part of the time: four times the time then find one record.
const RETRY_CPU_DIVISOR: u32 = 4;

/// One call in so many has its CPU time taken, and counts for all of them: reading the thread's CPU clock is a system
/// call, and twice of it cost more than a small piece does.
pub(super) const CALLS_PER_TIMED: u32 = 8;

/// Reasons that one run writes to the log.
const REASONS_LOGGED_MAX: usize = 4;

/// What a plugin made of a piece.
#[derive(Debug)]
pub struct Ran {
    pub piece: Piece,
    /// Of the calls that returned ok.
    pub effects: Effects,
    /// Records that the plugin dropped.
    pub filtered: u32,
    /// Records that it failed on, and why; neighbours with the same reason are one entry. What became of them says the
    /// plugin's `on_failure`: with `Pass` they are still in the piece.
    pub failed: Vec<Failed>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub records: u32,
    pub error: PluginError,
}

impl Plugin {
    /// Takes up to four times the CPU limit of a call: not for an executor's thread. A piece of a signal that the
    /// plugin does not name comes back as it is.
    pub fn run(&self, piece: Piece, now_ns: u64) -> Ran {
        if !self.manifest().signals.contains(&piece.signal()) || piece.records() == 0 {
            return Ran::unchanged(piece);
        }
        let start = self.is_next_timed().then(thread_cpu);
        let begun = Instant::now();
        let called = self.process(piece, None, now_ns);
        let (ran, start, calls) = match called.result {
            Ok(effects) => {
                let ran = Ran { piece: called.piece, effects, filtered: called.dropped, failed: Vec::new() };
                (ran, start, CALLS_PER_TIMED)
            }
            Err(error) => {
                // On a clock that was not read the call began so long ago at most.
                let start = start.unwrap_or_else(|| thread_cpu().saturating_sub(begun.elapsed()));
                let ran = Bisection::new(self, now_ns, start).run(called.piece, error);
                self.log_failures(&ran.failed, now_ns);
                (ran, Some(start), 1)
            }
        };
        if let Some(start) = start {
            self.count_cpu(thread_cpu().saturating_sub(start) * calls);
        }
        ran
    }

    fn log_failures(&self, failed: &[Failed], now_ns: u64) {
        for Failed { records, error } in failed.iter().take(REASONS_LOGGED_MAX) {
            let what = match self.settings().on_failure {
                OnFailure::Pass => "passed on unchanged",
                OnFailure::Drop => "dropped",
                OnFailure::Refuse => "refused",
            };
            self.log(&format!("failed on {records} records, which are {what}: {error}"), now_ns);
        }
    }
}

impl Ran {
    fn unchanged(piece: Piece) -> Ran {
        Ran { piece, effects: Effects::default(), filtered: 0, failed: Vec::new() }
    }

    /// Applies the policy to records that failed.
    fn fail(mut self, plugin: &Plugin, part: Range<u32>, error: PluginError) -> Ran {
        let records = part.end - part.start;
        match self.failed.last_mut() {
            Some(last) if last.error == error => last.records += records,
            _ => self.failed.push(Failed { records, error }),
        }
        if plugin.settings().on_failure == OnFailure::Pass {
            return self;
        }
        self.piece.drop_records(part);
        self
    }
}

struct Bisection<'p> {
    plugin: &'p Plugin,
    now_ns: u64,
    /// The CPU clock of the thread when the run began.
    start: Duration,
    /// Of each call from now on.
    cpu_limit: Duration,
}

impl Bisection<'_> {
    fn new(plugin: &Plugin, now_ns: u64, start: Duration) -> Bisection<'_> {
        Bisection { plugin, now_ns, start, cpu_limit: plugin.settings().limits.time }
    }

    /// `error` is that of the call with all records.
    fn run(mut self, piece: Piece, error: PluginError) -> Ran {
        let all = 0..piece.records();
        let mut ran = Ran::unchanged(piece);
        let mut waiting = Vec::new();
        let mut last = error.clone();
        ran = self.split(all, error, &mut waiting, ran);
        while let Some(part) = waiting.pop() {
            if self.is_over() {
                ran = ran.fail(self.plugin, part, last.clone());
                continue;
            }
            let called =
                self.plugin.process_within(ran.piece, Some(part.clone()), self.now_ns, self.cpu_limit);
            ran.piece = called.piece;
            match called.result {
                Ok(effects) => {
                    ran.effects.merge(effects);
                    ran.filtered += called.dropped;
                }
                Err(error) => {
                    last = error.clone();
                    ran = self.split(part, error, &mut waiting, ran);
                }
            }
        }
        ran
    }

    /// The halves of a part that failed wait, the later on top; a single record gets the policy.
    fn split(
        &mut self,
        part: Range<u32>,
        error: PluginError,
        waiting: &mut Vec<Range<u32>>,
        ran: Ran,
    ) -> Ran {
        if matches!(error, PluginError::Time { .. }) {
            self.cpu_limit = self.plugin.settings().limits.time / RETRY_CPU_DIVISOR;
        }
        // An instance that cannot be made fails on every part.
        if part.len() <= 1 || matches!(error, PluginError::Load(_)) {
            return ran.fail(self.plugin, part, error);
        }
        let middle = part.start + (part.end - part.start) / 2;
        waiting.push(part.start..middle);
        waiting.push(middle..part.end);
        ran
    }

    fn is_over(&self) -> bool {
        thread_cpu().saturating_sub(self.start) >= self.plugin.settings().limits.time * CPU_FACTOR
    }
}
