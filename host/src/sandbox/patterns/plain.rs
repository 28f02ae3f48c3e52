//! The collector's search without a plugin around it: what benches compare a plugin's call with.

use super::super::limits::Meter;
use super::PatternSet;
use crate::batch::{Hits, Texts};
use std::time::Duration;

/// A set of patterns, searched natively.
#[derive(Debug)]
pub struct Searcher {
    set: PatternSet,
}

impl Searcher {
    /// The error says which pattern, and what is wrong with it.
    pub fn compile(patterns: &[String]) -> Result<Searcher, String> {
        Ok(Searcher { set: PatternSet::compile(patterns)? })
    }

    /// Every match of every pattern, as `batch.search` gives them.
    pub fn search(&self, texts: &Texts<'_>) -> Hits {
        let bytes: usize = texts.iter().map(<[u8]>::len).sum();
        let mut meter = Meter::new(Duration::MAX, u32::MAX, bytes, self.set.len());
        self.set.search(texts.iter(), &mut meter).unwrap_or_default()
    }

    /// Calls `work` with a function that gives the number of the first pattern that matches a key from end to end.
    pub fn with_keys<T>(&self, work: impl FnOnce(&mut dyn FnMut(&str) -> Option<u32>) -> T) -> T {
        self.set.with_keys(work)
    }
}
