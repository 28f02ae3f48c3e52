//! The form of what stands in a segment: frames, each a header and a payload.
//!
//! A header's checksum covers its place (segment and offset) as well, so that bytes which were left there by another
//! file, or moved, never pass for a frame. Pure functions over bytes; no file is touched here.

use std::ops::Range;

/// The version of the format that is written, and the newest that is read.
pub(crate) const FORMAT: u8 = 1;

/// No UTF-8 text has the first byte.
pub(crate) const MAGIC: [u8; 4] = [0xF5, b'T', b'r', b'J'];

pub(crate) const HEADER_BYTES: usize = 20;

/// Larger than any request that is taken; a longer length is damage.
pub(crate) const PAYLOAD_BYTES_MAX: u32 = 65 << 20;

/// Where a frame starts. Ordered as the frames are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    /// In bytes from the start of the file.
    pub(crate) offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first frame of a segment; no other is.
    Head = 1,
    Entry = 2,
    Marks = 3,
}

/// Why bytes were skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("no frame begins here")]
    NoFrame,
    #[error("the header's checksum is wrong")]
    HeaderChecksum,
    #[error("the header has format {0}")]
    Format(u8),
    #[error("the header has a kind or a length that does not exist")]
    Header,
    #[error("the payload's checksum is wrong")]
    PayloadChecksum,
    #[error("the frame is cut short")]
    CutShort,
    #[error("the disk cannot read it")]
    Unreadable,
    #[error("the file is empty")]
    Empty,
    #[error("the file is none of the journal's")]
    Foreign,
}

/// Bytes of a segment that are no intact frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) range: Range<u64>,
    pub(crate) fault: Fault,
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) payload_bytes: u32,
    pub(crate) payload_checksum: u32,
}

impl Header {
    /// The header of a payload that is given in parts. `None` if it is larger than [`PAYLOAD_BYTES_MAX`].
    pub(crate) fn of(kind: Kind, parts: &[&[u8]]) -> Option<Header> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let payload_bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX)?;
        let payload_checksum = parts.iter().fold(0, |checksum, part| crc32c::crc32c_append(checksum, part));
        Some(Header { kind, payload_bytes, payload_checksum })
    }

    pub(crate) fn encode(&self, at: Position) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = FORMAT;
        bytes[5] = self.kind as u8;
        bytes[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload_checksum.to_le_bytes());
        let checksum = header_checksum(&bytes, at);
        bytes[16..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The checksum is looked at before anything that it covers, the format included: a flipped bit must not make a
    /// file look newer than it is.
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES], at: Position) -> Result<Header, Fault> {
        if bytes[..4] != MAGIC {
            return Err(Fault::NoFrame);
        }
        if u32_at(bytes, 16) != header_checksum(bytes, at) {
            return Err(Fault::HeaderChecksum);
        }
        if bytes[4] != FORMAT {
            return Err(Fault::Format(bytes[4]));
        }
        let kind = match bytes[5] {
            1 => Kind::Head,
            2 => Kind::Entry,
            3 => Kind::Marks,
            _ => return Err(Fault::Header),
        };
        let payload_bytes = u32_at(bytes, 8);
        if bytes[6..8] != [0, 0] || payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(Fault::Header);
        }
        Ok(Header { kind, payload_bytes, payload_checksum: u32_at(bytes, 12) })
    }

    /// With the header itself.
    pub(crate) fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }
}

fn header_checksum(bytes: &[u8; HEADER_BYTES], at: Position) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(&at.segment.to_le_bytes()), &at.offset.to_le_bytes());
    crc32c::crc32c_append(place, &bytes[..16])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The payload of a segment's first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The number of the segment, as in the file's name.
    pub(crate) number: u64,
    /// The journal's node.
    pub(crate) node: [u8; 4],
    /// In ms since 1970.
    pub(crate) created_ms: u64,
    /// The number of the first record that may be in it.
    pub(crate) first: u64,
}

impl Head {
    pub(crate) const BYTES: usize = 32;

    pub(crate) fn encode(&self) -> [u8; Head::BYTES] {
        let mut bytes = [0; Head::BYTES];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..12].copy_from_slice(&u32::from(FORMAT).to_le_bytes());
        bytes[12..16].copy_from_slice(&self.node);
        bytes[16..24].copy_from_slice(&self.created_ms.to_le_bytes());
        bytes[24..].copy_from_slice(&self.first.to_le_bytes());
        bytes
    }

    /// `None` if these are not the bytes of a head. Their checksum was looked at before.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Head> {
        if bytes.len() != Head::BYTES || u32_at(bytes, 8) != u32::from(FORMAT) {
            return None;
        }
        let node = bytes[12..16].try_into().expect("four bytes");
        Some(Head { number: u64_at(bytes, 0), node, created_ms: u64_at(bytes, 16), first: u64_at(bytes, 24) })
    }
}
