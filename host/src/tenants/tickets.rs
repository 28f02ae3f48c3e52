//! Tickets: `{tenant, projects, expires}` signed with HMAC-SHA-256, at most an hour.
//!
//! A platform's own backend makes one for a user whom it has signed in, without asking us. The text is
//! `v1.PAYLOAD.SIGNATURE`:
//!
//! - PAYLOAD: the JSON `{"tenant":"acme","projects":["shop"],"expires":1764000000}` in base64url (RFC 4648 §5;
//!   padding may stand or not). `projects` is a list of names, or `["*"]` for all; `expires` is in seconds since
//!   1970, at most 3600 ahead. Other fields are refused.
//! - SIGNATURE: HMAC-SHA-256 over the text `v1.PAYLOAD` with the bytes of the key (surrounding white space cut), in
//!   base64url.
//!
//! In Python:
//!
//! ```python
//! import base64, hashlib, hmac, json, time
//! def b64(data): return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
//! def ticket(key, tenant, projects, seconds=900):
//!     claims = {"tenant": tenant, "projects": projects, "expires": int(time.time()) + seconds}
//!     text = "v1." + b64(json.dumps(claims).encode())
//!     return text + "." + b64(hmac.new(key.strip().encode(), text.encode(), hashlib.sha256).digest())
//! ```

use super::{Caller, Names, Rights, Unauthenticated};
use crate::batch::{ProjectId, TenantId};
use crate::telemetry::Secret;
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The longest life of a ticket.
pub const TICKET_SECONDS_MAX: u64 = 3600;
/// A thousand projects with names of 128 bytes would not fit, and not into any URL either.
const TEXT_BYTES_MAX: usize = 8 << 10;

const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a ticket says: its bearer may read these projects of this tenant until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    pub tenant: String,
    /// Names, or `["*"]` for all.
    pub projects: Vec<String>,
    /// Seconds since 1970.
    pub expires: u64,
}

/// The text of a ticket, signed.
pub fn sign(key: &Secret, ticket: &Ticket) -> String {
    let payload = serde_json::to_vec(ticket).expect("texts and numbers always serialize");
    let text = format!("v1.{}", BASE64URL.encode(payload));
    let signature = BASE64URL.encode(mac(key, &text).finalize().into_bytes());
    format!("{text}.{signature}")
}

/// Who shows this ticket: a reader and nothing else. Every fault gets the same answer.
pub(super) fn read(key: &Secret, text: &str, now_unix: u64) -> Result<Caller, Unauthenticated> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Unauthenticated);
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(Unauthenticated)?;
    let payload = signed.strip_prefix("v1.").ok_or(Unauthenticated)?;
    let signature = BASE64URL.decode(signature).map_err(|_| Unauthenticated)?;
    // In constant time; nothing of the payload is looked at before.
    mac(key, signed).verify_slice(&signature).map_err(|_| Unauthenticated)?;
    let payload = BASE64URL.decode(payload).map_err(|_| Unauthenticated)?;
    let ticket: Ticket = serde_json::from_slice(&payload).map_err(|_| Unauthenticated)?;
    ticket.caller(now_unix)
}

impl Ticket {
    fn caller(&self, now_unix: u64) -> Result<Caller, Unauthenticated> {
        if self.expires <= now_unix || self.expires - now_unix > TICKET_SECONDS_MAX {
            return Err(Unauthenticated);
        }
        let tenant = TenantId::new(&self.tenant).map_err(|_| Unauthenticated)?;
        let projects = self.names().ok_or(Unauthenticated)?;
        Ok(Caller::tenant(tenant, projects, Rights { read: true, ..Rights::default() }))
    }

    /// `None` unless `projects` is `["*"]` or a list of one or more names.
    pub fn names(&self) -> Option<Names> {
        match self.projects.as_slice() {
            [all] if all == "*" => Some(Names::All),
            [] => None,
            names => names
                .iter()
                .all(|name| name != "*" && ProjectId::new(name).is_ok())
                .then(|| Names::Some(names.to_vec())),
        }
    }
}

fn mac(key: &Secret, text: &str) -> Hmac<Sha256> {
    // White space is cut: the key stands in a file, and editors end files with a line feed.
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().trim().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac
}
