//! Token buckets for `host.limit`: one per tenant and key, shared by all instances of a plugin.

use std::collections::HashMap;
use std::sync::Mutex;

/// Buckets of one plugin, over all tenants.
const BUCKETS_MAX: usize = 10_000;
/// Buckets of one tenant, so that one cannot take the room of all.
const TENANT_BUCKETS_MAX: usize = 1_000;
const KEY_BYTES_MAX: usize = 256;
const SWEEP_EVERY_NS: u64 = 1_000_000_000;

#[derive(Debug, Default)]
pub(super) struct Buckets {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tenants: HashMap<String, HashMap<String, Bucket>>,
    number: usize,
    swept_ns: u64,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_ns: u64,
    per_second: f64,
    burst: f64,
}

impl Buckets {
    /// How many of `want` may pass now. A new bucket is full. `None`: there is no room for another bucket, so nothing
    /// passes, the safe answer of a limit. A bucket that is full again is forgotten when room is needed.
    pub(super) fn take(
        &self,
        tenant: &str,
        key: &str,
        want: u32,
        per_second: f64,
        burst: u32,
        now_ns: u64,
    ) -> Option<u32> {
        let is_number = per_second.is_finite() && per_second >= 0.0;
        if !is_number || key.len() > KEY_BYTES_MAX {
            return Some(0);
        }
        let mut state = self.state.lock().expect("no panic while the lock is held");
        if !state.has(tenant, key) && !state.make_room(tenant, now_ns) {
            return None;
        }
        let burst = f64::from(burst);
        let bucket =
            state.bucket(tenant, key, || Bucket { tokens: burst, filled_ns: now_ns, per_second, burst });
        bucket.per_second = per_second;
        bucket.burst = burst;
        bucket.fill(now_ns);
        let passed = f64::from(want).min(bucket.tokens.floor());
        bucket.tokens -= passed;
        Some(passed as u32)
    }
}

impl State {
    fn has(&self, tenant: &str, key: &str) -> bool {
        self.tenants.get(tenant).is_some_and(|keys| keys.contains_key(key))
    }

    fn bucket(&mut self, tenant: &str, key: &str, new: impl FnOnce() -> Bucket) -> &mut Bucket {
        if !self.has(tenant, key) {
            self.number += 1;
            self.tenants.entry(tenant.into()).or_default().insert(key.into(), new());
        }
        self.tenants
            .get_mut(tenant)
            .and_then(|keys| keys.get_mut(key))
            .expect("it is there, or was just put there")
    }

    fn make_room(&mut self, tenant: &str, now_ns: u64) -> bool {
        if !self.is_full(tenant) {
            return true;
        }
        // Once a second: a sweep looks at every bucket.
        if now_ns.saturating_sub(self.swept_ns) < SWEEP_EVERY_NS {
            return false;
        }
        self.swept_ns = now_ns;
        for keys in self.tenants.values_mut() {
            keys.retain(|_, bucket| {
                bucket.fill(now_ns);
                bucket.tokens < bucket.burst
            });
        }
        self.tenants.retain(|_, keys| !keys.is_empty());
        self.number = self.tenants.values().map(HashMap::len).sum();
        !self.is_full(tenant)
    }

    fn is_full(&self, tenant: &str) -> bool {
        self.number >= BUCKETS_MAX
            || self.tenants.get(tenant).is_some_and(|keys| keys.len() >= TENANT_BUCKETS_MAX)
    }
}

impl Bucket {
    fn fill(&mut self, now_ns: u64) {
        let seconds = now_ns.saturating_sub(self.filled_ns) as f64 / 1e9;
        self.tokens = (self.tokens + seconds * self.per_second).min(self.burst);
        self.filled_ns = self.filled_ns.max(now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let buckets = Buckets::default();
        let take = |key, want, now| buckets.take("acme", key, want, 2.0, 5, now).unwrap();
        assert_eq!(take("a", 3, 0), 3);
        assert_eq!(take("a", 3, 0), 2);
        assert_eq!(take("a", 1, SECOND / 4), 0);
        assert_eq!(take("a", 9, SECOND), 2);
        assert_eq!(take("a", 9, 100 * SECOND), 5);
        assert_eq!(take("a", 9, 50 * SECOND), 0, "the clock went back");
        assert_eq!(take("b", 9, 0), 5, "another key is another bucket");
        assert_eq!(buckets.take("other", "a", 9, 2.0, 5, 100 * SECOND), Some(5), "so is another tenant");
    }

    #[test]
    fn nonsense_lets_nothing_pass() {
        let buckets = Buckets::default();
        for per_second in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(buckets.take("acme", "a", 1, per_second, 5, 0), Some(0));
        }
        assert_eq!(buckets.take("acme", &"k".repeat(257), 1, 1.0, 5, 0), Some(0));
    }

    #[test]
    fn one_tenant_with_many_keys_leaves_room_for_others() {
        let buckets = Buckets::default();
        let passed: u32 =
            (0..5000).filter_map(|at| buckets.take("acme", &at.to_string(), 1, 1.0, 1, 1)).sum();
        assert_eq!(passed, TENANT_BUCKETS_MAX as u32);
        assert_eq!(buckets.take("other", "a", 1, 1.0, 1, 1), Some(1));
        assert_eq!(buckets.take("acme", "late", 1, 1.0, 1, 10 * SECOND), Some(1), "full buckets made room");
    }
}
