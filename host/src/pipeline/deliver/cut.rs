//! Entries in parts, where that holds up nobody.

use crate::batch::Entry;
use std::ops::Range;
use std::sync::Arc;

/// What is smaller is cut well within half a millisecond, and stays on the executor.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// These rows of an entry (ascending, apart), each run an entry.
pub(super) async fn runs(entry: &Arc<Entry>, runs: Vec<Range<u32>>) -> Vec<Entry> {
    if entry.bytes.len() <= INLINE_BYTES_MAX {
        return runs_now(entry, &runs);
    }
    let entry = entry.clone();
    let cut = tokio::task::spawn_blocking(move || runs_now(&entry, &runs)).await;
    cut.expect("no bytes make the cutting panic, and it is not cancelled while somebody waits")
}

/// Halved from run to run, so that many of them do not each walk over the whole.
fn runs_now(entry: &Entry, runs: &[Range<u32>]) -> Vec<Entry> {
    match runs {
        [] => Vec::new(),
        [run] => vec![entry.rows(run.clone())],
        [_, ..] => {
            let (first, second) = runs.split_at(runs.len() / 2);
            let middle = second[0].start;
            let mut cut = runs_now(&entry.rows(0..middle), first);
            let second: Vec<_> = second.iter().map(|run| run.start - middle..run.end - middle).collect();
            cut.extend(runs_now(&entry.rows(middle..u32::MAX), &second));
            cut
        }
    }
}

/// The rows that were refused (ascending), neighbours of one reason together.
pub(super) async fn refused(
    entry: &Arc<Entry>,
    rows: Vec<(u32, &'static str)>,
) -> Vec<(Entry, &'static str)> {
    let mut together: Vec<(Range<u32>, &'static str)> = Vec::new();
    for (row, reason) in rows {
        match together.last_mut() {
            Some((run, last)) if run.end == row && *last == reason => run.end += 1,
            _ => together.push((row..row + 1, reason)),
        }
    }
    let (rows, reasons): (Vec<_>, Vec<_>) = together.into_iter().unzip();
    runs(entry, rows).await.into_iter().zip(reasons).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Items, ProjectId, Signal, Stream, TenantId};
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use prost::Message;

    fn entry(records: u32) -> Arc<Entry> {
        let record = |at| LogRecord { flags: at + 1, ..LogRecord::default() };
        let scope_logs =
            vec![ScopeLogs { log_records: (0..records).map(record).collect(), ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        let bytes = ExportLogsServiceRequest { resource_logs }.encode_to_vec().into();
        let stream = Stream { tenant: TenantId::new("t").unwrap(), project: ProjectId::default_project() };
        Arc::new(Entry { stream, signal: Signal::Logs, first: 10, records, time_ms: 1, node: [0; 4], bytes })
    }

    fn flags(entry: &Entry) -> Vec<u32> {
        let items = Items::over(entry.signal, &entry.bytes);
        items.map(|parts| LogRecord::decode(parts.item).unwrap().flags - 1).collect()
    }

    #[tokio::test]
    async fn neighbours_of_one_reason_stand_together_and_each_is_the_record_it_was() {
        // Small, and too large for the executor.
        for records in [200, 100_000] {
            let entry = entry(records);
            let rows = vec![(0, "a"), (1, "a"), (2, "b"), (7, "b"), (8, "b"), (records - 1, "a")];
            let cut = refused(&entry, rows).await;
            let cut: Vec<_> = cut.iter().map(|(part, reason)| (part.first, flags(part), *reason)).collect();
            let last = records - 1;
            assert_eq!(
                cut,
                [
                    (10, vec![0, 1], "a"),
                    (12, vec![2], "b"),
                    (17, vec![7, 8], "b"),
                    (10 + u64::from(last), vec![last], "a"),
                ]
            );
        }
        assert!(refused(&entry(3), Vec::new()).await.is_empty());
    }
}
