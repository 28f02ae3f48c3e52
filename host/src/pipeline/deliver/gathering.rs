//! How long what is there waits for more to join it.

use crate::journal::{Cursor, Joining};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

#[derive(Debug)]
pub(super) struct Gathering {
    delay: Duration,
    /// Since when something waits that is not due.
    since: Option<Instant>,
    /// Entries up to this number have waited for long enough.
    due: Option<u64>,
}

impl Gathering {
    pub(super) fn new(delay: Duration) -> Gathering {
        Gathering { delay, since: None, due: None }
    }

    /// From now on nothing waits.
    pub(super) fn end(&mut self) {
        self.delay = Duration::ZERO;
    }

    /// Returns when something should be taken: as much is there as a delivery may hold, or it is the time. Cancelled,
    /// nothing is lost and the time goes on.
    pub(super) async fn ready(&mut self, cursor: &Cursor, joining: Joining) {
        if self.delay.is_zero() {
            return;
        }
        loop {
            let Some(waiting) = cursor.waiting(joining) else {
                self.since = None;
                cursor.changed().await;
                continue;
            };
            if waiting.is_full || Some(waiting.oldest) <= self.due {
                return;
            }
            let until = *self.since.get_or_insert_with(Instant::now) + self.delay;
            if until <= Instant::now() {
                self.since = None;
                self.due = Some(waiting.newest);
                return;
            }
            let _ = timeout_at(until, cursor.changed()).await;
        }
    }
}
