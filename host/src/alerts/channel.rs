//! A channel at work: one task, one call at a time, within its budget, with pauses when it fails.

use super::budget::{Allowance, Budget};
use super::incidents::{Handle, Tell};
use super::{ChannelKind, ChannelSettings, log, telegram, webhook};
use crate::net::backoff::{Backoff, random};
use std::time::Duration;
use tokio::time::Instant;

const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };
/// A channel that was refused for good (a token taken back, a bot thrown out) is tried again after so long: somebody
/// may have put it right, and asking more often gets bots banned.
const PARK: Duration = Duration::from_secs(15 * 60);

/// Where people are told.
#[derive(Debug)]
pub(super) enum Channel {
    Telegram(Box<telegram::Telegram>),
    Webhook(Box<webhook::Webhook>),
    Log,
}

/// Why a call did not succeed, as the decision of the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// Try again, not before `after`. `word` is for metrics.
    Retry { after: Option<Duration>, word: &'static str, reason: String },
    /// The chat has another name now, and the channel knows it.
    Moved,
    /// The message to edit is not there.
    Gone,
    /// The markup was not understood.
    Markup,
    /// This message will never be taken; others may.
    Refused { reason: String },
    /// No message will be taken until somebody does something.
    Parked { reason: String },
}

impl Channel {
    pub(super) fn open(name: &str, settings: &ChannelSettings) -> Result<Channel, String> {
        let channel = match &settings.kind {
            ChannelKind::Telegram(settings) => {
                telegram::Telegram::open(settings).map(Box::new).map(Channel::Telegram)
            }
            ChannelKind::Webhook(settings) => {
                webhook::Webhook::open(name, settings).map(Box::new).map(Channel::Webhook)
            }
            ChannelKind::Log => Ok(Channel::Log),
        };
        channel.map_err(|fault| format!("channel `{name}`: {fault}"))
    }

    /// Tells one state of one incident: a single call.
    pub(super) async fn tell(&mut self, name: &str, tell: &Tell) -> Result<Option<Handle>, CallError> {
        match self {
            Channel::Telegram(channel) => channel.tell(tell).await,
            Channel::Webhook(channel) => channel.tell(tell).await.map(|()| None),
            Channel::Log => {
                log::tell(name, tell);
                Ok(None)
            }
        }
    }
}

/// When a channel may call: its budget, and its pauses.
#[derive(Debug)]
pub(super) struct Pace {
    budget: Budget,
    attempt: u32,
    pause_until: Option<Instant>,
    /// Why it pauses, as it was said: whether it is parked.
    trouble: Option<bool>,
    refused_said: Option<Instant>,
}

impl Pace {
    pub(super) fn new(per_minute: u32) -> Pace {
        Pace {
            budget: Budget::new(per_minute),
            attempt: 0,
            pause_until: None,
            trouble: None,
            refused_said: None,
        }
    }

    pub(super) fn allowance(&mut self, now: Instant) -> Allowance {
        match self.pause_until {
            Some(until) if now < until => Allowance::Nothing,
            _ => self.budget.allowance(now),
        }
    }

    /// When to look whether more may be told than now.
    pub(super) fn more_at(&self, now: Instant) -> Option<Instant> {
        self.pause_until.filter(|until| now < *until).or_else(|| self.budget.more_at())
    }

    pub(super) fn spend(&mut self, now: Instant) {
        self.budget.spend(now);
    }

    /// The server works. Says whether it did not before.
    pub(super) fn succeed(&mut self) -> bool {
        (self.attempt, self.pause_until) = (0, None);
        self.trouble.take().is_some()
    }

    /// The server does not work, or, if `is_parked`, not for us. Says whether that is new.
    pub(super) fn pause(&mut self, now: Instant, after: Option<Duration>, is_parked: bool) -> bool {
        let pause = if is_parked { PARK } else { BACKOFF.pause(self.attempt, after, random()) };
        self.pause_until = Some(now + pause);
        self.attempt = self.attempt.saturating_add(1);
        self.trouble.replace(is_parked) != Some(is_parked)
    }

    /// A message was refused. Says whether that is worth a line: one in a while is.
    pub(super) fn refuse(&mut self, now: Instant) -> bool {
        let is_new = self.refused_said.is_none_or(|said| now.duration_since(said) >= PARK);
        if is_new {
            self.refused_said = Some(now);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_said_once_until_it_is_over_or_another() {
        let (mut pace, now) = (Pace::new(20), Instant::now());
        assert!(!pace.succeed(), "it worked before");
        assert!(pace.pause(now, None, false));
        assert!(!pace.pause(now, None, false));
        assert!(pace.pause(now, None, true), "that it is parked is news");
        assert!(!pace.pause(now, None, true));
        assert_eq!((pace.allowance(now), pace.more_at(now)), (Allowance::Nothing, Some(now + PARK)));
        assert!(pace.succeed() && !pace.succeed());
        assert_eq!(pace.allowance(now), Allowance::Anything);
        assert!(pace.refuse(now) && !pace.refuse(now) && pace.refuse(now + PARK));
    }
}
