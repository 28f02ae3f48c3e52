//! The six verbs together: one binary, a `mod` line per subject.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
#![allow(unreachable_pub, reason = "one binary: its modules share their helpers")]

mod world;

mod tidy;

mod anomaly;
mod bad_input;
mod command;
mod console;
mod dead_letters;
mod deliver;
mod durable;
mod effects;
mod essential;
mod examples;
mod faults;
mod frozen;
mod full_disk;
mod hostile;
mod identity;
mod plugins;
mod quotas;
mod receive;
mod reload;
mod shutdown;
mod stalls;
mod suite;
mod swap;
mod tls;
mod told;
mod tools;

mod real;
