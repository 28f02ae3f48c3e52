//! Whose work is done next: a semaphore that serves tenants in turn.
//!
//! As many pieces of work run at one time as there are cores. Those who wait stand in a queue of their tenant, and
//! the queues are served round robin, so that one tenant's flood is another's single wait. The number who wait is
//! bounded by the room that their requests hold.
//!
//! Work ends its turn between two steps, but a step may be a call of a plugin that takes its whole limit, and more of
//! them in search of the records at fault. So a turn that lasts is handed on: others work beside it, and the system
//! shares the cores among the threads. Its tenant has no more turns for that: as many at one time as there are cores.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, timeout, timeout_at};

/// A turn that lasts longer is handed on: steps of quick plugins end well before.
const HANDED_ON_AFTER: Duration = Duration::from_millis(3);
/// Turns that are handed on at one time, for each core: each takes its part of it.
const HANDED_ON_PER_CORE: usize = 4;
/// And on all together: each is a thread, and the runtime has 512 of them.
const HANDED_ON_MAX: usize = 128;

/// Who waits in one queue.
pub(super) type Key = String;

#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    at_once: usize,
    free: usize,
    /// How many more may be handed on.
    spare: usize,
    /// Never an empty queue.
    queues: HashMap<Key, VecDeque<oneshot::Sender<Turn>>>,
    /// The keys of `queues` that may have a turn more, next first.
    order: VecDeque<Key>,
    /// Turns that were given and have not ended, by number.
    running: HashMap<u64, Running>,
    /// How many they are of a key, `at_once` at most; never none.
    of_key: HashMap<Key, usize>,
    given: u64,
}

#[derive(Debug)]
struct Running {
    key: Key,
    lasts: Lasts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasts {
    No,
    /// It is to be handed on as soon as that may be.
    Yes,
    HandedOn,
}

/// The right to work; given back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    number: u64,
}

/// The deadline came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLate;

impl Turns {
    pub(super) fn new(at_once: usize) -> Arc<Turns> {
        let at_once = at_once.max(1);
        let state = State {
            at_once,
            free: at_once,
            spare: (at_once * HANDED_ON_PER_CORE).min(HANDED_ON_MAX),
            queues: HashMap::new(),
            order: VecDeque::new(),
            running: HashMap::new(),
            of_key: HashMap::new(),
            given: 0,
        };
        Arc::new(Turns { state: Mutex::new(state) })
    }

    /// Waits for a turn, until `deadline` at most. Cancelled, the place in the queue is given up.
    pub(super) async fn take(self: &Arc<Turns>, key: &str, deadline: Instant) -> Result<Turn, TooLate> {
        let waiting = {
            let mut state = self.state();
            let may_begin = state.may_begin(key);
            if state.free > 0 && may_begin && state.order.is_empty() {
                return Ok(self.give(&mut state, key.to_owned()));
            }
            let (sender, receiver) = oneshot::channel();
            if may_begin && !state.queues.contains_key(key) {
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

    fn give(self: &Arc<Turns>, state: &mut State, key: Key) -> Turn {
        Turn { turns: self.clone(), number: state.begin(key) }
    }

    /// Gives the places that are free to those who wait.
    fn serve(self: &Arc<Turns>) {
        loop {
            let (next, turn) = {
                let mut state = self.state();
                if state.free == 0 {
                    return;
                }
                let Some((key, next)) = state.next() else { return };
                (next, self.give(&mut state, key))
            };
            // To one who left in between: then the turn comes back as an error and is given on when that is dropped.
            let _ = next.send(turn);
        }
    }

    /// The place of a turn that has not ended is another's as soon as there is one to spare.
    fn hand_on(self: &Arc<Turns>, number: u64) {
        {
            let mut state = self.state();
            match state.running.get_mut(&number) {
                Some(running) if running.lasts == Lasts::No => running.lasts = Lasts::Yes,
                _ => return,
            }
            state.hand_on();
        }
        self.serve();
    }

    #[cfg(test)]
    pub(super) fn is_waited_for(&self, key: &str) -> bool {
        self.state().queues.contains_key(key)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while the turns are locked")
    }
}

impl State {
    fn may_begin(&self, key: &str) -> bool {
        self.of_key.get(key).is_none_or(|turns| *turns < self.at_once)
    }

    fn begin(&mut self, key: Key) -> u64 {
        self.free -= 1;
        self.given += 1;
        *self.of_key.entry(key.clone()).or_default() += 1;
        if self.may_begin(&key) && self.queues.contains_key(&key) {
            self.order.push_back(key.clone());
        }
        self.running.insert(self.given, Running { key, lasts: Lasts::No });
        self.given
    }

    /// The next who waits, a tenant's first; to be followed by [`State::begin`], which puts its tenant at the end.
    fn next(&mut self) -> Option<(Key, oneshot::Sender<Turn>)> {
        while let Some(key) = self.order.pop_front() {
            let queue = self.queues.get_mut(&key)?;
            let mut next = queue.pop_front();
            while next.as_ref().is_some_and(oneshot::Sender::is_closed) {
                next = queue.pop_front();
            }
            if queue.is_empty() {
                self.queues.remove(&key);
            }
            if let Some(next) = next {
                return Some((key, next));
            }
        }
        None
    }

    /// Those that last, as many as may be.
    fn hand_on(&mut self) {
        let lasting = self.running.values_mut().filter(|running| running.lasts == Lasts::Yes);
        for running in lasting.take(self.spare) {
            running.lasts = Lasts::HandedOn;
            self.spare -= 1;
            self.free += 1;
        }
    }

    fn end(&mut self, number: u64) {
        let Some(Running { key, lasts }) = self.running.remove(&number) else { return };
        match lasts {
            Lasts::No | Lasts::Yes => self.free += 1,
            Lasts::HandedOn => {
                self.spare += 1;
                self.hand_on();
            }
        }
        let may_begin = self.may_begin(&key);
        match self.of_key.get_mut(&key) {
            Some(turns) if *turns > 1 => *turns -= 1,
            _ => drop(self.of_key.remove(&key)),
        }
        if !may_begin && self.queues.contains_key(&key) {
            self.order.push_back(key);
        }
    }
}

impl Turn {
    /// Works off the executor, and ends the turn. `work` should look whether it [`Turn::is_wanted`] now and then. Nobody
    /// else waits for it longer than a moment, nor does anybody once this is cancelled.
    pub(super) async fn work<T: Send + 'static>(
        self,
        work: impl FnOnce(&Turn) -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let left = Left { turns: self.turns.clone(), number: self.number };
        let mut working = spawn_blocking(move || work(&self));
        match timeout(HANDED_ON_AFTER, &mut working).await {
            Ok(done) => done,
            Err(_) => {
                left.turns.hand_on(left.number);
                working.await
            }
        }
    }

    /// Whether somebody waits for it, or has its place already.
    pub(super) fn is_wanted(&self) -> bool {
        let state = self.turns.state();
        let is_its_own =
            |running: &Running| running.lasts == Lasts::HandedOn || state.queues.contains_key(&running.key);
        !state.order.is_empty() || state.running.get(&self.number).is_some_and(is_its_own)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.state().end(self.number);
        self.turns.serve();
    }
}

/// Who waits for the end of a turn: gone, nobody hands it on later.
struct Left {
    turns: Arc<Turns>,
    number: u64,
}

impl Drop for Left {
    fn drop(&mut self) {
        self.turns.hand_on(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;
    use tokio::task::JoinSet;

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
        assert_eq!(*order.lock().unwrap(), ["b", "c", "a", "b", "a", "a"]);
        assert!(!held.as_ref().unwrap().is_wanted());
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

    /// Work that lasts until it is told to end.
    fn lasting(turn: Turn) -> (impl Future<Output = bool> + Send + 'static, std::sync::mpsc::Sender<()>) {
        let (end, told) = std::sync::mpsc::channel::<()>();
        let working = turn.work(move |turn| {
            let _ = told.recv();
            turn.is_wanted()
        });
        (async { working.await.unwrap() }, end)
    }

    fn spawned(working: impl Future<Output = bool> + Send + 'static) -> JoinSet<bool> {
        let mut set = JoinSet::new();
        set.spawn(working);
        set
    }

    async fn ended(mut set: JoinSet<bool>) -> bool {
        set.join_next().await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_turn_that_lasts_is_handed_on_and_its_own_tenant_waits_for_it() {
        let turns = Turns::new(1);
        let (working, end) = lasting(turns.take("slow", late()).await.unwrap());
        let working = spawned(working);
        let mut again = Box::pin(turns.take("slow", late()));
        assert!(poll(again.as_mut()).is_pending());
        let other = turns.take("other", late()).await.unwrap();
        drop(other);
        assert!(poll(again.as_mut()).is_pending());
        drop(turns.take("third", late()).await.unwrap());
        end.send(()).unwrap();
        assert!(ended(working).await, "it should have ended");
        // One place again, and no more.
        let again = again.await.unwrap();
        assert!(poll(pin!(turns.take("other", late()))).is_pending());
        drop(again);
        turns.take("other", late()).await.unwrap();
    }

    #[tokio::test]
    async fn a_tenant_whose_turns_last_has_no_fewer_and_no_more_of_them() {
        let turns = Turns::new(2);
        let mut lasting_ones = VecDeque::new();
        for _ in 0..2 {
            let (working, end) = lasting(turns.take("slow", late()).await.unwrap());
            lasting_ones.push_back((spawned(working), end));
        }
        let others = [turns.take("other", late()).await.unwrap(), turns.take("third", late()).await.unwrap()];
        let mut third = Box::pin(turns.take("slow", late()));
        drop(others);
        assert!(poll(third.as_mut()).is_pending(), "two of it run");
        let (working, end) = lasting_ones.pop_front().unwrap();
        end.send(()).unwrap();
        ended(working).await;
        let third = third.await.unwrap();
        assert!(poll(pin!(turns.take("slow", late()))).is_pending());
        drop(third);
        let (working, end) = lasting_ones.pop_front().unwrap();
        end.send(()).unwrap();
        ended(working).await;
    }

    #[tokio::test]
    async fn only_so_many_turns_are_handed_on_at_one_time() {
        let turns = Turns::new(1);
        let mut lasting_ones = Vec::new();
        for number in 0..=HANDED_ON_PER_CORE {
            let (working, end) = lasting(turns.take(&format!("slow {number}"), late()).await.unwrap());
            lasting_ones.push((spawned(working), end));
        }
        let soon = Instant::now() + HANDED_ON_AFTER * 10;
        assert!(matches!(turns.take("other", soon).await, Err(TooLate)));
        // One that ends gives the last its right to be handed on, though nobody waits for that one any more.
        let (last, end) = lasting_ones.pop().unwrap();
        drop(last);
        lasting_ones.push((JoinSet::new(), end));
        for (working, end) in lasting_ones.drain(..1) {
            end.send(()).unwrap();
            ended(working).await;
        }
        drop(turns.take("other", late()).await.unwrap());
        for (mut working, end) in lasting_ones {
            end.send(()).unwrap();
            working.join_next().await;
        }
        while !turns.state().running.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let state = turns.state();
        assert_eq!((state.free, state.spare), (1, HANDED_ON_PER_CORE));
        assert!(
            state.running.is_empty()
                && state.of_key.is_empty()
                && state.order.is_empty()
                && state.queues.is_empty()
        );
    }

    #[tokio::test]
    async fn a_turn_whose_caller_went_away_is_handed_on() {
        let turns = Turns::new(1);
        let (working, end) = lasting(turns.take("slow", late()).await.unwrap());
        let mut working = Box::pin(working);
        assert!(poll(working.as_mut()).is_pending());
        drop(working);
        drop(turns.take("other", late()).await.unwrap());
        end.send(()).unwrap();
        turns.take("slow", late()).await.unwrap();
    }

    #[tokio::test]
    async fn a_turn_whose_work_panics_ends() {
        let turns = Turns::new(1);
        let turn = turns.take("a", late()).await.unwrap();
        assert!(turn.work(|_| panic!("on purpose")).await.is_err());
        turns.take("a", late()).await.unwrap();
    }
}
