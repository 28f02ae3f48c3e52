//! The one body reader, for gRPC and HTTP.
//!
//! Bytes count twice against one limit: as they come over the wire, and again as the decompressor yields them. They
//! take room before they are kept, chunk by chunk, through a function that the caller hands in; the first refusal
//! ends the reading. What is asked for in all is the larger of the two counts, so a caller that charges three times
//! as much has paid for the wire bytes, the decoded bytes, and one copy.
//!
//! Nothing is reserved for what a peer only announces. Dropping a read stops it; a step of decompression that is
//! under way ends first, and is bounded.

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use http_body::Body;
use http_body_util::BodyExt;
use std::io::Read;
use std::time::Duration;
use tokio::time::Instant;

/// What is decompressed without leaving the executor: about a quarter of a millisecond.
const INLINE_BYTES: usize = 64 << 10;
/// The output of one step on a blocking thread: long enough to be worth the way, short enough to stop in time.
const STEP_BYTES: usize = 256 << 10;
/// What is decompressed lies in pieces of up to this size until it is whole: a buffer that grows would be there twice
/// each time, and a body that turns out too large needs none.
const PIECE_BYTES_MAX: usize = 8 << 20;
/// Window of a zstd frame, as RFC 9659 bounds it for HTTP: 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Bounds of one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Before and after decompression.
    pub bytes_max: usize,
    /// Longest wait for the next chunk.
    pub idle_deadline: Duration,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// For `accept-encoding` headers.
    pub const ACCEPTED: &'static str = "gzip, zstd, identity";

    /// The encoding of this name in `content-encoding` or `grpc-encoding`.
    pub fn named(name: &str) -> Option<Encoding> {
        match name.trim() {
            "" | "identity" => Some(Encoding::Identity),
            "gzip" => Some(Encoding::Gzip),
            "zstd" => Some(Encoding::Zstd),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Zstd => "zstd",
        }
    }
}

/// Why a body was not read to its end. `E` is the refusal of the caller's room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault<E> {
    #[error("no room")]
    Room(E),
    #[error("larger than the limit")]
    TooLarge,
    /// Nothing came for the idle deadline.
    #[error("the sender stalled")]
    Stalled,
    /// The request's deadline passed.
    #[error("the deadline passed")]
    Late,
    /// The connection broke.
    #[error("the connection broke")]
    Broken,
    /// The body ended before what it announced.
    #[error("ended after {found} of {expected} bytes")]
    Short { found: usize, expected: usize },
    /// More came than was announced.
    #[error("goes on after {expected} bytes")]
    Long { expected: usize },
    /// No valid data of this encoding from this decoded byte on.
    #[error("no valid {} at decoded byte {offset}", .encoding.name())]
    Compressed { encoding: Encoding, offset: usize },
}

/// Reads one body, front to back.
#[derive(Debug)]
pub struct Reader<B, R> {
    frames: B,
    limits: Limits,
    deadline: Instant,
    room: R,
    unread: Bytes,
    wire_bytes: usize,
    charged_bytes: usize,
}

impl<B, R, E> Reader<B, R>
where
    B: Body<Data = Bytes> + Unpin,
    R: FnMut(usize) -> Result<(), E>,
{
    /// `room` is asked for bytes before they are kept; `deadline` bounds the whole reading.
    pub fn new(frames: B, limits: Limits, deadline: Instant, room: R) -> Reader<B, R> {
        Reader { frames, limits, deadline, room, unread: Bytes::new(), wire_bytes: 0, charged_bytes: 0 }
    }

    /// The next `N` bytes, a prefix that counts against no limit. `None` where the body has ended.
    pub async fn head<const N: usize>(&mut self) -> Result<Option<[u8; N]>, Fault<E>> {
        let mut head = [0; N];
        let mut filled = 0;
        while filled < N {
            if self.unread.is_empty() {
                match self.frame().await? {
                    Some(chunk) => self.unread = chunk,
                    None if filled == 0 => return Ok(None),
                    None => return Err(Fault::Short { found: filled, expected: N }),
                }
            }
            let part = self.unread.len().min(N - filled);
            self.unread.copy_to_slice(&mut head[filled..filled + part]);
            filled += part;
        }
        Ok(Some(head))
    }

    /// All that is left, decoded. `length`: how many wire bytes there must be, where the peer has said so.
    pub async fn rest(&mut self, length: Option<usize>, encoding: Encoding) -> Result<Bytes, Fault<E>> {
        let announced = length.map_or(self.frames.size_hint().lower(), |length| length as u64);
        if announced > self.limits.bytes_max as u64 {
            return Err(Fault::TooLarge);
        }
        let wire = self.wire(length).await?;
        match encoding {
            Encoding::Identity => Ok(wire),
            Encoding::Gzip | Encoding::Zstd if wire.is_empty() => Ok(wire),
            Encoding::Gzip | Encoding::Zstd => self.decoded(wire, encoding).await,
        }
    }

    async fn wire(&mut self, length: Option<usize>) -> Result<Bytes, Fault<E>> {
        let mut gathered = Gathered::default();
        while let Some(chunk) = self.chunk().await? {
            if let Some(expected) = length.filter(|expected| *expected < self.wire_bytes) {
                return Err(Fault::Long { expected });
            }
            gathered.push(chunk);
        }
        match length {
            Some(expected) if self.wire_bytes < expected => {
                Err(Fault::Short { found: self.wire_bytes, expected })
            }
            _ => Ok(gathered.whole()),
        }
    }

    /// The next wire bytes, counted and paid for.
    async fn chunk(&mut self) -> Result<Option<Bytes>, Fault<E>> {
        let chunk = if self.unread.is_empty() {
            let Some(chunk) = self.frame().await? else { return Ok(None) };
            chunk
        } else {
            std::mem::take(&mut self.unread)
        };
        self.wire_bytes += chunk.len();
        if self.wire_bytes > self.limits.bytes_max {
            return Err(Fault::TooLarge);
        }
        self.charge(self.wire_bytes)?;
        Ok(Some(chunk))
    }

    async fn frame(&mut self) -> Result<Option<Bytes>, Fault<E>> {
        loop {
            // Most chunks are there already: no timer for these.
            let frame = match self.frames.frame().now_or_never() {
                Some(frame) => frame,
                None => self.wait().await?,
            };
            match frame {
                None => return Ok(None),
                Some(Err(_)) => return Err(Fault::Broken),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    // Trailers, and frames of nothing. A peer could send those for ever.
                    _ if Instant::now() >= self.deadline => return Err(Fault::Late),
                    _ => tokio::task::yield_now().await,
                },
            }
        }
    }

    async fn wait(&mut self) -> Result<Option<Result<http_body::Frame<Bytes>, B::Error>>, Fault<E>> {
        let idle = Instant::now() + self.limits.idle_deadline;
        let until = idle.min(self.deadline);
        tokio::time::timeout_at(until, self.frames.frame())
            .await
            .map_err(|_| if until == self.deadline { Fault::Late } else { Fault::Stalled })
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Fault<E>> {
        if let Some(more) = bytes.checked_sub(self.charged_bytes).filter(|more| *more > 0) {
            (self.room)(more).map_err(Fault::Room)?;
            self.charged_bytes = bytes;
        }
        Ok(())
    }

    async fn decoded(&mut self, wire: Bytes, encoding: Encoding) -> Result<Bytes, Fault<E>> {
        let bytes_max = self.limits.bytes_max;
        let is_small = wire.len() <= INLINE_BYTES;
        let first = wire.len().saturating_mul(8).clamp(4 << 10, INLINE_BYTES);
        let mut work = Inflation::new(wire, encoding).ok_or(Fault::Compressed { encoding, offset: 0 })?;
        loop {
            let have = work.bytes;
            let step = if have < INLINE_BYTES { first } else { STEP_BYTES };
            // One byte more than is allowed shows that it is too large.
            let step = step.min(bytes_max - have + 1);
            self.charge((have + step).min(bytes_max))?;
            let is_done = if is_small && have < INLINE_BYTES {
                work.advance(step)
            } else {
                let advanced = tokio::task::spawn_blocking(move || {
                    let is_done = work.advance(step);
                    (work, is_done)
                });
                // Cancelled only when the runtime shuts down.
                let (same, is_done) = advanced.await.map_err(|_| Fault::Late)?;
                work = same;
                is_done
            };
            let is_done = is_done.map_err(|_| Fault::Compressed { encoding, offset: work.bytes })?;
            if work.bytes > bytes_max {
                return Err(Fault::TooLarge);
            }
            if is_done {
                return Ok(work.whole());
            }
            if Instant::now() >= self.deadline {
                return Err(Fault::Late);
            }
        }
    }
}

/// Chunks that become one buffer. A single chunk is not copied.
#[derive(Default)]
struct Gathered {
    only: Bytes,
    grown: Vec<u8>,
}

impl Gathered {
    fn push(&mut self, chunk: Bytes) {
        if self.only.is_empty() && self.grown.is_empty() {
            self.only = chunk;
            return;
        }
        let first = std::mem::take(&mut self.only);
        self.grown.extend_from_slice(&first);
        self.grown.extend_from_slice(&chunk);
    }

    fn whole(self) -> Bytes {
        if self.grown.is_empty() { self.only } else { Bytes::from(self.grown) }
    }
}

/// A decompression that stops after each step.
struct Inflation {
    decoder: Decoder,
    pieces: Vec<Vec<u8>>,
    /// In all pieces.
    bytes: usize,
    /// Room of the first piece: of most bodies it is the only one.
    likely_bytes: usize,
}

enum Decoder {
    Gzip(Box<flate2::bufread::MultiGzDecoder<bytes::buf::Reader<Bytes>>>),
    Zstd(zstd::stream::read::Decoder<'static, bytes::buf::Reader<Bytes>>),
}

impl Inflation {
    fn new(wire: Bytes, encoding: Encoding) -> Option<Inflation> {
        let likely_bytes = wire.len().saturating_mul(8).min(PIECE_BYTES_MAX);
        let decoder = if encoding == Encoding::Gzip {
            Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(wire.reader())))
        } else {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(wire.reader()).ok()?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).ok()?;
            Decoder::Zstd(decoder)
        };
        Some(Inflation { decoder, pieces: Vec::new(), bytes: 0, likely_bytes })
    }

    /// At most `step` bytes more; true at the end.
    fn advance(&mut self, step: usize) -> std::io::Result<bool> {
        if self.pieces.last().is_none_or(|last| last.capacity() - last.len() < step) {
            let usual = if self.pieces.is_empty() { self.likely_bytes } else { self.bytes };
            self.pieces.push(Vec::with_capacity(usual.min(PIECE_BYTES_MAX).max(step)));
        }
        let Some(piece) = self.pieces.last_mut() else { return Ok(true) };
        let before = piece.len();
        let result = match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.take(step as u64).read_to_end(piece),
            Decoder::Zstd(decoder) => decoder.take(step as u64).read_to_end(piece),
        };
        // What came before a fault counts for its offset.
        self.bytes += piece.len() - before;
        Ok(result? < step)
    }

    fn whole(mut self) -> Bytes {
        if self.pieces.len() > 1 {
            return Bytes::from(self.pieces.concat());
        }
        let mut only = self.pieces.pop().unwrap_or_default();
        // What is kept of it must cost no more than what it is charged for.
        if only.capacity() / 2 > only.len() {
            only.shrink_to_fit();
        }
        Bytes::from(only)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use std::convert::Infallible;

    const LIMITS: Limits = Limits { bytes_max: 100_000, idle_deadline: Duration::from_secs(10) };

    fn body(bytes: &[u8], chunk: usize) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let chunks: Vec<Bytes> = bytes.chunks(chunk).map(Bytes::copy_from_slice).collect();
        StreamBody::new(stream::iter(chunks.into_iter().map(|chunk| Ok(Frame::data(chunk)))))
    }

    fn stalling(bytes: &[u8]) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let first = stream::iter([Ok(Frame::data(Bytes::copy_from_slice(bytes)))]);
        StreamBody::new(futures_util::StreamExt::chain(first, stream::pending()))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn compressed(bytes: &[u8], encoding: Encoding) -> Vec<u8> {
        match encoding {
            Encoding::Identity => bytes.to_vec(),
            Encoding::Gzip => gzip(bytes),
            Encoding::Zstd => zstd::encode_all(bytes, 1).unwrap(),
        }
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    const ALL: [Encoding; 3] = [Encoding::Identity, Encoding::Gzip, Encoding::Zstd];

    /// The outcome, and the room that was taken.
    async fn read(
        body: impl Body<Data = Bytes> + Unpin,
        limits: Limits,
        length: Option<usize>,
        encoding: Encoding,
        room: usize,
    ) -> (Result<Bytes, Fault<&'static str>>, usize) {
        let mut taken = 0;
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut reader = Reader::new(body, limits, deadline, |bytes| {
            if taken + bytes > room {
                return Err("full");
            }
            taken += bytes;
            Ok(())
        });
        let outcome = reader.rest(length, encoding).await;
        drop(reader);
        (outcome, taken)
    }

    #[tokio::test]
    async fn bodies_come_out_whole_in_any_encoding_and_chunking() {
        for encoding in ALL {
            for length in [0, 1, 1000, 65_535, 65_536, 65_537, 99_999, 100_000] {
                // Compressible: what is larger on the wire than the limit is refused.
                let bytes: Vec<u8> = noise(length).iter().map(|byte| byte & 15).collect();
                let wire = compressed(&bytes, encoding);
                for chunk in [1 << 20, 10_000, 999] {
                    let (outcome, taken) = read(body(&wire, chunk), LIMITS, None, encoding, usize::MAX).await;
                    assert!(outcome.as_deref() == Ok(&bytes[..]), "{encoding:?} {length} {chunk}");
                    assert!(
                        taken >= bytes.len() && taken <= LIMITS.bytes_max,
                        "{encoding:?} {length}: {taken}"
                    );
                }
            }
        }
    }

    #[tokio::test]
    async fn too_large_is_found_before_and_after_decompression_and_costs_the_limit() {
        for encoding in ALL {
            for bytes in [noise(100_001), vec![0; 10_000_000]] {
                let wire = compressed(&bytes, encoding);
                let (outcome, taken) = read(body(&wire, 5000), LIMITS, None, encoding, usize::MAX).await;
                assert_eq!(outcome, Err(Fault::TooLarge), "{encoding:?}");
                assert!(taken <= LIMITS.bytes_max, "{encoding:?}: {taken}");
            }
        }
        // What is only announced costs nothing.
        let announced = read(stalling(b"x"), LIMITS, Some(1 << 30), Encoding::Identity, usize::MAX).await;
        assert_eq!(announced, (Err(Fault::TooLarge), 0));
    }

    #[tokio::test]
    async fn the_first_refusal_of_room_ends_the_reading() {
        for encoding in ALL {
            let wire = compressed(&noise(90_000), encoding);
            let (outcome, taken) = read(body(&wire, 1000), LIMITS, None, encoding, 50_000).await;
            assert_eq!(outcome, Err(Fault::Room("full")), "{encoding:?}");
            assert!(taken <= 50_000);
        }
        let zeros = compressed(&vec![0; 90_000], Encoding::Gzip);
        let (outcome, _) = read(body(&zeros, 1000), LIMITS, None, Encoding::Gzip, 50_000).await;
        assert_eq!(outcome, Err(Fault::Room("full")));
    }

    #[tokio::test]
    async fn lengths_that_were_announced_are_held() {
        for (length, expected) in [
            (Some(10), Ok(Bytes::from_static(b"0123456789"))),
            (None, Ok(Bytes::from_static(b"0123456789"))),
            (Some(11), Err(Fault::Short { found: 10, expected: 11 })),
            (Some(9), Err(Fault::Long { expected: 9 })),
            (Some(0), Err(Fault::Long { expected: 0 })),
        ] {
            for chunk in [1, 3, 10] {
                let (outcome, _) =
                    read(body(b"0123456789", chunk), LIMITS, length, Encoding::Identity, 10).await;
                assert_eq!(outcome, expected, "{length:?} {chunk}");
            }
        }
    }

    #[tokio::test]
    async fn a_prefix_is_read_over_any_chunks() {
        for chunk in [1, 2, 5, 9] {
            let mut reader =
                Reader::new(body(b"abcdefghi", chunk), LIMITS, Instant::now() + LIMITS.idle_deadline, |_| {
                    Ok::<_, ()>(())
                });
            assert_eq!(reader.head::<5>().await, Ok(Some(*b"abcde")));
            assert_eq!(reader.rest(Some(4), Encoding::Identity).await.as_deref(), Ok(&b"fghi"[..]));
        }
        let mut none =
            Reader::new(body(b"", 1), LIMITS, Instant::now() + LIMITS.idle_deadline, |_| Ok::<_, ()>(()));
        assert_eq!(none.head::<5>().await, Ok(None));
        let mut short =
            Reader::new(body(b"abc", 1), LIMITS, Instant::now() + LIMITS.idle_deadline, |_| Ok::<_, ()>(()));
        assert_eq!(short.head::<5>().await, Err(Fault::Short { found: 3, expected: 5 }));
    }

    #[tokio::test]
    async fn broken_compression_is_refused_wherever_it_is_cut() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let wire = compressed(&noise(300), encoding);
            for end in 1..wire.len() {
                let (outcome, _) = read(body(&wire[..end], 7), LIMITS, None, encoding, usize::MAX).await;
                assert!(matches!(outcome, Err(Fault::Compressed { .. })), "{encoding:?} {end}: {outcome:?}");
            }
            let (outcome, _) = read(body(b"not compressed", 7), LIMITS, None, encoding, usize::MAX).await;
            assert_eq!(outcome, Err(Fault::Compressed { encoding, offset: 0 }));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_stalls_is_left_at_the_idle_deadline_and_a_slow_one_at_the_last() {
        let begun = Instant::now();
        let (outcome, taken) =
            read(stalling(b"abc"), LIMITS, Some(90_000), Encoding::Identity, usize::MAX).await;
        assert_eq!((outcome, taken), (Err(Fault::Stalled), 3));
        assert_eq!(begun.elapsed().as_secs(), 10);

        let drip = stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_secs(4)).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))), ()))
        });
        let begun = Instant::now();
        let (outcome, taken) =
            read(StreamBody::new(Box::pin(drip)), LIMITS, None, Encoding::Identity, usize::MAX).await;
        assert_eq!((outcome, taken), (Err(Fault::Late), 7));
        assert_eq!(begun.elapsed().as_secs(), 30);
    }
}
