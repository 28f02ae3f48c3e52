//! HTTP for people: streams, metrics, health.
//!
//! Who asks is decided before anything is looked up. A stream that is not the caller's and one that is not there get
//! the same answer. Secrets stand in headers; only tickets may stand in a query, and no log line has a query in it.

mod access;
mod answer;
mod body;
mod cors;
mod letters;
mod operate;
mod page;
mod pages;
mod plugins;
mod read;
mod record;
mod tail;
#[cfg(test)]
mod tests;
mod ticket;

pub use plugins::{PluginAct, PluginAnswer, PluginEnd, PluginHand, PluginWish};

use crate::net::{self, tls};
use crate::pipeline::Recordings;
use crate::pipeline::letters::Letters;
use crate::streams::Streams;
use crate::telemetry::Metrics;
use crate::tenants::Tenants;
use answer::Fault;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use hyper::body::Incoming;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// Where the console listens and whom it trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub listen: SocketAddr,
    pub tls: Option<tls::ServerSettings>,
    /// Origins whose pages may read streams and make tickets, as browsers write them: `https://panel.example`.
    pub origins: Vec<String>,
    /// On a loopback listener the routes that need the right `admin` alone (`/metrics`, `/v1/ledger`, `/v1/alerts`, `/v1/record`,
    /// and all below `/v1/plugins` and `/v1/dead-letters`) ask for no credential of who addresses it directly. Elsewhere
    /// they need that right, whatever stands here.
    pub is_loopback_admin: bool,
}

/// A value that is made when somebody asks for it. It may take a short lock, never wait.
pub type Snapshot<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// What the console shows.
#[derive(Clone)]
pub struct Console {
    pub tenants: Arc<Tenants>,
    /// `None` where no sink keeps streams.
    pub streams: Option<Arc<Streams>>,
    pub metrics: Metrics,
    /// `/v1/ledger`: per tenant and signal.
    pub ledger: Snapshot<serde_json::Value>,
    /// `/v1/plugins`: what runs of each, what is on trial, and what came to nothing last.
    pub plugins: Snapshot<serde_json::Value>,
    /// `/v1/plugins/{name}/swap`: the version that its file has now, or the one before.
    pub swap: PluginHand,
    /// `/v1/plugins/usage`: CPU time, calls, records, failures and memory, by plugin and tenant.
    pub usage: Snapshot<serde_json::Value>,
    /// `/v1/alerts`: open incidents, and those resolved of late.
    pub alerts: Snapshot<serde_json::Value>,
    /// `/v1/dead-letters`. `None` where none are kept.
    pub letters: Option<Letters>,
    /// `/v1/record`. `None` where nothing passes.
    pub recordings: Option<Recordings>,
    /// What is not ready, in words; nothing: ready.
    pub not_ready: Snapshot<Vec<String>>,
    /// Guards that are not called for some tenants, since they failed too often.
    pub open_guards: Snapshot<Vec<String>>,
    /// Cancelled when the process stops: tails end, so that nothing in flight has no end.
    pub stop: CancellationToken,
}

/// The console and what its settings decided.
struct Site {
    console: Console,
    origins: Vec<String>,
    is_admin_open: bool,
    pages: pages::Pages,
    /// Tails over HTTP/1.1, each of which has a connection for itself.
    lasting: Arc<Semaphore>,
}

/// Browsers and `curl` follow over HTTP/1.1: a connection for each viewer.
const CONNECTIONS_MAX: usize = 4096;
/// Viewers leave some connections to those who ask and go: `/healthz` above all.
const LASTING_MAX: usize = CONNECTIONS_MAX - 512;

/// Bodies are small JSON texts.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Everything the console answers. A client's verified certificate stands in the request's extensions
/// ([`crate::net::serve::PeerCertificate`]).
pub fn router(settings: &Settings, console: Console) -> Router {
    router_within(settings, console, LASTING_MAX)
}

fn router_within(settings: &Settings, console: Console, lasting_max: usize) -> Router {
    let site = Arc::new(Site {
        console,
        origins: settings.origins.clone(),
        is_admin_open: settings.is_loopback_admin && settings.listen.ip().is_loopback(),
        pages: pages::Pages::default(),
        lasting: Arc::new(Semaphore::new(lasting_max)),
    });
    let for_origins = Router::new()
        .route("/v1/streams", get(read::streams))
        .route("/v1/tenants/{tenant}/projects/{project}/logs", get(read::history))
        .route("/v1/tenants/{tenant}/projects/{project}/tail", get(tail::follow))
        .route("/v1/tickets", post(ticket::make))
        // Before the layer, which answers the method OPTIONS itself.
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(site.clone(), cors::guard));
    Router::new()
        .route("/v1/plugins", get(operate::plugins))
        .route("/v1/plugins/{name}/swap", post(plugins::swap).delete(plugins::end))
        .route("/v1/plugins/usage", get(operate::usage))
        .route("/v1/ledger", get(operate::ledger))
        .route("/v1/alerts", get(operate::alerts))
        .route("/v1/dead-letters", get(letters::list))
        .route("/v1/dead-letters/{id}", get(letters::show))
        .route("/v1/dead-letters/replay", post(letters::replay))
        .route("/v1/dead-letters/drop", post(letters::drop))
        .route("/v1/record", get(record::record))
        .route("/metrics", get(operate::metrics))
        .route("/healthz", get(operate::health))
        .route("/readyz", get(operate::readiness))
        .route("/", get(page::html))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::script))
        .merge(for_origins)
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(dress))
        .with_state(site)
}

/// Answers at this socket until `stop` is cancelled and what was in flight is answered.
pub async fn serve(
    socket: TcpListener,
    tls: Option<tls::Acceptor>,
    console: Console,
    settings: Settings,
    stop: CancellationToken,
) {
    let labels = vec![("listener", "console".to_owned())];
    let open = console.metrics.receive_connections.get_or_create(&labels).clone();
    let router = router(&settings, console);
    let handler = move |request: http::Request<Incoming>| {
        let mut router = router.clone();
        async move { router.call(request.map(Body::new)).await.unwrap_or_else(|never| match never {}) }
    };
    let limits = net::serve::Limits { connections_max: CONNECTIONS_MAX, ..Default::default() };
    net::serve::serve(socket, tls, limits, handler, stop, open).await;
}

/// Headers of every answer, and the line of the access log, which has the path and never the query.
async fn dress(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let start = Instant::now();
    let mut response = next.run(request).await;
    let always = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-site"),
    ];
    for (name, value) in always {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let (status, elapsed) = (response.status().as_u16(), start.elapsed());
    tracing::debug!(%method, path, status, ?elapsed, "console answered");
    response
}

async fn nothing_here() -> Fault {
    Fault::not_found(
        "nothing here: see /v1/streams, /v1/tickets, /v1/plugins, /v1/ledger, /v1/alerts, /v1/dead-letters, /v1/record, /metrics, \
         /healthz, /readyz",
    )
}

async fn wrong_method(request: Request) -> Fault {
    let posted = ["/v1/tickets", "/v1/dead-letters/replay", "/v1/dead-letters/drop"];
    let path = request.uri().path();
    let right = match posted.contains(&path) {
        true => "POST",
        false if path.starts_with("/v1/plugins/") && path.ends_with("/swap") => "POST, DELETE",
        false => "GET",
    };
    Fault::wrong_method(right)
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}
