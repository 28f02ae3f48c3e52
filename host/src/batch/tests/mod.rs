//! Properties of the whole of `batch` against `prost`, for random requests of all three signals.

mod acceptance;
mod bad_input;
mod edits;
mod identity;
mod merging;
mod pieces;
mod plugins;
mod rows;
mod samples;
mod schema;
