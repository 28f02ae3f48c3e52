//! `grpc.health.v1`: whether the collector takes data, for load balancers and orchestrators. No credential is asked.
//!
//! Source: gRPC health checking protocol. Known services are "" (the whole) and the three of OTLP; all have the same
//! answer. `Watch` answers at once and at each change, and ends when the collector stops.

use super::answer::{No, code, grpc_frame, grpc_message, grpc_refusal, grpc_response};
use super::grpc::{encoding, read_message};
use super::{Body, Receiver, deadline};
use crate::net::body::{Limits, Reader};
use crate::tenants::Full;
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Request, Response};
use prost::Message;
use std::convert::Infallible;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A service's name and some.
const REQUEST_BYTES_MAX: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Check,
    Watch,
}

pub(super) fn method(path: &str) -> Option<Method> {
    match path {
        "/grpc.health.v1.Health/Check" => Some(Method::Check),
        "/grpc.health.v1.Health/Watch" => Some(Method::Watch),
        _ => None,
    }
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

pub(super) async fn answer<S>(
    receiver: &Receiver<S>,
    method: Method,
    request: Request<Incoming>,
) -> Response<Body> {
    let service = match service(receiver, request).await {
        Ok(service) => service,
        Err(no) => return grpc_refusal(&no),
    };
    let state =
        State { ready: receiver.ready.clone(), stop: receiver.stop.clone(), is_known: is_known(&service) };
    match (method, state.is_known) {
        (Method::Check, false) => grpc_refusal(&No::Service),
        (Method::Check, true) => grpc_message(&HealthCheckResponse { status: state.now().into() }),
        (Method::Watch, _) => grpc_response(watch(state)),
    }
}

fn is_known(service: &str) -> bool {
    matches!(
        service,
        "" | "opentelemetry.proto.collector.logs.v1.LogsService"
            | "opentelemetry.proto.collector.trace.v1.TraceService"
            | "opentelemetry.proto.collector.metrics.v1.MetricsService"
    )
}

async fn service<S>(receiver: &Receiver<S>, request: Request<Incoming>) -> Result<String, No> {
    let encoding = encoding(request.headers())?;
    let limits = Limits { bytes_max: REQUEST_BYTES_MAX, idle_deadline: receiver.settings.body_idle_deadline };
    let deadline = deadline(&receiver.settings, None);
    let mut reader = Reader::new(request.into_body(), limits, deadline, |_| Ok::<(), Full>(()));
    let message = read_message(&mut reader, encoding).await.map_err(|fault| fault.no(REQUEST_BYTES_MAX))?;
    let request = HealthCheckRequest::decode(message);
    let wrong = |_| No::Wrong { at: 0, text: "expected a HealthCheckRequest".into() };
    request.map(|request| request.service).map_err(wrong)
}

struct State {
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
    is_known: bool,
}

impl State {
    fn now(&self) -> ServingStatus {
        match (self.is_known, *self.ready.borrow() && !self.stop.is_cancelled()) {
            (false, _) => ServingStatus::ServiceUnknown,
            (true, true) => ServingStatus::Serving,
            (true, false) => ServingStatus::NotServing,
        }
    }

    /// Returns when the answer differs from `last`; `None` when the collector stops.
    async fn next(&mut self, last: Option<ServingStatus>) -> Option<ServingStatus> {
        loop {
            let now = self.now();
            if last != Some(now) {
                return Some(now);
            }
            let stop = self.stop.clone();
            tokio::select! {
                () = stop.cancelled() => return None,
                // No sender is left: nothing changes any more until the stop.
                changed = self.ready.changed() => if changed.is_err() {
                    stop.cancelled().await;
                    return None;
                },
            }
        }
    }
}

/// A stream of answers; it ends with UNAVAILABLE, so that a watcher comes back.
fn watch(state: State) -> Body {
    let frames = stream::unfold(Some((state, None)), async |held| {
        let (mut state, last) = held?;
        if state.stop.is_cancelled() && last.is_some() {
            return Some((end(), None));
        }
        match state.next(last).await {
            Some(status) => {
                let data = Frame::data(grpc_frame(&HealthCheckResponse { status: status.into() }));
                Some((Ok(data), Some((state, Some(status)))))
            }
            None => Some((end(), None)),
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

fn end() -> Result<Frame<Bytes>, Infallible> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code::UNAVAILABLE));
    Ok(Frame::trailers(trailers))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::*;

    const GRPC: (&str, &str) = ("content-type", "application/grpc");
    const CHECK: &str = "/grpc.health.v1.Health/Check";

    fn asked(service: &str) -> Vec<u8> {
        framed(0, &HealthCheckRequest { service: service.into() }.encode_to_vec())
    }

    #[tokio::test]
    async fn a_check_needs_no_credential_and_follows_the_collector() {
        let world = World::taking().await;
        let mut connection = Http2::connect(world.grpc).await;
        for (is_ready, service, code, status) in [
            (true, "", "0", Some(1)),
            (true, "opentelemetry.proto.collector.logs.v1.LogsService", "0", Some(1)),
            (true, "opentelemetry.proto.collector.trace.v1.TraceService", "0", Some(1)),
            (true, "opentelemetry.proto.collector.metrics.v1.MetricsService", "0", Some(1)),
            (false, "", "0", Some(2)),
            (false, "nobody.knows.it", "5", None),
        ] {
            world.ready.send(is_ready).unwrap();
            let answer = connection.post(CHECK, &[GRPC], asked(service)).await;
            assert_eq!(answer.header("grpc-status"), Some(code), "{service}");
            let body = status.map_or(vec![], |status| framed(0, &[8, status]));
            assert_eq!(answer.body, body, "{service}");
        }
        let long = connection.post(CHECK, &[GRPC], asked(&"x".repeat(5000))).await;
        assert_eq!(long.header("grpc-status"), Some("8"));
        let wrong = connection.post(CHECK, &[GRPC], framed(0, &[1, 2, 3])).await;
        assert_eq!(wrong.header("grpc-status"), Some("3"));
    }

    #[tokio::test]
    async fn a_watch_tells_each_change_and_ends_with_the_collector() {
        let mut world = World::taking().await;
        let mut connection = Http2::connect(world.grpc).await;
        let request = |service: &str| {
            let body = http_body_util::Full::new(Bytes::from(asked(service))).boxed_unsync();
            Request::post("http://test/grpc.health.v1.Health/Watch")
                .header(GRPC.0, GRPC.1)
                .body(body)
                .unwrap()
        };
        let mut known = connection.send.send_request(request("")).await.unwrap().into_body();
        let mut unknown = connection.send.send_request(request("x")).await.unwrap().into_body();
        let mut next = async || known.frame().await.unwrap().unwrap();
        assert_eq!(next().await.into_data().unwrap(), framed(0, &[8, 1]));
        assert_eq!(unknown.frame().await.unwrap().unwrap().into_data().unwrap(), framed(0, &[8, 3]));
        world.ready.send(false).unwrap();
        assert_eq!(next().await.into_data().unwrap(), framed(0, &[8, 2]));
        world.ready.send(true).unwrap();
        assert_eq!(next().await.into_data().unwrap(), framed(0, &[8, 1]));
        world.stop.cancel();
        assert_eq!(next().await.into_trailers().unwrap()["grpc-status"], "14");
        assert_eq!(unknown.frame().await.unwrap().unwrap().into_trailers().unwrap()["grpc-status"], "14");
        world.tasks.join_next().await.unwrap().unwrap();
    }
}
