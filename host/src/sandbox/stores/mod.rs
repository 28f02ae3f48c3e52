//! What plugins keep: a few small values for each tenant, which outlive an instance, a swap and a restart.
//!
//! All of it is in memory, so that reading costs nothing; `tick` alone changes it, one tick of a plugin at a time. What
//! changed is written to one file per plugin and tenant before the tick is over. Where that fails the values go on in
//! memory: losing a baseline must not stop records.

mod file;
mod values;

pub(super) use values::Values;

use crate::telemetry::Metrics;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of all plugins and tenants: 10,000 tenants have 6 KiB each.
const BYTES_MAX: usize = 64 << 20;

/// Those of all plugins.
#[derive(Debug)]
pub(super) struct Stores {
    common: Arc<Common>,
    plugins: Mutex<HashMap<String, Arc<PluginStore>>>,
}

/// What the stores share.
#[derive(Debug)]
struct Common {
    /// `None`: nothing is written.
    folder: Option<PathBuf>,
    bytes: AtomicUsize,
    metrics: Metrics,
}

/// That of one plugin, by the name in the configuration: a new version finds what the old one kept.
#[derive(Debug)]
pub(super) struct PluginStore {
    plugin: String,
    common: Arc<Common>,
    tenants: Mutex<HashMap<String, Arc<Values>>>,
    /// Held by the tick at hand.
    turn: Mutex<()>,
    /// The last write failed: it is told once.
    is_failing: AtomicBool,
}

impl Stores {
    pub(super) fn in_memory(metrics: Metrics) -> Stores {
        Stores::new(None, metrics)
    }

    /// Makes the folder if it is missing, and reads what is in it. What cannot be read is set aside and told; nothing
    /// stops the start.
    pub(super) fn open(folder: PathBuf, metrics: Metrics) -> Stores {
        if let Err(why) = super::cache::private_folder(&folder) {
            tracing::warn!(folder = %folder.display(), why, "what plugins keep is in memory only");
            return Stores::in_memory(metrics);
        }
        let stores = Stores::new(Some(folder.clone()), metrics);
        file::read_all(&folder, |kept| {
            let bytes = kept.values.bytes();
            let is_room = stores.common.bytes.load(Ordering::Relaxed) + bytes <= BYTES_MAX;
            if is_room {
                stores.common.bytes.fetch_add(bytes, Ordering::Relaxed);
                stores.of(&kept.plugin).tenants().insert(kept.tenant, Arc::new(kept.values));
            }
            is_room
        });
        stores
    }

    fn new(folder: Option<PathBuf>, metrics: Metrics) -> Stores {
        let common = Common { folder, bytes: AtomicUsize::new(0), metrics };
        Stores { common: Arc::new(common), plugins: Mutex::default() }
    }

    /// The same for all versions of a plugin.
    pub(super) fn of(&self, plugin: &str) -> Arc<PluginStore> {
        let mut plugins = self.plugins.lock().expect("no panic while the lock is held");
        let new = || {
            Arc::new(PluginStore {
                plugin: plugin.to_owned(),
                common: Arc::clone(&self.common),
                tenants: Mutex::default(),
                turn: Mutex::default(),
                is_failing: AtomicBool::new(false),
            })
        };
        Arc::clone(plugins.entry(plugin.to_owned()).or_insert_with(new))
    }
}

impl PluginStore {
    /// What a tenant's ticks have kept.
    pub(super) fn values(&self, tenant: &str) -> Arc<Values> {
        self.tenants().get(tenant).cloned().unwrap_or_default()
    }

    /// What the values of this tenant may take, as far as there is room. Ticks of several plugins at a time may go over
    /// it by one share each.
    pub(super) fn bytes_max(&self, tenant: &str) -> usize {
        let free = BYTES_MAX.saturating_sub(self.common.bytes.load(Ordering::Relaxed));
        (self.values(tenant).bytes() + free).min(values::BYTES_MAX)
    }

    /// Waits until no other tick of this plugin is at work.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the tenant has these; they are on disk before this returns, if that is possible. Blocks.
    pub(super) fn keep(&self, tenant: &str, values: Values) {
        let before = self.values(tenant);
        if *before == values {
            return;
        }
        self.common.bytes.fetch_add(values.bytes(), Ordering::Relaxed);
        self.common.bytes.fetch_sub(before.bytes(), Ordering::Relaxed);
        if let Some(folder) = &self.common.folder {
            self.tell(file::write(folder, &self.plugin, tenant, &values));
        }
        match values.is_empty() {
            true => self.tenants().remove(tenant),
            false => self.tenants().insert(tenant.to_owned(), Arc::new(values)),
        };
    }

    fn tell(&self, written: std::io::Result<()>) {
        let plugin = &self.plugin;
        let was_failing = self.is_failing.swap(written.is_err(), Ordering::Relaxed);
        match written {
            Ok(()) if was_failing => tracing::info!(plugin, "what the plugin keeps is written again"),
            Ok(()) => {}
            Err(error) => {
                let labels = vec![("plugin", plugin.clone())];
                self.common.metrics.process_unkept.get_or_create(&labels).inc();
                if !was_failing {
                    tracing::warn!(plugin, %error, "what the plugin keeps is not written, and lost by a restart");
                }
            }
        }
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<String, Arc<Values>>> {
        self.tenants.lock().expect("no panic while the lock is held")
    }
}
