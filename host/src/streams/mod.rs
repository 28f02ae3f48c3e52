//! A tenant's log: id, store, live tail.

/// Where streams are kept and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub store: StoreSettings,
    /// Whole days are removed when their youngest record is older.
    pub retention: std::time::Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSettings {
    /// On disk, below this folder: one database per day.
    Embedded { folder: std::path::PathBuf },
}
