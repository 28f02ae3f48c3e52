//! How many calls a channel may make.
//!
//! In no minute more than `per_minute`. The last of them is kept for "resolved", so that the end of an incident is told
//! even while others use up the minute.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// What may be told now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    Anything,
    /// The end of an incident that is shown as open.
    Resolved,
    Nothing,
}

/// The calls of the last minute.
#[derive(Debug)]
pub(super) struct Budget {
    per_minute: usize,
    spent: VecDeque<Instant>,
}

impl Budget {
    pub(super) fn new(per_minute: u32) -> Budget {
        Budget { per_minute: per_minute.max(1) as usize, spent: VecDeque::new() }
    }

    /// A call begins.
    pub(super) fn spend(&mut self, now: Instant) {
        self.forget(now);
        self.spent.push_back(now);
    }

    pub(super) fn allowance(&mut self, now: Instant) -> Allowance {
        self.forget(now);
        match self.per_minute.saturating_sub(self.spent.len()) {
            0 => Allowance::Nothing,
            // One call a minute cannot be kept and used.
            1 if self.per_minute > 1 => Allowance::Resolved,
            _ => Allowance::Anything,
        }
    }

    /// When more may be told than now; `None` if anything may.
    pub(super) fn more_at(&self) -> Option<Instant> {
        let kept = usize::from(self.per_minute > 1);
        let is_short = self.spent.len() + kept >= self.per_minute;
        is_short.then(|| self.spent.front().map(|first| *first + MINUTE)).flatten()
    }

    fn forget(&mut self, now: Instant) {
        while self.spent.front().is_some_and(|first| now.duration_since(*first) >= MINUTE) {
            self.spent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_call_of_a_minute_is_kept_for_the_end_of_an_incident() {
        let start = Instant::now();
        let mut budget = Budget::new(3);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!((budget.allowance(at(0)), budget.more_at()), (Allowance::Anything, None));
        budget.spend(at(0));
        budget.spend(at(10));
        assert_eq!((budget.allowance(at(11)), budget.more_at()), (Allowance::Resolved, Some(at(60))));
        budget.spend(at(20));
        assert_eq!(budget.allowance(at(59)), Allowance::Nothing);
        assert_eq!(budget.allowance(at(60)), Allowance::Resolved);
        assert_eq!((budget.allowance(at(70)), budget.more_at()), (Allowance::Anything, None));
    }

    #[test]
    fn a_budget_of_one_is_for_anything() {
        let start = Instant::now();
        let mut budget = Budget::new(1);
        assert_eq!(budget.allowance(start), Allowance::Anything);
        budget.spend(start);
        assert_eq!(budget.allowance(start), Allowance::Nothing);
        assert_eq!(budget.more_at(), Some(start + MINUTE));
    }

    #[test]
    fn no_minute_has_more_calls_than_the_budget() {
        let start = Instant::now();
        let mut budget = Budget::new(20);
        let mut calls = Vec::new();
        for step in 0..3000 {
            let now = start + Duration::from_millis(step * 100);
            if budget.allowance(now) != Allowance::Nothing {
                budget.spend(now);
                calls.push(now);
            }
        }
        for first in &calls {
            let within = calls.iter().filter(|call| **call >= *first && **call - *first < MINUTE);
            assert!(within.count() <= 20);
        }
        assert_eq!(calls.len(), 20 * 5, "and the budget is used");
    }
}
