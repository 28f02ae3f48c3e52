//! Who asks: header, certificate, ticket, or nobody on a loopback listener.

use super::{Fault, Site};
use crate::net::serve::PeerCertificate;
use crate::tenants::{Caller, Tenants};
use axum::http::header;
use axum::http::request::Parts;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What was shown, kept as long as a tail lasts: it ends with its credential.
pub(super) enum Shown {
    Credential { authorization: Option<String>, certificate: Option<[u8; 32]> },
    Ticket(String),
}

impl Shown {
    /// A header decides alone, so that a page can replace a stale ticket in its address.
    pub(super) fn of(parts: &Parts, ticket: Option<String>) -> Result<Shown, Fault> {
        let authorization = match parts.headers.get(header::AUTHORIZATION) {
            Some(value) => Some(value.to_str().map_err(|_| Fault::unauthenticated())?.to_owned()),
            None => None,
        };
        let certificate = parts.extensions.get::<PeerCertificate>().map(|certificate| certificate.0);
        Ok(match ticket {
            Some(ticket) if authorization.is_none() => Shown::Ticket(ticket),
            _ => Shown::Credential { authorization, certificate },
        })
    }

    /// Who that is now: tickets expire, tokens leave their files.
    pub(super) fn caller(&self, tenants: &Tenants) -> Result<Arc<Caller>, Fault> {
        match self {
            Shown::Ticket(text) => tenants.authenticate_ticket(text, now_unix()),
            Shown::Credential { authorization, certificate } => {
                tenants.authenticate(authorization.as_deref(), *certificate)
            }
        }
        .map_err(|_| Fault::unauthenticated())
    }
}

impl Site {
    /// Who asks for a stream, and what was shown.
    pub(super) fn reader(
        &self,
        parts: &Parts,
        ticket: Option<String>,
    ) -> Result<(Shown, Arc<Caller>), Fault> {
        let shown = Shown::of(parts, ticket)?;
        let caller = shown.caller(&self.console.tenants)?;
        let is_asked_nothing = self.console.tenants.is_open() && matches!(shown, Shown::Credential { .. });
        if is_asked_nothing && !is_direct(parts) {
            return Err(Fault::forbidden(NOT_DIRECT));
        }
        Ok((shown, caller))
    }

    /// Whether this may be shown to whom asks: an administrator, or anybody on a loopback listener.
    pub(super) fn allow_admin(&self, parts: &Parts) -> Result<(), Fault> {
        if self.is_admin_open && is_direct(parts) {
            return Ok(());
        }
        let (_, caller) = self.reader(parts, None)?;
        if caller.rights.admin {
            Ok(())
        } else {
            Err(Fault::forbidden("this needs a credential with the right `admin`"))
        }
    }
}

const NOT_DIRECT: &str = "without credentials this listener answers only who addresses it as `localhost` or by its IP \
                          address, and not through a proxy: configure `identity.tokens`";

/// Whether a loopback listener was addressed as such, by a program on this machine.
///
/// A name other than `localhost` is a page that had its own name resolved to 127.0.0.1 to read what is here (DNS
/// rebinding); a forwarding header is a proxy that carries the requests of others.
fn is_direct(parts: &Parts) -> bool {
    let is_forwarded = ["forwarded", "x-forwarded-for"].iter().any(|name| parts.headers.contains_key(*name));
    !is_forwarded && host(parts).is_some_and(is_local_name)
}

fn host(parts: &Parts) -> Option<&str> {
    // HTTP/2 has it in the address.
    match parts.uri.authority() {
        Some(authority) => Some(authority.host()),
        None => parts.headers.get(header::HOST)?.to_str().ok().map(without_port),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_local_name(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

pub(super) fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
