//! What one call may cost: CPU time of the guest and of the host, memory, work.
//!
//! The guest is stopped by epochs: at each tick its thread's CPU clock is compared with the limit, since a deadline in
//! wall time kills healthy plugins on a busy machine. Epochs do not stop host code, so every host function charges the
//! [`Meter`] inside its loops; the meter compares the same clock now and then.

use std::time::Duration;
use wasmtime::ResourceLimiter;

/// Work that even a call on an empty piece may ask for.
const WORK_BASE: u64 = 2 << 20;
/// Work after which the clock is compared; well under a millisecond.
const CLOCK_EVERY: u64 = 256 << 10;
/// What any call of the host costs, in bytes worked over.
pub(super) const CALL_COST: u64 = 256;
/// What starting on one text costs.
pub(super) const TEXT_COST: u64 = 8;
/// What one hit costs.
pub(super) const HIT_COST: u64 = 32;

/// Tables and instances that a component may have: language runtimes use a handful.
const TABLE_ELEMENTS_MAX: usize = 100_000;
const INSTANCES_MAX: usize = 256;

/// Why the host stopped a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stop {
    #[error("over its CPU time")]
    Time,
    #[error("{0}")]
    Work(String),
    #[error("{0}")]
    Output(String),
}

/// Counts what one call costs.
#[derive(Debug)]
pub(super) struct Meter {
    work_budget: u64,
    work_left: u64,
    /// Passes over the piece that the budget is for, and the bytes of the piece.
    passes: u64,
    bytes: u64,
    until_clock: u64,
    cpu_limit: Duration,
    /// The CPU clock of the thread when it was first read in this call: up to one tick after the start, which costs a
    /// short call nothing.
    cpu_start: Option<Duration>,
}

impl Meter {
    /// `work`: bytes × patterns that a call may make the host work, for each byte of the piece and each pattern of the
    /// largest set.
    pub(super) fn new(cpu_limit: Duration, work: u32, piece_bytes: usize, patterns_max: usize) -> Meter {
        let passes = u64::from(work) * (patterns_max as u64).max(1);
        let bytes = piece_bytes as u64;
        let work_budget = WORK_BASE.saturating_add(passes.saturating_mul(bytes));
        Meter {
            work_budget,
            work_left: work_budget,
            passes,
            bytes,
            until_clock: CLOCK_EVERY,
            cpu_limit,
            cpu_start: None,
        }
    }

    /// The piece turned out to hold more text than its items: a resource may be larger than its records.
    pub(super) fn holds(&mut self, bytes: u64) {
        let more = bytes.saturating_sub(self.bytes).saturating_mul(self.passes);
        self.bytes = self.bytes.max(bytes);
        self.work_budget = self.work_budget.saturating_add(more);
        self.work_left = self.work_left.saturating_add(more);
    }

    /// Takes this much work from the budget.
    pub(super) fn charge(&mut self, work: u64) -> Result<(), Stop> {
        match self.work_left.checked_sub(work) {
            Some(left) => self.work_left = left,
            None => {
                let text = format!(
                    "asked the collector for more work than a piece of this size is worth ({} units)",
                    self.work_budget
                );
                return Err(Stop::Work(text));
            }
        }
        self.pass(work)
    }

    /// Counts work that is in no budget, so that it is stopped by the clock alone.
    pub(super) fn pass(&mut self, work: u64) -> Result<(), Stop> {
        match self.until_clock.checked_sub(work) {
            Some(left) => {
                self.until_clock = left;
                Ok(())
            }
            None => {
                self.until_clock = CLOCK_EVERY;
                self.check_clock()
            }
        }
    }

    pub(super) fn cpu_limit(&self) -> Duration {
        self.cpu_limit
    }

    pub(super) fn check_clock(&mut self) -> Result<(), Stop> {
        let now = thread_cpu();
        let start = *self.cpu_start.get_or_insert(now);
        if now.saturating_sub(start) > self.cpu_limit { Err(Stop::Time) } else { Ok(()) }
    }

    /// The share of the budget that is used up, for tests and tuning.
    #[cfg(test)]
    pub(super) fn used(&self) -> f64 {
        1.0 - self.work_left as f64 / self.work_budget as f64
    }
}

/// CPU time of this thread.
pub fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Bounds memory and tables of an instance; remembers that it refused.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    pub(super) bytes_max: usize,
    /// Of all memories of the instance.
    pub(super) bytes: usize,
    pub(super) was_refused: bool,
}

impl MemoryLimit {
    pub(super) fn new(bytes_max: usize) -> MemoryLimit {
        MemoryLimit { bytes_max, bytes: 0, was_refused: false }
    }

    /// Of all memories of the instance.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = self.bytes.saturating_sub(current).saturating_add(desired);
        if bytes > self.bytes_max {
            self.was_refused = true;
            return Ok(false);
        }
        self.bytes = bytes;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.was_refused |= desired > TABLE_ELEMENTS_MAX;
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        INSTANCES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_beyond_the_budget_stops_the_call() {
        let mut meter = Meter::new(Duration::from_secs(1), 64, 1000, 3);
        assert_eq!(meter.charge(WORK_BASE + 64 * 3 * 1000), Ok(()));
        assert!(matches!(meter.charge(1), Err(Stop::Work(_))));
    }

    #[test]
    fn a_large_resource_around_small_records_is_worth_its_own_size() {
        let mut meter = Meter::new(Duration::from_secs(1), 64, 1000, 1);
        for _ in 0..2 {
            meter.holds(64 << 20);
        }
        assert_eq!(meter.charge(WORK_BASE + 64 * (64 << 20)), Ok(()));
        assert!(matches!(meter.charge(1), Err(Stop::Work(_))));
    }

    #[test]
    fn host_work_obeys_the_cpu_time_too() {
        let mut meter = Meter::new(Duration::ZERO, 64, 1 << 30, 1);
        let stopped = (0..10_000_000).find_map(|_| meter.charge(CLOCK_EVERY).err());
        assert_eq!(stopped, Some(Stop::Time));
    }

    #[test]
    fn memories_of_an_instance_share_one_limit() {
        let mut limit = MemoryLimit::new(100);
        assert!(limit.memory_growing(0, 60, None).unwrap());
        assert!(!limit.memory_growing(0, 60, None).unwrap());
        assert!(limit.was_refused);
        assert!(limit.memory_growing(60, 100, None).unwrap());
    }
}
