//! Room: the bytes that requests at work may hold. What has no room is never buffered.
//!
//! One short lock guards the whole account, so the sum is exact at every moment: it never exceeds the budget, one
//! payer never holds more than half of it, and what was taken is given back by `Drop`, whatever ends the request.

use super::Caller;
use crate::batch::TenantId;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The budget of the whole process. One payer (a tenant, or a credential that speaks for others) holds at most half.
#[derive(Debug)]
pub struct Room {
    budget_bytes: usize,
    account: Mutex<Account>,
    used_gauge: Gauge,
}

/// Who pays for the room of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Payer {
    Tenant(TenantId),
    /// A credential that names no tenant, by the head of its proof.
    Credential(u64),
}

#[derive(Debug, Default)]
struct Account {
    used_bytes: usize,
    peak_bytes: usize,
    /// Only payers that hold something.
    held_bytes: HashMap<Payer, usize>,
}

/// There is no room now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Others will leave: come back.
    #[error("no room now")]
    Now,
    /// It would never fit.
    #[error("larger than one sender's share of the room")]
    Never,
}

/// Room that a request holds; given back when dropped.
#[derive(Debug)]
pub struct Taken {
    room: Arc<Room>,
    payer: Payer,
    bytes: usize,
    /// Of `bytes`: taken ahead, and not grown into yet.
    ahead: usize,
}

impl Room {
    pub(super) fn new(budget_bytes: usize, used_gauge: Gauge) -> Room {
        used_gauge.set(0);
        Room { budget_bytes, account: Mutex::default(), used_gauge }
    }

    /// Room for one request of this caller; it holds nothing yet.
    pub(super) fn open(self: &Arc<Room>, caller: &Caller) -> Taken {
        Taken { room: self.clone(), payer: caller.payer.clone(), bytes: 0, ahead: 0 }
    }

    /// The most that one payer may hold, in bytes.
    pub fn share_bytes(&self) -> usize {
        self.budget_bytes / 2
    }

    /// Bytes taken now, by all.
    pub fn used_bytes(&self) -> usize {
        self.account().used_bytes
    }

    /// The most that was ever taken at one time, in bytes.
    pub fn peak_bytes(&self) -> usize {
        self.account().peak_bytes
    }

    fn take(&self, payer: &Payer, bytes: usize) -> Result<(), Full> {
        let mut account = self.account();
        let held = account.held_bytes.get(payer).copied().unwrap_or(0);
        // Neither sum can wrap: what is held never exceeds the budget, and saturated sums exceed every budget.
        if held.saturating_add(bytes) > self.share_bytes()
            || account.used_bytes.saturating_add(bytes) > self.budget_bytes
        {
            return Err(Full::Now);
        }
        account.used_bytes += bytes;
        account.peak_bytes = account.peak_bytes.max(account.used_bytes);
        account.held_bytes.insert(payer.clone(), held + bytes);
        self.show(&account);
        Ok(())
    }

    fn give_back(&self, payer: &Payer, bytes: usize) {
        let mut account = self.account();
        account.used_bytes -= bytes;
        if let Some(held) = account.held_bytes.get_mut(payer) {
            *held -= bytes;
            if *held == 0 {
                account.held_bytes.remove(payer);
            }
        }
        self.show(&account);
    }

    /// Under the lock, so that the gauge ends at the value of the last change.
    fn show(&self, account: &Account) {
        self.used_gauge.set(i64::try_from(account.used_bytes).unwrap_or(i64::MAX));
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().expect("nothing panics while the account is locked")
    }
}

impl Taken {
    /// Takes so much on account: what the request grows by next is covered by it.
    pub fn grow_ahead(&mut self, bytes: usize) -> Result<(), Full> {
        let ahead = std::mem::take(&mut self.ahead);
        let grown = self.grow(bytes);
        self.ahead = ahead + grown.map_or(0, |()| bytes);
        grown
    }

    /// Takes more, all or nothing.
    ///
    /// [`Full::Never`] when what this request would then hold exceeds one payer's share, so that coming back is in
    /// vain; [`Full::Now`] when others (or other requests of the same payer) are in the way.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        let covered = bytes.min(self.ahead);
        let bytes = bytes - covered;
        if self.bytes.saturating_add(bytes) > self.room.share_bytes() {
            return Err(Full::Never);
        }
        if bytes > 0 {
            self.room.take(&self.payer, bytes)?;
            self.bytes += bytes;
        }
        self.ahead -= covered;
        Ok(())
    }

    /// Gives back what is held beyond `bytes`; holds it less already, nothing happens.
    pub fn shrink_to(&mut self, bytes: usize) {
        if bytes < self.bytes {
            self.room.give_back(&self.payer, self.bytes - bytes);
            self.bytes = bytes;
            self.ahead = self.ahead.min(bytes);
        }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payer(number: u64) -> Payer {
        Payer::Credential(number)
    }

    fn take(room: &Arc<Room>, number: u64) -> Taken {
        Taken { room: room.clone(), payer: payer(number), bytes: 0, ahead: 0 }
    }

    fn held(room: &Room, number: u64) -> usize {
        room.account().held_bytes.get(&payer(number)).copied().unwrap_or(0)
    }

    #[test]
    fn one_payer_holds_at_most_half_and_the_other_half_is_for_others() {
        let room = Arc::new(Room::new(100, Gauge::default()));
        let mut first = take(&room, 1);
        first.grow(50).unwrap();
        assert_eq!(take(&room, 1).grow(1), Err(Full::Now), "its other request waits for the first");
        assert_eq!(first.grow(1), Err(Full::Never), "alone it would never fit");
        let mut second = take(&room, 2);
        second.grow(50).unwrap();
        assert_eq!(take(&room, 3).grow(1), Err(Full::Now));
        drop(first);
        take(&room, 3).grow(50).unwrap();
        assert_eq!(room.peak_bytes(), 100);
    }

    #[test]
    fn a_refused_growth_takes_nothing() {
        let room = Arc::new(Room::new(100, Gauge::default()));
        let mut taken = take(&room, 1);
        taken.grow(20).unwrap();
        assert_eq!(taken.grow(usize::MAX), Err(Full::Never));
        assert_eq!((taken.bytes(), room.used_bytes()), (20, 20));
    }

    #[test]
    fn what_is_smaller_already_does_not_shrink() {
        let room = Arc::new(Room::new(100, Gauge::default()));
        let mut taken = take(&room, 1);
        taken.grow(10).unwrap();
        taken.shrink_to(30);
        assert_eq!(room.used_bytes(), 10);
        taken.shrink_to(4);
        assert_eq!((taken.bytes(), room.used_bytes()), (4, 4));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Open(u64),
        Grow(usize, usize),
        Shrink(usize, usize),
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4u64).prop_map(Step::Open),
            (any::<usize>(), 0..400usize).prop_map(|(at, bytes)| Step::Grow(at, bytes)),
            (any::<usize>(), 0..400usize).prop_map(|(at, bytes)| Step::Shrink(at, bytes)),
            any::<usize>().prop_map(Step::Leave),
        ]
    }

    proptest! {
        #[test]
        fn the_account_is_exact_after_every_step(steps in prop::collection::vec(step(), 1..200)) {
            let gauge = Gauge::default();
            let room = Arc::new(Room::new(1000, gauge.clone()));
            let mut requests: Vec<(u64, Taken)> = Vec::new();
            for step in steps {
                let count = requests.len();
                match step {
                    Step::Open(number) => requests.push((number, take(&room, number))),
                    _ if count == 0 => {}
                    Step::Grow(at, bytes) => {
                        let before = room.used_bytes();
                        let (number, taken) = &mut requests[at % count];
                        let fits_payer = held(&room, *number) + bytes <= 500;
                        let fits_room = before + bytes <= 1000;
                        let expected = if taken.bytes() + bytes > 500 {
                            Err(Full::Never)
                        } else if bytes == 0 || (fits_payer && fits_room) {
                            Ok(())
                        } else {
                            Err(Full::Now)
                        };
                        prop_assert_eq!(taken.grow(bytes), expected);
                    }
                    Step::Shrink(at, bytes) => requests[at % count].1.shrink_to(bytes),
                    Step::Leave(at) => drop(requests.swap_remove(at % count)),
                }
                let sum: usize = requests.iter().map(|(_, taken)| taken.bytes()).sum();
                prop_assert_eq!(room.used_bytes(), sum);
                prop_assert_eq!(gauge.get(), sum as i64);
                prop_assert!(sum <= 1000);
                for number in 0..4 {
                    let own: usize = requests.iter().filter(|(n, _)| *n == number).map(|(_, t)| t.bytes()).sum();
                    prop_assert_eq!(held(&room, number), own);
                    prop_assert!(own <= 500);
                }
            }
            requests.clear();
            prop_assert_eq!(room.used_bytes(), 0);
            prop_assert!(room.account().held_bytes.is_empty());
        }
    }

    #[test]
    fn many_threads_never_exceed_the_budget_and_leave_it_empty() {
        let room = Arc::new(Room::new(1000, Gauge::default()));
        std::thread::scope(|scope| {
            for number in 0..8 {
                let room = room.clone();
                scope.spawn(move || {
                    for round in 0..500 {
                        let mut taken = take(&room, number);
                        while taken.grow(1 + round % 97).is_ok() {
                            assert!(room.used_bytes() <= 1000);
                        }
                    }
                });
            }
        });
        assert_eq!(room.used_bytes(), 0);
        assert!(room.peak_bytes() <= 1000);
    }
}
