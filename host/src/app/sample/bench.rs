//! What calls of a plugin cost, by the number of records that each is given.
//!
//! Only the calls are timed, on the clock on the wall: an author wants to know what a quiet machine takes. The floor is
//! what the pipeline does for any plugin (cut a batch into pieces, put it together again), in the same run.

use super::run::keys;
use super::{Sample, Whose};
use crate::batch::{Batch, Piece, Signal};
use crate::sandbox::{Plugin, PluginError};
use std::time::Duration;
use tokio::time::Instant;

/// Calls whose time is kept; a run of seconds makes fewer.
const CALLS_MAX: usize = 2_000_000;
/// Calls before the first that counts: the instance is made, memory is touched, code is cold.
const WARM_CALLS: usize = 3;
/// Of a piece, as the pipeline cuts it.
const PIECE_BYTES_MAX: usize = crate::pipeline::PIECE_BYTES_MAX;

/// What calls of one size took.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Records that a call was to be given; large ones come in smaller pieces.
    pub size: usize,
    pub calls: usize,
    pub records: u64,
    pub ns_per_record: f64,
    /// What half of the calls, nine tenths and so on took at most.
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
    pub max: Duration,
    /// What a record costs without a plugin.
    pub floor_ns_per_record: f64,
    /// Why calls failed, the first reason, and how many did.
    pub failed: Option<(PluginError, usize)>,
}

impl Sample {
    /// Calls of so many records for about so long. `None`: the sample holds nothing that the plugin is called with.
    pub fn measure(&self, plugin: &Plugin, whose: &Whose, size: usize, time: Duration) -> Option<Measured> {
        let batch = self.batch_for(plugin, whose, size)?;
        let mut times = Times::default();
        for piece in batch.pieces(size, PIECE_BYTES_MAX).into_iter().take(WARM_CALLS) {
            times.call(plugin, piece, 0);
        }
        times = Times::default();
        let begun = Instant::now();
        let mut now_ns = 1_767_225_600_000_000_000;
        'all: loop {
            for piece in batch.pieces(size, PIECE_BYTES_MAX) {
                times.call(plugin, piece, now_ns);
                now_ns += 1_000_000;
                if begun.elapsed() >= time || times.calls.len() >= CALLS_MAX {
                    break 'all;
                }
            }
        }
        let floor_ns_per_record = floor(&batch, size, time / 10);
        Some(times.measured(size, floor_ns_per_record))
    }

    /// All of the first signal that the plugin is called with, often enough for a whole piece.
    fn batch_for(&self, plugin: &Plugin, whose: &Whose, size: usize) -> Option<Batch> {
        let signals = &plugin.manifest().signals;
        let signal: Signal = self.requests.iter().find(|request| signals.contains(&request.signal))?.signal;
        let requests = || self.requests.iter().filter(|request| request.signal == signal);
        let records: u64 = requests().map(|request| request.records).sum();
        if records == 0 {
            return None;
        }
        // Requests of one signal joined are a request.
        let all: Vec<u8> = requests().flat_map(|request| request.bytes.iter().copied()).collect();
        let times = (size as u64).div_ceil(records).max(1);
        let mut batch = Batch::over(signal, whose.0.clone(), all.repeat(times as usize).into());
        batch.stamp(&keys(), true);
        Some(batch.written(Vec::new(), &keys()).batch)
    }
}

#[derive(Default)]
struct Times {
    calls: Vec<u64>,
    records: u64,
    failed: Option<(PluginError, usize)>,
}

impl Times {
    fn call(&mut self, plugin: &Plugin, piece: Piece, now_ns: u64) {
        let records = piece.records();
        let begun = Instant::now();
        let called = plugin.process(piece, None, now_ns);
        self.calls.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.records += u64::from(records);
        if let Err(error) = called.result {
            self.failed.get_or_insert((error, 0)).1 += 1;
        }
    }

    fn measured(mut self, size: usize, floor_ns_per_record: f64) -> Measured {
        let sum: u64 = self.calls.iter().sum();
        self.calls.sort_unstable();
        let at = |share: f64| {
            let place = ((self.calls.len() as f64 * share).ceil() as usize).clamp(1, self.calls.len().max(1));
            Duration::from_nanos(self.calls.get(place - 1).copied().unwrap_or(0))
        };
        Measured {
            size,
            calls: self.calls.len(),
            records: self.records,
            ns_per_record: sum as f64 / self.records.max(1) as f64,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: at(1.0),
            floor_ns_per_record,
            failed: self.failed,
        }
    }
}

/// Nanoseconds a record of the way without a plugin.
fn floor(batch: &Batch, size: usize, time: Duration) -> f64 {
    let begun = Instant::now();
    let mut records = 0_u64;
    while records == 0 || begun.elapsed() < time {
        let pieces = batch.pieces(size, PIECE_BYTES_MAX);
        let written = batch.clone().written(pieces, &keys());
        records += u64::from(written.batch.records.max(1));
    }
    begun.elapsed().as_nanos() as f64 / records as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_of_calls() {
        let times = Times { calls: (1..=100).rev().collect(), records: 50, failed: None };
        let measured = times.measured(1, 3.0);
        let ns = [measured.p50, measured.p90, measured.p99, measured.max].map(|time| time.as_nanos());
        assert_eq!(ns, [50, 90, 99, 100]);
        assert_eq!(measured.ns_per_record, 101.0);
        let one = Times { calls: vec![7], records: 1, failed: None }.measured(1, 0.0);
        assert_eq!((one.p50, one.p99, one.max.as_nanos()), (one.max, one.max, 7));
    }
}
