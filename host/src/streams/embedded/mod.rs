//! Streams on disk without a server: one database per UTC day of commit time, each in its own folder.
//!
//! A few days are open at a time; the least recently used is closed. Retention closes a day, renames its folder and
//! removes it. A database that failed is closed and opened again after a pause, since after a failed sync nothing in
//! its memory can be trusted; what was written before is in its journal. A folder that cannot be read is renamed and
//! reported, and the day begins anew.
//!
//! All work with a database is blocking, and bounded by semaphores: one write, a few reads.

mod day;

use super::lane::Hash;
use super::store::{Found, Held, Scan, StoreError, Write, Written};
use crate::batch::Stream;
use crate::net::backoff::Backoff;
use day::{DAY_MS, Day, Room};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::{info, warn};

/// Readers at once; each holds a blocking thread while it reads.
const READS_MAX: usize = 8;
/// Databases open at once: today, and two that history is read from.
const OPEN_MAX: usize = 3;
/// How long anything waits for its turn.
const TURN_PATIENCE: Duration = Duration::from_secs(30);
/// How long retention waits for the readers of a day.
const READERS_PATIENCE: Duration = Duration::from_secs(5);
const REOPEN: Backoff = Backoff { first: Duration::from_millis(250), most: Duration::from_secs(30) };
/// A folder on its way out; removed at the next start if the process ends before it is gone.
const GONE: &str = ".gone-";

pub(super) struct Embedded {
    inner: Arc<Inner>,
    writing: Arc<Semaphore>,
    reading: Arc<Semaphore>,
}

struct Inner {
    folder: PathBuf,
    hash: Hash,
    /// Locked for as long as this process uses the folder.
    _lock: File,
    days: Mutex<Days>,
    /// Why the last write failed.
    trouble: Mutex<Option<String>>,
    #[cfg(test)]
    failing: std::sync::atomic::AtomicUsize,
}

#[derive(Default)]
struct Days {
    /// Days that have a folder.
    present: BTreeSet<u64>,
    /// Most recently used last.
    open: VecDeque<(u64, Arc<Day>)>,
    /// Closed by us, perhaps still read by somebody: usable again until then.
    closing: HashMap<u64, Weak<Day>>,
    /// Failed or removed: must be gone before the folder is opened again.
    leaving: HashMap<u64, Weak<Day>>,
    /// Failed openings and writes in a row, and when the next attempt is due.
    failed: HashMap<u64, (u32, Instant)>,
    /// The streams of days that are not open.
    known: BTreeMap<u64, BTreeSet<Stream>>,
    is_closed: bool,
}

impl Embedded {
    /// Takes the folder for this process. Today's database is opened at once, so that what is wrong shows at start.
    pub(super) fn open(folder: &Path, hash: Hash, now_ms: u64) -> Result<Embedded, String> {
        let shown = folder.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| format!("{shown}: {error}"))?;
        let lock = File::create(folder.join("lock"))
            .map_err(|error| format!("{shown}: cannot be written: {error}"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                format!("{shown}: another process uses this folder; stop it or name another")
            }
            TryLockError::Error(error) => format!("{shown}: cannot be locked: {error}"),
        })?;
        let present = present_days(folder).map_err(|error| format!("{shown}: cannot be read: {error}"))?;
        let inner = Inner {
            folder: folder.to_owned(),
            hash,
            _lock: lock,
            days: Mutex::new(Days { present, ..Days::default() }),
            trouble: Mutex::default(),
            #[cfg(test)]
            failing: Default::default(),
        };
        if let Err(error) = inner.day(now_ms / DAY_MS, true) {
            inner.note(&Err(error));
        }
        Ok(Embedded {
            inner: Arc::new(inner),
            writing: Arc::new(Semaphore::new(1)),
            reading: Arc::new(Semaphore::new(READS_MAX)),
        })
    }

    pub(super) async fn write(&self, writes: Vec<Write>, held: Held) -> Result<Written, StoreError> {
        let inner = self.inner.clone();
        run(&self.writing, move || {
            let _held = held;
            let written = inner.write(&writes);
            inner.note(&written);
            written
        })
        .await
    }

    pub(super) async fn scan(&self, scan: Scan) -> Result<Found, StoreError> {
        let inner = self.inner.clone();
        run(&self.reading, move || inner.scan(&scan)).await
    }

    pub(super) async fn known(&self) -> Result<BTreeSet<Stream>, StoreError> {
        let inner = self.inner.clone();
        run(&self.reading, move || inner.known()).await
    }

    pub(super) async fn retain(&self, before_ms: u64) {
        let inner = self.inner.clone();
        let removed = run(&self.reading, move || {
            inner.retain(before_ms);
            Ok(())
        })
        .await;
        if let Err(error) = removed {
            warn!(reason = %error, "stream folders were not removed");
        }
    }

    pub(super) fn is_ready(&self) -> Result<(), String> {
        match &*self.inner.trouble.lock().expect("nothing panics while it is locked") {
            Some(reason) => Err(format!("{}: {reason}", self.inner.folder.display())),
            None => Ok(()),
        }
    }

    /// Waits for the write in flight, then closes every database.
    pub(super) async fn close(&self) {
        let inner = self.inner.clone();
        let closed = run(&self.writing, move || {
            let mut days = inner.lock();
            days.is_closed = true;
            days.open.clear();
            Ok(())
        })
        .await;
        if let Err(error) = closed {
            warn!(reason = %error, "stream folders were not closed");
        }
    }

    /// While this is held no write begins.
    pub(super) async fn hold(&self) -> OwnedSemaphorePermit {
        self.writing.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// The next `count` writes fail as on a broken disk.
    #[cfg(test)]
    pub(super) fn fail(&self, count: usize) {
        self.inner.failing.store(count, std::sync::atomic::Ordering::SeqCst);
    }

    #[cfg(test)]
    pub(super) fn open_days(&self) -> usize {
        self.inner.lock().open.len()
    }
}

/// Runs blocking work when there is a turn. It goes on to its end if the caller stops waiting.
async fn run<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let turn = tokio::time::timeout(TURN_PATIENCE, turns.clone().acquire_owned())
        .await
        .map_err(|_| failure("the store is busy"))?
        .expect("the semaphore is never closed");
    let running = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    running.await.map_err(|_| failure("the store broke off"))?
}

fn failure(reason: impl ToString) -> StoreError {
    StoreError { reason: reason.to_string(), after: None }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Days> {
        // What a panic inside a database leaves here is whole: entries are put in after it was opened.
        self.days.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self, writes: &[Write]) -> Result<Written, StoreError> {
        let mut written = Written::default();
        for run in writes.chunk_by(|a, b| a.entry.time_ms / DAY_MS == b.entry.time_ms / DAY_MS) {
            let number = run[0].entry.time_ms / DAY_MS;
            let day = self.day(number, true)?.ok_or_else(|| failure("no folder for this day"))?;
            let result = catch_unwind(AssertUnwindSafe(|| self.write_day(&day, run, &mut written)));
            match result {
                Ok(Ok(())) => {
                    self.lock().failed.remove(&number);
                }
                Ok(Err(error)) => return Err(self.fail_day(number, &day, &error.to_string())),
                Err(_) => return Err(self.fail_day(number, &day, "the database panicked")),
            }
        }
        Ok(written)
    }

    fn write_day(&self, day: &Day, writes: &[Write], written: &mut Written) -> fjall::Result<()> {
        #[cfg(test)]
        {
            use std::sync::atomic::Ordering::SeqCst;
            if self.failing.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
                // Half of it is written, as when the disk breaks on the way.
                day.write(&writes[..writes.len() / 2], written)?;
                return Err(fjall::Error::Poisoned);
            }
        }
        day.write(writes, written)
    }

    fn scan(&self, scan: &Scan) -> Result<Found, StoreError> {
        let mut found = Found::default();
        let mut room = Room { records: scan.records_max.max(1), bytes: scan.bytes_max.max(1) };
        let first = scan.from.time_ms() / DAY_MS;
        let days: Vec<u64> = self.lock().present.range(first..).copied().collect();
        for number in days {
            if number.saturating_mul(DAY_MS) >= scan.to_ms {
                break;
            }
            let Some(day) = self.day(number, false)? else { continue };
            let is_full = catch_unwind(AssertUnwindSafe(|| day.scan(scan, &mut room, &mut found)))
                .map_err(|_| failure("the database panicked"))?
                .map_err(failure)?;
            if is_full {
                break;
            }
        }
        Ok(found)
    }

    fn known(&self) -> Result<BTreeSet<Stream>, StoreError> {
        let mut known = BTreeSet::new();
        let days: Vec<u64> = self.lock().present.iter().copied().collect();
        for number in days {
            let cached = self.lock().known.get(&number).cloned();
            match cached {
                Some(streams) => known.extend(streams),
                None => known.extend(self.day(number, false)?.map(|day| day.known()).unwrap_or_default()),
            }
        }
        Ok(known)
    }

    /// The database of a day; `None` where there is no folder and none is asked for.
    fn day(&self, number: u64, is_made: bool) -> Result<Option<Arc<Day>>, StoreError> {
        // The lock is held while a database opens: two must not open one folder.
        let mut days = self.lock();
        if days.is_closed {
            return Err(failure("the store is closed"));
        }
        if let Some(day) = days.used(number) {
            return Ok(Some(day));
        }
        if !is_made && !days.present.contains(&number) {
            return Ok(None);
        }
        days.check_reopen(number)?;
        match self.open_day(number, is_made) {
            Ok(Some(day)) => {
                days.put(number, day.clone());
                Ok(Some(day))
            }
            Ok(None) => {
                days.present.remove(&number);
                Ok(None)
            }
            Err(error) => Err(StoreError { after: Some(days.note_failure(number)), ..error }),
        }
    }

    /// Opens the folder. One that cannot be read is renamed, and made anew if `is_made`.
    fn open_day(&self, number: u64, is_made: bool) -> Result<Option<Arc<Day>>, StoreError> {
        let name = day_name(number).ok_or_else(|| failure("a commit time beyond the calendar"))?;
        let folder = self.folder.join(&name);
        for _ in 0..2 {
            let opened = catch_unwind(AssertUnwindSafe(|| Day::open(&folder, self.hash)));
            let reason = match opened {
                Ok(Ok(day)) => return Ok(Some(Arc::new(day))),
                Ok(Err(error)) if !is_corrupt(&error) => return Err(failure(error)),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the database panicked".to_owned(),
            };
            let aside = free_name(&self.folder, &format!("{name}.corrupt"));
            warn!(day = name, reason, aside = %aside.display(), "a day of streams cannot be read and was set aside");
            std::fs::rename(&folder, &aside).map_err(failure)?;
            if !is_made {
                return Ok(None);
            }
        }
        Err(failure("a new folder cannot be used either"))
    }

    /// Closes a database that failed; it is opened again after a pause.
    fn fail_day(&self, number: u64, day: &Arc<Day>, reason: &str) -> StoreError {
        let mut days = self.lock();
        days.open.retain(|(open, _)| *open != number);
        days.closing.remove(&number);
        days.leaving.insert(number, Arc::downgrade(day));
        let after = days.note_failure(number);
        StoreError { reason: reason.to_owned(), after: Some(after) }
    }

    fn note(&self, result: &Result<Written, StoreError>) {
        let trouble = result.as_ref().err().map(|error| error.reason.clone());
        let mut noted = self.trouble.lock().expect("nothing panics while it is locked");
        match (&*noted, &trouble) {
            (None, Some(reason)) => {
                warn!(reason, folder = %self.folder.display(), "streams cannot be written")
            }
            (Some(_), None) => info!(folder = %self.folder.display(), "streams are written again"),
            _ => {}
        }
        *noted = trouble;
    }

    fn retain(&self, before_ms: u64) {
        let old: Vec<u64> = self.lock().present.range(..before_ms / DAY_MS).copied().collect();
        for number in old {
            let Some(name) = day_name(number) else { continue };
            if let Err(reason) = self.remove(number, &name) {
                warn!(day = name, reason, "a day of streams was not removed");
            }
        }
    }

    fn remove(&self, number: u64, name: &str) -> Result<(), String> {
        let readers = self.lock().retire(number);
        let end = Instant::now() + READERS_PATIENCE;
        while readers.as_ref().is_some_and(|readers| readers.strong_count() > 0) {
            if Instant::now() > end {
                self.lock().present.insert(number);
                return Err("it is being read".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let gone = free_name(&self.folder, &format!("{GONE}{name}"));
        std::fs::rename(self.folder.join(name), &gone).map_err(|error| error.to_string())?;
        std::fs::remove_dir_all(&gone).map_err(|error| error.to_string())?;
        info!(day = name, "a day of streams was removed");
        Ok(())
    }
}

impl Days {
    /// An open day, now the most recently used.
    fn used(&mut self, number: u64) -> Option<Arc<Day>> {
        let at = self.open.iter().position(|(open, _)| *open == number);
        if let Some((_, day)) = at.and_then(|at| self.open.remove(at)) {
            self.open.push_back((number, day.clone()));
            return Some(day);
        }
        let day = self.closing.remove(&number)?.upgrade()?;
        self.put(number, day.clone());
        Some(day)
    }

    fn put(&mut self, number: u64, day: Arc<Day>) {
        self.present.insert(number);
        self.known.remove(&number);
        self.leaving.remove(&number);
        self.open.push_back((number, day));
        if self.open.len() > OPEN_MAX
            && let Some((oldest, day)) = self.open.pop_front()
        {
            self.known.insert(oldest, day.known());
            self.closing.insert(oldest, Arc::downgrade(&day));
        }
        self.closing.retain(|_, day| day.strong_count() > 0);
    }

    fn check_reopen(&mut self, number: u64) -> Result<(), StoreError> {
        self.leaving.retain(|_, day| day.strong_count() > 0);
        if self.leaving.contains_key(&number) {
            return Err(StoreError { reason: "the day is being closed".into(), after: Some(REOPEN.first) });
        }
        let now = Instant::now();
        match self.failed.get(&number) {
            Some((_, due)) if now < *due => {
                Err(StoreError { reason: "the day is opened again soon".into(), after: Some(*due - now) })
            }
            _ => Ok(()),
        }
    }

    fn note_failure(&mut self, number: u64) -> Duration {
        use std::hash::{BuildHasher, RandomState};
        let (attempts, due) = self.failed.entry(number).or_insert((0, Instant::now()));
        let pause = REOPEN.pause(*attempts, None, RandomState::new().hash_one(number));
        *attempts += 1;
        *due = Instant::now() + pause;
        pause
    }

    /// Nobody gets this day any more. Returns those who have it.
    fn retire(&mut self, number: u64) -> Option<Weak<Day>> {
        self.present.remove(&number);
        self.known.remove(&number);
        self.failed.remove(&number);
        let open = self.open.iter().position(|(open, _)| *open == number).and_then(|at| self.open.remove(at));
        let readers = match open {
            Some((_, day)) => Some(Arc::downgrade(&day)),
            None => self.closing.remove(&number).or_else(|| self.leaving.get(&number).cloned()),
        }?;
        self.leaving.insert(number, readers.clone());
        Some(readers)
    }
}

/// Whether the folder is at fault, not the machine: it will not get better by itself.
fn is_corrupt(error: &fjall::Error) -> bool {
    // A folder that was being made when the process ended exists already in part.
    use std::io::ErrorKind::{AlreadyExists, InvalidData, NotFound, UnexpectedEof};
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            matches!(error.kind(), AlreadyExists | InvalidData | NotFound | UnexpectedEof)
        }
        fjall::Error::Locked | fjall::Error::Poisoned => false,
        _ => true,
    }
}

/// `2026-11-24`; `None` beyond the year 9999.
fn day_name(number: u64) -> Option<String> {
    let seconds = i64::try_from(number).ok()?.checked_mul(86_400)?;
    Some(jiff::Timestamp::from_second(seconds).ok()?.strftime("%Y-%m-%d").to_string())
}

fn day_number(name: &str) -> Option<u64> {
    let date: jiff::civil::Date = name.parse().ok()?;
    let seconds = jiff::tz::Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?.as_second();
    let number = u64::try_from(seconds).ok()? / 86_400;
    (day_name(number)? == name).then_some(number)
}

/// The days that have a folder. What an earlier process was about to remove is removed.
fn present_days(folder: &Path) -> std::io::Result<BTreeSet<u64>> {
    let mut present = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        present.extend(day_number(name));
        if name.starts_with(GONE) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(present)
}

/// A path in `folder` that does not exist: the name, or the name and a number.
fn free_name(folder: &Path, name: &str) -> PathBuf {
    let mut path = folder.join(name);
    let mut number = 1;
    while path.exists() {
        number += 1;
        path = folder.join(format!("{name}-{number}"));
    }
    path
}
