//! gRPC with messages that nobody decodes: what the generator, the floor and the sink speak.

use bytes::{Buf, BufMut, Bytes};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Response, Status};

#[derive(Clone, Copy, Default)]
pub(crate) struct Raw;

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

pub(crate) const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// A logs service that hands each message to a function.
#[derive(Clone)]
pub(crate) struct Service<H> {
    pub(crate) handler: H,
    pub(crate) is_gzip: bool,
}

impl<H> tonic::server::NamedService for Service<H> {
    const NAME: &'static str = "opentelemetry.proto.collector.logs.v1.LogsService";
}

impl<H, F> tower::Service<http::Request<tonic::body::Body>> for Service<H>
where
    H: Fn(Bytes) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Bytes, Status>> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        struct Unary<H>(H);
        impl<H, F> tonic::server::UnaryService<Bytes> for Unary<H>
        where
            H: Fn(Bytes) -> F + Clone + Send + 'static,
            F: Future<Output = Result<Bytes, Status>> + Send + 'static,
        {
            type Response = Bytes;
            type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Status>> + Send>>;
            fn call(&mut self, request: Request<Bytes>) -> Self::Future {
                let answer = (self.0)(request.into_inner());
                Box::pin(async move { answer.await.map(Response::new) })
            }
        }
        let handler = self.handler.clone();
        let is_gzip = self.is_gzip;
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Raw).max_decoding_message_size(128 << 20);
            if is_gzip {
                grpc = grpc.accept_compressed(tonic::codec::CompressionEncoding::Gzip);
            }
            Ok(grpc.unary(Unary(handler), request).await)
        })
    }
}

/// Sends one message.
pub(crate) async fn export(
    channel: &tonic::transport::Channel,
    message: Bytes,
    is_gzip: bool,
) -> Result<Bytes, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(128 << 20);
    if is_gzip {
        grpc = grpc.send_compressed(tonic::codec::CompressionEncoding::Gzip);
    }
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    grpc.unary(Request::new(message), http::uri::PathAndQuery::from_static(EXPORT), Raw)
        .await
        .map(Response::into_inner)
}
