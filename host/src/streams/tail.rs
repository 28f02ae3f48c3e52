//! One viewer of one stream: what the store has from its position on, then what the ring brings.
//!
//! A viewer subscribes to the ring first and reads the store until its lane has stored everything that was published
//! before; so no line falls between the two. The position decides what is new, so none comes twice either. If the
//! store does not get there in time the viewer is told of a gap and goes on live. It works only while it is polled:
//! a slow reader holds back nobody, it loses what the ring cannot keep and is told so.

use super::lane::{Cursor, Joined, Line, Taken};
use super::position::Position;
use super::record::{Walk, single};
use super::store::Scan;
use super::{Streams, json};
use crate::batch::{RecordId, Stream};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// What a viewer is told. `position` is what it resumes by after this event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TailEvent {
    /// One record, as a JSON object.
    Log { position: String, json: String },
    /// Records after id `from` (not itself) up to and with `to` were not shown: `slow`, this viewer did not keep up;
    /// `store`, they were not stored in time, or never will be. `count` is 0 where nobody knows how many.
    /// The position stays before the gap: who comes back with it gets what the store has of it by then.
    Gap { from: String, to: String, count: u64, reason: &'static str, position: String },
    /// Nothing happened for a while.
    Alive { position: String },
    /// Nothing more comes; the viewer may come back with its last position.
    End { reason: &'static str },
}

/// Larger entries are rendered in parts for each viewer, and not kept.
const SHARED_BYTES_MAX: usize = 512 * 1024;
const SHARED_RECORDS_MAX: u32 = 2048;
/// Records of one part.
const PART_RECORDS: usize = 256;
/// What is rendered where it stands; more leaves the executor.
const INLINE_BYTES_MAX: usize = 8 * 1024;
/// Between attempts to read a store that refuses.
const STORE_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

type Lines = Arc<[(RecordId, String)]>;

pub(super) struct Viewer {
    streams: Arc<Streams>,
    stream: Stream,
    hash: [u8; 8],
    cursor: Cursor,
    changed: watch::Receiver<()>,
    ended: watch::Receiver<bool>,
    position: Position,
    /// The last record told, or everything before the first: where a gap begins.
    last: RecordId,
    phase: Phase,
    lines: Lines,
    /// How many of `lines` were told.
    told: usize,
    /// What is left of an entry that is rendered in parts.
    rest: Option<(Arc<Line>, Walk)>,
    events: VecDeque<TailEvent>,
}

enum Phase {
    Store(Joining),
    Live,
    Ended,
}

struct Joining {
    /// Where the next scan begins.
    from: RecordId,
    /// Records of this node with this number and above come through the ring.
    ring: Option<([u8; 4], u64)>,
    /// The last id that the store was to reach.
    to: RecordId,
    /// When the viewer stops waiting for the store; starts anew with every full page.
    deadline: Option<Instant>,
    /// Records that were not stored before the last scan began.
    behind: u64,
    is_at_end: bool,
}

impl Viewer {
    /// Joins the stream: from here on no line is missed.
    pub(super) fn join(streams: &Arc<Streams>, stream: Stream, position: Option<Position>) -> Viewer {
        let joined = streams.lanes.join(&stream);
        let Joined { cursor, ring, last, time_ms, hash, changed } = joined;
        let skew_ms = streams.store.skew_ms();
        let (position, phase) = match position {
            Some(position) => {
                let to = last.unwrap_or_else(|| RecordId::new(hash, time_ms, [0; 4], 0));
                let from = position.start(hash, skew_ms);
                let joining = Joining { from, ring, to, deadline: None, behind: 0, is_at_end: false };
                (position, Phase::Store(joining))
            }
            None => {
                let mut position = Position::at(time_ms);
                if let Some(last) = last {
                    position.advance(&last, skew_ms);
                }
                (position, Phase::Live)
            }
        };
        streams.metrics.deliver_viewers.inc();
        Viewer {
            last: position.start(hash, 0),
            ended: streams.ended.subscribe(),
            streams: streams.clone(),
            lines: Arc::new([]),
            told: 0,
            rest: None,
            events: VecDeque::new(),
            stream,
            hash,
            cursor,
            changed,
            position,
            phase,
        }
    }

    /// The next event; `None` after the end. Cancelled, nothing is lost.
    pub(super) async fn next(&mut self) -> Option<TailEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if let Some(event) = self.next_line() {
                return Some(event);
            }
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            match self.phase {
                Phase::Store(_) => self.read_store().await,
                Phase::Live => self.follow().await,
                Phase::Ended => return None,
            }
        }
    }

    fn next_line(&mut self) -> Option<TailEvent> {
        while let Some((id, json)) = self.lines.get(self.told) {
            self.told += 1;
            let comes_through_ring = match &self.phase {
                Phase::Store(joining) => joining.comes_through_ring(id),
                _ => false,
            };
            if comes_through_ring || !self.position.is_new(id) {
                continue;
            }
            self.position.advance(id, self.streams.store.skew_ms());
            self.last = *id;
            return Some(TailEvent::Log { position: self.position.text(), json: json.clone() });
        }
        self.show(Arc::new([]));
        None
    }

    fn show(&mut self, lines: Lines) {
        (self.lines, self.told) = (lines, 0);
    }

    async fn read_store(&mut self) {
        if *self.ended.borrow() {
            return self.end();
        }
        let Phase::Store(joining) = &mut self.phase else { return };
        if joining.is_at_end {
            joining.is_at_end = false;
            return self.finish_or_wait().await;
        }
        let now = Instant::now();
        let deadline = *joining.deadline.get_or_insert(now + self.streams.tuning.store_patience);
        // Before the scan: what is stored by now, the scan will see.
        joining.behind = joining.ring.map_or(0, |(_, below)| self.streams.lanes.behind(&self.stream, below));
        let scan = Scan {
            stream: self.stream.clone(),
            hash: self.hash,
            from: joining.from,
            to_ms: u64::MAX,
            records_max: self.streams.tuning.page_records,
            bytes_max: self.streams.tuning.page_bytes,
        };
        match timeout_at(deadline, self.streams.store.scan(scan)).await {
            Ok(Ok(found)) => {
                let last = found.records.last().map(|(id, _)| *id);
                let records = found.records;
                let lines = off_executor(move || {
                    records.iter().map(|(id, request)| (*id, json::render(id, request))).collect()
                })
                .await;
                self.show(lines);
                self.note_page(last, found.next);
            }
            Ok(Err(_)) if Instant::now() + STORE_PAUSE < deadline => sleep(STORE_PAUSE).await,
            Ok(Err(_)) | Err(_) => self.give_up(),
        }
    }

    fn note_page(&mut self, last: Option<RecordId>, next: Option<RecordId>) {
        let Phase::Store(joining) = &mut self.phase else { return };
        let Some(next) = next else {
            joining.is_at_end = true;
            // With one writer nothing appears before what was found.
            if let (0, Some(last)) = (self.streams.store.skew_ms(), last) {
                joining.from = last;
            }
            return;
        };
        joining.from = next;
        joining.deadline = None;
        // A long history: the ring need not keep for us what will be in the store when we get there.
        self.rejoin();
    }

    fn rejoin(&mut self) {
        let Phase::Store(joining) = &mut self.phase else { return };
        if let Some(last) = self.streams.lanes.rejoin(&self.stream, &mut self.cursor) {
            joining.ring = Some((last.node(), last.number() + 1));
            joining.to = last;
        }
    }

    async fn finish_or_wait(&mut self) {
        let Phase::Store(joining) = &mut self.phase else { return };
        if joining.behind == 0 {
            let (ring, to) = (joining.ring, joining.to);
            let below = ring.map_or(0, |(_, below)| below);
            let given_up = self.streams.lanes.take_given_up(&self.stream, &mut self.cursor, below);
            if given_up > 0 {
                self.tell_gap(to, given_up, "store");
            }
            self.phase = Phase::Live;
            return;
        }
        let deadline = joining.deadline.expect("it was set before the scan");
        tokio::select! {
            changed = self.changed.changed() => changed.expect("the ring lives while it has viewers"),
            _ = self.ended.changed() => {}
            () = sleep_until(deadline) => return self.give_up(),
        }
        if self.streams.lanes.is_lost(&self.stream, &self.cursor) {
            self.rejoin();
        }
    }

    /// The store does not get there in time: live goes on.
    fn give_up(&mut self) {
        let Phase::Store(joining) = &self.phase else { return };
        let below = joining.ring.map_or(0, |(_, below)| below);
        let (to, behind) = (joining.to, self.streams.lanes.behind(&self.stream, below));
        let given_up = self.streams.lanes.take_given_up(&self.stream, &mut self.cursor, below);
        self.tell_gap(to, behind + given_up, "store");
        self.phase = Phase::Live;
    }

    fn tell_gap(&mut self, to: RecordId, count: u64, reason: &'static str) {
        self.streams
            .metrics
            .deliver_gap_records
            .get_or_create(&vec![("reason", reason.to_owned())])
            .inc_by(count);
        self.events.push_back(TailEvent::Gap {
            from: json::id_text(&self.last),
            to: json::id_text(&to),
            count,
            reason,
            position: self.position.text(),
        });
        self.last = self.last.max(to);
    }

    async fn follow(&mut self) {
        if let Some((line, walk)) = self.rest.take() {
            return self.show_part(line, walk).await;
        }
        // Seen before the look: what comes after it wakes us.
        self.changed.borrow_and_update();
        let is_ended = *self.ended.borrow_and_update();
        match self.streams.lanes.take(&self.stream, &mut self.cursor) {
            Taken::Line { at, line } => self.show_entry(at, line).await,
            Taken::Lost { records, last } => self.tell_gap(last, records, "slow"),
            Taken::Nothing if is_ended => self.end(),
            Taken::Nothing => self.wait().await,
        }
    }

    async fn wait(&mut self) {
        tokio::select! {
            changed = self.changed.changed() => changed.expect("the ring lives while it has viewers"),
            _ = self.ended.changed() => {}
            () = sleep(self.streams.tuning.alive_every) => {
                self.events.push_back(TailEvent::Alive { position: self.position.text() });
            }
        }
    }

    fn end(&mut self) {
        self.events.push_back(TailEvent::End { reason: "stopping" });
        self.phase = Phase::Ended;
    }

    async fn show_entry(&mut self, at: u64, line: Arc<Line>) {
        let entry = &line.entry;
        if entry.bytes.len() > SHARED_BYTES_MAX || entry.records > SHARED_RECORDS_MAX {
            let walk = Walk::of(entry);
            return self.show_part(line, walk).await;
        }
        if let Some(lines) = line.rendered.get() {
            return self.show(lines.clone());
        }
        let lines = if entry.bytes.len() <= INLINE_BYTES_MAX {
            render_whole(&line)
        } else {
            // Kept until it is shown: a caller who drops this future comes back to it.
            self.rest = Some((line.clone(), Walk::of(entry)));
            let shared = line.clone();
            let lines = off_executor(move || render_whole(&shared)).await;
            self.rest = None;
            lines
        };
        self.streams.lanes.rendered(&self.stream, at, lines.iter().map(|(_, json)| json.len()).sum());
        self.show(lines);
    }

    async fn show_part(&mut self, line: Arc<Line>, walk: Walk) {
        self.rest = Some((line.clone(), walk.clone()));
        let (lines, rest) = off_executor(move || {
            let mut walk = walk;
            let lines: Lines = render_some(&line, &mut walk, PART_RECORDS).into();
            let rest = (lines.len() == PART_RECORDS).then_some((line, walk));
            (lines, rest)
        })
        .await;
        self.rest = rest;
        self.show(lines);
    }
}

impl Joining {
    fn comes_through_ring(&self, id: &RecordId) -> bool {
        self.ring.is_some_and(|(node, below)| id.node() == node && id.number() >= below)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.streams.lanes.leave(&self.stream, &self.cursor);
        self.streams.metrics.deliver_viewers.dec();
        self.streams.viewers.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

fn render_whole(line: &Line) -> Lines {
    let render = || render_some(line, &mut Walk::of(&line.entry), usize::MAX).into();
    line.rendered.get_or_init(render).clone()
}

fn render_some(line: &Line, walk: &mut Walk, records_max: usize) -> Vec<(RecordId, String)> {
    let mut lines = Vec::new();
    while lines.len() < records_max
        && let Some((at, spans)) = walk.next(&line.entry.bytes)
    {
        let id = line.entry.record_id(line.hash, at);
        lines.push((id, json::render(&id, &single(&line.entry, &spans))));
    }
    lines
}

async fn off_executor<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .expect("rendering does not panic, and the runtime waits for its viewers")
}
