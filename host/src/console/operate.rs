//! For who operates the collector: metrics, plugins, the ledger, alerts, health. Dead letters: `letters`.

use super::answer::Fault;
use super::{Site, Snapshot};
use axum::Json;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;

/// Source: OpenMetrics 1.0, "Overall Structure".
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn metrics(State(site): State<Arc<Site>>, parts: Parts) -> Result<Response, Fault> {
    site.allow_admin(&parts)?;
    let metrics = site.console.metrics.clone();
    let text = made(Arc::new(move || metrics.text())).await?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

pub(super) async fn plugins(State(site): State<Arc<Site>>, parts: Parts) -> Result<Response, Fault> {
    site.allow_admin(&parts)?;
    Ok(Json(made(site.console.plugins.clone()).await?).into_response())
}

pub(super) async fn usage(State(site): State<Arc<Site>>, parts: Parts) -> Result<Response, Fault> {
    site.allow_admin(&parts)?;
    Ok(Json(made(site.console.usage.clone()).await?).into_response())
}

pub(super) async fn ledger(State(site): State<Arc<Site>>, parts: Parts) -> Result<Response, Fault> {
    site.allow_admin(&parts)?;
    Ok(Json(made(site.console.ledger.clone()).await?).into_response())
}

pub(super) async fn alerts(State(site): State<Arc<Site>>, parts: Parts) -> Result<Response, Fault> {
    site.allow_admin(&parts)?;
    Ok(Json(made(site.console.alerts.clone()).await?).into_response())
}

/// The process answers.
pub(super) async fn health() -> Response {
    Json(json!({ "alive": true })).into_response()
}

/// Whether it can do its work: every configured plugin loaded, every store open, not stopping. A guard that is not called
/// for some tenant is named, and does not make the others' collector unready.
pub(super) async fn readiness(State(site): State<Arc<Site>>) -> Response {
    let mut not_ready = (site.console.not_ready)();
    if site.console.stop.is_cancelled() {
        not_ready.push("stopping".into());
    }
    let status = if not_ready.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (
        status,
        Json(json!({
            "ready": not_ready.is_empty(),
            "not_ready": not_ready,
            "open_guards": (site.console.open_guards)(),
        })),
    )
        .into_response()
}

/// Thousands of tenants make long texts: off the executor.
async fn made<T: Send + 'static>(snapshot: Snapshot<T>) -> Result<T, Fault> {
    let making = tokio::task::spawn_blocking(move || snapshot());
    making.await.map_err(|_| Fault::unavailable("stopping, or the snapshot broke: see the log"))
}
