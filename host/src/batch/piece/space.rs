//! One address space for what came and what was made: the batch's bytes, then an arena that only grows.
//!
//! A column of an edited piece points into either, and nobody has to ask which.

use super::super::wire::{LENGTH, fields};
use bytes::Bytes;

/// Where a text or a message stands: from, to.
pub(super) type Span = (u32, u32);

#[derive(Debug)]
pub(super) struct Space {
    pub(super) bytes: Bytes,
    arena: Vec<u8>,
}

/// A field, placed in the space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) number: u32,
    pub(super) wire: u8,
    /// Its key included.
    pub(super) whole: Span,
    pub(super) content: Span,
}

impl Part {
    pub(super) fn is_message(&self, number: u32) -> bool {
        self.number == number && self.wire == LENGTH
    }
}

impl Space {
    pub(super) fn new(bytes: Bytes) -> Space {
        Space { bytes, arena: Vec::new() }
    }

    /// The bytes at a span; nothing where there are none.
    #[inline]
    pub(super) fn at(&self, (start, end): Span) -> &[u8] {
        let (start, end) = (start as usize, end as usize);
        let base = self.bytes.len();
        if end <= base {
            return self.bytes.get(start..end).unwrap_or_default();
        }
        self.arena.get(start.wrapping_sub(base)..end - base).unwrap_or_default()
    }

    /// The text at a span: it was checked, or made from a text.
    pub(super) fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.at(span)).unwrap_or_default()
    }

    /// Keeps bytes.
    pub(super) fn keep(&mut self, made: &[u8]) -> Span {
        let start = self.bytes.len() + self.arena.len();
        self.arena.extend_from_slice(made);
        (start as u32, (start + made.len()) as u32)
    }

    /// The fields of the message at a span, with their places in this space.
    #[inline]
    pub(super) fn parts(&self, span: Span) -> impl Iterator<Item = Part> + '_ {
        let base = span.0;
        let content = self.at(span);
        fields(content, 0, content.len()).map(move |field| Part {
            number: field.number,
            wire: field.wire,
            whole: (base + field.start as u32, base + field.end as u32),
            content: (base + field.content as u32, base + field.end as u32),
        })
    }

    /// The last message with this number: of a field that comes twice, the last counts.
    pub(super) fn last(&self, span: Span, number: u32) -> Option<Part> {
        self.parts(span).filter(|part| part.is_message(number)).last()
    }
}
