//! Finds the frames in a segment, whatever has become of its bytes.
//!
//! A header whose checksum stands is trusted for its length: its payload is never searched for frames, since what
//! lies in there came from a sender. Where no header stands, the search goes on byte by byte to the next one. Each
//! step moves ahead, so any bytes come to an end; only a header or a block of the search is held in memory.

use super::frame::{Damage, Fault, HEADER_BYTES, Header, MAGIC, Position};
use memchr::memmem;
use std::io;

/// How much a search reads at once.
const BLOCK_BYTES: u64 = 64 << 10;
/// After a read that failed, smaller ones find out what can be read.
const PAGE_BYTES: u64 = 4 << 10;

/// The frames of a segment between two offsets, in order. `read` fills the buffer from an offset, or fails.
pub(crate) struct Scan<R> {
    read: R,
    at: Position,
    end: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A frame with an intact header that ends where it must; its payload was not looked at.
    Frame(Placed),
    Damage(Damage),
}

/// A header and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) at: Position,
    pub(crate) header: Header,
}

impl Placed {
    /// The offset behind it.
    pub(crate) fn end(&self) -> u64 {
        self.at.offset + self.header.frame_bytes()
    }
}

impl<R: FnMut(&mut [u8], u64) -> io::Result<()>> Scan<R> {
    /// From `from` up to, not including, the offset `end`.
    pub(crate) fn new(read: R, from: Position, end: u64) -> Scan<R> {
        Scan { read, at: from, end }
    }

    /// Reads the payload of a frame of this scan into `payload`, replacing what is there.
    pub(crate) fn payload(&mut self, frame: &Placed, payload: &mut Vec<u8>) -> Result<(), Damage> {
        payload.clear();
        payload.resize(frame.header.payload_bytes as usize, 0);
        let fault = match (self.read)(payload, frame.at.offset + HEADER_BYTES as u64) {
            Err(_) => Fault::Unreadable,
            Ok(()) if crc32c::crc32c(payload) != frame.header.payload_checksum => Fault::PayloadChecksum,
            Ok(()) => return Ok(()),
        };
        Err(Damage { range: frame.at.offset..frame.end(), fault })
    }

    /// The header at this offset, if it is intact; whether the frame ends in time is not looked at.
    pub(crate) fn header(&mut self, offset: u64) -> Result<Header, Fault> {
        if self.end.saturating_sub(offset) < HEADER_BYTES as u64 {
            return Err(Fault::CutShort);
        }
        let mut bytes = [0; HEADER_BYTES];
        (self.read)(&mut bytes, offset).map_err(|_| Fault::Unreadable)?;
        Header::parse(&bytes, Position { offset, ..self.at })
    }

    /// The offset of the first intact header at or behind `from`; the end if there is none.
    fn next_header(&mut self, from: u64) -> u64 {
        let (mut at, mut is_reading_pages) = (from, false);
        let mut block = Vec::new();
        while at < self.end {
            let until = self.end.min(block_end(at, is_reading_pages));
            block.resize((until - at) as usize, 0);
            if (self.read)(&mut block, at).is_ok() {
                if let Some(found) = self.header_in(&block, at) {
                    return found;
                }
                // A magic may begin in this block and end in the next.
                at = if until == self.end { until } else { until - (MAGIC.len() as u64 - 1) };
            } else if is_reading_pages {
                at = (at / PAGE_BYTES + 1) * PAGE_BYTES;
            } else {
                is_reading_pages = true;
            }
        }
        self.end
    }

    fn header_in(&mut self, block: &[u8], at: u64) -> Option<u64> {
        memmem::find_iter(block, &MAGIC).find_map(|place| {
            let offset = at + place as u64;
            let header = match block[place..].first_chunk() {
                Some(bytes) => Header::parse(bytes, Position { offset, ..self.at }),
                None => self.header(offset),
            };
            header.is_ok().then_some(offset)
        })
    }
}

/// At least a magic behind `at`, so that a search moves ahead.
fn block_end(at: u64, is_reading_pages: bool) -> u64 {
    match is_reading_pages {
        false => at + BLOCK_BYTES,
        true => ((at + MAGIC.len() as u64 - 1) / PAGE_BYTES + 1) * PAGE_BYTES,
    }
}

impl<R: FnMut(&mut [u8], u64) -> io::Result<()>> Iterator for Scan<R> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        let start = self.at.offset;
        if start >= self.end {
            return None;
        }
        let (end, fault) = match self.header(start) {
            Ok(header) => {
                let frame = Placed { at: self.at, header };
                if frame.end() <= self.end {
                    self.at.offset = frame.end();
                    return Some(Found::Frame(frame));
                }
                (self.end, Fault::CutShort)
            }
            Err(fault) => (self.next_header(start + 1), fault),
        };
        self.at.offset = end;
        Some(Found::Damage(Damage { range: start..end, fault }))
    }
}
