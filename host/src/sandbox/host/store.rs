//! Interface `store`: read from memory, changed in a draft that counts once `tick` has returned ok.

use super::super::bindings::trommel::plugin::store as wit;
use super::super::stores::Values;
use super::{CALL_COST, Phase, State};

const READING: [Phase; 2] = [Phase::Process, Phase::Tick];
const CHANGING: [Phase; 1] = [Phase::Tick];

impl wit::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.charge(CALL_COST + key.len() as u64)?;
        if !self.may_use("store.get", "store", &READING) {
            return Ok(None);
        }
        let value = match (&self.draft, self.tenant()) {
            (Some(draft), _) => draft.value(&key).map(<[u8]>::to_vec),
            (None, Some(tenant)) => self.shared.store.values(tenant).value(&key).map(<[u8]>::to_vec),
            (None, None) => None,
        };
        self.charge(value.as_ref().map_or(0, Vec::len) as u64)?;
        Ok(value)
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
        self.charge(CALL_COST + (key.len() + value.len()) as u64)?;
        if !self.may_use("store.set", "store", &CHANGING) {
            return Ok(Ok(()));
        }
        let share = self.shared.settings.limits.store;
        let bytes_max = self.shared.store.bytes_max(self.tenant().unwrap_or_default(), share);
        let set = self.draft().set(key, value, bytes_max, share);
        if set.is_err() {
            self.shared.refusals.count("store", 1);
        }
        Ok(set)
    }

    fn remove(&mut self, key: String) -> wasmtime::Result<()> {
        self.charge(CALL_COST + key.len() as u64)?;
        if self.may_use("store.remove", "store", &CHANGING) {
            self.draft().remove(&key);
        }
        Ok(())
    }
}

impl State {
    fn draft(&mut self) -> &mut Values {
        let (shared, tenant) = (&self.shared, &self.tenant);
        self.draft.get_or_insert_with(|| {
            let tenant = tenant.as_ref().expect("a tick has a tenant");
            shared.store.values(tenant.as_str()).as_ref().clone()
        })
    }
}
