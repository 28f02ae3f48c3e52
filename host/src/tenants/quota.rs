//! Quotas: how much a tenant may send in a second, and how much of the journal it may hold.
//!
//! A bucket holds `burst` worth of its rate and fills at that rate. What a request takes may be more than is in it: the
//! rest is owed, and nothing more is taken until that is paid back. So a request of any size is taken some time, and
//! over any interval a tenant takes at most rate × interval + burst + one request. Nothing waits, and what is refused
//! takes nothing. The arithmetic is in integers and exact.

use crate::batch::TenantId;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// Buckets are looked through for full ones when there are so many, and then when there are twice as many as were left.
const SWEPT_MIN: usize = 1024;
/// For so long a share of the journal that was full is taken to be full; no sender is told to come back earlier.
const FULL_FOR: Duration = Duration::from_secs(1);

/// What one tenant may take; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Uncompressed bytes in a second.
    pub bytes: Option<u64>,
    /// Records in a second.
    pub records: Option<u64>,
    /// How much may come at once: what so much time allows. More than zero, a day at most.
    pub burst: Duration,
    /// Bytes of the journal that it may hold.
    pub journal_bytes: Option<u64>,
}

impl Default for Quota {
    /// No limit. A sender's exporter keeps what it cannot send and sends it at once when it can: ten seconds are the
    /// pauses and deadlines that exporters have.
    fn default() -> Quota {
        Quota { bytes: None, records: None, burst: Duration::from_secs(10), journal_bytes: None }
    }
}

/// The quotas of all tenants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuotaSettings {
    /// Of each tenant that has none of its own.
    pub default: Quota,
    pub tenants: BTreeMap<TenantId, Quota>,
}

impl QuotaSettings {
    fn of(&self, tenant: &TenantId) -> &Quota {
        self.tenants.get(tenant).unwrap_or(&self.default)
    }
}

/// What a quota limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    Bytes,
    Records,
    Journal,
}

impl Limited {
    /// For metrics.
    pub fn name(self) -> &'static str {
        match self {
            Limited::Bytes => "bytes",
            Limited::Records => "records",
            Limited::Journal => "journal",
        }
    }

    /// For the ledger.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Limited::Bytes => "quota_bytes",
            Limited::Records => "quota_records",
            Limited::Journal => "quota_journal",
        }
    }
}

/// A tenant that has taken what it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverQuota {
    pub tenant: TenantId,
    pub limited: Limited,
    /// Its limit: bytes or records in a second, or bytes of the journal.
    pub limit: u64,
    /// Until it may take something again; zero of the journal, where nobody knows.
    pub wait: Duration,
}

/// What a tenant's part of a request would take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) bytes: u64,
    pub(super) records: u64,
}

/// What the tenants have taken lately.
///
/// Buckets are as many as tenants that sent something within their burst: `seen` bounds these, and a bucket that is full
/// again is forgotten, since it says nothing.
#[derive(Debug)]
pub(super) struct Quotas {
    settings: QuotaSettings,
    /// There is nothing to look at for anybody.
    pub(super) is_without_limits: bool,
    accounts: Mutex<Accounts>,
}

#[derive(Debug)]
struct Accounts {
    buckets: HashMap<TenantId, Buckets>,
    swept_at: usize,
}

/// Those of one tenant; what is not limited is not counted.
#[derive(Clone, Copy, Debug)]
struct Buckets {
    bytes: Bucket,
    records: Bucket,
    journal_full_until: Option<Instant>,
}

/// Whose level is the burst less what is owed; counted in 10⁻⁹ of a byte or record, so that each nanosecond pays a
/// whole number.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    owed: u128,
    at: Instant,
}

impl Quotas {
    pub(super) fn new(settings: QuotaSettings) -> Quotas {
        let is_unlimited =
            |quota: &Quota| quota.bytes.is_none() && quota.records.is_none() && quota.journal_bytes.is_none();
        let is_without_limits =
            is_unlimited(&settings.default) && settings.tenants.values().all(is_unlimited);
        let accounts = Mutex::new(Accounts { buckets: HashMap::new(), swept_at: SWEPT_MIN });
        Quotas { settings, is_without_limits, accounts }
    }

    /// Takes what is asked, all of it or nothing. `held_bytes` says what the tenant holds of the journal.
    pub(super) fn take(
        &self,
        tenant: &TenantId,
        asked: Asked,
        held_bytes: &dyn Fn(&TenantId) -> u64,
        now: Instant,
    ) -> Result<(), OverQuota> {
        let quota = self.settings.of(tenant);
        let is_without_rates = quota.bytes.is_none() && quota.records.is_none();
        // Before the lock: the journal has its own.
        let is_journal_full = quota.journal_bytes.is_some_and(|limit| held_bytes(tenant) >= limit);
        if is_without_rates && !is_journal_full {
            return Ok(());
        }
        let mut accounts = self.accounts();
        let buckets = accounts.of(tenant, &self.settings, now);
        buckets.journal_full_until = is_journal_full.then(|| now + FULL_FOR);
        buckets.pay_back(quota, now);
        if let Some(over) = buckets.over(tenant, quota) {
            return Err(over);
        }
        buckets.take(quota, asked);
        Ok(())
    }

    /// Whether this tenant may take nothing at this moment, by what it sent in the last seconds.
    pub(super) fn over(&self, tenant: &TenantId, now: Instant) -> Option<OverQuota> {
        if self.is_without_limits {
            return None;
        }
        let quota = self.settings.of(tenant);
        let mut accounts = self.accounts();
        let buckets = accounts.buckets.get_mut(tenant)?;
        buckets.pay_back(quota, now);
        buckets.over(tenant, quota)
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().expect("nothing panics while the accounts are locked")
    }
}

impl Accounts {
    /// The buckets of a tenant; new ones are full.
    fn of(&mut self, tenant: &TenantId, settings: &QuotaSettings, now: Instant) -> &mut Buckets {
        if self.buckets.len() >= self.swept_at && !self.buckets.contains_key(tenant) {
            self.buckets.retain(|tenant, buckets| {
                buckets.pay_back(settings.of(tenant), now);
                !buckets.is_idle()
            });
            self.swept_at = SWEPT_MIN.max(2 * self.buckets.len());
        }
        let full = Bucket { owed: 0, at: now };
        self.buckets.entry(tenant.clone()).or_insert(Buckets {
            bytes: full,
            records: full,
            journal_full_until: None,
        })
    }
}

impl Buckets {
    fn pay_back(&mut self, quota: &Quota, now: Instant) {
        self.bytes.pay_back(quota.bytes.unwrap_or(0), now);
        self.records.pay_back(quota.records.unwrap_or(0), now);
        self.journal_full_until = self.journal_full_until.filter(|until| *until > now);
    }

    /// The journal, which has no time, or the bucket that is empty for the longest time.
    fn over(&self, tenant: &TenantId, quota: &Quota) -> Option<OverQuota> {
        if let (Some(limit), Some(_)) = (quota.journal_bytes, self.journal_full_until) {
            let limited = Limited::Journal;
            return Some(OverQuota { tenant: tenant.clone(), limited, limit, wait: Duration::ZERO });
        }
        let rates =
            [(Limited::Bytes, quota.bytes, &self.bytes), (Limited::Records, quota.records, &self.records)];
        let over = rates.into_iter().filter_map(|(limited, rate, bucket)| {
            let limit = rate?;
            let wait = bucket.wait(limit, quota.burst)?;
            Some(OverQuota { tenant: tenant.clone(), limited, limit, wait })
        });
        over.max_by_key(|over| over.wait)
    }

    fn take(&mut self, quota: &Quota, asked: Asked) {
        if quota.bytes.is_some() {
            self.bytes.take(asked.bytes);
        }
        if quota.records.is_some() {
            self.records.take(asked.records);
        }
    }

    /// Whether forgetting it changes nothing.
    fn is_idle(&self) -> bool {
        self.bytes.owed == 0 && self.records.owed == 0 && self.journal_full_until.is_none()
    }
}

impl Bucket {
    /// `now` may be earlier than the last time: threads look at the clock before they have the lock.
    fn pay_back(&mut self, rate: u64, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.owed = self.owed.saturating_sub(passed.as_nanos().saturating_mul(u128::from(rate)));
        self.at = self.at.max(now);
    }

    /// Until something is in it; `None` if something is.
    fn wait(&self, rate: u64, burst: Duration) -> Option<Duration> {
        let rate = u128::from(rate.max(1));
        let whole = burst.as_nanos().saturating_mul(rate);
        let lacking = (self.owed + 1).saturating_sub(whole);
        let nanos = lacking.div_ceil(rate);
        (nanos > 0).then(|| Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    fn take(&mut self, amount: u64) {
        self.owed = self.owed.saturating_add(u128::from(amount) * 1_000_000_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn quotas(default: Quota, tenants: &[(&str, Quota)]) -> Quotas {
        let tenants = tenants.iter().map(|(name, quota)| (id(name), *quota)).collect();
        Quotas::new(QuotaSettings { default, tenants })
    }

    /// 100 bytes and 10 records in a second, two seconds' worth at once.
    fn small() -> Quota {
        Quota { bytes: Some(100), records: Some(10), burst: 2 * SECOND, journal_bytes: None }
    }

    fn take(quotas: &Quotas, tenant: &str, bytes: u64, records: u64, now: Instant) -> Result<(), OverQuota> {
        quotas.take(&id(tenant), Asked { bytes, records }, &|_| 0, now)
    }

    /// As `limited wait`, or `taken`.
    fn shown(answer: Result<(), OverQuota>) -> String {
        match answer {
            Ok(()) => "taken".into(),
            Err(over) => format!("{} of {} in {:?}", over.limited.name(), over.limit, over.wait),
        }
    }

    #[test]
    fn a_burst_is_taken_at_once_and_then_what_the_rate_allows() {
        let (quotas, start) = (quotas(small(), &[]), Instant::now());
        // (at so many ms, bytes, records, what becomes of it)
        let cases = [
            (0, 150, 1, "taken"),
            (0, 50, 1, "taken"),
            (0, 1, 1, "bytes of 100 in 1ns"),
            (500, 40, 1, "taken"),
            (500, 1, 1, "taken"),
            (500, 30, 1, "taken"),
            (500, 1, 1, "bytes of 100 in 210.000001ms"),
            (710, 1, 1, "bytes of 100 in 1ns"),
            (711, 1, 1, "taken"),
            (10_000, 199, 30, "taken"),
            (10_000, 0, 1, "records of 10 in 1.000000001s"),
            (11_000, 0, 1, "records of 10 in 1ns"),
            (11_001, 0, 1, "taken"),
        ];
        for (at, bytes, records, expected) in cases {
            let now = start + Duration::from_millis(at);
            assert_eq!(
                shown(take(&quotas, "acme", bytes, records, now)),
                expected,
                "at {at}: {bytes}, {records}"
            );
        }
    }

    #[test]
    fn a_request_larger_than_the_burst_is_taken_and_paid_back() {
        let (quotas, start) = (quotas(small(), &[]), Instant::now());
        assert_eq!(take(&quotas, "acme", 1_000, 1, start), Ok(()));
        let over = take(&quotas, "acme", 1, 1, start).unwrap_err();
        assert_eq!((over.limited, over.wait), (Limited::Bytes, 8 * SECOND + Duration::from_nanos(1)));
        assert!(take(&quotas, "acme", 1, 1, start + 8 * SECOND).is_err());
        assert_eq!(take(&quotas, "acme", 1_000, 1, start + over.wait), Ok(()));
    }

    #[test]
    fn what_is_refused_takes_nothing_of_either() {
        let (quotas, start) = (quotas(small(), &[]), Instant::now());
        take(&quotas, "acme", 0, 20, start).unwrap();
        for _ in 0..100 {
            assert!(take(&quotas, "acme", 1_000_000, 1_000, start).is_err());
        }
        assert_eq!(quotas.over(&id("acme"), start + Duration::from_nanos(1)), None);
        assert_eq!(take(&quotas, "acme", 199, 0, start + Duration::from_nanos(1)), Ok(()));
    }

    #[test]
    fn each_tenant_has_its_own_and_those_that_are_named_another() {
        let none = Quota::default();
        let (quotas, start) = (quotas(small(), &[("free", none)]), Instant::now());
        take(&quotas, "acme", 1_000, 0, start).unwrap();
        assert!(quotas.over(&id("acme"), start).is_some());
        assert_eq!(take(&quotas, "globex", 1, 0, start), Ok(()));
        for _ in 0..10 {
            assert_eq!(take(&quotas, "free", u64::MAX, u64::MAX, start), Ok(()));
        }
        assert_eq!((quotas.over(&id("free"), start), quotas.over(&id("globex"), start)), (None, None));
    }

    #[test]
    fn who_holds_its_share_of_the_journal_takes_nothing_until_it_holds_less() {
        let journal = Quota { journal_bytes: Some(500), ..small() };
        let (quotas, start) = (quotas(journal, &[]), Instant::now());
        let asked = Asked { bytes: 1_000, records: 1 };
        let over = quotas.take(&id("acme"), asked, &|_| 500, start).unwrap_err();
        assert_eq!((over.limited, over.limit, over.wait), (Limited::Journal, 500, Duration::ZERO));
        // For a second it is not asked for; then, or when somebody speaks for the tenant, it is.
        assert_eq!(quotas.over(&id("acme"), start), Some(over));
        assert_eq!(quotas.over(&id("acme"), start + SECOND), None);
        assert_eq!(quotas.take(&id("acme"), asked, &|_| 499, start), Ok(()), "nothing was taken before");
        assert_eq!(quotas.over(&id("acme"), start).map(|over| over.limited), Some(Limited::Bytes));
        let alone = Quota { bytes: None, records: None, ..journal };
        let quotas = self::quotas(alone, &[]);
        assert!(quotas.take(&id("acme"), asked, &|_| 500, start).is_err());
        assert!(quotas.over(&id("acme"), start).is_some());
        assert_eq!(quotas.over(&id("acme"), start + SECOND), None);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let day = Duration::from_secs(86_400);
        let most =
            Quota { bytes: Some(u64::MAX), records: Some(1), burst: day, journal_bytes: Some(u64::MAX) };
        let (quotas, start) = (quotas(most, &[]), Instant::now());
        for _ in 0..3 {
            take(&quotas, "acme", u64::MAX, u64::MAX, start).ok();
        }
        let over = take(&quotas, "acme", 1, 1, start + day).unwrap_err();
        assert_eq!((over.limited, over.wait), (Limited::Records, Duration::from_nanos(u64::MAX)));
    }

    #[test]
    fn a_clock_that_was_read_before_anothers_changes_nothing() {
        let (quotas, start) = (quotas(small(), &[]), Instant::now());
        take(&quotas, "acme", 1_000, 0, start + SECOND).unwrap();
        let wait = |now| quotas.over(&id("acme"), now).unwrap().wait;
        assert_eq!(wait(start), wait(start + SECOND));
        assert_eq!(wait(start + SECOND), 8 * SECOND + Duration::from_nanos(1));
    }

    #[test]
    fn buckets_that_are_full_again_are_forgotten() {
        let (quotas, start) = (quotas(small(), &[]), Instant::now());
        take(&quotas, "large", 100_000, 0, start).unwrap();
        for round in 0..20u32 {
            for number in 0..SWEPT_MIN {
                // Paid back after a tenth of a second.
                take(&quotas, &format!("{round}-{number}"), 10, 1, start + round * SECOND).unwrap();
            }
        }
        assert!(quotas.accounts().buckets.len() <= 2 * SWEPT_MIN, "{}", quotas.accounts().buckets.len());
        assert!(quotas.over(&id("large"), start + 20 * SECOND).is_some(), "what is owed is not forgotten");
    }

    proptest! {
        /// Requests of any size at any time, over any interval between two of them.
        #[test]
        fn over_any_interval_at_most_the_rate_the_burst_and_one_request_are_taken(
            rate in 1..2_000u64,
            burst_ms in 1..5_000u64,
            requests in prop::collection::vec((0..2_000u64, 0..5_000u64), 1..60),
        ) {
            let burst = Duration::from_millis(burst_ms);
            let quota = Quota { bytes: Some(rate), burst, ..Quota::default() };
            let (quotas, start) = (quotas(quota, &[]), Instant::now());
            let mut now = Duration::ZERO;
            let mut taken: Vec<(Duration, u64)> = Vec::new();
            for (pause_ms, bytes) in requests {
                now += Duration::from_millis(pause_ms);
                match take(&quotas, "acme", bytes, 1, start + now) {
                    Ok(()) => taken.push((now, bytes)),
                    Err(over) => {
                        // Exactly then, and not a nanosecond before.
                        let mut buckets = quotas.accounts().buckets[&id("acme")];
                        buckets.pay_back(&quota, start + now + over.wait - Duration::from_nanos(1));
                        prop_assert!(buckets.over(&id("acme"), &quota).is_some());
                        buckets.pay_back(&quota, start + now + over.wait);
                        prop_assert!(buckets.over(&id("acme"), &quota).is_none());
                    }
                }
            }
            for from in 0..taken.len() {
                for to in from..taken.len() {
                    let sum: u128 = taken[from..=to].iter().map(|(_, bytes)| u128::from(*bytes)).sum();
                    let largest = taken[from..=to].iter().map(|(_, bytes)| u128::from(*bytes)).max().unwrap();
                    let allowed_ns = (taken[to].0 - taken[from].0 + burst).as_nanos() * u128::from(rate);
                    prop_assert!(
                        sum * 1_000_000_000 <= allowed_ns + largest * 1_000_000_000,
                        "{} to {}: {} taken", from, to, sum
                    );
                }
            }
        }

        /// Whoever always comes back when told gets the whole rate.
        #[test]
        fn who_comes_back_when_told_gets_its_rate(
            rate in 1..100_000u64,
            bytes in 1..50_000u64,
        ) {
            let quota = Quota { bytes: Some(rate), burst: SECOND, ..Quota::default() };
            let (quotas, start) = (quotas(quota, &[]), Instant::now());
            let (mut now, mut sum) = (Duration::ZERO, 0u128);
            for _ in 0..200 {
                match take(&quotas, "acme", bytes, 1, start + now) {
                    Ok(()) => sum += u128::from(bytes),
                    Err(over) => now += over.wait,
                }
            }
            prop_assert!(sum * 1_000_000_000 >= now.as_nanos() * u128::from(rate));
        }
    }
}
