//! The six verbs together: one binary, a `mod` line per subject, in flow order.

mod world;

mod tidy;

mod bad_input;
mod receive;
mod identity;
mod plugins;
mod hostile;
mod deliver;
mod console;
mod shutdown;
mod examples;

mod real;
