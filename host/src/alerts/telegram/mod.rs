//! One message per incident in a Telegram chat, edited as the incident grows.
//!
//! The token stands in the address of every call; no error, log line or `Debug` shows an address. Source: Telegram Bot
//! API, "Making requests", "sendMessage", "editMessageText", "ResponseParameters".

mod answer;
mod text;

use super::channel::CallError;
use super::http;
use super::incidents::{Handle, Tell};
use crate::net::http::Client;
use crate::net::tls;
use crate::telemetry::Secret;
use ::http::HeaderMap;
use answer::Answered;
use reqwest::Url;
use serde_json::{Value, json};
use std::sync::Arc;

/// Which bot writes where.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The Bot API: `https://api.telegram.org` unless there is a server of one's own.
    pub api: String,
    pub token: Secret,
    /// A number, or `@name` of a channel.
    pub chat: String,
    pub tls: tls::ClientSettings,
}

/// A bot and its chat.
pub(super) struct Telegram {
    client: Client,
    /// These hold the token.
    send: Url,
    edit: Url,
    chat: Arc<str>,
}

impl std::fmt::Debug for Telegram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telegram").field("chat", &self.chat).finish_non_exhaustive()
    }
}

impl Telegram {
    pub(super) fn open(settings: &Settings) -> Result<Telegram, String> {
        let api = http::address("api", &settings.api)?;
        let token = settings.token.expose().trim();
        let is_token = !token.is_empty()
            && token
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, ':' | '_' | '-'));
        if !is_token {
            return Err("token: no token of a bot like `123456:ABC-DEF`".into());
        }
        let chat = settings.chat.trim();
        let is_chat = chat.parse::<i64>().is_ok() || (chat.starts_with('@') && chat.len() > 1);
        if !is_chat {
            return Err(format!("chat: `{}` is no number and no `@name`", chat.escape_debug()));
        }
        let base = api.as_str().trim_end_matches('/');
        let method = |name: &str| http::address("api", &format!("{base}/bot{token}/{name}"));
        Ok(Telegram {
            client: http::client(&api, &settings.tls)?,
            send: method("sendMessage")?,
            edit: method("editMessageText")?,
            chat: chat.into(),
        })
    }

    /// Sends a message, or edits that of before. One call.
    pub(super) async fn tell(&mut self, tell: &Tell) -> Result<Option<Handle>, CallError> {
        // A chat that moved numbers its messages anew.
        let handle = tell.handle.as_ref().filter(|handle| handle.chat == self.chat);
        let body = body(&self.chat, handle, tell);
        let url = if handle.is_some() { &self.edit } else { &self.send };
        let answer = http::post(&self.client, url, HeaderMap::new(), body).await;
        let answer = answer.map_err(|reason| CallError::Retry { after: None, word: "retry", reason })?;
        match answer::read(&answer)? {
            Answered::Done { message } => {
                // A server that does not say which message it is gets a new one next time.
                let message = handle.map(|handle| handle.message).or(message);
                Ok(message.map(|message| Handle { chat: self.chat.clone(), message }))
            }
            Answered::Unchanged => Ok(handle.cloned()),
            Answered::Moved { chat } => {
                tracing::warn!(
                    from = &*self.chat,
                    to = chat,
                    "the Telegram chat has a new number; write it into the configuration"
                );
                self.chat = chat.to_string().into();
                Err(CallError::Moved)
            }
        }
    }
}

fn body(chat: &str, handle: Option<&Handle>, tell: &Tell) -> Vec<u8> {
    let text = if tell.is_plain { text::plain(&tell.state) } else { text::html(&tell.state) };
    let chat = chat.parse::<i64>().map_or_else(|_| json!(chat), |number| json!(number));
    let mut body = json!({ "chat_id": chat, "text": text, "link_preview_options": { "is_disabled": true } });
    if !tell.is_plain {
        body["parse_mode"] = Value::from("HTML");
    }
    if let Some(handle) = handle {
        body["message_id"] = handle.message.into();
    }
    body.to_string().into_bytes()
}
