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
    let rejected = written.collided.iter().map(|number| (*number, "id_collision")).collect();
    Ok(Sent { rejected, presumed: written.presumed, ..Sent::default() })
}

fn write_of(sending: &Sending) -> Write {
    Write { entry: sending.entry.clone(), is_resend: sending.is_resend }
}
