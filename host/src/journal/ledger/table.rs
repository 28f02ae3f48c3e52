//! The ledger as it is shown: a table for people and tests, lines for `/metrics`.

use super::{Account, Counts, Ledger, SinkAccount, State, signed};
use crate::batch::{Signal, TenantId};
use crate::telemetry::{Labels, OTHERS};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// All lines at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LedgerTable {
    /// One per tenant and signal that sent something, the largest first.
    pub lines: Vec<LineTable>,
}

/// One tenant's one signal, in records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LineTable {
    pub tenant: String,
    pub signal: &'static str,
    pub received: u64,
    pub acknowledged: u64,
    pub refused: BTreeMap<String, u64>,
    pub cancelled: u64,
    pub in_process: i64,
    pub added: BTreeMap<String, u64>,
    pub filtered: BTreeMap<String, u64>,
    pub dropped: BTreeMap<String, u64>,
    pub unrouted: u64,
    pub committed: u64,
    /// By the sink's name; only sinks that were given something.
    pub sinks: BTreeMap<String, SinkTable>,
}

/// What one sink was given of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SinkTable {
    pub committed: u64,
    pub delivered: u64,
    pub rejected: BTreeMap<String, u64>,
    pub unsupported: u64,
    pub dead_lettered: BTreeMap<String, u64>,
    pub expired: BTreeMap<String, u64>,
    pub in_flight: i64,
}

/// A line that does not add up, and what it lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    pub tenant: String,
    pub signal: &'static str,
    /// `received`, `acknowledged`, or the name of a sink.
    pub line: String,
    pub lacks: i64,
}

impl LedgerTable {
    /// The lines that do not add up. Always empty, unless we have a bug.
    pub fn unaccounted(&self) -> Vec<Line> {
        self.lines.iter().flat_map(LineTable::unaccounted).collect()
    }

    /// The line of this tenant and signal; all zero if it never sent.
    pub fn line(&self, tenant: &str, signal: Signal) -> LineTable {
        let found = self.lines.iter().find(|line| line.tenant == tenant && line.signal == signal.name());
        found.cloned().unwrap_or_else(|| LineTable {
            tenant: tenant.into(),
            signal: signal.name(),
            ..LineTable::default()
        })
    }
}

impl LineTable {
    fn unaccounted(&self) -> Vec<Line> {
        let first = self.lacks_received();
        let second = self.lacks_acknowledged();
        let lines = [("received", first), ("acknowledged", second)].into_iter();
        let sinks = self.sinks.iter().map(|(name, sink)| (name.as_str(), sink.lacks()));
        lines
            .chain(sinks)
            .filter(|(_, lacks)| *lacks != 0)
            .map(|(line, lacks)| Line {
                tenant: self.tenant.clone(),
                signal: self.signal,
                line: line.into(),
                lacks,
            })
            .collect()
    }

    fn lacks_received(&self) -> i64 {
        signed(self.received)
            - signed(self.acknowledged)
            - sum(&self.refused)
            - signed(self.cancelled)
            - self.in_process
    }

    fn lacks_acknowledged(&self) -> i64 {
        signed(self.acknowledged) + sum(&self.added)
            - sum(&self.filtered)
            - sum(&self.dropped)
            - signed(self.unrouted)
            - signed(self.committed)
    }

    /// Adds another line to this one, whose tenant it keeps.
    fn join(&mut self, other: &LineTable) {
        self.received += other.received;
        self.acknowledged += other.acknowledged;
        join(&mut self.refused, &other.refused);
        self.cancelled += other.cancelled;
        self.in_process += other.in_process;
        join(&mut self.added, &other.added);
        join(&mut self.filtered, &other.filtered);
        join(&mut self.dropped, &other.dropped);
        self.unrouted += other.unrouted;
        self.committed += other.committed;
        for (name, sink) in &other.sinks {
            self.sinks.entry(name.clone()).or_default().join(sink);
        }
    }
}

impl SinkTable {
    fn lacks(&self) -> i64 {
        signed(self.committed)
            - signed(self.delivered)
            - sum(&self.rejected)
            - signed(self.unsupported)
            - sum(&self.dead_lettered)
            - sum(&self.expired)
            - self.in_flight
    }

    fn join(&mut self, other: &SinkTable) {
        self.committed += other.committed;
        self.delivered += other.delivered;
        join(&mut self.rejected, &other.rejected);
        self.unsupported += other.unsupported;
        join(&mut self.dead_lettered, &other.dead_lettered);
        join(&mut self.expired, &other.expired);
        self.in_flight += other.in_flight;
    }
}

pub(super) fn snapshot(state: &State, sinks: &[String]) -> LedgerTable {
    let mut lines: Vec<LineTable> = state
        .accounts
        .iter()
        .map(|((tenant, signal), account)| line(tenant, *signal, account, sinks))
        .collect();
    lines.sort_by(|a, b| {
        b.received.cmp(&a.received).then_with(|| (&a.tenant, a.signal).cmp(&(&b.tenant, b.signal)))
    });
    LedgerTable { lines }
}

fn line(tenant: &TenantId, signal: Signal, account: &Account, sinks: &[String]) -> LineTable {
    LineTable {
        tenant: tenant.to_string(),
        signal: signal.name(),
        received: account.received,
        acknowledged: account.acknowledged,
        refused: named(&account.refused),
        cancelled: account.cancelled,
        in_process: account.in_process,
        added: named(&account.added),
        filtered: named(&account.filtered),
        dropped: named(&account.dropped),
        unrouted: account.unrouted,
        committed: account.committed,
        sinks: account
            .sinks
            .iter()
            .enumerate()
            .filter(|(_, sink)| sink.committed > 0)
            .map(|(at, sink)| (sinks.get(at).cloned().unwrap_or_else(|| at.to_string()), sink_line(sink)))
            .collect(),
    }
}

fn sink_line(sink: &SinkAccount) -> SinkTable {
    SinkTable {
        committed: sink.committed,
        delivered: sink.delivered,
        rejected: named(&sink.rejected),
        unsupported: sink.unsupported,
        dead_lettered: named(&sink.dead_lettered),
        expired: named(&sink.expired),
        in_flight: sink.in_flight,
    }
}

fn named(counts: &Counts) -> BTreeMap<String, u64> {
    counts.iter().map(|(reason, records)| (reason.to_string(), *records)).collect()
}

fn sum(counts: &BTreeMap<String, u64>) -> i64 {
    counts.values().map(|records| signed(*records)).sum()
}

fn join(to: &mut BTreeMap<String, u64>, counts: &BTreeMap<String, u64>) {
    for (reason, records) in counts {
        *to.entry(reason.clone()).or_default() += records;
    }
}

impl Ledger {
    /// The lines as `/metrics` shows them: the busiest tenants by name, the others as one.
    fn labelled(&self) -> Vec<LineTable> {
        let table = self.snapshot();
        // The busiest come first.
        table.lines.iter().for_each(|line| self.labels.give(&line.tenant));
        let none = TenantId::none();
        let is_labelled = |line: &LineTable| line.tenant == none.as_str() || self.labels.has(&line.tenant);
        let (mut lines, others): (Vec<_>, Vec<_>) = table.lines.into_iter().partition(is_labelled);
        for signal in Signal::ALL.map(Signal::name) {
            let mut joined = LineTable { tenant: OTHERS.into(), signal, ..LineTable::default() };
            let mut same = others.iter().filter(|line| line.signal == signal).peekable();
            if same.peek().is_some() {
                same.for_each(|line| joined.join(line));
                lines.push(joined);
            }
        }
        lines
    }
}

/// Labels and the count under them.
type Sample = (Labels, i64);

impl Collector for Ledger {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let lines = self.labelled();
        for shown in SHOWN {
            let kind = if shown.is_gauge { MetricType::Gauge } else { MetricType::Counter };
            let name = format!("ledger_{}_records", shown.name);
            let mut metric = encoder.encode_descriptor(&name, shown.help, None, kind)?;
            for line in &lines {
                for sample in (shown.samples)(line) {
                    encode(&mut metric, line, sample, shown.is_gauge)?;
                }
            }
        }
        Ok(())
    }
}

/// One metric of the ledger.
struct Shown {
    name: &'static str,
    help: &'static str,
    is_gauge: bool,
    samples: fn(&LineTable) -> Vec<Sample>,
}

const fn counter(name: &'static str, help: &'static str, samples: fn(&LineTable) -> Vec<Sample>) -> Shown {
    Shown { name, help, is_gauge: false, samples }
}

const fn gauge(name: &'static str, help: &'static str, samples: fn(&LineTable) -> Vec<Sample>) -> Shown {
    Shown { name, help, is_gauge: true, samples }
}

const SHOWN: &[Shown] = &[
    counter("received", "Records that senders sent", |l| one(signed(l.received))),
    counter("acknowledged", "Records that senders were told are taken", |l| one(signed(l.acknowledged))),
    counter("refused", "Records that senders were told are not taken", |l| by("reason", &l.refused)),
    counter("cancelled", "Records whose sender went away first", |l| one(signed(l.cancelled))),
    gauge("in_process", "Records on the way to the journal", |l| one(l.in_process)),
    counter("added", "Records that plugins made", |l| by("plugin", &l.added)),
    counter("filtered", "Records that plugins dropped, as they are made to", |l| by("plugin", &l.filtered)),
    counter("dropped", "Acknowledged records that were dropped", |l| by("reason", &l.dropped)),
    counter("unrouted", "Acknowledged records that no sink wants", |l| one(signed(l.unrouted))),
    counter("committed", "Records that the journal took", |l| one(signed(l.committed))),
    counter("sink_committed", "Records that the journal took for a sink", |l| {
        by_sink(l, |sink| signed(sink.committed))
    }),
    counter("delivered", "Records that a sink took", |l| by_sink(l, |sink| signed(sink.delivered))),
    counter("rejected", "Records that a sink refused for good, and that are gone", |l| {
        by_sink_and_reason(l, |sink| &sink.rejected)
    }),
    counter(
        "dead_lettered",
        "Records that a sink refused for good, and that are kept as dead letters",
        |l| by_sink_and_reason(l, |sink| &sink.dead_lettered),
    ),
    counter("unsupported", "Records that a sink has no form for", |l| {
        by_sink(l, |sink| signed(sink.unsupported))
    }),
    counter("expired", "Records that a sink did not take in time", |l| {
        by_sink_and_reason(l, |sink| &sink.expired)
    }),
    gauge("in_flight", "Records that a sink still has to take", |l| by_sink(l, |sink| sink.in_flight)),
    gauge("unaccounted", "What the lines lack: zero, or the collector has a bug", |l| {
        let mut samples = vec![
            (vec![("line", "received".into())], l.lacks_received()),
            (vec![("line", "acknowledged".into())], l.lacks_acknowledged()),
        ];
        let sinks = l
            .sinks
            .iter()
            .map(|(name, sink)| (vec![("line", "sink".to_owned()), ("sink", name.clone())], sink.lacks()));
        samples.extend(sinks);
        samples
    }),
];

fn one(records: i64) -> Vec<Sample> {
    vec![(Vec::new(), records)]
}

fn by(label: &'static str, counts: &BTreeMap<String, u64>) -> Vec<Sample> {
    counts.iter().map(|(value, records)| (vec![(label, value.clone())], signed(*records))).collect()
}

fn by_sink(line: &LineTable, records: fn(&SinkTable) -> i64) -> Vec<Sample> {
    line.sinks.iter().map(|(name, sink)| (vec![("sink", name.clone())], records(sink))).collect()
}

fn by_sink_and_reason(line: &LineTable, counts: fn(&SinkTable) -> &BTreeMap<String, u64>) -> Vec<Sample> {
    let samples = line.sinks.iter().flat_map(|(name, sink)| {
        counts(sink).iter().map(move |(reason, records)| {
            (vec![("sink", name.clone()), ("reason", reason.clone())], signed(*records))
        })
    });
    samples.collect()
}

fn encode(
    metric: &mut MetricEncoder,
    line: &LineTable,
    sample: Sample,
    is_gauge: bool,
) -> Result<(), fmt::Error> {
    let (own, records) = sample;
    let mut labels = vec![("tenant", line.tenant.clone()), ("signal", line.signal.to_owned())];
    labels.extend(own);
    let mut metric = metric.encode_family(&labels)?;
    if is_gauge {
        return metric.encode_gauge(&records);
    }
    metric.encode_counter(&records.unsigned_abs(), None::<&Exemplar<Labels, u64>>)
}
