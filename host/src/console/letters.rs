//! Dead letters, for who operates the collector: `GET /v1/dead-letters`, `GET …/{id}`, `POST …/replay`, `POST …/drop`.

use super::answer::Fault;
use super::read::Parameters;
use super::{Site, body};
use crate::pipeline::letters::{CHOSEN_MAX, Chosen, LetterId, Letters, LettersError, WhichLetters};
use axum::Json;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::sync::Arc;

const LIMIT_DEFAULT: usize = 100;
const RIGHT_BODY: &str = r#"right is {"ids": ["3-52"]} with at most 1,000 of them, or {"all": true} with any of "sink", "tenant", "after", "until", as application/json"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    #[serde(default)]
    ids: Vec<String>,
    #[serde(default)]
    all: bool,
    sink: Option<String>,
    tenant: Option<String>,
    after: Option<String>,
    until: Option<String>,
}

/// A page of them, without what they say.
pub(super) async fn list(State(site): State<Arc<Site>>, parts: Parts) -> Result<Response, Fault> {
    site.allow_admin(&parts)?;
    let parameters = Parameters::of(&parts)?;
    parameters.expect(&["sink", "tenant", "limit", "after"])?;
    let limit = match parameters.text("limit") {
        Some(text) => text.parse().ok().filter(|limit| (1..=CHOSEN_MAX).contains(limit)),
        None => Some(LIMIT_DEFAULT),
    };
    let limit = limit.ok_or_else(|| Fault::bad(format!("limit must be a number from 1 to {CHOSEN_MAX}")))?;
    let text = |name| parameters.text(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let which = WhichLetters {
        sink: text("sink"),
        tenant: text("tenant"),
        after: text("after").as_deref().map(id).transpose()?,
        until: None,
    };
    Ok(Json(site.letters()?.page(which, limit).await?).into_response())
}

/// One with all that it says.
pub(super) async fn show(State(site): State<Arc<Site>>, mut parts: Parts) -> Result<Response, Fault> {
    site.allow_admin(&parts)?;
    let named = Path::<String>::from_request_parts(&mut parts, &site).await;
    let Path(named) = named.map_err(|_| no_letter())?;
    let letters = site.letters()?;
    let id = named.parse().map_err(|()| no_letter())?;
    let shown = letters.show(id).await?.ok_or_else(no_letter)?;
    Ok(Json(shown).into_response())
}

pub(super) async fn replay(State(site): State<Arc<Site>>, request: Request) -> Result<Response, Fault> {
    let chosen = chosen(&site, request).await?;
    Ok(Json(site.letters()?.replay(chosen).await?).into_response())
}

pub(super) async fn drop(State(site): State<Arc<Site>>, request: Request) -> Result<Response, Fault> {
    let chosen = chosen(&site, request).await?;
    Ok(Json(site.letters()?.drop(chosen).await?).into_response())
}

impl Site {
    fn letters(&self) -> Result<&Letters, Fault> {
        let letters = self.console.letters.as_ref();
        letters.ok_or_else(|| {
            Fault::not_configured(
                "no dead letters are kept here: that needs `journal: { kind: disk }`, and `dead_letters.max` above 0",
            )
        })
    }
}

async fn chosen(site: &Site, request: Request) -> Result<Chosen, Fault> {
    let (parts, body) = request.into_parts();
    site.allow_admin(&parts)?;
    let Wish { ids, all, sink, tenant, after, until } = body::read(&parts, body, RIGHT_BODY).await?;
    let is_filtered = sink.is_some() || tenant.is_some() || after.is_some() || until.is_some();
    match (all, ids.len()) {
        (true, 0) => {
            let after = after.as_deref().map(id).transpose()?;
            let until = until.as_deref().map(id).transpose()?;
            Ok(Chosen::All(WhichLetters { sink, tenant, after, until }))
        }
        // Not a filter on those that are named: it would be easy to think that it is one.
        (false, 1..=CHOSEN_MAX) if !is_filtered => {
            Ok(Chosen::These(ids.iter().map(|text| id(text)).collect::<Result<_, _>>()?))
        }
        _ => Err(Fault::bad(RIGHT_BODY)),
    }
}

fn id(text: &str) -> Result<LetterId, Fault> {
    text.parse().map_err(|()| Fault::bad("the id of a dead letter is two numbers: 3-52"))
}

fn no_letter() -> Fault {
    Fault::not_found("no such dead letter, or no longer: GET /v1/dead-letters lists them")
}

impl From<LettersError> for Fault {
    fn from(error: LettersError) -> Fault {
        Fault::unavailable(error.to_string())
    }
}
