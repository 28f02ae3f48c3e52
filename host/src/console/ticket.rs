//! `POST /v1/tickets`: a ticket for a browser, from a credential that must not go there.

use super::access::now_unix;
use super::answer::Fault;
use super::{Site, body};
use crate::batch::{ProjectId, TenantId};
use crate::tenants::{Caller, Names, TICKET_SECONDS_MAX, Ticket, Who};
use axum::Json;
use axum::extract::{Request, State};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const RIGHT_BODY: &str =
    r#"right is {"tenant": "acme", "projects": ["shop"], "seconds": 900} as application/json"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    tenant: String,
    projects: Vec<String>,
    #[serde(default = "quarter_of_an_hour")]
    seconds: u64,
}

fn quarter_of_an_hour() -> u64 {
    900
}

/// Signs for administrators and for readers of what the ticket opens. A ticket itself makes none: it would never end.
pub(super) async fn make(State(site): State<Arc<Site>>, request: Request) -> Result<Json<Value>, Fault> {
    let (parts, body) = request.into_parts();
    let (_, caller) = site.reader(&parts, None)?;
    let wish: Wish = body::read(&parts, body, RIGHT_BODY).await?;
    sign(&site, &caller, wish)
}

fn sign(site: &Site, caller: &Caller, wish: Wish) -> Result<Json<Value>, Fault> {
    if !(1..=TICKET_SECONDS_MAX).contains(&wish.seconds) {
        return Err(Fault::bad(format!("seconds must be 1 to {TICKET_SECONDS_MAX}")));
    }
    let expires = now_unix() + wish.seconds;
    let ticket = Ticket { tenant: wish.tenant, projects: wish.projects, expires };
    let tenant = TenantId::new(&ticket.tenant).map_err(|error| Fault::bad(format!("tenant: {error}")))?;
    let projects =
        ticket.names().ok_or_else(|| Fault::bad("projects must be a list of names, or [\"*\"]"))?;
    if !may_open(caller, &tenant, &projects) {
        return Err(Fault::no_stream());
    }
    match site.console.tenants.sign_ticket(&ticket) {
        Some(text) => Ok(Json(json!({ "ticket": text, "expires": expires }))),
        None => {
            Err(Fault::not_configured("tickets need a key: set `identity.tickets.key` in the configuration"))
        }
    }
}

/// Whether this caller may hand on the right to read these.
fn may_open(caller: &Caller, tenant: &TenantId, projects: &Names) -> bool {
    if caller.rights.admin {
        return true;
    }
    match (projects, &caller.who) {
        (Names::Some(names), _) => names
            .iter()
            .all(|name| ProjectId::new(name).is_ok_and(|project| caller.may_read(tenant, &project))),
        (Names::All, Who::Tenant { tenant: own, projects: Names::All }) => {
            caller.rights.read && own == tenant
        }
        (Names::All, Who::SpeaksFor { tenants }) => caller.rights.read && tenants.cover(tenant.as_str()),
        (Names::All, _) => false,
    }
}
