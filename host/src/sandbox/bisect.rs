//! Gives a piece to a plugin, and finds the records that it fails on.
//!
//! A call that fails is made again with each half of its records, until those that fail stand alone; the failure
//! policy applies to them, and all others have passed. Later halves go first: what a call drops then moves no row of
//! those that wait.

use super::limits::thread_cpu;
use super::turn::Side;
use super::{Effects, OUTPUT_BYTES_MIN, OnFailure, Plugin, PluginError};
use crate::batch::Piece;
use bytes::Bytes;
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
    /// Those of them that are to be kept, with `Quarantine`. It can be fewer than failed: what is too much is dropped.
    pub quarantined: Vec<Quarantined>,
    /// The time was over before the records at fault stood alone.
    pub is_out_of_time: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub records: u32,
    pub error: PluginError,
}

/// Records as they were before the plugin that failed on them: a request of their own.
#[derive(Clone, PartialEq, Eq)]
pub struct Quarantined {
    pub records: u32,
    pub bytes: Bytes,
    /// Of the first of them.
    pub error: String,
}

impl Plugin {
    /// Takes up to four times the CPU limit of a call: not for an executor's thread. A piece of a signal that the
    /// plugin does not name comes back as it is. It is called whatever became of earlier calls; see [`Plugin::try_run`].
    pub fn run(&self, piece: Piece, now_ns: u64) -> Ran {
        if !self.is_for(&piece) {
            return Ran::unchanged(piece);
        }
        let side = self.side(piece.stream().tenant.as_str());
        self.run_for(&side, piece, now_ns)
    }

    /// Whether there is anything to call it for.
    pub(super) fn is_for(&self, piece: &Piece) -> bool {
        self.manifest().signals.contains(&piece.signal()) && piece.records() > 0
    }

    pub(super) fn run_for(&self, side: &Side, piece: Piece, now_ns: u64) -> Ran {
        side.count_records(piece.records());
        // A share of CPU time is of every run.
        let calls_per_timed = if side.has_share() { 1 } else { CALLS_PER_TIMED };
        let start = (calls_per_timed == 1 || side.is_next_timed()).then(thread_cpu);
        let begun = Instant::now();
        let limit = self.settings().limits.time;
        let called = self.process_within(side, piece, None, now_ns, limit);
        match called.result {
            Ok(effects) => {
                if let Some(start) = start {
                    self.count_cpu(side, thread_cpu().saturating_sub(start) * calls_per_timed);
                }
                Ran { effects, filtered: called.dropped, ..Ran::unchanged(called.piece) }
            }
            Err(error) => {
                // On a clock that was not read: no longer than this, whatever else the machine did meanwhile.
                let used = match start {
                    Some(start) => thread_cpu().saturating_sub(start),
                    None => begun.elapsed().min(limit),
                };
                let mut bisection = Bisection::new(self, side, now_ns, used.min(limit));
                let start = thread_cpu();
                let ran = bisection.run(called.piece, error);
                self.count_cpu(side, used + thread_cpu().saturating_sub(start));
                self.log_failures(&ran.failed, now_ns);
                ran
            }
        }
    }

    fn log_failures(&self, failed: &[Failed], now_ns: u64) {
        for Failed { records, error } in failed.iter().take(REASONS_LOGGED_MAX) {
            let Some(untold) = self.told().is_due(error.kind(), now_ns) else { continue };
            let what = match self.settings().on_failure {
                OnFailure::Pass => "passed on unchanged",
                OnFailure::Drop => "dropped",
                OnFailure::Refuse => "refused",
                OnFailure::Quarantine => "put aside",
            };
            let before = before(untold);
            self.report(&format!("failed on {records} records, which are {what}: {error}{before}"));
        }
    }
}

/// How many failures were not told.
pub(super) fn before(untold: u64) -> String {
    match untold {
        0 => String::new(),
        untold => format!(" ({untold} failures of this kind since it was told last)"),
    }
}

impl Ran {
    pub(super) fn unchanged(piece: Piece) -> Ran {
        Ran {
            piece,
            effects: Effects::default(),
            filtered: 0,
            failed: Vec::new(),
            quarantined: Vec::new(),
            is_out_of_time: false,
        }
    }

    /// Records that the plugin failed on.
    pub fn failed_records(&self) -> u32 {
        self.failed.iter().map(|failed| failed.records).sum()
    }
}

struct Bisection<'p> {
    plugin: &'p Plugin,
    side: &'p Side,
    now_ns: u64,
    /// CPU time of its calls, none counted for more than it was given: that one was stopped late, because the machine
    /// has other work, is not the plugin's.
    spent: Duration,
    /// Of each call from now on.
    cpu_limit: Duration,
    /// Records to be quarantined, by their rows in the piece; ascending, and none is ahead of what is not tried yet.
    held: Vec<(Range<u32>, String)>,
}

impl<'p> Bisection<'p> {
    fn new(plugin: &'p Plugin, side: &'p Side, now_ns: u64, spent: Duration) -> Bisection<'p> {
        let cpu_limit = plugin.settings().limits.time;
        Bisection { plugin, side, now_ns, spent, cpu_limit, held: Vec::new() }
    }

    /// `error` is that of the call with all records.
    fn run(&mut self, piece: Piece, error: PluginError) -> Ran {
        let all = 0..piece.records();
        let quarantine_max = OUTPUT_BYTES_MIN + piece.item_bytes();
        let mut ran = Ran::unchanged(piece);
        let mut waiting = Vec::new();
        let mut last = error.clone();
        self.split(all, error, &mut waiting, &mut ran);
        while let Some(part) = waiting.pop() {
            if self.is_over() {
                ran.is_out_of_time = true;
                self.fail(&mut ran, part, last.clone());
                continue;
            }
            let (start, before) = (thread_cpu(), ran.piece.records());
            let (side, cpu_limit) = (self.side, self.cpu_limit);
            let called =
                self.plugin.process_within(side, ran.piece, Some(part.clone()), self.now_ns, cpu_limit);
            self.spent += thread_cpu().saturating_sub(start).min(cpu_limit);
            ran.piece = called.piece;
            match called.result {
                Ok(effects) => {
                    ran.effects.merge(effects);
                    ran.filtered += called.dropped;
                    self.moved(before, ran.piece.records());
                }
                Err(error) => {
                    last = error.clone();
                    self.split(part, error, &mut waiting, &mut ran);
                }
            }
        }
        self.quarantine(ran, quarantine_max)
    }

    /// The halves of a part that failed wait, the later on top; a single record gets the policy.
    fn split(&mut self, part: Range<u32>, error: PluginError, waiting: &mut Vec<Range<u32>>, ran: &mut Ran) {
        if matches!(error, PluginError::Time { .. }) {
            self.cpu_limit = self.plugin.settings().limits.time / RETRY_CPU_DIVISOR;
        }
        // An instance that cannot be made fails on every part.
        if part.len() <= 1 || matches!(error, PluginError::Load(_)) {
            return self.fail(ran, part, error);
        }
        let middle = part.start + (part.end - part.start) / 2;
        waiting.push(part.start..middle);
        waiting.push(middle..part.end);
    }

    /// Applies the policy to records that failed.
    fn fail(&mut self, ran: &mut Ran, part: Range<u32>, error: PluginError) {
        let records = part.end - part.start;
        match self.plugin.settings().on_failure {
            OnFailure::Pass => {}
            OnFailure::Drop | OnFailure::Refuse => ran.piece.drop_records(part),
            OnFailure::Quarantine => match self.held.first_mut() {
                Some((next, text)) if next.start == part.end => {
                    (next.start, *text) = (part.start, error.to_string());
                }
                _ => self.held.insert(0, (part, error.to_string())),
            },
        }
        match ran.failed.last_mut() {
            Some(last) if last.error == error => last.records += records,
            _ => ran.failed.push(Failed { records, error }),
        }
    }

    /// A call on a part ahead of those that are held left so many records in the piece.
    fn moved(&mut self, before: u32, after: u32) {
        for (part, _) in &mut self.held {
            let moved = |row: u32| (row + after).saturating_sub(before);
            *part = moved(part.start)..moved(part.end);
        }
    }

    /// Takes what is held out of the piece, the last first, so that the rows of the others stay.
    fn quarantine(&mut self, mut ran: Ran, bytes_max: usize) -> Ran {
        let mut bytes_left = bytes_max;
        for (part, error) in std::mem::take(&mut self.held).into_iter().rev() {
            let mut call = ran.piece.call(Some(part.clone()));
            let bytes = call.raw().unwrap_or_default();
            ran.piece = call.abort();
            let records = part.end - part.start;
            ran.piece.drop_records(part);
            if let Some(left) = bytes_left.checked_sub(bytes.len()).filter(|_| !bytes.is_empty()) {
                bytes_left = left;
                ran.quarantined.push(Quarantined { records, bytes, error });
            }
        }
        ran.quarantined.reverse();
        ran
    }

    fn is_over(&self) -> bool {
        self.spent >= self.plugin.settings().limits.time * CPU_FACTOR
    }
}

/// Counts only: records have no business in a log.
impl std::fmt::Debug for Quarantined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quarantined").field("records", &self.records).finish_non_exhaustive()
    }
}
