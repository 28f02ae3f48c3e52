//! What a connection was last seen doing, and what that means for its life.
//!
//! Noted by the socket, by each request and by the body of each answer; asked by the connection's own task.

use super::{CLOSE_DEADLINE, LINGER_BYTES, LINGER_DEADLINE, Limits};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::Version;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What a connection was last seen doing.
#[derive(Debug)]
pub(super) struct Activity(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    in_flight: usize,
    /// Whether there was a request yet.
    has_asked: bool,
    /// Only of HTTP/1 do we know that bytes without a request are the head of one.
    is_http1: bool,
    idle_since: Instant,
    head_since: Option<Instant>,
    stalled_since: Option<Instant>,
    /// All is said; what still comes is thrown away.
    lingering_since: Option<Instant>,
}

/// What to do with a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing before this time.
    Look(Instant),
    Close,
    Drop,
}

impl Activity {
    pub(super) fn new() -> Arc<Activity> {
        Arc::new(Activity(Mutex::new(Seen {
            in_flight: 0,
            has_asked: false,
            is_http1: false,
            idle_since: Instant::now(),
            head_since: None,
            stalled_since: None,
            lingering_since: None,
        })))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("no panic while activity is noted")
    }

    pub(super) fn begin(self: &Arc<Activity>, version: Version) -> Flight {
        let mut seen = self.seen();
        seen.in_flight += 1;
        seen.has_asked = true;
        seen.is_http1 = version < Version::HTTP_2;
        seen.head_since = None;
        Flight(self.clone())
    }

    /// Since when it has asked for nothing; `None` while a request is in flight.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let seen = self.seen();
        // A head that has begun is no idling, as long as it does not stay one.
        (seen.in_flight == 0).then(|| seen.head_since.unwrap_or(seen.idle_since))
    }

    fn note_read(&self) {
        let mut seen = self.seen();
        if seen.in_flight == 0 {
            seen.head_since.get_or_insert_with(Instant::now);
        }
    }

    fn note_write(&self, is_stalled: bool) {
        let mut seen = self.seen();
        if is_stalled {
            seen.stalled_since.get_or_insert_with(Instant::now);
        } else {
            seen.stalled_since = None;
        }
    }

    pub(super) fn next(&self, now: Instant, limits: Limits, closing_since: Option<Instant>) -> Next {
        let seen = self.seen();
        let stalled =
            seen.stalled_since.map_or(now + limits.write_deadline, |since| since + limits.write_deadline);
        if let Some(since) = seen.lingering_since {
            let at = since + LINGER_DEADLINE;
            return if now >= at { Next::Drop } else { Next::Look(at) };
        }
        let (at, then) = match (seen.in_flight, closing_since, seen.has_asked, seen.head_since) {
            (1.., ..) => (now + limits.idle_deadline, Next::Close),
            (0, Some(since), ..) => (since + CLOSE_DEADLINE, Next::Drop),
            (0, None, false, _) => (seen.idle_since + limits.header_deadline, Next::Drop),
            (0, None, true, Some(since)) if seen.is_http1 => (since + limits.header_deadline, Next::Drop),
            (0, None, true, _) => (seen.idle_since + limits.idle_deadline, Next::Close),
        };
        match (now >= stalled, now >= at) {
            (true, _) => Next::Drop,
            (false, true) => then,
            (false, false) => Next::Look(at.min(stalled)),
        }
    }
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct Flight(Arc<Activity>);

impl Drop for Flight {
    fn drop(&mut self) {
        let mut seen = self.0.seen();
        seen.in_flight -= 1;
        seen.idle_since = Instant::now();
        seen.head_since = None;
    }
}

/// The body of an answer: its request is in flight until the body is sent or dropped.
pub(super) struct Flying<B> {
    body: B,
    _flight: Flight,
}

impl<B> Flying<B> {
    pub(super) fn new(body: B, flight: Flight) -> Flying<B> {
        Flying { body, _flight: flight }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Flying<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that notes when bytes come and when they are not taken.
pub(super) struct Watched<I> {
    io: I,
    activity: Arc<Activity>,
    is_shut: bool,
    /// Bytes read after the end.
    drained: usize,
}

impl<I> Watched<I> {
    pub(super) fn new(io: I, activity: Arc<Activity>) -> Watched<I> {
        Watched { io, activity, is_shut: false, drained: 0 }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.note_read();
        }
        read
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.activity.note_write(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.activity.note_write(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.is_shut = true;
            self.activity.seen().lingering_since = Some(Instant::now());
        }
        let mut space = [0; 16 << 10];
        while self.drained < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut space);
            // An error is an end as well: the peer has gone.
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.drained += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}
