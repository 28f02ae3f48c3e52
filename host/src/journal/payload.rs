//! What an entry and marks look like inside their frames; `docs/journal-format.md` describes the bytes.
//!
//! Pure functions. Any bytes can be decoded: what is no entry, or no marks, gives `None`.

use super::ledger::{Kept, KeptSink, Outcome, Reason};
use crate::batch::{ProjectId, Signal, Stream, TenantId};
use std::collections::BTreeMap;

/// One request, without the bytes of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The number of its first record.
    pub(super) first: u64,
    pub(super) time_ms: u64,
    pub(super) settled: Vec<Settled>,
    pub(super) parts: Vec<Part>,
}

/// What became of one tenant's records of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) tenant: TenantId,
    pub(super) signal: Signal,
    pub(super) outcome: Outcome,
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) stream: Stream,
    pub(super) signal: Signal,
    pub(super) records: u32,
    pub(super) bytes: u32,
    /// By the numbers that the journal gave to their names.
    pub(super) sinks: Vec<u16>,
}

/// How far everybody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    /// All accounts stand in it, and not only those that changed since the marks before.
    pub(super) is_full: bool,
    /// The number of the next record.
    pub(super) next: u64,
    pub(super) time_ms: u64,
    pub(super) sinks: Vec<SinkMark>,
    pub(super) accounts: Vec<AccountMark>,
}

/// How far a sink is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SinkMark {
    pub(super) number: u16,
    pub(super) name: String,
    /// Entries from this number on are outstanding.
    pub(super) frontier: u64,
    pub(super) charged_bytes: u64,
    /// First numbers of entries below the frontier that are outstanding as well.
    pub(super) open: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AccountMark {
    pub(super) tenant: TenantId,
    pub(super) signal: Signal,
    pub(super) kept: Kept,
}

impl Entry {
    /// The bytes of the parts follow these in the frame.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut meta = Vec::new();
        list(&mut meta, &self.settled, |to, settled| {
            text(to, settled.tenant.as_str());
            to.push(signal_byte(settled.signal));
            let Outcome { acknowledged, added, filtered, dropped, unrouted } = &settled.outcome;
            u64s(to, &[*acknowledged, *unrouted]);
            [added, filtered, dropped].into_iter().for_each(|of| counts(to, of));
        });
        list(&mut meta, &self.parts, |to, part| {
            text(to, part.stream.tenant.as_str());
            text(to, part.stream.project.as_str());
            to.push(signal_byte(part.signal));
            to.extend(part.records.to_le_bytes());
            to.extend(part.bytes.to_le_bytes());
            list(to, &part.sinks, |to, sink| to.extend(sink.to_le_bytes()));
        });
        let mut bytes = Vec::with_capacity(20 + meta.len());
        u64s(&mut bytes, &[self.first, self.time_ms]);
        bytes.extend(length(meta.len()).to_le_bytes());
        bytes.extend(meta);
        bytes
    }

    /// The entry and where the bytes of its parts begin.
    pub(super) fn decode(payload: &[u8]) -> Option<(Entry, usize)> {
        let mut from = Bytes(payload);
        let (first, time_ms) = (from.u64()?, from.u64()?);
        let meta = from.u32()? as usize;
        let mut from = Bytes(from.take(meta)?);
        let settled = from.list(|from| {
            let (tenant, signal) = (from.tenant()?, from.signal()?);
            let (acknowledged, unrouted) = (from.u64()?, from.u64()?);
            let (added, filtered, dropped) = (from.counts()?, from.counts()?, from.counts()?);
            Some(Settled {
                tenant,
                signal,
                outcome: Outcome { acknowledged, added, filtered, dropped, unrouted },
            })
        })?;
        let parts = from.list(|from| {
            let stream = Stream { tenant: from.tenant()?, project: ProjectId::new(from.text()?).ok()? };
            let (signal, records, bytes) = (from.signal()?, from.u32()?, from.u32()?);
            Some(Part { stream, signal, records, bytes, sinks: from.list(Bytes::u16)? })
        })?;
        let bytes: u64 = parts.iter().map(|part| u64::from(part.bytes)).sum();
        let records: u64 = parts.iter().map(|part| u64::from(part.records)).sum();
        let start = 20 + meta;
        let is_whole = from.0.is_empty() && bytes == (payload.len() - start) as u64;
        (is_whole && first.checked_add(records).is_some())
            .then_some((Entry { first, time_ms, settled, parts }, start))
    }

    pub(super) fn records(&self) -> u64 {
        self.parts.iter().map(|part| u64::from(part.records)).sum()
    }
}

impl Marks {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.is_full)];
        u64s(&mut bytes, &[self.next, self.time_ms]);
        list(&mut bytes, &self.sinks, |to, sink| {
            to.extend(sink.number.to_le_bytes());
            text(to, &sink.name);
            u64s(to, &[sink.frontier, sink.charged_bytes]);
            list(to, &sink.open, |to, first| u64s(to, &[*first]));
        });
        list(&mut bytes, &self.accounts, |to, account| {
            text(to, account.tenant.as_str());
            to.push(signal_byte(account.signal));
            let Kept { acknowledged, unrouted, committed, added, filtered, dropped, sinks } = &account.kept;
            u64s(to, &[*acknowledged, *unrouted, *committed]);
            [added, filtered, dropped].into_iter().for_each(|of| counts(to, of));
            to.extend(length(sinks.len()).to_le_bytes());
            for (number, sink) in sinks {
                to.extend(number.to_le_bytes());
                u64s(to, &[sink.committed, sink.delivered, sink.unsupported]);
                counts(to, &sink.rejected);
                counts(to, &sink.expired);
                u64s(to, &[sink.in_flight_bytes]);
            }
        });
        bytes
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Marks> {
        let mut from = Bytes(payload);
        let is_full = match from.take(1)? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let (next, time_ms) = (from.u64()?, from.u64()?);
        let sinks = from.list(|from| {
            let (number, name) = (from.u16()?, from.text()?.to_owned());
            let (frontier, charged_bytes) = (from.u64()?, from.u64()?);
            Some(SinkMark { number, name, frontier, charged_bytes, open: from.list(Bytes::u64)? })
        })?;
        let accounts = from.list(|from| {
            let (tenant, signal) = (from.tenant()?, from.signal()?);
            Some(AccountMark { tenant, signal, kept: from.kept()? })
        })?;
        from.0.is_empty().then_some(Marks { is_full, next, time_ms, sinks, accounts })
    }
}

fn signal_byte(signal: Signal) -> u8 {
    match signal {
        Signal::Logs => 1,
        Signal::Traces => 2,
        Signal::Metrics => 3,
    }
}

fn length(count: usize) -> u32 {
    u32::try_from(count).expect("a frame is smaller")
}

fn u64s(to: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|number| to.extend(number.to_le_bytes()));
}

fn list<T>(to: &mut Vec<u8>, of: &[T], encode: impl Fn(&mut Vec<u8>, &T)) {
    to.extend(length(of.len()).to_le_bytes());
    of.iter().for_each(|one| encode(to, one));
}

/// Names have 128 bytes at most; a longer text would be cut.
fn text(to: &mut Vec<u8>, text: &str) {
    let mut bytes = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(bytes) {
        bytes -= 1;
    }
    to.extend((bytes as u16).to_le_bytes());
    to.extend(&text.as_bytes()[..bytes]);
}

fn counts(to: &mut Vec<u8>, counts: &BTreeMap<Reason, u64>) {
    to.extend(length(counts.len()).to_le_bytes());
    for (reason, records) in counts {
        text(to, reason);
        u64s(to, &[*records]);
    }
}

/// What was not decoded yet.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let bytes = self.u16()?;
        std::str::from_utf8(self.take(bytes.into())?).ok()
    }

    fn tenant(&mut self) -> Option<TenantId> {
        let (name, none) = (self.text()?, TenantId::none());
        if name == none.as_str() { Some(none) } else { TenantId::new(name).ok() }
    }

    fn signal(&mut self) -> Option<Signal> {
        match self.take(1)? {
            [1] => Some(Signal::Logs),
            [2] => Some(Signal::Traces),
            [3] => Some(Signal::Metrics),
            _ => None,
        }
    }

    /// Nothing is taken in advance for what the count says: it may be anything.
    fn list<T>(&mut self, mut decode: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..self.u32()?).map(|_| decode(self)).collect()
    }

    fn counts(&mut self) -> Option<BTreeMap<Reason, u64>> {
        let counts = self.list(|from| Some((from.text()?.to_owned().into(), from.u64()?)))?;
        Some(counts.into_iter().collect())
    }

    fn kept(&mut self) -> Option<Kept> {
        let (acknowledged, unrouted, committed) = (self.u64()?, self.u64()?, self.u64()?);
        let (added, filtered, dropped) = (self.counts()?, self.counts()?, self.counts()?);
        let sinks = self.list(|from| {
            let number = from.u16()?;
            let (committed, delivered, unsupported) = (from.u64()?, from.u64()?, from.u64()?);
            let (rejected, expired) = (from.counts()?, from.counts()?);
            let in_flight_bytes = from.u64()?;
            Some((number, KeptSink { committed, delivered, unsupported, rejected, expired, in_flight_bytes }))
        })?;
        let sinks = sinks.into_iter().collect();
        Some(Kept { acknowledged, unrouted, committed, added, filtered, dropped, sinks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    fn tenants() -> impl Strategy<Value = TenantId> {
        prop_oneof![Just(TenantId::none()), "[a-z]{1,12}".prop_map(|name| TenantId::new(&name).unwrap())]
    }

    fn signals() -> impl Strategy<Value = Signal> {
        (0usize..3).prop_map(|at| Signal::ALL[at])
    }

    fn some_counts() -> impl Strategy<Value = BTreeMap<Reason, u64>> {
        btree_map("[a-zé:]{0,9}".prop_map(Reason::from), any::<u64>(), 0..3)
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let settled = (tenants(), signals(), any::<[u64; 2]>(), some_counts(), some_counts(), some_counts());
        let settled =
            settled.prop_map(|(tenant, signal, [acknowledged, unrouted], added, filtered, dropped)| {
                let outcome = Outcome { acknowledged, added, filtered, dropped, unrouted };
                Settled { tenant, signal, outcome }
            });
        let part = (tenants(), "[a-z]{1,9}", signals(), any::<u32>(), 0u32..50, vec(any::<u16>(), 0..4));
        let part = part.prop_map(|(tenant, project, signal, records, bytes, sinks)| Part {
            stream: Stream { tenant, project: ProjectId::new(&project).unwrap() },
            signal,
            records,
            bytes,
            sinks,
        });
        (0..u64::MAX / 2, any::<u64>(), vec(settled, 0..4), vec(part, 0..4))
            .prop_map(|(first, time_ms, settled, parts)| Entry { first, time_ms, settled, parts })
    }

    fn marks() -> impl Strategy<Value = Marks> {
        let sink = (any::<u16>(), "[a-z]{0,9}", any::<[u64; 2]>(), vec(any::<u64>(), 0..4)).prop_map(
            |(number, name, [frontier, charged_bytes], open)| SinkMark {
                number,
                name,
                frontier,
                charged_bytes,
                open,
            },
        );
        let kept_sink = (any::<[u64; 4]>(), some_counts(), some_counts()).prop_map(
            |([committed, delivered, unsupported, in_flight_bytes], rejected, expired)| KeptSink {
                committed,
                delivered,
                unsupported,
                rejected,
                expired,
                in_flight_bytes,
            },
        );
        let counts = (some_counts(), some_counts(), some_counts());
        let account =
            (tenants(), signals(), any::<[u64; 3]>(), counts, btree_map(any::<u16>(), kept_sink, 0..3));
        let account = account.prop_map(|(tenant, signal, numbers, (added, filtered, dropped), sinks)| {
            let [acknowledged, unrouted, committed] = numbers;
            let kept = Kept { acknowledged, unrouted, committed, added, filtered, dropped, sinks };
            AccountMark { tenant, signal, kept }
        });
        (any::<bool>(), any::<[u64; 2]>(), vec(sink, 0..4), vec(account, 0..4)).prop_map(
            |(is_full, [next, time_ms], sinks, accounts)| Marks { is_full, next, time_ms, sinks, accounts },
        )
    }

    proptest! {
        #[test]
        fn an_entry_is_decoded_as_it_was(entry in entries()) {
            let mut payload = entry.encode();
            let start = payload.len();
            let bytes: usize = entry.parts.iter().map(|part| part.bytes as usize).sum();
            payload.resize(start + bytes, b'x');
            prop_assert_eq!(Entry::decode(&payload), Some((entry, start)));
            payload.push(0);
            prop_assert_eq!(Entry::decode(&payload), None);
        }

        #[test]
        fn marks_are_decoded_as_they_were(marks in marks()) {
            let mut payload = marks.encode();
            prop_assert_eq!(Marks::decode(&payload), Some(marks));
            payload.push(0);
            prop_assert_eq!(Marks::decode(&payload), None);
        }

        #[test]
        fn any_bytes_can_be_decoded(bytes in vec(any::<u8>(), 0..300)) {
            let _ = (Entry::decode(&bytes), Marks::decode(&bytes));
        }

        #[test]
        fn what_was_changed_or_cut_can_be_decoded(
            entry in entries(), marks in marks(), at in any::<usize>(), byte in any::<u8>(),
        ) {
            for mut bytes in [entry.encode(), marks.encode()] {
                let at = at % bytes.len();
                bytes[at] = byte;
                let _ = (Entry::decode(&bytes), Marks::decode(&bytes));
                let _ = (Entry::decode(&bytes[..at]), Marks::decode(&bytes[..at]));
            }
        }
    }
}
