//! No text panics the JSON reader or makes it write more than it may; what it writes passes the checked walk.

#![no_main]

#[path = "../../src/batch/mod.rs"]
#[allow(dead_code, unused_imports, reason = "only the walk is used")]
mod batch;
#[path = "../../src/receivers/json/mod.rs"]
mod json;

use batch::{Request, Signal};
use json::schema::{LOGS, METRICS, TRACES};

const BYTES_MAX: usize = 1 << 20;

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    for (signal, message) in [(Signal::Logs, &LOGS), (Signal::Traces, &TRACES), (Signal::Metrics, &METRICS)] {
        let Ok(bytes) = json::to_protobuf(message, text, BYTES_MAX) else { continue };
        // One value may be written past the limit before it is noticed; no value is larger than its text.
        assert!(bytes.len() <= BYTES_MAX + 2 * text.len() + 16);
        Request::check(signal, bytes.into()).expect("what the reader writes is well-formed");
    }
});
