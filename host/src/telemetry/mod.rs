//! What we count and say about ourselves.
//!
//! Metrics are `trommel_<verb>_<what>_<unit>[_total]`. A log line is an event an operator can act on; tenants'
//! content and secrets never reach either.

mod labels;
mod log;
mod metrics;
mod secret;
mod told;

pub use labels::{OTHERS, TenantLabels};
pub use log::start_logging;
pub use metrics::{Labels, Metrics};
pub use secret::Secret;
pub use told::Told;
