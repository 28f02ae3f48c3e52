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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenants::Who;

    const NOW: u64 = 1_764_000_000;

    fn key() -> Secret {
        Secret::new("a key that nobody knows, of some length")
    }

    fn ticket(tenant: &str, projects: &[&str], expires: u64) -> Ticket {
        let projects = projects.iter().map(|p| (*p).to_owned()).collect();
        Ticket { tenant: tenant.into(), projects, expires }
    }

    /// Signs any payload, so that its faults are reached behind a good signature.
    fn signed(payload: &str) -> String {
        let text = format!("v1.{}", BASE64URL.encode(payload));
        let signature = BASE64URL.encode(mac(&key(), &text).finalize().into_bytes());
        format!("{text}.{signature}")
    }

    #[test]
    fn a_ticket_reads_the_projects_it_names_and_does_nothing_else() {
        let text = sign(&key(), &ticket("acme", &["shop", "blog"], NOW + 3600));
        let caller = read(&key(), &text, NOW).unwrap();
        let projects = Names::Some(vec!["shop".into(), "blog".into()]);
        assert_eq!(caller.who, Who::Tenant { tenant: TenantId::new("acme").unwrap(), projects });
        assert_eq!(caller.rights, Rights { read: true, send: false, admin: false });
        let may = |tenant, project| {
            caller.may_read(&TenantId::new(tenant).unwrap(), &ProjectId::new(project).unwrap())
        };
        assert!(may("acme", "shop") && may("acme", "blog"));
        assert!(!may("acme", "default") && !may("globex", "shop"));
        let all = read(&key(), &sign(&key(), &ticket("acme", &["*"], NOW + 1)), NOW).unwrap();
        assert!(all.may_read(&TenantId::new("acme").unwrap(), &ProjectId::new("any").unwrap()));
    }

    #[test]
    fn a_ticket_made_by_the_documented_recipe_is_taken() {
        // Printed by the Python of this file's head, and by the same with the padding left standing.
        let printed = [
            concat!(
                "v1.eyJ0ZW5hbnQiOiAiYWNtZSIsICJwcm9qZWN0cyI6IFsiYmxvZyIsICJzaG9wIl0sICJleHBpcmVzIjogMTc2NDAwMDkwMH0",
                ".3QXNngwQzXUfPNQ-A8csHyAQios9QQC7gtLNpUfHR9w"
            ),
            concat!(
                "v1.eyJ0ZW5hbnQiOiAiYWNtZSIsICJwcm9qZWN0cyI6IFsiYmxvZyIsICJzaG9wIl0sICJleHBpcmVzIjogMTc2NDAwMDkwMH0=",
                ".uN3rluOt2hOM4BlfsRJGKozRcoo-skqx7VuhnRxJa6w="
            ),
        ];
        for text in printed {
            assert!(read(&key(), text, NOW).is_ok(), "{text}");
        }
        let file = Secret::new(format!("{}\n", key().expose()));
        assert!(
            read(&file, printed[0], NOW).is_ok(),
            "the line feed at the end of a key file is not part of the key"
        );
    }

    #[test]
    fn whatever_is_wrong_with_a_ticket_has_one_answer() {
        let good = sign(&key(), &ticket("acme", &["shop"], NOW + 60));
        assert!(read(&key(), &good, NOW).is_ok());
        let of = |tenant: &str, projects: &[&str], expires| sign(&key(), &ticket(tenant, projects, expires));
        let (signed_part, signature) = good.rsplit_once('.').unwrap();
        let other = BASE64URL.encode(r#"{"tenant":"globex","projects":["shop"],"expires":1764000060}"#);
        let cases = [
            ("expired", of("acme", &["shop"], NOW)),
            ("long expired", of("acme", &["shop"], 0)),
            ("too long", of("acme", &["shop"], NOW + 3601)),
            ("for ever", of("acme", &["shop"], u64::MAX)),
            ("no projects", of("acme", &[], NOW + 60)),
            ("all among others", of("acme", &["shop", "*"], NOW + 60)),
            ("no tenant's name", of("_none", &["shop"], NOW + 60)),
            ("an empty tenant", of("", &["shop"], NOW + 60)),
            ("no project's name", of("acme", &["a\nb"], NOW + 60)),
            (
                "another key",
                sign(
                    &Secret::new("another key, as long as the first one was"),
                    &ticket("acme", &["shop"], NOW + 60),
                ),
            ),
            ("another tenant under the signature", format!("v1.{other}.{signature}")),
            ("another version", good.replacen("v1.", "v2.", 1)),
            ("no version", good["v1.".len()..].to_owned()),
            ("no signature", signed_part.to_owned()),
            ("an empty signature", format!("{signed_part}.")),
            ("half a signature", format!("{signed_part}.{}", &signature[..20])),
            ("no base64url", format!("{signed_part}.{}", "+".repeat(43))),
            (
                "an unknown field",
                signed(r#"{"tenant":"acme","projects":["shop"],"expires":1764000060,"admin":true}"#),
            ),
            ("a missing field", signed(r#"{"tenant":"acme","expires":1764000060}"#)),
            ("a negative time", signed(r#"{"tenant":"acme","projects":["shop"],"expires":-1}"#)),
            ("no JSON", signed("acme")),
            ("nothing", String::new()),
            ("dots", "...".into()),
            ("a long text", format!("v1.{}.{signature}", "A".repeat(TEXT_BYTES_MAX))),
        ];
        for (fault, text) in cases {
            assert_eq!(read(&key(), &text, NOW), Err(Unauthenticated), "{fault}");
        }
    }

    #[test]
    fn no_single_changed_character_is_taken() {
        let good = sign(&key(), &ticket("acme", &["shop"], NOW + 60));
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(read(&key(), &changed, NOW), Err(Unauthenticated), "character {at}");
        }
    }
}
