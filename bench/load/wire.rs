//! gRPC with messages that nobody decodes: what the generator, the floor and the sink speak.

use anyhow::Result;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::body::Body;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tower::Service;

const NAME: &str = "opentelemetry.proto.collector.logs.v1.LogsService";
const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const MESSAGE_BYTES_MAX: usize = 128 << 20;
/// That of the collector's sink.
const GZIP_LEVEL: u32 = 1;

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;
    fn encoder(&mut self) -> Raw {
        Raw
    }
    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A logs service that hands each message to a function: a tonic server with a codec of bytes.
#[derive(Clone)]
pub(crate) struct Forwarding<H> {
    pub(crate) handler: H,
    pub(crate) is_gzip: bool,
}

impl<H> tonic::server::NamedService for Forwarding<H> {
    const NAME: &'static str = NAME;
}

impl<H, F> Service<http::Request<Body>> for Forwarding<H>
where
    H: Fn(Bytes) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Bytes, Status>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let handler = self.handler.clone();
        let mut grpc = tonic::server::Grpc::new(Raw).max_decoding_message_size(MESSAGE_BYTES_MAX);
        if self.is_gzip {
            grpc = grpc.accept_compressed(CompressionEncoding::Gzip);
        }
        Box::pin(async move { Ok(grpc.unary(Unary(handler), request).await) })
    }
}

struct Unary<H>(H);

impl<H, F> tonic::server::UnaryService<Bytes> for Unary<H>
where
    H: Fn(Bytes) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Bytes, Status>> + Send + 'static,
{
    type Response = Bytes;
    type Future = Answer<Result<Response<Bytes>, Status>>;
    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let answer = (self.0)(request.into_inner());
        Box::pin(async move { answer.await.map(Response::new) })
    }
}

/// A logs service that takes all and looks at nothing, so that its core has time for the generator.
#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) bytes: Arc<AtomicU64>,
    pub(crate) pause: Duration,
}

impl tonic::server::NamedService for Sink {
    const NAME: &'static str = NAME;
}

impl Service<http::Request<Body>> for Sink {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Sink { bytes, pause } = self.clone();
        Box::pin(async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                bytes.fetch_add(length as u64, Ordering::Relaxed);
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            // An empty message, and the status behind it.
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let message =
                Full::new(Bytes::from_static(&[0; 5])).with_trailers(async move { Some(Ok(trailers)) });
            let mut answer = http::Response::new(Body::new(message));
            answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
            Ok(answer)
        })
    }
}

pub(crate) fn connect(to: &str) -> Result<Endpoint> {
    Ok(Endpoint::from_shared(to.to_owned())?)
}

/// Sends one message as a tonic client does.
pub(crate) async fn forward(channel: &Channel, message: Bytes) -> Result<Bytes, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(EXPORT);
    grpc.unary(Request::new(message), path, Raw).await.map(Response::into_inner)
}

/// The frame of a message: five bytes, and the message, compressed or not.
pub(crate) fn frame(message: &Bytes, is_gzip: bool) -> Result<Bytes> {
    let compressed = match is_gzip {
        true => {
            let level = flate2::Compression::new(GZIP_LEVEL);
            let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(message.len() / 2), level);
            encoder.write_all(message)?;
            Bytes::from(encoder.finish()?)
        }
        false => message.clone(),
    };
    let mut frame = BytesMut::with_capacity(5 + compressed.len());
    frame.put_u8(is_gzip.into());
    frame.put_u32(u32::try_from(compressed.len())?);
    frame.put(compressed);
    Ok(frame.freeze())
}

/// Sends a frame that is ready.
pub(crate) async fn send(
    channel: &Channel,
    frame: Bytes,
    is_gzip: bool,
    token: Option<&str>,
) -> Result<Bytes, Status> {
    let unavailable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
    let mut request =
        http::Request::post(EXPORT).header("te", "trailers").header("content-type", "application/grpc");
    if is_gzip {
        request = request.header("grpc-encoding", "gzip");
    }
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request =
        request.body(Body::new(Full::new(frame))).map_err(|error| Status::internal(error.to_string()))?;
    let mut channel = channel.clone();
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.map_err(unavailable)?;
    let (head, body) = channel.call(request).await.map_err(unavailable)?.into_parts();
    let collected = body.collect().await?;
    let status =
        collected.trailers().and_then(Status::from_header_map).or(Status::from_header_map(&head.headers));
    match status {
        Some(status) if status.code() == tonic::Code::Ok => Ok(collected.to_bytes().slice(5..)),
        Some(status) => Err(status),
        None => Err(Status::unknown("an answer without a status")),
    }
}
