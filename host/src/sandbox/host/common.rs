//! Interface `host`: log, clock, patterns, limits, counts.

use super::super::bindings::trommel::plugin::{host, types};
use super::super::effects::{NameRefused, fitted_key};
use super::super::logs::{LINE_BYTES_MAX, LogLevel};
use super::super::patterns::{COMPILED_BYTES_MAX, SETS_MAX};
use super::{CALL_COST, Phase, State};
use std::sync::Arc;

/// What compiling one byte of a pattern costs.
const COMPILE_COST: u64 = 256;

impl types::Host for State {}

impl host::Host for State {
    fn log(&mut self, level: host::LogLevel, message: String) -> wasmtime::Result<()> {
        self.charge(CALL_COST + message.len() as u64)?;
        let level = match level {
            host::LogLevel::Debug => LogLevel::Debug,
            host::LogLevel::Info => LogLevel::Info,
            host::LogLevel::Warn => LogLevel::Warn,
            host::LogLevel::Error => LogLevel::Error,
        };
        super::State::log(self).write(level, &message, self.now_ns);
        Ok(())
    }

    fn print(&mut self, data: Vec<u8>) -> wasmtime::Result<()> {
        self.charge(CALL_COST + data.len() as u64)?;
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            let room = LINE_BYTES_MAX.saturating_sub(self.printed.len());
            self.printed.extend_from_slice(&text[..text.len().min(room)]);
            if is_whole {
                self.flush_print();
            }
        }
        Ok(())
    }

    fn now(&mut self) -> wasmtime::Result<u64> {
        self.charge(CALL_COST)?;
        Ok(self.now_ns)
    }

    fn random(&mut self) -> wasmtime::Result<u64> {
        self.charge(CALL_COST)?;
        // SplitMix64: even, quick, and no secret.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(mixed ^ (mixed >> 31))
    }

    fn compile(&mut self, patterns: Vec<String>) -> wasmtime::Result<Result<u32, String>> {
        self.charge(CALL_COST)?;
        if self.phase != Phase::Configure {
            return Ok(Err("compile works inside `configure` only".into()));
        }
        if self.sets.len() == SETS_MAX {
            return Ok(Err(format!("a plugin may compile {SETS_MAX} sets of patterns")));
        }
        let bytes: usize = patterns.iter().map(String::len).sum();
        self.charge(bytes as u64 * COMPILE_COST)?;
        let set = match self.shared.compiled(&patterns) {
            Ok(set) => set,
            Err(error) => return Ok(Err(error)),
        };
        if self.sets_bytes + set.bytes > COMPILED_BYTES_MAX {
            return Ok(Err(format!(
                "the patterns of a plugin may take {COMPILED_BYTES_MAX} bytes when compiled"
            )));
        }
        // The host worked, whatever the guest did: the clock counts it.
        self.meter.check_clock().map_err(|stop| self.stopped(stop))?;
        self.sets_bytes += set.bytes;
        self.sets.push(set);
        Ok(Ok(self.sets.len() as u32 - 1))
    }

    fn limit(&mut self, key: String, want: u32, per_second: f64, burst: u32) -> wasmtime::Result<u32> {
        self.charge(CALL_COST + key.len() as u64)?;
        let key = fitted_key(key);
        let shared = Arc::clone(&self.shared);
        let now_ns = self.now_ns;
        let Some(call) = &mut self.call else {
            return Ok(self.note("limit: works inside `process` only".into()));
        };
        let passed = shared.buckets.take(call.tenant(), &key, want, per_second, burst, now_ns);
        if passed.is_none() {
            shared.refusals.count("buckets", 1);
        }
        Ok(passed.unwrap_or(0))
    }

    fn count(&mut self, name: String, by: u32) -> wasmtime::Result<()> {
        self.charge(CALL_COST + name.len() as u64)?;
        if let Err(fault) = self.effects.count(name, by.into()) {
            self.note_name("count", fault);
        }
        Ok(())
    }

    fn gauge(&mut self, name: String, value: f64) -> wasmtime::Result<()> {
        self.charge(CALL_COST + name.len() as u64)?;
        if let Err(fault) = self.effects.gauge(name, value) {
            self.note_name("gauge", fault);
        }
        Ok(())
    }
}

impl State {
    /// The fault of a call that used a name it may not.
    fn note_name(&mut self, function: &str, refused: NameRefused) {
        if refused == NameRefused::TooMany && self.fault.is_none() {
            self.shared.refusals.count("names", 1);
        }
        let () = self.note(format!("{function}: {refused}"));
    }
}
