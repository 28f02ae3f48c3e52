//! What a credential may read: the list of its streams, and the history of one.

use super::answer::Fault;
use super::{Site, access};
use crate::batch::{ProjectId, Stream, TenantId};
use crate::streams::{History, HistoryPage, Streams, StreamsError};
use axum::Json;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;
/// A store that does not answer in time is down.
const STORE_DEADLINE: Duration = Duration::from_secs(15);

/// The parameters of a query; a later one of the same name is not looked at.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn of(parts: &Parts) -> Result<Parameters, Fault> {
        let query = Query::try_from_uri(&parts.uri);
        query
            .map(|Query(pairs)| Parameters(pairs))
            .map_err(|_| Fault::bad("the query is not form-urlencoded"))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn ticket(&self) -> Option<String> {
        self.text("ticket").map(str::to_owned)
    }

    /// Refuses names that mean nothing here: a filter with a typing error would show everything.
    pub(super) fn expect(&self, names: &[&str]) -> Result<(), Fault> {
        if self.0.iter().all(|(key, _)| key == "ticket" || names.contains(&key.as_str())) {
            return Ok(());
        }
        Err(Fault::bad(format!("unknown parameter: {}, ticket are right", names.join(", "))))
    }
}

/// A stream that the caller may read.
pub(super) struct Readable {
    pub(super) stream: Stream,
    pub(super) shown: access::Shown,
    pub(super) parameters: Parameters,
}

impl Readable {
    /// Decides from the credential and the names alone, before anything is looked up.
    pub(super) async fn of(site: &Arc<Site>, parts: &mut Parts) -> Result<Readable, Fault> {
        let parameters = Parameters::of(parts)?;
        let (shown, caller) = site.reader(parts, parameters.ticket())?;
        let names = Path::<(String, String)>::from_request_parts(parts, site).await;
        let Path((tenant, project)) = names.map_err(|_| Fault::no_stream())?;
        let (Ok(tenant), Ok(project)) = (TenantId::new(&tenant), ProjectId::new(&project)) else {
            return Err(Fault::no_stream());
        };
        if !caller.may_read(&tenant, &project) {
            return Err(Fault::no_stream());
        }
        Ok(Readable { stream: Stream { tenant, project }, shown, parameters })
    }
}

impl Site {
    pub(super) fn streams(&self) -> Result<&Arc<Streams>, Fault> {
        let streams = self.console.streams.as_ref();
        streams.ok_or_else(|| {
            Fault::not_configured("no streams are kept here: configure a sink of type `streams`")
        })
    }
}

/// `GET /v1/streams`: those with a record that this credential may read.
pub(super) async fn streams(State(site): State<Arc<Site>>, parts: Parts) -> Result<Json<Value>, Fault> {
    let parameters = Parameters::of(&parts)?;
    let (_, caller) = site.reader(&parts, parameters.ticket())?;
    parameters.expect(&[])?;
    if !caller.rights.read {
        return Err(Fault::forbidden("this credential may not read: it needs the right `read`"));
    }
    let known = within(site.streams()?.known()).await??;
    let readable = known.iter().filter(|stream| caller.may_read(&stream.tenant, &stream.project));
    let list = readable.map(|s| json!({ "tenant": s.tenant.as_str(), "project": s.project.as_str() }));
    Ok(Json(list.collect()))
}

/// `GET …/logs`: a page of the history, oldest first; its `next` is the `cursor` of the next page.
pub(super) async fn history(State(site): State<Arc<Site>>, mut parts: Parts) -> Result<Response, Fault> {
    let readable = Readable::of(&site, &mut parts).await?;
    let query = wanted(&readable.parameters)?;
    let page = site.pages.begin(&readable.stream.tenant)?;
    let found = site.streams()?.history(&readable.stream, query).await?;
    let (kind, text) =
        if wants_lines(&parts.headers) { (LINES, lines(&found)) } else { (JSON, list(&found)) };
    let mut answer = ([(header::CONTENT_TYPE, kind)], page.into_body(text)).into_response();
    // Lines have no place for it, and a page that found nothing has no last line to go on from.
    if let Some(next) = found.next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        answer.headers_mut().insert(NEXT, next);
    }
    Ok(answer)
}

/// The cursor of the next page, in every answer that has one.
const NEXT: HeaderName = HeaderName::from_static("trommel-next");

/// Waits for the store, not for ever.
async fn within<T>(asked: impl Future<Output = T>) -> Result<T, Fault> {
    let answer = tokio::time::timeout(STORE_DEADLINE, asked).await;
    answer.map_err(|_| Fault::unavailable("the store of the streams does not answer: come back"))
}

fn wanted(parameters: &Parameters) -> Result<History, Fault> {
    parameters.expect(&["from", "to", "limit", "cursor", "q"])?;
    let limit = match parameters.text("limit") {
        Some(text) => text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit)),
        None => Some(LIMIT_DEFAULT),
    };
    Ok(History {
        from_ms: parameters.text("from").map(|text| time_ms("from", text)).transpose()?,
        to_ms: parameters.text("to").map(|text| time_ms("to", text)).transpose()?,
        limit: limit.ok_or_else(|| Fault::bad(format!("limit must be a number from 1 to {LIMIT_MAX}")))?,
        after: parameters.text("cursor").filter(|cursor| !cursor.is_empty()).map(str::to_owned),
        contains: parameters.text("q").filter(|text| !text.is_empty()).map(str::to_owned),
    })
}

/// Milliseconds since 1970, from such a number or a time as RFC 3339 writes it.
fn time_ms(name: &str, text: &str) -> Result<u64, Fault> {
    let number = text.parse::<u64>().ok();
    let time =
        || text.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_millisecond()).ok());
    // Ids hold 48 bits of it: what is later is as late as there is.
    number.or_else(time).map(|ms| ms.min((1 << 48) - 1)).ok_or_else(|| {
        Fault::bad(format!(
            "{name} must be milliseconds since 1970, or a time like 2026-01-31T12:00:00Z (`+` as %2B)"
        ))
    })
}

const LINES: &str = "application/x-ndjson";
const JSON: &str = "application/json";

fn wants_lines(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|kind| kind.trim().split(';').next() == Some(LINES))
}

/// One record per line; the `id` of the last is the cursor to go on from.
fn lines(page: &HistoryPage) -> String {
    let mut text = page.records.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// Put together from the texts as they are: what the store kept is JSON already.
fn list(page: &HistoryPage) -> String {
    format!(r#"{{"records":[{}],"next":{}}}"#, page.records.join(","), json!(page.next))
}

/// Without the reasons of the store, which name its files: they are in the log and in `/readyz`.
impl From<StreamsError> for Fault {
    fn from(error: StreamsError) -> Fault {
        match error {
            StreamsError::BadPosition(_) => Fault::bad(error.to_string()),
            StreamsError::TooManyViewers(_)
            | StreamsError::TooManyViewersOfTenant(_)
            | StreamsError::Stopping => Fault::unavailable(error.to_string()),
            StreamsError::Store(_) => {
                Fault::unavailable("the store of the streams cannot be read: come back")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn asked(query: &str) -> Result<History, Fault> {
        let request = axum::http::Request::get(format!("/logs?{query}")).body(()).unwrap();
        wanted(&Parameters::of(&request.into_parts().0)?)
    }

    #[test]
    fn times_are_milliseconds_or_rfc_3339() {
        let cases = [
            ("0", Some(0)),
            ("1769860800000", Some(1_769_860_800_000)),
            ("2026-01-31T12:00:00Z", Some(1_769_860_800_000)),
            ("2026-01-31T12:00:00.5Z", Some(1_769_860_800_500)),
            ("2026-01-31T13:00:00%2B01:00", Some(1_769_860_800_000)),
            ("2026-01-31T13:00:00+01:00", None),
            ("2026-01-31", None),
            ("1969-12-31T23:59:59Z", None),
            ("-1", None),
            ("18446744073709551615", Some((1 << 48) - 1)),
            ("18446744073709551616", None),
            ("now", None),
            ("", None),
        ];
        for (text, expected) in cases {
            for name in ["from", "to"] {
                let time = asked(&format!("{name}={text}"))
                    .map(|h| if name == "from" { h.from_ms } else { h.to_ms });
                assert_eq!(time.ok().flatten(), expected, "{name}={text}");
            }
        }
    }

    #[test]
    fn limits_are_bounded_and_unknown_parameters_refused() {
        let cases = [
            ("", Some(100)),
            ("limit=1", Some(1)),
            ("limit=10000", Some(10_000)),
            ("limit=0", None),
            ("limit=10001", None),
            ("limit=-1", None),
            ("limit=", None),
            ("limit=many", None),
            ("ticket=x", Some(100)),
            ("tenant=acme", None),
            ("Limit=1", None),
        ];
        for (query, limit) in cases {
            assert_eq!(asked(query).map(|history| history.limit).ok(), limit, "{query}");
        }
    }

    #[test]
    fn texts_and_cursors_are_taken_as_they_are_and_empty_ones_not_at_all() {
        let history = asked("q=a%20b%26&cursor=x").unwrap();
        assert_eq!((history.contains.as_deref(), history.after.as_deref()), (Some("a b&"), Some("x")));
        let history = asked("q=&cursor=").unwrap();
        assert_eq!((history.contains, history.after), (None, None));
    }

    #[test]
    fn lines_are_sent_to_who_accepts_them() {
        let cases = [
            ("application/x-ndjson", true),
            ("text/html, application/x-ndjson;q=0.9", true),
            ("application/json", false),
            ("*/*", false),
            ("", false),
        ];
        for (accept, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(wants_lines(&headers), expected, "{accept}");
        }
    }
}
