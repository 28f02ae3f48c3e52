//! The journal's files: frames appended to segments, found again after any crash.
//!
//! This layer keeps bytes and says what of them is safe; what an entry or a mark means is its caller's. Its promise:
//! a frame whose sync succeeded is read again as it was written, whatever happens to the process, until its segment
//! is removed; what is damaged is reported and skipped; what was never written is never returned. The bytes are
//! described in `docs/journal-format.md`.

#[cfg(test)]
mod faulty;
mod file;
mod frame;
mod log;
mod open;
mod reader;
mod scan;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use faulty::Faulty;
pub(crate) use file::Disk;
pub(crate) use frame::{Fault, Kind, PAYLOAD_BYTES_MAX as FRAME_BYTES_MAX, Position};
pub(crate) use log::{Log, Settings, Start, WriteError};
pub(crate) use open::{OpenError, Opened, Skipped};
pub(crate) use reader::{Read, Reader};
