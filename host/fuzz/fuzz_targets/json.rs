//! No text panics the JSON reader or makes it write more than it may; what it writes passes the checked walk, and comes
//! out of the writer as JSON that is read as the same bytes.

#![no_main]

#[path = "../../src/batch/mod.rs"]
#[allow(dead_code, unused_imports, reason = "not all of it is used")]
mod batch;

use batch::json::{self, LOGS, METRICS, TRACES};
use batch::{Request, Signal};

const BYTES_MAX: usize = 1 << 20;

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    for (signal, message) in [(Signal::Logs, &LOGS), (Signal::Traces, &TRACES), (Signal::Metrics, &METRICS)] {
        let Ok(bytes) = json::to_protobuf(message, text, BYTES_MAX) else { continue };
        // One value may be written past the limit before it is noticed; no value is larger than its text.
        assert!(bytes.len() <= BYTES_MAX + 2 * text.len() + 16);
        let request = Request::check(signal, bytes.into()).expect("what the reader writes is well-formed");
        let again = json::of_protobuf(message, &request.bytes);
        let same = json::to_protobuf(message, again.as_bytes(), usize::MAX).expect("what the writer writes is read");
        assert_eq!(json::of_protobuf(message, &same), again);
    }
});
