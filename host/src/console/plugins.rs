//! Other versions of plugins, for who operates the collector: `POST /v1/plugins/{name}/swap`, `DELETE …/swap`.

use super::answer::Fault;
use super::{Site, body};
use axum::Json;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// What an operator wants of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginWish {
    pub name: String,
    pub act: PluginAct,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginAct {
    /// Look at its file again; `is_forced`: take it even if it was rolled back.
    Swap { is_forced: bool },
    /// End its trial, or go back to the version before.
    End,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginAnswer {
    pub end: PluginEnd,
    /// As `/v1/plugins` shows it.
    pub plugin: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginEnd {
    /// No such plugin.
    Unknown,
    /// In a word: `promoted`, `unchanged`, `ended`.
    Done(&'static str),
    /// It is shown what it would do, or has a part of the streams: the end comes later.
    OnTrial,
    /// Nothing changed, and why.
    Refused(String),
}

pub(super) const RIGHT_BODY: &str = r#"right is {} or {"force": true}, as application/json"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    #[serde(default)]
    force: bool,
}

/// Does what is wished, or answers why not. Takes as long as a plugin takes to compile. Cancelled, what was not decided is
/// not done.
pub type PluginHand = Arc<dyn Fn(PluginWish) -> BoxFuture<'static, PluginAnswer> + Send + Sync>;

pub(super) async fn swap(State(site): State<Arc<Site>>, request: Request) -> Result<Response, Fault> {
    let (mut parts, body) = request.into_parts();
    site.allow_admin(&parts)?;
    let Wish { force } = body::read(&parts, body, RIGHT_BODY).await?;
    act(&site, &mut parts, PluginAct::Swap { is_forced: force }).await
}

pub(super) async fn end(State(site): State<Arc<Site>>, mut parts: Parts) -> Result<Response, Fault> {
    site.allow_admin(&parts)?;
    act(&site, &mut parts, PluginAct::End).await
}

async fn act(site: &Arc<Site>, parts: &mut Parts, act: PluginAct) -> Result<Response, Fault> {
    let unknown = || Fault::not_found("no such plugin: GET /v1/plugins lists them");
    let Path(name) = Path::<String>::from_request_parts(parts, site).await.map_err(|_| unknown())?;
    let PluginAnswer { end, plugin } = (site.console.swap)(PluginWish { name, act }).await;
    let (status, mut answer) = match end {
        PluginEnd::Unknown => return Err(unknown()),
        PluginEnd::Done(result) => (StatusCode::OK, json!({ "result": result })),
        PluginEnd::OnTrial => (StatusCode::ACCEPTED, json!({ "result": "on_trial" })),
        PluginEnd::Refused(why) => (StatusCode::CONFLICT, json!({ "error": why })),
    };
    answer["plugin"] = plugin;
    Ok((status, Json(answer)).into_response())
}
