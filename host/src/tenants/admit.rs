//! A request is split by the identity of its resources: one batch per stream. Never waits.

use crate::batch::{Batch, TenantId};

/// What becomes of a request.
#[derive(Debug, Default)]
pub struct Admitted {
    pub parts: Vec<Part>,
    /// What was left out, for the partial success and the ledger.
    pub refused: Vec<RefusedPart>,
}

/// One batch, its identity attributes put right.
#[derive(Debug)]
pub struct Part {
    pub batch: Batch,
    /// Records that the sender sent for it (those over `record_max` included, which are no longer in `batch`).
    pub received: u32,
    /// Resources whose identity attributes said something else.
    pub overwritten: u32,
    /// Strings that were mended.
    pub mended: u32,
}

/// A part that stays out, final for the sender.
#[derive(Debug, PartialEq, Eq)]
pub struct RefusedPart {
    /// `TenantId::none()` where nobody knows.
    pub tenant: TenantId,
    pub records: u32,
    /// `no_tenant`, `unknown_tenant`, `identity_conflict`, `project_not_covered`, `record_too_large`.
    pub reason: &'static str,
}
