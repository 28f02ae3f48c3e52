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

    /// What the values of this tenant may take, at most `share`, as far as there is room. Ticks of several plugins at a time may go over
    /// it by one share each.
    pub(super) fn bytes_max(&self, tenant: &str, share: usize) -> usize {
        let free = BYTES_MAX.saturating_sub(self.common.bytes.load(Ordering::Relaxed));
        (self.values(tenant).bytes() + free).min(share)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn values(bytes: usize) -> Values {
        let mut values = Values::default();
        values.set("a".into(), vec![0; bytes - 1], usize::MAX, usize::MAX).unwrap();
        values
    }

    #[test]
    fn all_plugins_and_tenants_share_the_room_and_it_comes_back() {
        let stores = Stores::in_memory(Metrics::new());
        let (one, two) = (stores.of("one"), stores.of("two"));
        let share = 64 << 10;
        let tenants = BYTES_MAX / share;
        (0..tenants).for_each(|tenant| one.keep(&tenant.to_string(), values(share)));
        let bytes_max = |of: &PluginStore, tenant| of.bytes_max(tenant, share);
        assert_eq!((bytes_max(&one, "0"), bytes_max(&one, "new"), bytes_max(&two, "0")), (share, 0, 0));
        let full = "the plugins together keep as many bytes as there is room for";
        let refused = Values::default().set("a".into(), vec![], bytes_max(&two, "0"), share);
        assert_eq!(refused, Err(full.into()));
        one.keep("0", values(1000));
        assert_eq!((bytes_max(&two, "0"), bytes_max(&one, "0")), (share - 1000, share));
        one.keep("1", Values::default());
        assert_eq!(bytes_max(&two, "0"), share);
    }

    #[test]
    fn a_folder_that_others_may_enter_keeps_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        let store = Stores::open(open.clone(), Metrics::new()).of("p");
        store.keep("acme", values(10));
        assert_eq!(*store.values("acme"), values(10));
        assert_eq!(std::fs::read_dir(open).unwrap().count(), 0);
    }

    #[test]
    fn what_did_not_change_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("plugin-state");
        let store = Stores::open(inside.clone(), Metrics::new()).of("p");
        assert_eq!(std::fs::metadata(&inside).unwrap().permissions().mode() & 0o777, 0o700);
        store.keep("acme", values(10));
        let file = || std::fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().path()).next().unwrap();
        std::fs::write(file(), "written by a test").unwrap();
        store.keep("acme", values(10));
        assert_eq!(std::fs::read_to_string(file()).unwrap(), "written by a test");
        store.keep("acme", values(11));
        assert_ne!(std::fs::read_to_string(file()).unwrap(), "written by a test");
    }
}
