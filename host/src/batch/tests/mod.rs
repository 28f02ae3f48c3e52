//! Properties of the whole of `batch` against `prost`, for random requests of all three signals.

mod acceptance;
mod edits;
pub(super) mod samples;
