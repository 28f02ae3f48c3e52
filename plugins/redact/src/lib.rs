//! Hides personal data and secrets: by what a text looks like, and by the key it stands under.
//!
//! The search runs in the collector; what no pattern can decide (whether digits are a card, what the last
//! four are) is decided here, on the few texts that were found.

mod card;
mod overlaps;
mod patterns;
mod settings;

use settings::{Action, KeyAction, SECRET, Settings};
use trommel_sdk::{Hit, Hits, Manifest, Places, Plugin, Signal, batch, export, host};

const EVERYWHERE: [&str; 9] =
    ["body", "name", "event-name", "description", "item:*", "event:*", "metric:*", "scope:*", "resource:*"];
const WITH_KEYS: Places = Places::BODY
    .union(Places::ITEM_ATTRIBUTES)
    .union(Places::EVENT_ATTRIBUTES)
    .union(Places::METRIC_ATTRIBUTES)
    .union(Places::SCOPE_ATTRIBUTES)
    .union(Places::RESOURCE_ATTRIBUTES);

struct Redact {
    settings: Settings,
    /// All patterns, numbered as in the settings; `None` if there are none.
    patterns: Option<u32>,
    /// One set for each rule, because each is another call.
    keys: Vec<u32>,
    counters: Vec<String>,
}

impl Plugin for Redact {
    fn manifest() -> Manifest {
        Manifest::new("redact", env!("CARGO_PKG_VERSION"))
            .signals([Signal::Logs, Signal::Traces, Signal::Metrics])
            .reads(EVERYWHERE)
            .writes(EVERYWHERE)
    }

    fn configure(json: &str) -> Result<Redact, String> {
        let settings = settings::parse(json)?;
        let regexes: Vec<String> = settings.patterns.iter().map(|pattern| pattern.regex.clone()).collect();
        let patterns = match regexes.is_empty() {
            true => None,
            false => Some(host::compile(&regexes).map_err(|error| format!("patterns: {error}"))?),
        };
        let key_set = |rule: &settings::KeyRule| {
            host::compile(std::slice::from_ref(&rule.regex)).map_err(|error| format!("keys: {error}"))
        };
        let keys = settings.keys.iter().map(key_set).collect::<Result<_, _>>()?;
        let counters = settings.patterns.iter().map(|pattern| format!("redacted_{}", pattern.name)).collect();
        Ok(Redact { settings, patterns, keys, counters })
    }

    fn process(&mut self) -> Result<(), String> {
        let places = self.settings.places_of(batch::holds());
        self.redact_keys(places & WITH_KEYS);
        self.redact_texts(places);
        Ok(())
    }
}

impl Redact {
    fn redact_keys(&self, places: Places) {
        let mut values = 0;
        // Of two edits of a whole value the last wins, and here the first rule does.
        for (rule, patterns) in self.settings.keys.iter().zip(&self.keys).rev() {
            values += match &rule.action {
                KeyAction::Remove => batch::remove_keys(*patterns, places),
                KeyAction::Mask(text) => batch::mask_keys(*patterns, places, std::slice::from_ref(text)),
                KeyAction::Hash => batch::hash_keys(*patterns, places, SECRET),
            };
        }
        if values > 0 {
            host::count("redacted_keys", values);
        }
    }

    fn redact_texts(&self, places: Places) {
        let Some(patterns) = self.patterns else { return };
        let found = batch::search(patterns, places);
        if found.is_empty() {
            return;
        }
        // Cards before overlaps: digits that are no card must not hide what they touch.
        let hits = overlaps::apart(self.with_cards_decided(places, &found));
        self.count(&hits);
        self.hide(places, &hits);
    }

    /// Puts the cards that a region holds in its place.
    fn with_cards_decided(&self, places: Places, found: &Hits) -> Vec<Hit> {
        let is_region = |hit: &Hit| self.settings.patterns[hit.pattern as usize].is_card;
        let (regions, mut hits): (Vec<Hit>, Vec<Hit>) = found.iter().partition(is_region);
        if regions.is_empty() {
            return hits;
        }
        let texts = batch::matches(places, &regions.iter().copied().collect());
        for (region, text) in regions.iter().zip(&texts) {
            hits.extend(card::cards(text).into_iter().map(|card| Hit {
                start: region.start + card.start as u32,
                end: region.start + card.end as u32,
                ..*region
            }));
        }
        hits
    }

    fn count(&self, hits: &[Hit]) {
        let mut counts = vec![0; self.counters.len()];
        hits.iter().for_each(|hit| counts[hit.pattern as usize] += 1);
        for (counter, count) in self.counters.iter().zip(counts).filter(|(_, count)| *count > 0) {
            host::count(counter, count);
        }
    }

    fn hide(&self, places: Places, hits: &[Hit]) {
        let (mut masked, mut kept, mut hashed) = (Vec::new(), Vec::new(), Vec::new());
        for hit in hits {
            match &self.settings.patterns[hit.pattern as usize].action {
                Action::Mask { keep_last: 0, .. } => masked.push(*hit),
                Action::Mask { .. } => kept.push(*hit),
                Action::Hash => hashed.push(*hit),
            }
        }
        if !masked.is_empty() {
            let by: Vec<String> =
                self.settings.patterns.iter().map(|pattern| pattern.mask().into()).collect();
            batch::replace(places, &masked.into_iter().collect(), &by);
        }
        if !kept.is_empty() {
            let which: Hits = kept.into_iter().collect();
            let texts = batch::matches(places, &which);
            let masks = which
                .iter()
                .zip(&texts)
                .map(|(hit, text)| self.settings.patterns[hit.pattern as usize].masked(text));
            batch::replace_each(places, &which, &masks.collect::<Vec<_>>());
        }
        if !hashed.is_empty() {
            batch::hash(places, &hashed.into_iter().collect(), SECRET);
        }
    }
}

export!(Redact);
