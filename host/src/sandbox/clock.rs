//! The clock by which guests are stopped.
//!
//! At each tick of it a guest that runs compares the CPU time of its thread with its limit. It ticks on a thread of its
//! own, however busy the executor is, and while the collector stops. When no guest has run for a while it sleeps, so
//! that an idle collector wakes for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, Thread};
use std::time::Duration;
use wasmtime::Engine;

/// A twentieth of the usual limit.
const TICK: Duration = Duration::from_millis(5);
/// Ticks without a call before it sleeps: the call that wakes it pays for a system call.
const QUIET_TICKS: u32 = 20;

/// The engine, and who lets its time pass. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Clock {
    engine: Engine,
    calls: Arc<Calls>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Calls {
    begun: AtomicU64,
    ended: AtomicU64,
    is_asleep: AtomicBool,
    is_over: AtomicBool,
}

impl Clock {
    pub(super) fn start(engine: Engine) -> std::io::Result<Arc<Clock>> {
        let calls = Arc::<Calls>::default();
        let ticks = {
            let (engine, calls) = (engine.clone(), calls.clone());
            thread::Builder::new().name("plugin-clock".into()).spawn(move || tick(&engine, &calls))?
        };
        Ok(Arc::new(Clock { engine, calls, thread: ticks.thread().clone() }))
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.calls.is_over.store(true, SeqCst);
        self.thread.unpark();
    }
}

fn tick(engine: &Engine, calls: &Calls) {
    let (mut begun, mut quiet) = (0, 0);
    while !calls.is_over.load(SeqCst) {
        engine.increment_epoch();
        thread::sleep(TICK);
        let before = std::mem::replace(&mut begun, calls.begun.load(SeqCst));
        quiet = if begun == before && !calls.is_any() { quiet + 1 } else { 0 };
        if quiet == QUIET_TICKS {
            calls.await_next();
            quiet = 0;
        }
    }
}

impl Calls {
    fn is_any(&self) -> bool {
        self.begun.load(SeqCst) != self.ended.load(SeqCst)
    }

    fn await_next(&self) {
        self.is_asleep.store(true, SeqCst);
        // Who begins a call now either is seen here, or sees that the clock sleeps and wakes it.
        while self.is_asleep.load(SeqCst) && !self.is_any() && !self.is_over.load(SeqCst) {
            thread::park();
        }
        self.is_asleep.store(false, SeqCst);
    }
}

/// Whether one instance runs.
#[derive(Debug)]
pub(super) struct Running {
    clock: Arc<Clock>,
    is_running: bool,
}

impl Running {
    pub(super) fn not_yet(clock: Arc<Clock>) -> Running {
        Running { clock, is_running: false }
    }

    /// From now on the clock ticks.
    pub(super) fn begin(&mut self) {
        if std::mem::replace(&mut self.is_running, true) {
            return;
        }
        let calls = &self.clock.calls;
        calls.begun.fetch_add(1, SeqCst);
        if calls.is_asleep.load(SeqCst) {
            calls.is_asleep.store(false, SeqCst);
            self.clock.thread.unpark();
        }
    }

    pub(super) fn end(&mut self) {
        if std::mem::replace(&mut self.is_running, false) {
            self.clock.calls.ended.fetch_add(1, SeqCst);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    fn clock() -> Arc<Clock> {
        Clock::start(Engine::default()).unwrap()
    }

    fn until(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn it_sleeps_only_while_nothing_runs() {
        let clock = clock();
        let is_asleep = || clock.calls.is_asleep.load(SeqCst);
        let mut running = Running::not_yet(clock.clone());
        for _ in 0..3 {
            until("asleep", is_asleep);
            running.begin();
            running.begin();
            assert!(!is_asleep());
            thread::sleep(2 * QUIET_TICKS * TICK);
            assert!(!is_asleep());
            running.end();
            running.end();
        }
        running.begin();
        drop(running);
        until("asleep after an instance was thrown away in its call", is_asleep);
    }

    #[test]
    fn its_thread_ends_with_it() {
        for is_asleep in [false, true] {
            let clock = clock();
            let calls = clock.calls.clone();
            if is_asleep {
                until("asleep", || calls.is_asleep.load(SeqCst));
            }
            drop(clock);
            until("the thread is gone", || Arc::strong_count(&calls) == 1);
        }
    }

    /// Calls that begin just when it falls asleep.
    #[test]
    fn no_call_is_overlooked() {
        let (calls, seen) = (Arc::<Calls>::default(), Arc::<AtomicU64>::default());
        let sleeps = {
            let (calls, seen) = (calls.clone(), seen.clone());
            move || {
                while !calls.is_over.load(SeqCst) {
                    calls.await_next();
                    seen.store(calls.begun.load(SeqCst), SeqCst);
                }
            }
        };
        let sleeper = thread::spawn(sleeps);
        let thread = sleeper.thread().clone();
        let clock = Arc::new(Clock { engine: Engine::default(), calls, thread });
        let mut running = Running::not_yet(clock.clone());
        for call in 1..=20_000 {
            running.begin();
            let deadline = Instant::now() + Duration::from_secs(30);
            while seen.load(SeqCst) != call {
                assert!(Instant::now() < deadline, "call {call} is not seen");
                thread::yield_now();
            }
            running.end();
        }
        drop((running, clock));
        sleeper.join().unwrap();
    }
}
