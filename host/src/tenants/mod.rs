//! Whose it is: credentials, quotas, room.
//!
//! Identity is decided here, once, from the credential; afterwards it travels beside the bytes and is never read
//! from attributes again.

mod admit;
mod credentials;
mod quota;
mod room;
mod seen;
mod table;
mod tickets;
mod token_file;

pub use admit::{Admitted, Part, RefusedPart, Terms};
pub use credentials::{Caller, Credential, Names, Proof, Rights, Unauthenticated, Who};
pub use quota::{Limited, OverQuota, Quota, QuotaSettings};
pub use room::{Full, Room, Taken};
pub use tickets::{TICKET_SECONDS_MAX, Ticket, sign};

use crate::batch::IdentityKeys;
use crate::telemetry::{Metrics, Secret};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::Instant;

/// Who may send, read and administer; how identity is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub attributes: IdentityKeys,
    /// Whether identity attributes are added where a resource has none. What differs is overwritten either way.
    pub stamp: bool,
    pub credentials: Vec<Credential>,
    /// CSV files with the same columns (`sha256,tenant,projects,speaks_for,rights`), read again when they change.
    pub token_files: Vec<PathBuf>,
    /// The key that tickets are signed with; without it there are none.
    pub ticket_key: Option<Secret>,
    /// No token is asked: whoever connects is tenant `local` with every right. Only for loopback listeners.
    pub is_open: bool,
    /// Bytes of all requests at work; what the journal keeps is beside it.
    pub room_bytes: usize,
    /// What each tenant may send and keep.
    pub quotas: QuotaSettings,
}

/// The table of credentials, the room, and what tenants have taken of their quotas.
#[derive(Debug)]
pub struct Tenants {
    keys: IdentityKeys,
    is_stamping: bool,
    table: table::Table,
    ticket_key: Option<Secret>,
    /// Who everybody is where no token is asked.
    open: Option<Arc<Caller>>,
    room: Arc<Room>,
    quotas: quota::Quotas,
    seen: seen::Seen,
    metrics: Metrics,
}

impl Tenants {
    /// Reads the token files; an error names the file, the line and what would be right there.
    pub fn open(settings: Settings, metrics: Metrics) -> Result<Arc<Tenants>, String> {
        if settings.ticket_key.as_ref().is_some_and(|key| key.expose().trim().len() < 32) {
            return Err(
                "the key of the tickets must have 32 characters or more: `openssl rand -base64 32`".into()
            );
        }
        // The configuration names them, also those that others speak for.
        settings.quotas.tenants.keys().for_each(|tenant| metrics.tenant_labels.give(tenant.as_str()));
        Ok(Arc::new(Tenants {
            keys: settings.attributes,
            is_stamping: settings.stamp,
            table: table::Table::open(settings.credentials, settings.token_files)?,
            ticket_key: settings.ticket_key,
            open: settings.is_open.then(|| Arc::new(Caller::local())),
            room: Arc::new(Room::new(settings.room_bytes, metrics.admit_room_used.clone())),
            quotas: quota::Quotas::new(settings.quotas),
            seen: seen::Seen::default(),
            metrics,
        }))
    }

    /// Who shows this: the value of the header `authorization`, the fingerprint of the client's certificate.
    ///
    /// A header decides alone: a certificate does not help a wrong token. Nothing of what was shown is kept or told.
    pub fn authenticate(
        &self,
        authorization: Option<&str>,
        certificate: Option<[u8; 32]>,
    ) -> Result<Arc<Caller>, Unauthenticated> {
        if let Some(open) = &self.open {
            return Ok(open.clone());
        }
        match (authorization, certificate) {
            (Some(header), _) => self.table.token(table::bearer(header).ok_or(Unauthenticated)?),
            (None, Some(fingerprint)) => self.table.certificate(fingerprint),
            (None, None) => Err(Unauthenticated),
        }
    }

    /// Whether no credential is asked.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Who shows this ticket: a reader of its tenant's projects. `now_unix` is in seconds since 1970.
    pub fn authenticate_ticket(&self, text: &str, now_unix: u64) -> Result<Arc<Caller>, Unauthenticated> {
        let key = self.ticket_key.as_ref().ok_or(Unauthenticated)?;
        tickets::read(key, text, now_unix).map(Arc::new)
    }

    /// The signed text of a ticket; `None` where no key is configured. Who may have one is the caller's decision.
    pub fn sign_ticket(&self, ticket: &Ticket) -> Option<String> {
        self.ticket_key.as_ref().map(|key| sign(key, ticket))
    }

    /// Room for one request of this caller; it holds nothing yet.
    pub fn open_room(&self, caller: &Caller) -> Taken {
        self.room.open(caller)
    }

    /// Whether a request of this caller would be refused whatever is in it: its tenant has sent what it may, or held its
    /// share of the journal a moment ago. Asked before the body is read, so that who floods costs next to nothing; such requests are counted, and
    /// their records, which nobody knows, are not.
    pub fn over_quota(&self, caller: &Caller, now: Instant) -> Option<OverQuota> {
        let Who::Tenant { tenant, .. } = &caller.who else { return None };
        let over = self.quotas.over(tenant, now)?;
        self.metrics.tenant_labels.give(tenant.as_str());
        self.count_over(&over);
        Some(over)
    }

    fn count_over(&self, over: &OverQuota) {
        let tenant = self.metrics.tenant_labels.of(over.tenant.as_str()).to_owned();
        let labels = vec![("tenant", tenant), ("quota", over.limited.name().to_owned())];
        self.metrics.admit_over_quota.get_or_create(&labels).inc();
    }

    /// The account of the room.
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Reads the token files that changed since the last look. Blocks for as long as that takes; call it every second.
    ///
    /// A broken file changes nothing: the credentials of before stay, and the log says once which line is wrong.
    /// Replace a file by renaming another over it, so that it is never seen half written.
    pub fn reload_files(&self, now: SystemTime) {
        self.table.reload(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::TenantId;
    use sha2::{Digest, Sha256};

    fn credential(token: &str, who: Who) -> Credential {
        let proof = Proof::Token(Sha256::digest(token.as_bytes()).into());
        Credential { proof, who, rights: Rights { send: true, ..Rights::default() } }
    }

    fn settings(credentials: Vec<Credential>) -> Settings {
        Settings {
            attributes: IdentityKeys { tenant: "tenant.id".into(), project: "project.id".into() },
            stamp: true,
            credentials,
            token_files: Vec::new(),
            ticket_key: None,
            is_open: false,
            room_bytes: 1000,
            quotas: QuotaSettings::default(),
        }
    }

    fn acme() -> Who {
        Who::Tenant { tenant: TenantId::new("acme").unwrap(), projects: Names::All }
    }

    fn everybody() -> Who {
        Who::SpeaksFor { tenants: Names::All }
    }

    #[test]
    fn a_header_decides_alone_and_without_one_the_certificate_does() {
        let certificate = Credential { proof: Proof::Certificate([9; 32]), ..credential("", everybody()) };
        let tenants =
            Tenants::open(settings(vec![credential("one", acme()), certificate]), Metrics::new()).unwrap();
        let who = |header, certificate| tenants.authenticate(header, certificate).ok().map(|c| c.who.clone());
        let cases = [
            (Some("Bearer one"), None, Some(acme())),
            (Some("bearer one"), Some([9; 32]), Some(acme())),
            (None, Some([9; 32]), Some(everybody())),
            (Some("Bearer wrong"), Some([9; 32]), None),
            (Some("Basic one"), Some([9; 32]), None),
            (Some(""), None, None),
            (None, Some([8; 32]), None),
            (None, None, None),
        ];
        for (header, certificate, expected) in cases {
            assert_eq!(who(header, certificate), expected, "{header:?} {certificate:?}");
        }
    }

    #[test]
    fn where_no_token_is_asked_everybody_is_local() {
        let tenants = Tenants::open(Settings { is_open: true, ..settings(vec![]) }, Metrics::new()).unwrap();
        for header in [None, Some("Bearer any"), Some("nonsense")] {
            assert_eq!(*tenants.authenticate(header, None).unwrap(), Caller::local());
        }
        assert_eq!(
            tenants.authenticate_ticket("v1.a.b", 0),
            Err(Unauthenticated),
            "without a key there are none"
        );
    }

    #[test]
    fn a_short_ticket_key_is_refused_at_the_start_and_not_shown() {
        let key = Some(Secret::new("short and secret\n               \n           "));
        let error =
            Tenants::open(Settings { ticket_key: key, ..settings(vec![]) }, Metrics::new()).unwrap_err();
        assert_eq!(
            error,
            "the key of the tickets must have 32 characters or more: `openssl rand -base64 32`"
        );
    }

    #[test]
    fn tokens_of_one_tenant_share_its_half_and_each_agent_has_its_own() {
        let credentials = vec![
            credential("one", acme()),
            credential("two", acme()),
            credential("agent", everybody()),
            credential("other agent", everybody()),
        ];
        let metrics = Metrics::new();
        let tenants = Tenants::open(settings(credentials), metrics.clone()).unwrap();
        let open = |token: &str| {
            tenants.open_room(&tenants.authenticate(Some(&format!("Bearer {token}")), None).unwrap())
        };
        let mut one = open("one");
        one.grow(500).unwrap();
        assert_eq!(open("two").grow(1), Err(Full::Now));
        let mut agent = open("agent");
        agent.grow(400).unwrap();
        assert_eq!(open("other agent").grow(101), Err(Full::Now), "the room is full");
        open("other agent").grow(100).unwrap();
        assert_eq!(metrics.admit_room_used.get(), 900);
        assert_eq!(open("other agent").grow(501), Err(Full::Never));
        drop((one, agent));
        assert_eq!((tenants.room().used_bytes(), metrics.admit_room_used.get()), (0, 0));
    }
}
