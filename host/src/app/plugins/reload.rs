//! Other plugins, when the configuration is read again.
//!
//! With the turn in hand: [`Plugins::prepare`] loads aside what is new or has other settings, and touches nothing; then
//! the caller gives [`Prepared::slots`] to the pipeline, together with the other pipelines, and [`Plugins::adopt`]s. A plugin
//! whose settings are the same keeps its version, its instances and its trial: that its file has other content is for
//! the watch of its file.

use super::{Entry, How, Plugins, Turn, described, golden, slots};
use crate::batch::Signal;
use crate::pipeline::{Slot, SwapSettings};
use crate::sandbox;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The plugins of another configuration, loaded, not yet in use.
#[derive(Debug)]
pub(in crate::app) struct Prepared {
    table: Vec<Entry>,
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
            let (mut table, mut faults) = (Vec::new(), Vec::new());
            for new in wanted {
                match plugins.prepared(&known, new) {
                    Ok(entry) => table.push(entry),
                    Err(fault) => faults.push(fault),
                }
            }
            if faults.is_empty() { Ok(Prepared { table }) } else { Err(faults) }
        });
        preparing.await.unwrap_or_else(|error| {
            Err(vec![("plugins".into(), format!("loading ended without a result: {error}"))])
        })
    }

    fn prepared(&self, known: &[Entry], new: Entry) -> Result<Entry, (String, String)> {
        let same = known.iter().find(|known| known.settings == new.settings);
        match same {
            Some(same) if same.active.is_some() => Ok(Entry { swap: new.swap, ..same.clone() }),
            Some(same) => {
                Ok(self.loaded(Entry { swap: new.swap, is_tried: true, ..same.clone() }, How::Config))
            }
            None => {
                let name = new.settings.name.clone();
                let entry = self.loaded(new, How::Config);
                if let Some(failure) = entry.failure {
                    return Err((name, failure.why));
                }
                let settings = &entry.settings;
                let component =
                    self.sandbox.component_of(&settings.module).map_err(|error| error.to_string());
                let tried =
                    component.and_then(|component| golden::check(&self.sandbox, settings, &component));
                tried.map(|()| entry).map_err(|why| (name, why))
            }
        }
    }

    /// From now on these. The caller has had the turn since it prepared them, and gave their slots to the pipeline.
    pub(in crate::app) fn adopt(&self, _turn: &Turn<'_>, prepared: Prepared) {
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
