//! What an answer of the Bot API means.
//!
//! Descriptions can repeat parts of our message, which tenants wrote: they are looked at, and never told.

use crate::alerts::channel::CallError;
use crate::alerts::http::{Answer, bounded};
use serde::Deserialize;
use std::time::Duration;

/// A call that has done what it was to do, or will when it is made again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Done {
        message: Option<i64>,
    },
    /// The message says that already.
    Unchanged,
    Moved {
        chat: i64,
    },
}

#[derive(Deserialize)]
struct Body {
    ok: bool,
    error_code: Option<u16>,
    description: Option<String>,
    parameters: Option<Parameters>,
    result: Option<serde_json::Value>,
}

#[derive(Deserialize, Default)]
struct Parameters {
    retry_after: Option<u64>,
    migrate_to_chat_id: Option<i64>,
}

pub(super) fn read(answer: &Answer) -> Result<Answered, CallError> {
    let Ok(body) = serde_json::from_slice::<Body>(&answer.body) else {
        return Err(without_body(answer));
    };
    if body.ok {
        let message = body.result.and_then(|result| result.get("message_id")?.as_i64());
        return Ok(Answered::Done { message });
    }
    let parameters = body.parameters.unwrap_or_default();
    if let Some(chat) = parameters.migrate_to_chat_id {
        return Ok(Answered::Moved { chat });
    }
    let status = body.error_code.unwrap_or(answer.status);
    let description = body.description.unwrap_or_default().to_lowercase();
    let asked = parameters.retry_after.map(|seconds| bounded(Duration::from_secs(seconds)));
    match status {
        400 => of_bad_request(&description),
        401 | 404 => Err(parked(status, "the token is not, or no longer, that of a bot")),
        403 => Err(parked(status, "the bot may not write to the chat")),
        413 => Err(CallError::Refused { reason: "413: too long".into() }),
        429 => Err(CallError::Retry {
            after: asked.max(answer.after),
            word: "limited",
            reason: "429: too many calls".into(),
        }),
        _ => Err(retry(answer, format!("{status}: the Bot API failed"))),
    }
}

/// No JSON, or none of the Bot API: something between it and us answered.
fn without_body(answer: &Answer) -> CallError {
    let status = answer.status;
    match status {
        429 => {
            CallError::Retry { after: answer.after, word: "limited", reason: "429: too many calls".into() }
        }
        401 | 403 | 404 => parked(status, "no answer of the Bot API; is `api` right?"),
        _ => retry(answer, format!("{status}: no answer of the Bot API")),
    }
}

/// Only what is known to be the chat's fault stops the channel: what tenants write must not.
fn of_bad_request(description: &str) -> Result<Answered, CallError> {
    let has = |words: &[&str]| words.iter().any(|word| description.contains(word));
    if has(&["message is not modified"]) {
        return Ok(Answered::Unchanged);
    }
    if has(&[
        "message to edit not found",
        "message can't be edited",
        "message_id_invalid",
        "message identifier",
    ]) {
        return Err(CallError::Gone);
    }
    if has(&["can't parse", "entit", "unsupported start tag"]) {
        return Err(CallError::Markup);
    }
    if has(&CHAT_FAULTS) {
        return Err(parked(400, "the chat is not there, or the bot may not write to it"));
    }
    Err(CallError::Refused { reason: "400: the Bot API refuses the message".into() })
}

const CHAT_FAULTS: [&str; 11] = [
    "chat not found",
    "chat_id is empty",
    "chat_write_forbidden",
    "peer_id_invalid",
    "group chat was deactivated",
    "bot was kicked",
    "bot is not a member",
    "not enough rights",
    "have no rights",
    "need administrator rights",
    "topic_closed",
];

fn parked(status: u16, reason: &str) -> CallError {
    CallError::Parked { reason: format!("{status}: {reason}") }
}

fn retry(answer: &Answer, reason: String) -> CallError {
    CallError::Retry { after: answer.after, word: "retry", reason }
}
