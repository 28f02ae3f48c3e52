//! The configuration file, read again: plugins, pipelines and sinks change while requests go on.
//!
//! What changes is made ready aside: files are opened, plugins loaded and tried. Only when nothing is wrong is it taken,
//! pipelines and plugins as one snapshot, so that no request meets half of it; the sinks follow. Whatever is wrong
//! changes nothing, and is told with its place in the file. Sections that cannot change without a restart may not differ:
//! what runs is always one file, whole.

use super::delivering::{Delivering, Settings};
use super::faults;
use super::files::Watch;
use super::plugins::Plugins;
use crate::config::{Config, Fault, Faults};
use crate::journal::{self, Journal, SinkId};
use crate::pipeline::{Arrangement, Pipeline, Slot};
use crate::sinks::{self, Sink};
use crate::streams::Streams;
use crate::telemetry::Metrics;
use crate::tenants;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

const RIGHT_FIXED: &str = "as it was, or a restart: a reload changes plugins, pipelines and sinks";

/// What a reload reads, and what it changes.
#[derive(Debug)]
pub(super) struct Reload {
    pub(super) file: PathBuf,
    /// What runs.
    pub(super) config: Config,
    pub(super) plugins: Arc<Plugins>,
    pub(super) pipeline: Pipeline,
    pub(super) journal: Arc<Journal>,
    pub(super) streams: Option<Arc<Streams>>,
    pub(super) delivering: Arc<Mutex<Delivering>>,
    pub(super) metrics: Metrics,
}

/// What was changed, by name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changed {
    pipelines: bool,
    plugins: Vec<String>,
    /// New, or served otherwise.
    sinks: Vec<String>,
    removed: Vec<String>,
}

impl Reload {
    /// Reads the file again on SIGHUP, and when it changes, until `stop`; once what it names now is loaded.
    pub(super) async fn run(mut self, settled: impl Future<Output = ()>, stop: CancellationToken) {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::warn!(%error, "SIGHUP cannot be waited for: the configuration is not read again");
                return;
            }
        };
        if stop.run_until_cancelled(settled).await.is_none() {
            return;
        }
        let mut watch = Watch::open([self.file.clone()]);
        loop {
            let is_asked = tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = hangup.recv() => true,
                _ = watch.changed() => false,
            };
            self.reload(is_asked).await;
        }
    }

    async fn reload(&mut self, is_asked: bool) {
        let reloaded = self.try_reload().await;
        let result = match &reloaded {
            Ok(changed) if *changed == Changed::default() => "unchanged",
            Ok(_) => "applied",
            Err(_) => "refused",
        };
        self.metrics.config_reloads.get_or_create(&vec![("result", result.to_owned())]).inc();
        match reloaded {
            Ok(changed) if changed == Changed::default() => {
                // An editor saves more often than it changes.
                if is_asked {
                    tracing::info!("the configuration was read again: nothing has changed");
                }
            }
            Ok(Changed { pipelines, plugins, sinks, removed }) => {
                tracing::info!(pipelines, ?plugins, ?sinks, ?removed, "the configuration was read again");
            }
            Err(faults) => {
                tracing::error!("the configuration was read again and is refused: nothing changes");
                for fault in faults.to_string().lines() {
                    tracing::error!("{fault}");
                }
            }
        }
    }

    async fn try_reload(&mut self) -> Result<Changed, Faults> {
        let file = self.file.clone();
        let read = tokio::task::spawn_blocking(move || Config::load(&file)).await;
        let next = read.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        let next = Config { compiled: self.config.compiled.clone(), ..next };
        refused(&next, self.fixed(&next))?;
        for warning in next.warnings().lines() {
            tracing::warn!("{warning}");
        }
        faults::before_start(&next).await?;
        let plugins = self.plugins.clone();
        let turn = plugins.turn().await;
        let prepared =
            plugins.prepare(&turn, next.plugins.clone(), &next.swaps).await.map_err(|unusable| {
                let fault =
                    |(name, why)| next.places.fault(&format!("plugins.{name}"), why, faults::RIGHT_PLUGIN);
                next.places.faults(unusable.into_iter().map(fault).collect())
            })?;
        let described = prepared.described();
        faults::with_guards(&next, |guard| {
            let described = described.get(&guard.name).map(Vec::as_slice);
            described.or(faults::known_signals(guard))
        })?;
        let opened = self.open(&next).await?;
        let ids = self.arrange(&next, &prepared.slots())?;
        plugins.adopt(&turn, prepared);
        // To hand sinks over may take a while: nobody's version waits for it.
        drop(turn);
        Ok(self.serve(next, &ids, opened).await)
    }

    /// Sections that differ and cannot change while the collector runs.
    fn fixed(&self, next: &Config) -> Vec<Fault> {
        let now = &self.config;
        let streams = |config: &Config| -> Option<(String, sinks::Settings)> {
            let is_streams =
                |(_, sink): &&(String, sinks::Settings)| matches!(sink, sinks::Settings::Streams(_));
            config.sinks.iter().find(is_streams).cloned()
        };
        let identity = |config: &Config| tenants::Settings {
            quotas: tenants::QuotaSettings::default(),
            room_bytes: 0,
            ..config.tenants.clone()
        };
        let memory = |config: &Config| (config.tenants.room_bytes, config.record_bytes_max);
        let name = |config: &Config| streams(config).map(|(name, _)| format!("sinks.{name}"));
        let place = name(next).or(name(now)).unwrap_or_else(|| "sinks".into());
        let sections = [
            ("data", now.data == next.data),
            ("receivers", now.receivers == next.receivers),
            ("console", now.console == next.console),
            ("identity", identity(now) == identity(next)),
            ("quotas", now.tenants.quotas == next.tenants.quotas),
            ("memory", memory(now) == memory(next)),
            ("journal", now.journal == next.journal),
            ("dead_letters", now.dead_letters == next.dead_letters),
            ("alerts", now.alerts == next.alerts),
            // Viewers and the console hold its store.
            (&place, streams(now) == streams(next)),
        ];
        let differing = sections.into_iter().filter(|(_, is_same)| !is_same);
        differing
            .map(|(section, _)| next.places.fault(section, "differs from what runs", RIGHT_FIXED))
            .collect()
    }

    /// The sinks that are new or changed.
    async fn open(&self, next: &Config) -> Result<Vec<(usize, Arc<Sink>)>, Faults> {
        let delivering = self.delivering.lock().await;
        let mut opened = Vec::new();
        let mut faults = Vec::new();
        for (at, (name, settings)) in next.sinks.iter().enumerate() {
            if delivering.is_served(name, &settings_of(next, at)) {
                continue;
            }
            match Sink::open(name, settings.clone(), self.streams.clone()) {
                Ok(sink) => opened.push((at, Arc::new(sink))),
                Err(wrong) => {
                    faults.push(next.places.fault(&format!("sinks.{name}"), wrong, faults::RIGHT_SINK));
                }
            }
        }
        refused(next, faults)?;
        Ok(opened)
    }

    /// Nothing is wrong with it: requests go its way from now on. The numbers of its sinks.
    fn arrange(&self, next: &Config, slots: &[Slot]) -> Result<Vec<SinkId>, Faults> {
        let ids = match self.journal.take_on(&next.kept) {
            Ok(ids) => ids,
            Err(error) => {
                let right = "fewer new names, or a restart";
                return Err(next.places.faults(vec![next.places.fault("sinks", error.to_string(), right)]));
            }
        };
        let named = next.kept.iter().map(|sink| sink.name.clone()).zip(ids.iter().copied()).collect();
        let arrangement = Arrangement { pipelines: next.pipelines.clone(), sinks: named };
        if let Err(wrong) = self.pipeline.arrange(arrangement, slots) {
            return Err(next.places.faults(vec![next.places.fault(
                "pipelines",
                wrong,
                "names that are there",
            )]));
        }
        Ok(ids)
    }

    /// Hands its sinks over, and ends those that it has not.
    async fn serve(&mut self, next: Config, ids: &[SinkId], opened: Vec<(usize, Arc<Sink>)>) -> Changed {
        let mut changed = Changed {
            pipelines: self.config.pipelines != next.pipelines,
            plugins: changed_plugins(&self.config, &next),
            ..Changed::default()
        };
        let mut delivering = self.delivering.lock().await;
        for (at, sink) in opened {
            let name = &next.sinks[at].0;
            delivering.serve(name, ids[at], sink, settings_of(&next, at)).await;
            changed.sinks.push(name.clone());
        }
        // Its share of the journal, or whether it is essential.
        let is_otherwise = |sink: &&journal::SinkSettings| {
            self.config.kept.iter().any(|before| before.name == sink.name && before != *sink)
                && !changed.sinks.contains(&sink.name)
        };
        let otherwise: Vec<String> =
            next.kept.iter().filter(is_otherwise).map(|sink| sink.name.clone()).collect();
        changed.sinks.extend(otherwise);
        let is_kept = |name: &str| next.sinks.iter().any(|(kept, _)| kept == name);
        changed.removed = delivering.retire(is_kept).await;
        for name in &changed.removed {
            self.journal.retire(name);
        }
        self.config = next;
        changed
    }
}

/// New ones, removed ones, and those with other settings.
fn changed_plugins(now: &Config, next: &Config) -> Vec<String> {
    let names = now.plugins.iter().chain(&next.plugins).map(|plugin| plugin.name.as_str());
    let names: BTreeSet<&str> = names.collect();
    let settings = |config: &Config, name: &str| {
        let plugin = config.plugins.iter().find(|plugin| plugin.name == name).cloned();
        (plugin, config.swaps.get(name).copied())
    };
    names.into_iter().filter(|name| settings(now, name) != settings(next, name)).map(str::to_owned).collect()
}

pub(super) fn settings_of(config: &Config, at: usize) -> Settings {
    Settings { sink: config.sinks[at].1.clone(), deliver: config.deliver[at] }
}

fn refused(config: &Config, faults: Vec<Fault>) -> Result<(), Faults> {
    if faults.is_empty() { Ok(()) } else { Err(config.places.faults(faults)) }
}
