//! Programs that we did not write: servers as destinations, OpenTelemetry's SDKs as senders.
//!
//! `cargo xtask test` installs them and says by environment variables where they are. Without these a test here fails
//! and says so; it is never skipped.

mod jaeger;
mod languages;
mod mongo;
mod prometheus;
mod sdks;
pub mod servers;
mod story;
mod telegram;

use std::path::PathBuf;

/// Where `cargo xtask test` installed a tool.
fn installed(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set: `cargo xtask test` installs the tool and sets it"));
    PathBuf::from(path)
}

/// The folder of the clients' sources.
fn sources() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/real")
}
