//! Interface `series`: values are added up per call, and join their window when the request is committed.

use super::super::bindings::trommel::plugin::series as wit;
use super::super::effects::fitted_key;
use super::super::limits::HIT_COST;
use super::{CALL_COST, Phase, State};

impl wit::Host for State {
    fn add(&mut self, key: String, value: f64) -> wasmtime::Result<()> {
        self.charge(CALL_COST + key.len() as u64)?;
        if self.may_use("series.add", "series", &[Phase::Process]) {
            self.add_value(key, value);
        }
        Ok(())
    }

    fn add_all(&mut self, keys: Vec<String>, values: Vec<f64>) -> wasmtime::Result<()> {
        let bytes: u64 = keys.iter().map(|key| key.len() as u64 + HIT_COST).sum();
        self.charge(CALL_COST + bytes + values.len() as u64 * 8)?;
        if !self.may_use("series.add-all", "series", &[Phase::Process]) {
            return Ok(());
        }
        if keys.len() != values.len() {
            let (keys, values) = (keys.len(), values.len());
            let () = self.note(format!("series.add-all: {keys} keys for {values} values"));
            return Ok(());
        }
        for (key, value) in keys.into_iter().zip(values) {
            self.add_value(key, value);
        }
        Ok(())
    }
}

impl State {
    fn add_value(&mut self, key: String, value: f64) {
        match value.is_finite() {
            true => self.effects.add_to_series(fitted_key(key), value),
            // One of them would make the sum of the whole window useless.
            false => self.left_out.values += 1,
        }
    }
}
