//! Logs into the tenants' streams.
//!
//! A store takes entries of many tenants at once and answers per record, so one delivery may join them. Only logs
//! have a form here.

use super::{Delivery, SendError, Sending, Sent};
use crate::batch::Signal;
use crate::streams::{Streams, Write};
use tracing::warn;

/// Stores a delivery. It returns when the records are on disk; dropped earlier, the write goes on to its end, and the
/// resend waits for it.
pub async fn send(streams: &Streams, delivery: &Delivery) -> Result<Sent, SendError> {
    if delivery.signal != Signal::Logs {
        let unsupported = delivery.entries.iter().map(|sending| u64::from(sending.entry.records)).sum();
        return Ok(Sent { unsupported, ..Sent::default() });
    }
    let written = streams
        .write(delivery.entries.iter().map(write_of).collect())
        .await
        .map_err(|error| SendError::Retry { after: error.after, reason: error.reason })?;
    if let Some(first) = written.collided.first() {
        let records = written.collided.len();
        warn!(records, first, "records have ids that other records have: is a journal used twice?");
    }
    let collided = written.collided.iter().map(|number| (*number, "id_collision"));
    let rejected = collided.chain(written.rejected).collect();
    Ok(Sent { rejected, presumed: written.presumed, ..Sent::default() })
}

fn write_of(sending: &Sending) -> Write {
    Write { entry: sending.entry.clone(), is_resend: sending.is_resend }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Entry, ProjectId, Stream, TenantId};
    use crate::streams::{History, Settings, StoreSettings};
    use crate::telemetry::Metrics;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use prost::Message;
    use std::sync::Arc;
    use std::time::Duration;

    fn stream(tenant: &str) -> Stream {
        Stream { tenant: TenantId::new(tenant).unwrap(), project: ProjectId::default_project() }
    }

    fn sending(tenant: &str, first: u64, name: &str, is_resend: bool) -> Sending {
        let record = LogRecord { event_name: name.into(), ..LogRecord::default() };
        let scope_logs = vec![ScopeLogs { log_records: vec![record; 2], ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        let bytes = ExportLogsServiceRequest { resource_logs }.encode_to_vec().into();
        let (stream, signal, node) = (stream(tenant), Signal::Logs, [1; 4]);
        let entry = Entry { stream, signal, first, records: 2, time_ms: 1_763_985_600_000, node, bytes };
        Sending { entry: Arc::new(entry), is_resend }
    }

    fn logs(entries: Vec<Sending>) -> Delivery {
        Delivery { signal: Signal::Logs, entries }
    }

    fn open() -> (Arc<Streams>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = StoreSettings::Embedded { folder: folder.path().to_owned() };
        let settings = Settings { store, retention: Duration::from_secs(86_400) };
        (Streams::open(settings, Metrics::new()).unwrap(), folder)
    }

    #[tokio::test]
    async fn a_delivery_of_many_tenants_is_stored_and_each_sees_its_own() {
        let (streams, _folder) = open();
        let delivery = logs(vec![sending("acme", 1, "a", false), sending("globex", 3, "b", false)]);
        assert_eq!(send(&streams, &delivery).await, Ok(Sent::default()));
        for (tenant, name) in [("acme", "\"a\""), ("globex", "\"b\"")] {
            let page = streams.history(&stream(tenant), History::default()).await.unwrap();
            assert_eq!(page.records.len(), 2);
            assert!(page.records.iter().all(|json| json.contains(&format!("\"event_name\":{name}"))));
        }
    }

    #[tokio::test]
    async fn other_signals_are_unsupported() {
        let (streams, _folder) = open();
        for signal in [Signal::Traces, Signal::Metrics] {
            let delivery = Delivery { signal, entries: vec![sending("acme", 1, "a", false); 2] };
            assert_eq!(send(&streams, &delivery).await, Ok(Sent { unsupported: 4, ..Sent::default() }));
        }
        assert_eq!(streams.history(&stream("acme"), History::default()).await.unwrap().records.len(), 0);
    }

    #[tokio::test]
    async fn a_resend_is_presumed_and_a_collision_is_rejected() {
        let (streams, _folder) = open();
        send(&streams, &logs(vec![sending("acme", 1, "a", false)])).await.unwrap();
        let sent = send(&streams, &logs(vec![sending("acme", 1, "a", true)])).await;
        assert_eq!(sent, Ok(Sent { presumed: 2, ..Sent::default() }));
        let sent = send(&streams, &logs(vec![sending("acme", 1, "other", false)])).await;
        let rejected = vec![(1, "id_collision"), (2, "id_collision")];
        assert_eq!(sent, Ok(Sent { rejected, ..Sent::default() }));
    }

    #[tokio::test]
    async fn a_store_that_is_closed_asks_for_another_try() {
        let (streams, _folder) = open();
        streams.close().await;
        let sent = send(&streams, &logs(vec![sending("acme", 1, "a", false)])).await;
        assert!(matches!(sent, Err(SendError::Retry { .. })), "{sent:?}");
    }

    #[tokio::test]
    async fn a_write_whose_caller_left_ends_before_the_resend_begins() {
        let (streams, _folder) = open();
        let held = streams.hold().await;
        let first = logs(vec![sending("acme", 1, "a", false)]);
        let left = tokio::time::timeout(Duration::from_millis(20), send(&streams, &first)).await;
        assert!(left.is_err(), "the store hangs");
        drop(held);
        let again = send(&streams, &logs(vec![sending("acme", 1, "a", true)])).await.unwrap();
        assert_eq!(again.rejected, []);
        assert_eq!(streams.history(&stream("acme"), History::default()).await.unwrap().records.len(), 2);
    }
}
