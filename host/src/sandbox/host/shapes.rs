//! The shapes of the WIT as those of the batch, and what they weigh.

use super::super::bindings::trommel::plugin::batch::{self as wit, Hits};
use super::super::limits::{HIT_COST, TEXT_COST};
use crate::batch::{self, Level, Places};

/// Bytes that a list of strings takes on its way.
pub(super) fn size_of_texts(texts: &[String]) -> usize {
    texts.iter().map(|text| text.len() + TEXT_COST as usize).sum()
}

/// Bytes that `replace` will put in.
pub(super) fn size_of_replacements(which: &batch::Hits, by: &[String]) -> usize {
    let Some(last) = by.len().checked_sub(1) else { return 0 };
    which.patterns.iter().map(|pattern| by[(*pattern as usize).min(last)].len()).sum()
}

pub(super) fn size_of_hits(hits: &Hits) -> usize {
    hits.texts.len() * HIT_COST as usize
}

pub(super) fn size_of<T>(values: &[T]) -> usize {
    size_of_val(values)
}

pub(super) fn level(at: wit::Level) -> Level {
    match at {
        wit::Level::Resource => Level::Resource,
        wit::Level::Scope => Level::Scope,
        wit::Level::Metric => Level::Metric,
        wit::Level::Item => Level::Item,
        wit::Level::Event => Level::Event,
    }
}

pub(super) fn places(of: wit::Places) -> Places {
    const BITS: [(wit::Places, Places); 9] = [
        (wit::Places::BODY, Places::BODY),
        (wit::Places::NAME, Places::NAME),
        (wit::Places::EVENT_NAME, Places::EVENT_NAME),
        (wit::Places::DESCRIPTION, Places::DESCRIPTION),
        (wit::Places::ITEM_ATTRIBUTES, Places::ITEM_ATTRIBUTES),
        (wit::Places::EVENT_ATTRIBUTES, Places::EVENT_ATTRIBUTES),
        (wit::Places::METRIC_ATTRIBUTES, Places::METRIC_ATTRIBUTES),
        (wit::Places::SCOPE_ATTRIBUTES, Places::SCOPE_ATTRIBUTES),
        (wit::Places::RESOURCE_ATTRIBUTES, Places::RESOURCE_ATTRIBUTES),
    ];
    let set = BITS.iter().filter(|(bit, _)| of.contains(*bit));
    Places(set.fold(0, |bits, (_, place)| bits | place.0))
}

pub(super) fn hits(which: Hits) -> batch::Hits {
    batch::Hits { texts: which.texts, patterns: which.patterns, starts: which.starts, ends: which.ends }
}
