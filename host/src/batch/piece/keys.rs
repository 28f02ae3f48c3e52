//! The attribute keys of one level, each with a number: 512 records share a dozen keys.

use super::space::{Space, Span};
use std::hash::{BuildHasher, RandomState};

/// A hash table of spans: no allocation per key. The hash is a keyed one, since senders choose the keys.
#[derive(Default)]
pub(super) struct Keys {
    spans: Vec<Span>,
    /// Number + 1 of a key; 0 is free. A power of two, at most half full.
    buckets: Vec<u32>,
    hasher: RandomState,
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn span(&self, number: u32) -> Span {
        self.spans[number as usize]
    }

    pub(super) fn bytes<'s>(&self, number: u32, space: &'s Space) -> &'s [u8] {
        space.of(self.span(number))
    }

    pub(super) fn find(&self, key: &[u8], space: &Space) -> Option<u32> {
        if self.buckets.is_empty() {
            return None;
        }
        match self.buckets[self.bucket(key, space)] {
            0 => None,
            number => Some(number - 1),
        }
    }

    /// The number of the key at `span`, a new one if it is new. `likely` is tried first: records that follow each
    /// other mostly have the same keys in the same order.
    #[inline]
    pub(super) fn number(&mut self, span: Span, key: &[u8], likely: Option<u32>, space: &Space) -> u32 {
        match likely {
            Some(number) if self.bytes(number, space) == key => number,
            _ => self.look_up(span, key, space),
        }
    }

    fn look_up(&mut self, span: Span, key: &[u8], space: &Space) -> u32 {
        if (self.spans.len() + 1) * 2 > self.buckets.len() {
            self.grow(space);
        }
        let bucket = self.bucket(key, space);
        if self.buckets[bucket] == 0 {
            self.spans.push(span);
            self.buckets[bucket] = self.spans.len() as u32;
        }
        self.buckets[bucket] - 1
    }

    /// Where the key stands, or would.
    fn bucket(&self, key: &[u8], space: &Space) -> usize {
        let mask = self.buckets.len() - 1;
        let mut at = self.hasher.hash_one(key) as usize & mask;
        while self.buckets[at] != 0 && self.bytes(self.buckets[at] - 1, space) != key {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self, space: &Space) {
        self.buckets = vec![0; (self.buckets.len() * 2).max(32)];
        for number in 0..self.spans.len() as u32 {
            let bucket = self.bucket(self.bytes(number, space), space);
            self.buckets[bucket] = number + 1;
        }
    }
}
