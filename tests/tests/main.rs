//! The six verbs together: one binary, a `mod` line per subject, in flow order.

mod world;

mod tidy;

mod bad_input;
mod console;
mod deliver;
mod examples;
mod identity;
mod plugins;
mod receive;
mod shutdown;

mod real;
