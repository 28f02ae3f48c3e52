//! The tests live in `main.rs`.
