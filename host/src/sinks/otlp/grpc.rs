//! OTLP/gRPC: tonic's channel, with a body and a reading of answers of our own.
//!
//! tonic's codec would copy each buffer and compress on the executor, and its reading of a status panics on details
//! that are not base64; the frame of a unary call is five bytes.

use super::body::Chunks;
use super::{ANSWER_BYTES_MAX, Compression, PING_INTERVAL, PING_TIMEOUT, answer};
use crate::batch::Signal;
use crate::net::http::{CONNECT_TIMEOUT, USER_AGENT, chain};
use crate::sinks::http::Target;
use crate::sinks::{SendError, Sent};
use ::http::uri::{PathAndQuery, Scheme};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

/// Answers are short, but the window also holds what the server sends before it is asked.
const WINDOW_BYTES: u32 = 1 << 20;
const FRAME_HEADER_BYTES: usize = 5;

#[derive(Debug)]
pub(super) struct Client {
    channel: Channel,
    uri: Uri,
    headers: HeaderMap,
    encoding: Option<&'static str>,
}

impl Client {
    pub(super) fn open(target: Target, compression: Compression) -> Result<Client, String> {
        let authority = target.uri.authority().expect("a target has an authority").clone();
        // The connector does TLS itself; told `https`, tonic would want to.
        let plain = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query("/").build();
        let plain = plain.map_err(|error| error.to_string())?;
        let endpoint = Endpoint::from(plain)
            .origin(target.uri.clone())
            .user_agent(USER_AGENT)
            .map_err(|error| error.to_string())?
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let connector = Connector::of(&target)?;
        Ok(Client {
            channel: endpoint.connect_with_connector_lazy(connector),
            uri: target.uri,
            headers: target.headers,
            encoding: compression.name(),
        })
    }

    pub(super) async fn send(&self, signal: Signal, parts: Vec<Bytes>) -> Result<Sent, SendError> {
        let request = self.request(signal, parts)?;
        let mut channel = self.channel.clone();
        poll_fn(|cx| channel.poll_ready(cx)).await.map_err(|error| no_answer(&error))?;
        let response = channel.call(request).await.map_err(|error| no_answer(&error))?;
        read(response).await
    }

    fn request(&self, signal: Signal, mut parts: Vec<Bytes>) -> Result<Request<Body>, SendError> {
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        let message = "larger than a gRPC message can be";
        let too_large = |_| SendError::Reject { reason: "too_large", message: message.into() };
        let mut header = BytesMut::with_capacity(FRAME_HEADER_BYTES);
        header.put_u8(self.encoding.is_some().into());
        header.put_u32(u32::try_from(bytes).map_err(too_large)?);
        parts.insert(0, header.freeze());

        let mut uri = self.uri.clone().into_parts();
        uri.path_and_query = Some(PathAndQuery::from_static(path(signal)));
        let mut request = Request::new(Body::new(Chunks::new(parts)));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() =
            Uri::from_parts(uri).expect("scheme and authority were parsed, the path is ours");
        let headers = request.headers_mut();
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.extend(
            self.encoding
                .map(|name| (HeaderName::from_static("grpc-encoding"), HeaderValue::from_static(name))),
        );
        headers.extend(self.headers.clone());
        Ok(request)
    }
}

fn path(signal: Signal) -> &'static str {
    match signal {
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    }
}

fn no_answer(error: &dyn std::error::Error) -> SendError {
    SendError::Retry { after: None, reason: chain(error) }
}

async fn read(response: Response<Body>) -> Result<Sent, SendError> {
    let (head, body) = response.into_parts();
    if let Some(Err(error)) = answer::grpc_status(&head.headers) {
        return Err(error);
    }
    if !head.status.is_success() {
        return Err(answer::grpc_error_of_http(head.status));
    }
    let collected = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let collected = collected.map_err(|error| no_answer(error.as_ref()))?;
    let trailers = collected.trailers().or(Some(&head.headers));
    match trailers.and_then(answer::grpc_status) {
        Some(status) => status?,
        // The connection ended between: whether it arrived nobody said.
        None => return Err(SendError::Retry { after: None, reason: "the answer has no grpc-status".into() }),
    }
    let body = collected.to_bytes();
    // We accept no compression, so a message is as it is.
    Ok(answer::sent(body.get(FRAME_HEADER_BYTES..).unwrap_or_default()))
}

/// Opens the connection, with TLS where the endpoint says so.
#[derive(Clone)]
struct Connector {
    host: Arc<str>,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Connector {
    fn of(target: &Target) -> Result<Connector, String> {
        let host = target.uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let tls = match target.tls.clone() {
            None => None,
            Some(mut config) => {
                config.alpn_protocols = vec![b"h2".to_vec()];
                let name = ServerName::try_from(host.to_owned());
                let name = name.map_err(|_| format!("endpoint: `{host}` is no name of a server"))?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        let port = target.uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        Ok(Connector { host: host.into(), port, tls })
    }
}

/// A connection, in clear or through TLS.
trait Connection: hyper::rt::Read + hyper::rt::Write + Send + Unpin {}
impl<T: hyper::rt::Read + hyper::rt::Write + Send + Unpin> Connection for T {}

impl Service<Uri> for Connector {
    type Response = Box<dyn Connection>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Box<dyn Connection>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let socket = TcpStream::connect((&*connector.host, connector.port)).await?;
            socket.set_nodelay(true)?;
            Ok(match connector.tls {
                None => Box::new(TokioIo::new(socket)) as Box<dyn Connection>,
                Some((tls, name)) => Box::new(TokioIo::new(tls.connect(name, socket).await?)),
            })
        })
    }
}
