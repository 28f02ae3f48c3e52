//! What plugins left beside their edits, until the request is committed.
//!
//! Each call is bounded by the sandbox, and a request by what its own bytes allow: the requests that are on their way
//! are bounded by the room, so what they leave is too.

use super::series::OTHERS;
use crate::batch::{Piece, Signal, Stream, TenantId};
use crate::sandbox::{AlertEffect, Cell, Effects, Quarantined};
use std::collections::BTreeMap;

/// What one request may leave beside as many bytes as it has itself: the effects of a few pieces, whatever they are.
const BYTES_MIN: usize = 1 << 20;
/// A key of a series beside its text.
const CELL_BYTES: usize = size_of::<Cell>() + 64;

/// What the plugins of a request left.
#[derive(Debug)]
pub(super) struct Leavings {
    /// In the order of the batches, and within one in the order of its plugins.
    all: Vec<Left>,
    /// Where the batch at hand begins.
    batch: usize,
    bytes: usize,
    /// Of the records that were put aside.
    aside_bytes: usize,
    bytes_max: usize,
}

/// What a plugin left of one batch.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) plugin: String,
    pub(super) tenant: TenantId,
    pub(super) effects: Effects,
    /// Alerts that are not among the effects, since the request had left too much.
    pub(super) refused_alerts: u64,
    /// Identity attributes of resources that it changed; they are put right after the chain.
    pub(super) forged: u32,
    /// Records that passed it all the same, by why.
    pub(super) passed: BTreeMap<&'static str, u64>,
    /// Records that go to the dead letters if the request is committed.
    pub(super) aside: Vec<PutAside>,
    /// Records that should, and are too much.
    pub(super) not_aside: u64,
}

/// Records that a plugin failed on, as they were before it.
#[derive(Debug)]
pub(super) struct PutAside {
    pub(super) stream: Stream,
    pub(super) signal: Signal,
    pub(super) records: Quarantined,
}

impl Leavings {
    /// Of a request of so many bytes.
    pub(super) fn new(request_bytes: usize) -> Leavings {
        Leavings { all: Vec::new(), batch: 0, bytes: 0, aside_bytes: 0, bytes_max: BYTES_MIN + request_bytes }
    }

    /// What comes from now on is of another batch.
    pub(super) fn begin_batch(&mut self) {
        self.batch = self.all.len();
    }

    /// Nothing is left of the batch at hand.
    pub(super) fn forget_batch(&mut self) {
        self.all.truncate(self.batch);
    }

    /// One entry per plugin and batch, however many pieces there are. Beyond the bound what is added to new keys is added
    /// to `_other`, and new alerts are refused.
    pub(super) fn keep(&mut self, left: Vec<Left>) {
        for mut later in left {
            let known = self.all[self.batch..].iter().position(|known| known.plugin == later.plugin);
            let known = known.map(|at| self.batch + at);
            for put_aside in std::mem::take(&mut later.aside) {
                let bytes = self.aside_bytes + put_aside.records.bytes.len();
                match bytes <= self.bytes_max {
                    true => {
                        self.aside_bytes = bytes;
                        later.aside.push(put_aside);
                    }
                    false => later.not_aside += u64::from(put_aside.records.records),
                }
            }
            if self.bytes > self.bytes_max {
                later.cut(known.map(|at| &self.all[at].effects));
            }
            let (cells, alerts) = match known {
                Some(at) => self.all[at].merge(later),
                None => {
                    let bytes = alert_bytes(&later.effects.alerts);
                    let cells = later.effects.series.len();
                    self.all.push(later);
                    (cells, bytes)
                }
            };
            self.bytes += cells * CELL_BYTES + alerts;
        }
    }

    /// Whether a plugin was seen to change the identity attributes of the batch at hand.
    pub(super) fn is_any_forged(&self) -> bool {
        self.all[self.batch..].iter().any(|left| left.forged > 0)
    }

    pub(super) fn into_all(self) -> Vec<Left> {
        self.all
    }
}

impl Left {
    pub(super) fn of(plugin: &str, tenant: &TenantId) -> Left {
        Left {
            plugin: plugin.to_owned(),
            tenant: tenant.clone(),
            effects: Effects::default(),
            refused_alerts: 0,
            forged: 0,
            passed: BTreeMap::new(),
            aside: Vec::new(),
            not_aside: 0,
        }
    }

    pub(super) fn passed(mut self, why: &'static str, records: u64) -> Left {
        if records > 0 {
            *self.passed.entry(why).or_default() += records;
        }
        self
    }

    /// Of a piece, so many records are to be put aside: these, and the others are too much.
    pub(super) fn put_aside(&mut self, piece: &Piece, quarantined: Vec<Quarantined>, records: u32) {
        let kept: u32 = quarantined.iter().map(|one| one.records).sum();
        self.not_aside += u64::from(records.saturating_sub(kept));
        let (stream, signal) = (piece.stream(), piece.signal());
        let put_aside = |records| PutAside { stream: stream.clone(), signal, records };
        self.aside.extend(quarantined.into_iter().map(put_aside));
    }

    pub(super) fn is_empty(&self) -> bool {
        let Left { plugin: _, tenant: _, effects, refused_alerts, forged, passed, aside, not_aside } = self;
        effects.is_empty()
            && *refused_alerts == 0
            && *forged == 0
            && passed.is_empty()
            && aside.is_empty()
            && *not_aside == 0
    }

    /// Adds what it left of a later piece; how many keys of series and bytes of alerts came with it.
    fn merge(&mut self, later: Left) -> (usize, usize) {
        let (cells, alerts) = (self.effects.series.len(), self.effects.alerts.len());
        let bytes = alert_bytes(&later.effects.alerts);
        self.effects.merge(later.effects);
        self.refused_alerts += later.refused_alerts;
        self.forged += later.forged;
        later.passed.into_iter().for_each(|(why, records)| *self.passed.entry(why).or_default() += records);
        self.aside.extend(later.aside);
        self.not_aside += later.not_aside;
        let bytes = if self.effects.alerts.len() > alerts { bytes } else { 0 };
        (self.effects.series.len().saturating_sub(cells), bytes)
    }

    /// Leaves no key that is not known: values are added to `_other`, alerts are refused.
    fn cut(&mut self, known: Option<&Effects>) {
        for (key, cell) in std::mem::take(&mut self.effects.series) {
            let is_known = known.is_some_and(|known| known.series.contains_key(&key));
            let key = if is_known { key } else { OTHERS.to_owned() };
            self.effects.series.entry(key).or_default().merge(&cell);
        }
        let before = self.effects.alerts.len();
        let is_known = |alert: &AlertEffect| {
            known.is_some_and(|known| known.alerts.iter().any(|one| one.key() == alert.key()))
        };
        self.effects.alerts.retain(is_known);
        self.refused_alerts += (before - self.effects.alerts.len()) as u64;
    }
}

fn alert_bytes(alerts: &[AlertEffect]) -> usize {
    let bytes = |alert: &AlertEffect| match alert {
        AlertEffect::Resolve(key) => key.len(),
        AlertEffect::Fire(alert) => {
            let labels = alert.labels.iter().map(|(name, value)| name.len() + value.len());
            alert.key.len() + alert.title.len() + alert.text.len() + labels.sum::<usize>()
        }
    };
    alerts.iter().map(|alert| size_of::<AlertEffect>() + bytes(alert)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{Alert, AlertSeverity};

    fn left(tenant: &str, key: usize, text_bytes: usize) -> Left {
        let mut cell = Cell::default();
        cell.add(1.0);
        let alert = Alert {
            key: format!("alert {key}"),
            severity: AlertSeverity::Info,
            title: String::new(),
            text: "x".repeat(text_bytes),
            count: 1,
            labels: Vec::new(),
        };
        let effects = Effects {
            counts: vec![("calls".into(), 1)],
            series: [(format!("key {key}"), cell)].into_iter().collect(),
            alerts: vec![AlertEffect::Fire(alert)],
            ..Effects::default()
        };
        Left { effects, ..Left::of("p", &TenantId::new(tenant).unwrap()) }
    }

    #[test]
    fn pieces_of_a_batch_are_one_and_batches_are_not() {
        let mut leavings = Leavings::new(0);
        for tenant in ["t", "u", "t"] {
            leavings.begin_batch();
            leavings.keep(vec![left(tenant, 1, 0)]);
            leavings.keep(vec![left(tenant, 1, 0), left(tenant, 2, 0)]);
        }
        let all = leavings.into_all();
        let shown: Vec<_> = all
            .iter()
            .map(|left| (left.tenant.as_str(), left.effects.series["key 1"].count, left.effects.alerts.len()))
            .collect();
        assert_eq!(shown, [("t", 2, 2), ("u", 2, 2), ("t", 2, 2)]);
    }

    #[test]
    fn a_request_that_leaves_too_much_keeps_its_sums_and_what_is_known() {
        let mut leavings = Leavings::new(1_000);
        for key in 0..2_000 {
            leavings.keep(vec![left("t", key, 16 << 10)]);
        }
        leavings.keep(vec![left("t", 0, 16 << 10)]);
        leavings.begin_batch();
        leavings.keep(vec![left("u", 0, 16 << 10)]);
        assert!(leavings.bytes < leavings.bytes_max + (20 << 10), "{}", leavings.bytes);
        let all = leavings.into_all();
        let [of_t, of_u] = &all[..] else { panic!("{} batches", all.len()) };
        let values: u64 = of_t.effects.series.values().map(|cell| cell.count).sum();
        let named = of_t.effects.series.len() as u64 - 1;
        assert_eq!((values, of_t.effects.series["key 0"].count), (2_001, 2));
        assert_eq!(of_t.effects.series[OTHERS].count, 2_000 - named);
        assert_eq!(of_t.effects.alerts.len() as u64 + of_t.refused_alerts, 2_000);
        assert!((50..70).contains(&of_t.effects.alerts.len()), "{}", of_t.effects.alerts.len());
        assert_eq!(of_t.effects.counts, [("calls".into(), 2_001)]);
        assert_eq!((of_u.effects.series[OTHERS].count, of_u.refused_alerts), (1, 1));
    }
}
