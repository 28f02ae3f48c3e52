//! One message per incident in a Telegram chat.

use crate::net::tls;
use crate::telemetry::Secret;

/// Which bot writes where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Bot API: `https://api.telegram.org` unless there is a server of one's own.
    pub api: String,
    pub token: Secret,
    /// A number, or `@name` of a channel.
    pub chat: String,
    pub tls: tls::ClientSettings,
}
