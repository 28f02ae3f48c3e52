//! What a caller shows, and who that makes it.

use super::room::Payer;
use crate::batch::{ProjectId, TenantId};

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub proof: Proof,
    pub who: Who,
    pub rights: Rights,
}

/// What must be shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Proof {
    /// A bearer token with this SHA-256.
    Token([u8; 32]),
    /// A client certificate with this SHA-256 fingerprint (of its DER).
    Certificate([u8; 32]),
}

impl Proof {
    /// The proof that showing this token is.
    pub fn of_token(token: &str) -> Proof {
        use sha2::Digest;
        Proof::Token(sha2::Sha256::digest(token.as_bytes()).into())
    }
}

/// Whom the credential stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// This tenant, whatever its data says.
    Tenant { tenant: TenantId, projects: Names },
    /// Others, as the identity attributes of the data say: an agent, another gateway.
    SpeaksFor { tenants: Names },
    /// Nobody: an administrator.
    Nobody,
}

/// All names, or these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    All,
    Some(Vec<String>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    pub send: bool,
    pub read: bool,
    pub admin: bool,
}

/// Somebody who showed a credential that we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub who: Who,
    pub rights: Rights,
    /// Whose share of the room its requests take.
    pub(super) payer: Payer,
}

/// No credential, or one that we do not know. The two get the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no valid credential: send `authorization: Bearer TOKEN`")]
pub struct Unauthenticated;

impl Caller {
    /// The caller where no token is asked.
    pub fn local() -> Caller {
        Caller::tenant(TenantId::local(), Names::All, Rights { send: true, read: true, admin: true })
    }

    /// A caller who is this tenant.
    pub fn tenant(tenant: TenantId, projects: Names, rights: Rights) -> Caller {
        let payer = Payer::Tenant(tenant.clone());
        Caller { who: Who::Tenant { tenant, projects }, rights, payer }
    }

    /// Who shows this credential.
    pub fn of(credential: &Credential) -> Caller {
        let payer = match &credential.who {
            Who::Tenant { tenant, .. } => Payer::Tenant(tenant.clone()),
            Who::SpeaksFor { .. } | Who::Nobody => Payer::Credential(credential.proof.head()),
        };
        Caller { who: credential.who.clone(), rights: credential.rights, payer }
    }

    /// Whether this caller may read this stream. "Not yours" and "not there" get the same answer.
    pub fn may_read(&self, tenant: &TenantId, project: &ProjectId) -> bool {
        self.rights.read
            && match &self.who {
                Who::Tenant { tenant: own, projects } => own == tenant && projects.cover(project.as_str()),
                Who::SpeaksFor { tenants } => tenants.cover(tenant.as_str()),
                Who::Nobody => false,
            }
    }
}

impl Names {
    pub fn cover(&self, name: &str) -> bool {
        match self {
            Names::All => true,
            Names::Some(names) => names.iter().any(|n| n == name),
        }
    }
}

impl Proof {
    pub(super) fn sha256(&self) -> &[u8; 32] {
        match self {
            Proof::Token(sha256) | Proof::Certificate(sha256) => sha256,
        }
    }

    /// The first eight bytes: enough to tell credentials apart, too little to guess one from.
    pub(super) fn head(&self) -> u64 {
        let mut head = [0; 8];
        head.copy_from_slice(&self.sha256()[..8]);
        u64::from_be_bytes(head)
    }
}

/// Without the hash: of a weak token it would be half of the way to the token.
impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Proof::Token(_) => "Token(…)",
            Proof::Certificate(_) => "Certificate(…)",
        })
    }
}
