//! Streams in MongoDB: collections shared by all tenants, one per retention class and day.

use crate::telemetry::Secret;

/// Which server, and where on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `mongodb://…`; holds the password. `tls=true` and `tlsCAFile=` stand in it.
    pub uri: Secret,
    /// The database of the collections.
    pub database: String,
}
