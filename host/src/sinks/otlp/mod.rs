//! OTLP to another collector or a backend, over gRPC or HTTP.
//!
//! The bytes of the entries are sent as they are: requests of one signal concatenate into a valid larger one, so
//! nothing is decoded. Answers are classified as the OTLP specification says (sections "OTLP/gRPC Response",
//! "OTLP/HTTP Response"); see `answer`. The first delivery connects.

mod answer;
mod body;
mod grpc;
mod http;

use super::http::Target;
use super::{Delivery, SendError, Sent};
use crate::net::tls;
use crate::telemetry::Secret;
use std::collections::BTreeMap;
use std::time::Duration;

/// After so long without a word from the server a connection is asked whether it lives, and then given up.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// The specification lets answers have 4 MiB.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Where to, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `http://` or `https://`, host and port; for HTTP also a path, to which `/v1/logs` and so on are added.
    pub endpoint: String,
    pub protocol: Protocol,
    pub headers: BTreeMap<String, Secret>,
    pub compression: Compression,
    /// For `https://`.
    pub tls: tls::ClientSettings,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Grpc,
    /// Protobuf over HTTP.
    Http,
}

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    /// Beyond the specification: not every server takes it.
    Zstd,
}

impl Compression {
    fn name(self) -> Option<&'static str> {
        match self {
            Compression::None => None,
            Compression::Gzip => Some("gzip"),
            Compression::Zstd => Some("zstd"),
        }
    }
}

/// A server that speaks OTLP.
#[derive(Debug)]
pub struct Otlp {
    compression: Compression,
    client: Client,
}

#[derive(Debug)]
enum Client {
    Grpc(grpc::Client),
    Http(http::Client),
}

impl Otlp {
    pub fn open(settings: Settings) -> Result<Otlp, String> {
        let target = Target::of(&settings.endpoint, &settings.headers, &settings.tls)?;
        let client = match settings.protocol {
            Protocol::Grpc => Client::Grpc(grpc::Client::open(target, settings.compression)?),
            Protocol::Http => Client::Http(http::Client::open(target, settings.compression)?),
        };
        Ok(Otlp { compression: settings.compression, client })
    }

    pub(super) async fn send(&self, delivery: &Delivery) -> Result<Sent, SendError> {
        let parts = delivery.entries.iter().map(|sending| sending.entry.bytes.clone()).collect();
        let parts = body::compress(parts, self.compression).await?;
        match &self.client {
            Client::Grpc(client) => client.send(delivery.signal, parts).await,
            Client::Http(client) => client.send(delivery.signal, parts).await,
        }
    }
}
