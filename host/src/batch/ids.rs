//! Whose a record is, and which record it is.

use std::sync::Arc;

/// A tenant's name: 1 to 128 bytes of printable text, not beginning with `_` (kept for `_other` and `_none`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// A project's name within a tenant: 1 to 128 bytes of printable text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectId(Arc<str>);

/// Why a text is no name of a tenant or a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 128 bytes of printable text and does not begin with `_`")]
pub struct BadName;

fn check_name(name: &str) -> Result<Arc<str>, BadName> {
    let is_good = !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('_')
        && name.trim() == name
        && !name.chars().any(char::is_control);
    if is_good { Ok(name.into()) } else { Err(BadName) }
}

impl TenantId {
    pub fn new(name: &str) -> Result<TenantId, BadName> {
        check_name(name).map(TenantId)
    }
    /// The line of the ledger for records whose tenant nobody knows.
    pub fn none() -> TenantId {
        TenantId("_none".into())
    }
    /// The one tenant of a collector without a configuration file.
    pub fn local() -> TenantId {
        TenantId("local".into())
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ProjectId {
    pub fn new(name: &str) -> Result<ProjectId, BadName> {
        check_name(name).map(ProjectId)
    }
    /// Where a resource without a project belongs, when its credential has more than one.
    pub fn default_project() -> ProjectId {
        ProjectId("default".into())
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for TenantId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::fmt::Display for ProjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One tenant's one project: what a platform's client watches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream {
    pub tenant: TenantId,
    pub project: ProjectId,
}

/// A record's name for ever, 24 bytes, ordered within its stream:
/// stream 8 | commit time in ms 6 | node 4 | record number 6, all big-endian.
/// `stream` is the head of SHA-256 over the length-prefixed tenant and project (computed by `streams`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub [u8; 24]);

impl RecordId {
    pub fn new(stream: [u8; 8], time_ms: u64, node: [u8; 4], number: u64) -> RecordId {
        let mut id = [0; 24];
        id[..8].copy_from_slice(&stream);
        id[8..14].copy_from_slice(&time_ms.to_be_bytes()[2..]);
        id[14..18].copy_from_slice(&node);
        id[18..].copy_from_slice(&number.to_be_bytes()[2..]);
        RecordId(id)
    }
    pub fn time_ms(&self) -> u64 {
        let mut wide = [0; 8];
        wide[2..].copy_from_slice(&self.0[8..14]);
        u64::from_be_bytes(wide)
    }
    pub fn node(&self) -> [u8; 4] {
        [self.0[14], self.0[15], self.0[16], self.0[17]]
    }
    pub fn number(&self) -> u64 {
        let mut wide = [0; 8];
        wide[2..].copy_from_slice(&self.0[18..]);
        u64::from_be_bytes(wide)
    }
}
