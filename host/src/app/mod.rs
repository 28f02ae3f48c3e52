//! Assembly in flow order, shutdown in reverse. The only place that starts long-lived tasks.

mod delivering;
mod demonstration;
mod faults;
mod files;
mod plugins;
pub mod recording;
mod reload;
pub mod sample;

pub use demonstration::Demo;
pub use faults::faults;

use crate::alerts::Alerts;
use crate::config::{Config, Faults};
use crate::console::{self, Console, PluginAct, PluginAnswer, PluginEnd, PluginHand, PluginWish};
use crate::demo;
use crate::journal::{self, DeadLetters, Followed, Journal, SinkId};
use crate::pipeline::letters::Letters;
use crate::pipeline::{self, Arrangement, Pipeline, Recordings, Slot, Surroundings};
use crate::receivers::{self, Listeners, Receiver};
use crate::sandbox::Sandbox;
use crate::sinks::{self, Sink};
use crate::streams::Streams;
use crate::telemetry::Metrics;
use crate::tenants::Tenants;
use anyhow::{Context, Result};
use delivering::Delivering;
use plugins::{Plugins, Swapped, Swaps};
use reload::Reload;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often files of tokens are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(1);
/// How often the journal notes how far everybody is.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// How often dead letters that are too old are looked for.
const LETTERS_EVERY: Duration = Duration::from_secs(60);
/// How often whole days of streams are looked at.
const RETAIN_EVERY: Duration = Duration::from_secs(3600);
/// How long the channels may take to hear the last of it when the collector stops.
const ALERTS_MAX: Duration = Duration::from_secs(5);
/// How long the disk may take for the last marks: they are small, and a disk that hangs must not hold up the stop.
const JOURNAL_MAX: Duration = Duration::from_secs(5);
/// How long requests in flight may take when the collector stops.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A collector that runs.
#[derive(Debug)]
pub struct App {
    pub grpc: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub console: Option<SocketAddr>,
    journal: Arc<Journal>,
    letters: Option<Arc<DeadLetters>>,
    pipeline: Pipeline,
    plugins: Arc<Plugins>,
    /// Whether every plugin was tried once.
    settled: watch::Receiver<bool>,
    pub streams: Option<Arc<Streams>>,
    /// No new requests.
    stop_receiving: CancellationToken,
    receiving: JoinSet<()>,
    /// The configuration changes no more.
    stop_reloading: CancellationToken,
    reloading: JoinSet<()>,
    delivering: Arc<Mutex<Delivering>>,
    alerts: Arc<Alerts>,
    /// Nothing is raised any more: the channels are told what is due, then end.
    stop_alerting: CancellationToken,
    alerting: JoinSet<()>,
    /// Everything else ends at once.
    stop_serving: CancellationToken,
    /// Cancels `stop_serving` when a collector is dropped without being stopped; its tasks end with their sets in
    /// any case.
    _ends: DropGuard,
    serving: JoinSet<()>,
    demonstration: JoinSet<()>,
}

/// Why nothing starts: what the operator wrote, or what the machine does not give.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Configuration(#[from] Faults),
    #[error("{0:#}")]
    Running(#[from] anyhow::Error),
}

/// Waits for SIGTERM or SIGINT. False if the process cannot be told to stop.
pub async fn stop_signal() -> bool {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return false;
    };
    tokio::select! {
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
    }
}

async fn settled(mut settled: watch::Receiver<bool>) {
    // The sender ends with the collector: then there is nothing to wait for.
    let _ = settled.wait_for(|settled| *settled).await;
}

impl App {
    /// Looks at what the configuration names, takes the ports, opens the stores, loads the plugins, then serves. What
    /// cannot start is told, with its name.
    pub async fn start(config: Config) -> Result<App, StartError> {
        for warning in config.warnings().lines() {
            tracing::warn!("{warning}");
        }
        faults::before_start(&config).await?;
        keep_memory_off_disk();
        make_private_folder(&config.data)?;
        let metrics = Metrics::new();
        let sandbox = Sandbox::open(Some(config.compiled.clone()), metrics.clone());
        let sandbox = sandbox.map_err(anyhow::Error::from)?;
        let sandbox = Arc::new(sandbox.keep_state_in(config.data.join("plugin-state")));
        let plugins = Arc::new(Plugins::new(sandbox, metrics.clone(), config.plugins.clone(), &config.swaps));
        plugins.load_guards().await;
        let described = plugins.described();
        faults::with_guards(&config, |guard| {
            described.get(&guard.name).map(Vec::as_slice).or(faults::known_signals(guard))
        })?;
        Ok(App::open(config, metrics, plugins).await?)
    }

    async fn open(config: Config, metrics: Metrics, plugins: Arc<Plugins>) -> Result<App> {
        if let journal::Settings::Memory { bytes_max } = config.journal {
            tracing::warn!(
                bytes_max,
                "the journal is in memory: what was acknowledged dies with the process"
            );
        }
        // Ports first: the likeliest fault, and nothing has been opened yet.
        let listeners = Listeners::bind(&config.receivers).await?;
        let console_port = match &config.console {
            Some(settings) => Some(bind_console(settings).await?),
            None => None,
        };
        let tenants = Tenants::open(config.tenants.clone(), metrics.clone()).map_err(anyhow::Error::msg)?;
        let names: Vec<String> = config.sinks.iter().map(|(name, _)| name.clone()).collect();
        let journal = open_journal(&config, &metrics).await?;
        let letters = open_letters(&config, &metrics).await?;
        let alerts = Alerts::open(config.alerts.clone(), metrics.clone()).map_err(anyhow::Error::msg);
        let alerts = alerts.context("alerts")?;
        let streams = open_streams(&config, &metrics)?;
        let sinks = open_sinks(&config, streams.as_ref())?;
        let settings = pipeline::Settings {
            record_bytes_max: config.record_bytes_max,
            ..pipeline::Settings::new(config.tenants.attributes.clone())
        };
        let around = Surroundings {
            tenants: tenants.clone(),
            journal: journal.clone(),
            letters: letters.clone(),
            alerts: alerts.clone(),
            clock: journal::system_clock(),
            metrics: metrics.clone(),
        };
        let arrangement = Arrangement::of(config.pipelines.clone(), &names);
        let pipeline =
            Pipeline::open(settings, arrangement, &plugins.slots(), around).map_err(anyhow::Error::msg)?;

        let delivering = Delivering::new(journal.clone(), letters.clone(), metrics.clone());
        let delivering = Arc::new(Mutex::new(delivering));
        let stop_serving = CancellationToken::new();
        let mut app = App {
            grpc: listeners.grpc.as_ref().and_then(|listener| listener.socket.local_addr().ok()),
            http: listeners.http.as_ref().and_then(|listener| listener.socket.local_addr().ok()),
            console: console_port.as_ref().and_then(|port| port.0.local_addr().ok()),
            journal,
            letters,
            pipeline,
            plugins,
            settled: watch::channel(false).1,
            streams,
            stop_receiving: CancellationToken::new(),
            receiving: JoinSet::new(),
            stop_reloading: CancellationToken::new(),
            reloading: JoinSet::new(),
            delivering,
            alerts: alerts.clone(),
            stop_alerting: CancellationToken::new(),
            alerting: JoinSet::new(),
            _ends: stop_serving.clone().drop_guard(),
            stop_serving,
            serving: JoinSet::new(),
            demonstration: JoinSet::new(),
        };
        app.alerting.spawn(alerts.run(app.stop_alerting.clone()));
        app.keep_time(tenants.clone());
        app.load_plugins();
        let swaps = app.swap_plugins();
        app.follow(&config);
        app.deliver(sinks, &config).await;
        if let (Some((socket, tls)), Some(settings)) = (console_port, &config.console) {
            app.serve_console(socket, tls, settings, tenants.clone(), metrics.clone(), swaps);
        }
        app.receive(listeners, config.receivers.clone(), tenants, metrics.clone());
        app.reload(config, &metrics);
        Ok(app)
    }

    /// Stops as asked: no new requests, those in flight are answered, the sinks are drained, the tails end. Returns
    /// what the ledger does not account for: nothing, unless there is a bug.
    pub async fn stop(mut self) -> Vec<String> {
        self.demonstration.shutdown().await;
        self.stop_reloading.cancel();
        self.pipeline.stop();
        self.stop_receiving.cancel();
        let _ =
            tokio::time::timeout(ANSWER_MAX, async { while self.receiving.join_next().await.is_some() {} })
                .await;
        self.receiving.shutdown().await;
        // One that is half way hands sinks over.
        let reloaded =
            tokio::time::timeout(ANSWER_MAX, async { while self.reloading.join_next().await.is_some() {} });
        let _ = reloaded.await;
        self.reloading.shutdown().await;
        self.delivering.lock().await.end().await;
        self.stop_alerting.cancel();
        let told =
            tokio::time::timeout(ALERTS_MAX, async { while self.alerting.join_next().await.is_some() {} });
        if told.await.is_err() {
            tracing::warn!("the channels of alerts were not told everything in time");
        }
        self.alerting.shutdown().await;
        // Viewers get what was published, then `end`: connections that would go on for ever hold nobody up.
        if let Some(streams) = &self.streams {
            streams.end_tails();
        }
        self.stop_serving.cancel();
        let served =
            tokio::time::timeout(ANSWER_MAX, async { while self.serving.join_next().await.is_some() {} });
        let _ = served.await;
        self.serving.shutdown().await;
        if let Some(streams) = &self.streams {
            streams.close().await;
        }
        let ended = async {
            if let Some(letters) = &self.letters {
                letters.end().await;
            }
            self.journal.end().await;
        };
        if tokio::time::timeout(JOURNAL_MAX, ended).await.is_err() {
            tracing::warn!(
                "the journal's disk does not answer: what was delivered of late is sent again after the start"
            );
        }
        self.journal.ledger.snapshot().unaccounted().iter().map(|line| format!("{line:?}")).collect()
    }

    /// Waits until every plugin is loaded, or known not to be.
    pub async fn settled(&self) {
        settled(self.settled.clone()).await;
    }

    /// Sends demonstration traffic until the collector stops.
    pub fn send_demonstration(&mut self, demo: Demo) {
        let Some(to) = self.grpc else { return };
        let stop = self.stop_receiving.clone();
        let settled = settled(self.settled.clone());
        self.demonstration.spawn(async move {
            settled.await;
            if let Err(error) = demo::send(to, demo.tokens, stop).await {
                tracing::warn!(%error, "the demonstration ended");
            }
        });
    }

    /// What needs a clock: plugins' windows, token files, retention.
    fn keep_time(&mut self, tenants: Arc<Tenants>) {
        let stop = self.stop_serving.clone();
        self.serving.spawn(self.pipeline.clone().tick(stop.clone()));
        self.serving.spawn(keep(self.journal.clone(), stop.clone()));
        if let Some(letters) = self.letters.clone() {
            self.serving.spawn(keep_letters(letters, stop.clone()));
        }
        self.serving
            .spawn(every(RELOAD_EVERY, stop.clone(), move || tenants.reload_files(SystemTime::now())));
        if let Some(streams) = self.streams.clone() {
            self.serving.spawn(async move {
                let mut ticks = tokio::time::interval(RETAIN_EVERY);
                loop {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        _ = ticks.tick() => streams.retain(now_ms()).await,
                    }
                }
            });
        }
    }

    /// Loading compiles, which takes a while the first time: receivers answer meanwhile, and refuse what needs a guard.
    fn load_plugins(&mut self) {
        let (plugins, pipeline) = (self.plugins.clone(), self.pipeline.clone());
        let (settled, is_settled) = watch::channel(false);
        self.settled = is_settled;
        self.serving.spawn(async move {
            let promote = |slots: &[Slot]| {
                if let Err(error) = pipeline.promote(slots) {
                    tracing::error!(error, "the pipelines cannot take the plugin");
                }
            };
            plugins.load_all(promote).await;
            settled.send_replace(true);
        });
    }

    /// New versions of plugins: from their files, when they change, and from whoever asks.
    fn swap_plugins(&mut self) -> Swaps {
        let swaps = Swaps::new(self.plugins.clone(), self.pipeline.clone());
        self.serving.spawn(swaps.clone().follow(settled(self.settled.clone()), self.stop_serving.clone()));
        self.serving.spawn(swaps.clone().judge(self.stop_serving.clone()));
        swaps
    }

    /// Every committed entry, in order, to the live tails.
    fn follow(&mut self, config: &Config) {
        let is_streams = |(_, sink): &(String, sinks::Settings)| matches!(sink, sinks::Settings::Streams(_));
        let (Some(streams), Some(number)) = (self.streams.clone(), config.sinks.iter().position(is_streams))
        else {
            return;
        };
        let mut follower = self.journal.follow(Some(SinkId(number as u16)));
        let stop = self.stop_serving.clone();
        self.serving.spawn(async move {
            loop {
                let followed = tokio::select! {
                    () = stop.cancelled() => return,
                    followed = follower.next() => followed,
                };
                match followed {
                    Followed::Entry(entry) => streams.publish(&entry),
                    Followed::Hole { until, .. } => streams.miss(until),
                }
            }
        });
    }

    async fn deliver(&self, sinks: Vec<Arc<Sink>>, config: &Config) {
        let mut delivering = self.delivering.lock().await;
        for (at, sink) in sinks.into_iter().enumerate() {
            let settings = reload::settings_of(config, at);
            delivering.serve(&config.sinks[at].0, SinkId(at as u16), sink, settings).await;
        }
    }

    /// A configuration from a file is read again when that is asked.
    fn reload(&mut self, config: Config, metrics: &Metrics) {
        let Some(file) = config.file.clone() else { return };
        let reload = Reload {
            file,
            config,
            plugins: self.plugins.clone(),
            pipeline: self.pipeline.clone(),
            journal: self.journal.clone(),
            streams: self.streams.clone(),
            delivering: self.delivering.clone(),
            metrics: metrics.clone(),
        };
        self.reloading.spawn(reload.run(settled(self.settled.clone()), self.stop_reloading.clone()));
    }

    fn receive(
        &mut self,
        listeners: Listeners,
        settings: receivers::Settings,
        tenants: Arc<Tenants>,
        metrics: Metrics,
    ) {
        let (ready, is_ready) = watch::channel(false);
        let pipeline = self.pipeline.clone();
        let streams = self.streams.clone();
        let stop = self.stop_serving.clone();
        self.serving.spawn(every(Duration::from_millis(200), stop, move || {
            let now = not_ready(&pipeline, streams.as_deref()).is_empty();
            ready.send_if_modified(|before| std::mem::replace(before, now) != now);
        }));
        let pipeline = self.pipeline.clone();
        let submit = move |submission| {
            let pipeline = pipeline.clone();
            async move { pipeline.submit(submission).await }
        };
        let receiver = Receiver {
            settings,
            tenants,
            metrics,
            ready: is_ready,
            stop: self.stop_receiving.clone(),
            submit,
        };
        self.receiving.spawn(receivers::serve(listeners, Arc::new(receiver)));
    }

    fn serve_console(
        &mut self,
        socket: TcpListener,
        tls: Option<crate::net::tls::Acceptor>,
        settings: &console::Settings,
        tenants: Arc<Tenants>,
        metrics: Metrics,
        swaps: Swaps,
    ) {
        let (journal, plugins, pipeline, streams) =
            (self.journal.clone(), self.plugins.clone(), self.pipeline.clone(), self.streams.clone());
        let alerts = self.alerts.clone();
        let letters = self.letters.clone().map(|letters| Letters::new(letters, pipeline.clone()));
        let shown = Console {
            tenants,
            streams: streams.clone(),
            metrics: metrics.clone(),
            ledger: Arc::new(move || {
                let table = journal.ledger.snapshot();
                serde_json::json!({ "lines": table.lines, "unaccounted": table.unaccounted() })
            }),
            plugins: Arc::new(move || plugins.shown()),
            swap: hand(swaps),
            alerts: Arc::new(move || alerts.shown()),
            letters,
            usage: {
                let pipeline = pipeline.clone();
                Arc::new(move || serde_json::json!(pipeline.usage()))
            },
            open_guards: {
                let pipeline = pipeline.clone();
                Arc::new(move || pipeline.open_guards())
            },
            recordings: Some(Recordings::new(pipeline.clone())),
            not_ready: Arc::new(move || not_ready(&pipeline, streams.as_deref())),
            stop: self.stop_serving.clone(),
        };
        self.serving.spawn(console::serve(socket, tls, shown, settings.clone(), self.stop_serving.clone()));
    }
}

/// What the console asks for of plugins.
fn hand(swaps: Swaps) -> PluginHand {
    Arc::new(move |PluginWish { name, act }| {
        let swaps = swaps.clone();
        Box::pin(async move {
            let swapped = match act {
                PluginAct::Swap { is_forced } => swaps.command(&name, is_forced).await,
                PluginAct::End => swaps.end(&name).await,
            };
            let end = match swapped {
                Swapped::Unknown => PluginEnd::Unknown,
                Swapped::Unchanged => PluginEnd::Done("unchanged"),
                Swapped::Promoted => PluginEnd::Done("promoted"),
                Swapped::Ended => PluginEnd::Done("ended"),
                Swapped::OnTrial => PluginEnd::OnTrial,
                Swapped::Refused(why) => PluginEnd::Refused(why),
                Swapped::NothingToEnd => PluginEnd::Refused(
                    "there is no trial to end, and no version before that is still kept".into(),
                ),
            };
            PluginAnswer { end, plugin: swaps.shown(&name) }
        })
    })
}

/// What is not ready, in words.
fn not_ready(pipeline: &Pipeline, streams: Option<&Streams>) -> Vec<String> {
    let mut missing: Vec<String> =
        pipeline.not_loaded().iter().map(|name| format!("plugin `{name}` is not loaded")).collect();
    let unmakeable = pipeline.unmakeable_guards();
    missing.extend(unmakeable.iter().map(|name| format!("no instance of guard `{name}` can be made")));
    missing.extend(
        streams
            .and_then(|streams| streams.is_ready().err())
            .map(|_| "the store of the streams is not open".to_owned()),
    );
    missing
}

/// The journal's upkeep.
async fn keep(journal: Arc<Journal>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => journal.upkeep().await,
        }
    }
}

async fn keep_letters(letters: Arc<DeadLetters>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LETTERS_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => letters.upkeep().await,
        }
    }
}

async fn every(period: Duration, stop: CancellationToken, mut work: impl FnMut() + Send + 'static) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => work(),
        }
    }
}

async fn bind_console(
    settings: &console::Settings,
) -> Result<(TcpListener, Option<crate::net::tls::Acceptor>)> {
    let tls = settings.tls.clone().map(crate::net::tls::Acceptor::open).transpose().context("console.tls")?;
    let socket = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("console.listen: {}", settings.listen))?;
    Ok((socket, tls))
}

async fn open_journal(config: &Config, metrics: &Metrics) -> Result<Arc<Journal>> {
    let (settings, kept, metrics) = (config.journal.clone(), config.kept.clone(), metrics.clone());
    let open = move || Journal::open(&settings, &kept, journal::system_clock(), &metrics);
    // It reads what a process before left.
    tokio::task::spawn_blocking(open).await?.context("journal")
}

async fn open_letters(config: &Config, metrics: &Metrics) -> Result<Option<Arc<DeadLetters>>> {
    let Some(settings) = config.dead_letters.clone() else { return Ok(None) };
    let metrics = metrics.clone();
    let open = move || DeadLetters::open(&settings, journal::system_clock(), &metrics);
    Ok(Some(tokio::task::spawn_blocking(open).await?.context("dead_letters")?))
}

fn open_streams(config: &Config, metrics: &Metrics) -> Result<Option<Arc<Streams>>> {
    let settings = config.sinks.iter().find_map(|(_, sink)| match sink {
        sinks::Settings::Streams(settings) => Some(settings.clone()),
        _ => None,
    });
    settings.map(|settings| Streams::open(settings, metrics.clone()).map_err(anyhow::Error::msg)).transpose()
}

fn open_sinks(config: &Config, streams: Option<&Arc<Streams>>) -> Result<Vec<Arc<Sink>>> {
    let open = |(name, settings): &(String, sinks::Settings)| {
        let sink = Sink::open(name, settings.clone(), streams.cloned())
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("sinks.{name}"))?;
        Ok(Arc::new(sink))
    };
    config.sinks.iter().map(open).collect()
}

/// Tenants' data lies below it.
fn make_private_folder(folder: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let place = || format!("data: {}", folder.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(place)?;
    // One that was there before keeps its mode: it may be shared on purpose.
    let mode = std::fs::metadata(folder).with_context(place)?.permissions().mode();
    if mode & 0o077 != 0 {
        let mode = format!("{:o}", mode & 0o777);
        tracing::warn!(folder = %folder.display(), mode, "others may read the folder of tenants' data; 700 keeps them out");
    }
    Ok(())
}

/// A core file would hold what was not redacted yet.
fn keep_memory_off_disk() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Core, none) {
        tracing::warn!(%error, "core files cannot be switched off");
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
