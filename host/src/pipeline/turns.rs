//! Whose work is done next: a semaphore that serves tenants in turn.
//!
//! As many pieces of work run at one time as there are cores. Those who wait stand in a queue of their tenant, and
//! the queues are served round robin, so that one tenant's flood is another's single wait. The number who wait is
//! bounded by the room that their requests hold.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Who waits in one queue.
pub(super) type Key = String;

#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Never an empty queue.
    queues: HashMap<Key, VecDeque<oneshot::Sender<Turn>>>,
    /// The keys of `queues`, next first.
    order: VecDeque<Key>,
}

/// The right to work; given back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
}

/// The deadline came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLate;

impl Turns {
    pub(super) fn new(at_once: usize) -> Arc<Turns> {
        let state = State { free: at_once.max(1), queues: HashMap::new(), order: VecDeque::new() };
        Arc::new(Turns { state: Mutex::new(state) })
    }

    /// Waits for a turn, until `deadline` at most. Cancelled, the place in the queue is given up.
    pub(super) async fn take(self: &Arc<Turns>, key: &str, deadline: Instant) -> Result<Turn, TooLate> {
        let waiting = {
            let mut state = self.state();
            if state.free > 0 {
                // Whoever gives one back hands it to those who wait, so none do.
                state.free -= 1;
                return Ok(Turn { turns: self.clone() });
            }
            let (sender, receiver) = oneshot::channel();
            if !state.queues.contains_key(key) {
                state.order.push_back(key.to_owned());
            }
            state.queues.entry(key.to_owned()).or_default().push_back(sender);
            receiver
        };
        match timeout_at(deadline, waiting).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(TooLate),
        }
    }

    /// Whether somebody waits: time to yield after a while.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.state().order.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while the turns are locked")
    }
}

impl State {
    /// The next who waits, a tenant's first; its tenant goes to the end.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let key = self.order.pop_front()?;
        let queue = self.queues.get_mut(&key)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&key);
        } else {
            self.order.push_back(key);
        }
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        while let Some(next) = state.next() {
            if next.is_closed() {
                continue;
            }
            drop(state);
            // Gone in between, the turn comes back as an error and is given on when that is dropped.
            let _ = next.send(Turn { turns: self.turns.clone() });
            return;
        }
        state.free += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[tokio::test]
    async fn tenants_are_served_in_turn_however_many_wait() {
        let turns = Turns::new(1);
        let mut held = Some(turns.take("a", late()).await.unwrap());
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for key in ["a", "a", "a", "b", "c", "b"] {
            let (turns, order) = (turns.clone(), order.clone());
            let mut wait = Box::pin(async move {
                let turn = turns.take(key, late()).await.unwrap();
                order.lock().unwrap().push(key);
                turn
            });
            assert!(poll(wait.as_mut()).is_pending());
            waiting.push(wait);
        }
        for _ in 0..waiting.len() {
            held = None;
            for at in 0..waiting.len() {
                if let Poll::Ready(turn) = poll(waiting[at].as_mut()) {
                    held = Some(turn);
                    drop(waiting.remove(at));
                    break;
                }
            }
            assert!(held.is_some());
        }
        assert_eq!(*order.lock().unwrap(), ["a", "b", "c", "a", "b", "a"]);
        assert!(!turns.is_waited_for());
        drop(held);
        turns.take("d", late()).await.unwrap();
    }

    #[tokio::test]
    async fn who_went_away_is_passed_over() {
        let turns = Turns::new(1);
        let held = turns.take("a", late()).await.unwrap();
        let mut gone = Box::pin(turns.take("a", late()));
        assert!(poll(gone.as_mut()).is_pending());
        let mut waits = pin!(turns.take("b", late()));
        assert!(poll(waits.as_mut()).is_pending());
        drop(gone);
        drop(held);
        assert!(matches!(poll(waits.as_mut()), Poll::Ready(Ok(_))));
    }

    #[tokio::test]
    async fn a_turn_that_was_handed_to_one_who_left_is_not_lost() {
        let turns = Turns::new(1);
        let held = turns.take("a", late()).await.unwrap();
        let mut gone = Box::pin(turns.take("a", late()));
        assert!(poll(gone.as_mut()).is_pending());
        drop(held);
        drop(gone);
        turns.take("b", late()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_turn_before_the_deadline_is_told() {
        let turns = Turns::new(1);
        let _held = turns.take("a", late()).await.unwrap();
        let soon = Instant::now() + Duration::from_secs(1);
        assert!(matches!(turns.take("a", soon).await, Err(TooLate)));
    }
}
