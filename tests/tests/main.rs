//! The six verbs together: one binary, a `mod` line per subject.

mod world;

mod tidy;

mod bad_input;
mod command;
mod console;
mod deliver;
mod examples;
mod hostile;
mod identity;
mod plugins;
mod receive;
mod shutdown;

mod real;
