//! Whose it is: credentials, quota, room.
//!
//! Identity is decided here, once, from the credential; afterwards it travels beside the bytes and is never read
//! from attributes again.

mod admit;
mod credentials;
mod room;
mod tickets;

pub use admit::{Admitted, Part, RefusedPart};
pub use credentials::{Caller, Credential, Names, Proof, Rights, Unauthenticated, Who};
pub use room::{Full, Room, Taken};

use crate::batch::IdentityKeys;
use crate::telemetry::Secret;
use std::path::PathBuf;

/// Who may send, read and administer; how identity is written.
#[derive(Clone, Debug)]
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
    /// Bytes of all requests at work and of the journal's memory.
    pub room_bytes: usize,
}

/// The table of credentials, and the room.
#[derive(Debug)]
pub struct Tenants {}
