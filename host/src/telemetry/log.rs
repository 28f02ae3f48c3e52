//! Structured logs on standard error: `TROMMEL_LOG` filters (default `info`), JSON when standard error is no terminal.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts the process's log; a second call does nothing.
pub fn start_logging() {
    let filter = EnvFilter::try_from_env("TROMMEL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would be told on standard error too, and panic where nobody reads that.
        .log_internal_errors(false);
    let _ = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
}
