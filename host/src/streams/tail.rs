//! One viewer of one stream: what the store has from its position on, then what the ring brings.
//!
//! A viewer subscribes to the ring first and reads the store until its lane has stored everything that was published
//! before; so no line falls between the two. The position decides what is new, so none comes twice either. If the
//! store does not get there in time the viewer is told of a gap and goes on live. It works only while it is polled:
//! a slow reader holds back nobody, it loses what the ring cannot keep and is told so.

use super::lane::Joined;
use super::position::Position;
use super::record::{Walk, single};
use super::ring::{Cursor, Line, Span, Taken};
use super::store::{Found, Scan};
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
    /// The last record published: the later ones of its node come through the ring.
    ring: Option<RecordId>,
    /// When the viewer stops waiting for the store; starts anew with every full page.
    deadline: Option<Instant>,
    /// What was not stored yet before the last scan began: the scan saw everything else.
    pending: Vec<Span>,
    is_at_end: bool,
    /// The store is ahead of the publisher: it showed records that come through the ring.
    has_met_ring: bool,
    /// What the store will never have of the lines to come.
    holes: VecDeque<Span>,
}

impl Viewer {
    /// Joins the stream: from here on no line is missed.
    pub(super) fn join(streams: &Arc<Streams>, stream: Stream, position: Option<Position>) -> Viewer {
        let joined = streams.lanes.join(&stream);
        let Joined { cursor, last, time_ms, hash, changed } = joined;
        let skew_ms = streams.store.skew_ms();
        let (position, phase) = match position {
            Some(position) => {
                let joining = Joining {
                    from: position.start(hash, skew_ms),
                    ring: last,
                    deadline: None,
                    pending: Vec::new(),
                    is_at_end: false,
                    has_met_ring: false,
                    holes: VecDeque::new(),
                };
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

    /// The next event; `None` after the end.
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
            let id = *id;
            let is_told = match &mut self.phase {
                Phase::Store(joining) if joining.comes_through_ring(&id) => false,
                Phase::Store(joining) => {
                    if let Some(hole) = joining.holes.pop_front_if(|hole| hole.is_before(&id)) {
                        self.tell_holes(&[hole]);
                        match self.events.pop_front() {
                            Some(gap) => return Some(gap),
                            None => continue,
                        }
                    }
                    self.position.is_new(&id)
                }
                _ => !self.position.is_seen(&id),
            };
            self.told += 1;
            if !is_told {
                continue;
            }
            let json = json.clone();
            self.position.advance(&id, self.streams.store.skew_ms());
            self.last = id;
            return Some(TailEvent::Log { position: self.position.text(), json });
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
        joining.pending = self.streams.lanes.pending(&self.stream, joining.below());
        let scan = Scan {
            stream: self.stream.clone(),
            hash: self.hash,
            from: joining.from,
            to_ms: u64::MAX,
            records_max: self.streams.tuning.page_records,
            bytes_max: self.streams.tuning.page_bytes,
        };
        // The last look gets a moment of its own, or a store that works would count as one that cannot be read.
        let scan_deadline = deadline.max(now + self.streams.tuning.store_patience / 4);
        match timeout_at(scan_deadline, self.streams.store.scan(scan)).await {
            Ok(Ok(found)) => self.show_page(found).await,
            Ok(Err(_)) if Instant::now() + STORE_PAUSE < deadline => sleep(STORE_PAUSE).await,
            Ok(Err(_)) | Err(_) => self.go_on_without_the_store(),
        }
    }

    async fn show_page(&mut self, found: Found) {
        let Found { records, next } = found;
        self.note_page(&records, next);
        let render = move || records.iter().map(|(id, request)| (*id, json::render(id, request))).collect();
        match off_executor(render).await {
            Some(lines) => self.show(lines),
            None => self.end(),
        }
    }

    fn note_page(&mut self, records: &[(RecordId, Vec<u8>)], next: Option<RecordId>) {
        let Phase::Store(joining) = &mut self.phase else { return };
        // After the scan: a later entry in it was written after an earlier one was given up.
        joining.holes.extend(self.streams.lanes.holes(&self.stream, &mut self.cursor, joining.below()));
        joining.has_met_ring |= records.iter().any(|(id, _)| joining.comes_through_ring(id));
        let Some(next) = next else {
            joining.is_at_end = true;
            return;
        };
        joining.from = next;
        joining.deadline = None;
        // A long history: the ring need not keep for us what will be in the store when we get there. But what was
        // passed over in the store must still come through it.
        if !joining.has_met_ring {
            self.rejoin();
        }
    }

    fn rejoin(&mut self) {
        let Phase::Store(joining) = &mut self.phase else { return };
        if let Some(last) = self.streams.lanes.rejoin(&self.stream, &mut self.cursor) {
            joining.ring = Some(last);
        }
    }

    async fn finish_or_wait(&mut self) {
        let Phase::Store(joining) = &mut self.phase else { return };
        if joining.pending.is_empty() {
            let holes = joining.take_holes();
            self.phase = Phase::Live;
            return self.tell_holes(&holes);
        }
        let deadline = joining.deadline.expect("it was set before the scan");
        tokio::select! {
            changed = self.changed.changed() => changed.expect("the ring lives while it has viewers"),
            _ = self.ended.changed() => {}
            () = sleep_until(deadline) => return self.go_on_without_the_rest(),
        }
        if self.streams.lanes.is_lost(&self.stream, &self.cursor) {
            self.rejoin();
        } else if self.streams.lanes.is_stuck(&self.stream, &joining.pending) {
            // Something else changed.
            joining.is_at_end = true;
            return;
        }
        // Once more from the last line told: what was passed over may come from the store now.
        let Phase::Store(joining) = &mut self.phase else { return };
        joining.from = self.position.start(self.hash, self.streams.store.skew_ms());
        joining.has_met_ring = false;
    }

    /// The store was read to its end and does not get there in time: live goes on.
    fn go_on_without_the_rest(&mut self) {
        let Phase::Store(joining) = &mut self.phase else { return };
        let mut missing = joining.take_holes();
        missing.append(&mut joining.pending);
        // One that was given up while the store was read is in both.
        missing.sort_by_key(|span| span.first);
        missing.dedup_by_key(|span| span.first);
        self.phase = Phase::Live;
        self.tell_holes(&missing);
    }

    /// The store cannot be read, so nobody knows what is in it: live goes on.
    fn go_on_without_the_store(&mut self) {
        let Phase::Store(joining) = &self.phase else { return };
        let to = joining.ring.unwrap_or(self.last);
        self.phase = Phase::Live;
        self.tell_gap(to, 0, "store");
    }

    /// Tells of what is missing in these spans, as one gap.
    fn tell_holes(&mut self, holes: &[Span]) {
        let missing = |hole: &Span| hole.missing(self.position.last_of(&hole.node()));
        let count = holes.iter().map(missing).sum();
        let last = holes.iter().filter(|hole| missing(hole) > 0).map(|hole| hole.last_id(self.hash)).max();
        if let Some(last) = last {
            self.tell_gap(last, count, "store");
        }
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
        self.rest = None;
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
            let shared = line.clone();
            let Some(lines) = off_executor(move || render_whole(&shared)).await else { return self.end() };
            lines
        };
        self.streams.lanes.rendered(&self.stream, at, lines.iter().map(|(_, json)| json.len()).sum());
        self.show(lines);
    }

    async fn show_part(&mut self, line: Arc<Line>, mut walk: Walk) {
        let render = move || {
            let lines: Lines = render_some(&line, &mut walk, PART_RECORDS).into();
            let rest = (lines.len() == PART_RECORDS).then_some((line, walk));
            (lines, rest)
        };
        let Some((lines, rest)) = off_executor(render).await else { return self.end() };
        self.rest = rest;
        self.show(lines);
    }
}

impl Joining {
    /// The number from which on records come through the ring.
    fn below(&self) -> u64 {
        self.ring.map_or(0, |last| last.number() + 1)
    }

    fn take_holes(&mut self) -> Vec<Span> {
        self.holes.drain(..).collect()
    }

    fn comes_through_ring(&self, id: &RecordId) -> bool {
        self.ring.is_some_and(|last| id.node() == last.node() && id.number() > last.number())
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.streams.lanes.leave(&self.stream, &self.cursor);
        self.streams.metrics.deliver_viewers.dec();
        self.streams.viewers.leave(&self.stream.tenant);
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

/// `None` when the process is on its way out.
async fn off_executor<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
