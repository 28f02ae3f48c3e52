//! Bodies of the console: small JSON texts.

use super::BODY_BYTES_MAX;
use super::answer::Fault;
use axum::body::Body;
use axum::http::header;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use std::time::Duration;

const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Reads it whole. `right` says what would be right; what was sent is not repeated.
///
/// The content type is also what makes a browser ask first: a form on another page cannot send it.
pub(super) async fn read<T: DeserializeOwned>(
    parts: &Parts,
    body: Body,
    right: &'static str,
) -> Result<T, Fault> {
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(|value| value.starts_with("application/json")) {
        return Err(Fault::bad(right));
    }
    let body = tokio::time::timeout(BODY_DEADLINE, axum::body::to_bytes(body, BODY_BYTES_MAX)).await;
    let body = body.map_err(|_| Fault::bad("the body did not come"))?.map_err(|_| Fault::bad(right))?;
    // A list is read as the members of an object in their order, which nobody means.
    let members: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&body).map_err(|_| Fault::bad(right))?;
    serde_json::from_value(members.into()).map_err(|_| Fault::bad(right))
}
