//! Once a second: closed windows to the plugins that asked for them.
//!
//! A plugin is given the windows of one tenant after another, never two at a time; plugins do not wait for each other.
//! Each call takes its turn among the requests. What it leaves takes effect when it returns ok; the windows of a call
//! that fails are lost, counted. When the collector stops, windows that are open are not shown to anybody: half a window
//! would look like silence.

use super::Pipeline;
use super::left::Left;
use super::submit::Shared;
use crate::batch::TenantId;
use crate::sandbox::Plugin;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether windows have closed: the shortest window is a second long.
const EVERY: Duration = Duration::from_secs(1);
/// How long the windows of one tenant wait for a turn; then they are tried again in the next round.
const TURN_MAX: Duration = Duration::from_secs(10);

impl Pipeline {
    /// Gives closed windows to plugins until `stop`. One of a pipeline at a time.
    pub async fn tick(self, stop: CancellationToken) {
        let mut rounds = Rounds::default();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => rounds.begin(&self.shared),
                Some(ended) = rounds.running.join_next_with_id() => rounds.end(ended.map(|(id, ())| id)),
            }
        }
    }

    /// One round of every plugin, one after the other.
    #[cfg(test)]
    pub(super) async fn tick_once(&self) {
        for plugin in &self.shared.snapshot.load_full().ticking {
            round(self.shared.clone(), plugin.clone()).await;
        }
    }
}

/// The plugins that are given windows now.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    pub(super) running: JoinSet<()>,
    plugins: HashMap<Id, String>,
}

impl Rounds {
    /// For every plugin whose last round has ended.
    pub(super) fn begin(&mut self, shared: &Arc<Shared>) {
        for plugin in &shared.snapshot.load().ticking {
            if self.plugins.values().all(|running| running != plugin.name()) {
                let begun = self.running.spawn(round(shared.clone(), plugin.clone()));
                self.plugins.insert(begun.id(), plugin.name().to_owned());
            }
        }
    }

    pub(super) fn end(&mut self, ended: Result<Id, tokio::task::JoinError>) {
        let id = ended.unwrap_or_else(|error| error.id());
        self.plugins.remove(&id);
    }
}

/// What has closed by now, tenant by tenant.
async fn round(shared: Arc<Shared>, plugin: Plugin) {
    let now_ms = shared.journal.between_commits(|now_ms| now_ms);
    for tenant in shared.consequences.series.due(plugin.name(), now_ms) {
        let Ok(turn) = shared.turns.take(tenant.as_str(), Instant::now() + TURN_MAX).await else { continue };
        let (shared, called) = (shared.clone(), plugin.clone());
        let ticked = turn.work(move |_| call(&shared, &called, &tenant));
        if let Err(error) = ticked.await {
            tracing::error!(plugin = plugin.name(), %error, "a plugin's look at its windows ended without a result");
        }
    }
}

fn call(shared: &Shared, plugin: &Plugin, tenant: &TenantId) {
    if plugin.may_tick(tenant).is_err() {
        // The windows wait, as they do for a plugin that is slow.
        return;
    }
    let (series, name) = (&shared.consequences.series, plugin.name());
    let now_ms = shared.journal.between_commits(|now_ms| now_ms);
    let closed = series.take(name, tenant, now_ms);
    if closed.is_empty() {
        return;
    }
    match plugin.tick(tenant, now_ms.saturating_mul(1_000_000), &closed) {
        Ok(effects) if effects.is_empty() => {}
        Ok(effects) => {
            let left = vec![Left { effects, ..Left::of(name, tenant) }];
            shared.journal.between_commits(|now_ms| shared.consequences.apply(left, now_ms));
        }
        // The plugin's log has the reason.
        Err(_) => series.count_lost(name, "failed", closed.len() as u64),
    }
}
