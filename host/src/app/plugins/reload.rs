//! Other plugins, when the configuration is read again.
//!
//! With the turn in hand: [`Plugins::prepare`] loads aside what is new or has other settings, and touches nothing; then
//! the caller gives [`Prepared::slots`] to the pipeline, together with the other pipelines, and [`Plugins::adopt`]s. Other
//! settings are another version: it is tried beside the one before, and watched, as one of another file is. A plugin whose
//! settings are the same keeps its version, its instances and its trial: that its file has other content is for the
//! watch of its file.

use super::{Entry, Failure, How, Plugins, Stage, Turn, described, slots};
use crate::batch::Signal;
use crate::pipeline::{Slot, SwapSettings};
use crate::sandbox;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The plugins of another configuration, loaded, not yet in use.
#[derive(Debug)]
pub(in crate::app) struct Prepared {
    table: Vec<Entry>,
    /// Names of those that have another version.
    changed: Vec<String>,
}

impl Plugins {
    /// Loads what is new or has other settings, and keeps the rest as it is. An error names each plugin that cannot be
    /// used, and why. One that could not be loaded before, with the same settings, is no error: it is tried again, and
    /// stays not loaded.
    pub(in crate::app) async fn prepare(
        self: &Arc<Plugins>,
        _turn: &Turn<'_>,
        settings: Vec<sandbox::Settings>,
        swaps: &BTreeMap<String, SwapSettings>,
    ) -> Result<Prepared, Vec<(String, String)>> {
        let known = self.table().clone();
        let wanted: Vec<Entry> = settings.into_iter().map(|settings| Entry::new(settings, swaps)).collect();
        let plugins = self.clone();
        let preparing = tokio::task::spawn_blocking(move || {
            let (mut table, mut changed, mut faults) = (Vec::new(), Vec::new(), Vec::new());
            for new in wanted {
                let name = new.settings.name.clone();
                let before = known.iter().find(|known| known.settings.name == name);
                if let Some(kept) = before.and_then(|before| plugins.kept(before, &new)) {
                    table.push(kept);
                    continue;
                }
                match plugins.changed(before, new) {
                    Ok(entry) => {
                        table.push(entry);
                        changed.push(name);
                    }
                    Err(failure) => faults.push((name, failure.why)),
                }
            }
            if faults.is_empty() { Ok(Prepared { table, changed }) } else { Err(faults) }
        });
        preparing.await.unwrap_or_else(|error| {
            Err(vec![("plugins".into(), format!("loading ended without a result: {error}"))])
        })
    }

    /// What there is, if it is for these settings.
    fn kept(&self, before: &Entry, new: &Entry) -> Option<Entry> {
        let settings = &new.settings;
        let is_active = before.active.as_ref().is_some_and(|active| active.plugin.settings() == settings);
        let entry = Entry { swap: new.swap, ..before.clone() };
        if before.settings == *settings {
            let is_tried = true;
            // One that could not be loaded may be there now.
            return Some(match before.active {
                Some(_) => entry,
                None => self.loaded(Entry { is_tried, ..entry }, How::Config),
            });
        }
        // Back to those of the active version, while others are on trial or were rolled back.
        is_active.then(|| Entry {
            settings: settings.clone(),
            candidate: None,
            failure: None,
            ended: None,
            ..entry
        })
    }

    /// With what is new, or has other settings than before.
    fn changed(&self, before: Option<&Entry>, new: Entry) -> Result<Entry, Failure> {
        let component = self.sandbox.component_of(&new.settings.module);
        let component =
            component.map_err(|error| Failure::refused(None, Stage::Loading, error.to_string()))?;
        let entry = Entry {
            active: before.and_then(|before| before.active.clone()),
            previous: before.and_then(|before| before.previous.clone()),
            ..new
        };
        let (version, shadow) = self.aside(&entry, &component, How::Config)?;
        if !entry.watches_the_same(&version) {
            // The pipelines are checked for this one: there is no way back to one of other signals.
            let entry = Entry { active: None, previous: None, ..entry };
            return Ok(entry.next(version, None, &self.metrics));
        }
        Ok(entry.next(version, shadow, &self.metrics))
    }

    /// From now on these. The caller has had the turn since it prepared them, and gave their slots to the pipeline.
    pub(in crate::app) fn adopt(&self, _turn: &Turn<'_>, prepared: Prepared) {
        let is_changed = |entry: &&Entry| prepared.changed.contains(&entry.settings.name);
        prepared.table.iter().filter(is_changed).for_each(|entry| entry.tell_next(&self.metrics));
        *self.table() = prepared.table;
        self.renamed.notify_one();
    }
}

impl Prepared {
    /// What the pipelines will call.
    pub(in crate::app) fn slots(&self) -> Vec<Slot> {
        slots(&self.table)
    }

    /// What those that are loaded describe, by name.
    pub(in crate::app) fn described(&self) -> BTreeMap<String, Vec<Signal>> {
        described(&self.table)
    }
}
