//! One space of addresses: the batch's bytes, and behind them what was added to them.
//!
//! What was added is never moved or taken away, so a [`Span`] stays good for the life of the piece.

use bytes::Bytes;

/// Bytes from `start` up to `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    /// Requests are smaller than 4 GiB, and so is what is added ([`Space::push`]).
    pub(super) fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }
    pub(super) fn len(self) -> u32 {
        self.end.saturating_sub(self.start)
    }
    /// The same bytes in a part of the space that begins at `add`.
    pub(super) fn shifted(self, add: u32) -> Span {
        Span { start: self.start.saturating_add(add), end: self.end.saturating_add(add) }
    }
}

pub(super) struct Space {
    bytes: Bytes,
    added: Vec<u8>,
}

impl Space {
    pub(super) fn over(bytes: Bytes) -> Space {
        Space { bytes, added: Vec::new() }
    }

    /// The batch's own bytes.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    #[inline]
    pub(super) fn of(&self, span: Span) -> &[u8] {
        let (start, end) = (span.start as usize, span.end as usize);
        let base = self.bytes.len();
        let found = if end <= base {
            self.bytes.get(start..end)
        } else {
            start.checked_sub(base).and_then(|start| self.added.get(start..end - base))
        };
        found.unwrap_or_default()
    }

    /// Adds bytes behind all others. Past 4 GiB nothing is added.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len() + self.added.len();
        let end = start + bytes.len();
        if u32::try_from(end).is_err() {
            return Span::new(start.min(u32::MAX as usize), start.min(u32::MAX as usize));
        }
        self.added.extend_from_slice(bytes);
        Span::new(start, end)
    }
}
