//! A disk in memory that fails as disks do.
//!
//! A crash keeps what was synced. Of what was not, it keeps any sectors of a file, any of its lengths on the way, and
//! any of the changes of names. A sync that fails may have written some of the sectors and takes all of them for
//! clean, as Linux does. A write that fails may have written a part.

use super::file::Listed;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR: usize = 512;

/// Its clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct Faulty(Arc<Mutex<State>>);

#[derive(Clone, Debug)]
pub(crate) struct Open {
    disk: Faulty,
    id: u64,
}

#[derive(Clone, Debug)]
struct State {
    files: BTreeMap<u64, Content>,
    names: BTreeMap<String, u64>,
    /// As of the last sync of the folder.
    safe_names: BTreeMap<String, u64>,
    /// Since then, in order.
    changes: Vec<Change>,
    random: u64,
    capacity: u64,
    syncs_until_failure: Option<u32>,
    writes_until_failure: Option<u32>,
    sync_failures: u32,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// What a crash certainly keeps.
    safe: Vec<u8>,
    dirty: BTreeSet<usize>,
    preallocated: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Create(String, u64),
    Rename(String, String, u64),
    Remove(String),
}

impl Faulty {
    pub(crate) fn new(seed: u64) -> Faulty {
        Faulty(Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            safe_names: BTreeMap::new(),
            changes: Vec::new(),
            random: seed,
            capacity: u64::MAX,
            syncs_until_failure: None,
            writes_until_failure: None,
            sync_failures: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The disk after a crash at this moment; what was opened before belongs to the disk before. No fault is left.
    pub(crate) fn crash(&self) -> Faulty {
        // Drawn from this disk, so that a second crash of it may end otherwise.
        let random = self.state().random();
        let mut state = self.state().clone();
        state.random = random;
        state.crash();
        Faulty(Arc::new(Mutex::new(state)))
    }

    /// The bytes that all files together may take.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// The sync after `count` more fails once, of a file or of the folder.
    pub(crate) fn fail_sync_after(&self, count: u32) {
        self.state().syncs_until_failure = Some(count);
    }

    /// The write after `count` more fails once.
    pub(crate) fn fail_write_after(&self, count: u32) {
        self.state().writes_until_failure = Some(count);
    }

    /// So many syncs have failed.
    pub(crate) fn sync_failures(&self) -> u32 {
        self.state().sync_failures
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.state().used()
    }

    /// Changes a file behind everybody's back, safely.
    pub(crate) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let id = *state.names.get(name).expect("the file is there");
        let content = state.content(id);
        change(&mut content.bytes);
        content.safe = content.bytes.clone();
        content.dirty.clear();
    }

    pub(super) fn list(&self) -> Vec<Listed> {
        let state = self.state();
        let listed = |(name, id): (&String, &u64)| Listed {
            name: name.clone(),
            bytes: state.files[id].bytes.len() as u64,
            is_file: true,
        };
        state.names.iter().map(listed).collect()
    }

    pub(super) fn create(&self, name: &str) -> io::Result<Open> {
        let mut state = self.state();
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.files.len() as u64;
        state.files.insert(id, Content::default());
        state.change(Change::Create(name.into(), id));
        Ok(Open { disk: self.clone(), id })
    }

    pub(super) fn open(&self, name: &str) -> io::Result<Open> {
        let id = *self.state().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Open { disk: self.clone(), id })
    }

    pub(super) fn lock(&self, name: &str) -> Open {
        self.open(name).or_else(|_| self.create(name)).unwrap()
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let id = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.change(Change::Rename(from.into(), to.into(), id));
        Ok(())
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        state.change(Change::Remove(name.into()));
        Ok(())
    }

    pub(super) fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.is_sync_due_to_fail() {
            return Err(io::Error::other("input/output error"));
        }
        state.safe_names = state.names.clone();
        state.changes.clear();
        Ok(())
    }

    pub(super) fn free_bytes(&self) -> u64 {
        let state = self.state();
        state.capacity.saturating_sub(state.used())
    }
}

impl State {
    /// splitmix64
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn is_sync_due_to_fail(&mut self) -> bool {
        let fails = is_due(&mut self.syncs_until_failure);
        self.sync_failures += u32::from(fails);
        fails
    }

    fn coin(&mut self) -> bool {
        self.random() & 1 == 1
    }

    /// Both included.
    fn between(&mut self, low: usize, high: usize) -> usize {
        low + (self.random() % (high - low + 1) as u64) as usize
    }

    fn content(&mut self, id: u64) -> &mut Content {
        self.files.get_mut(&id).unwrap()
    }

    fn used(&self) -> u64 {
        self.names.values().map(|id| self.files[id].used()).sum()
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    fn crash(&mut self) {
        let mut names = self.safe_names.clone();
        for change in std::mem::take(&mut self.changes) {
            if self.coin() {
                apply(&mut names, &change);
            }
        }
        (self.names, self.safe_names) = (names.clone(), names);
        let ids: Vec<u64> = self.files.keys().copied().collect();
        for id in ids {
            self.crash_file(id);
        }
        (self.syncs_until_failure, self.writes_until_failure, self.capacity) = (None, None, u64::MAX);
    }

    fn crash_file(&mut self, id: u64) {
        let mut content = std::mem::take(self.content(id));
        let (written, safe) = (content.bytes.len(), content.safe.len());
        let bytes = match self.between(0, 2) {
            0 => written,
            1 => safe,
            _ => self.between(written.min(safe), written.max(safe)),
        };
        if !content.dirty.is_empty() || written != safe {
            self.keep_some(&mut content, bytes);
        }
        content.bytes = content.safe.clone();
        content.dirty.clear();
        *self.content(id) = content;
    }

    /// Each dirty sector becomes safe or does not, and the length is `bytes`.
    fn keep_some(&mut self, content: &mut Content, bytes: usize) {
        content.safe.resize(bytes.max(content.safe.len()), 0);
        for sector in std::mem::take(&mut content.dirty) {
            if self.coin() {
                content.keep(sector);
            }
        }
        content.safe.truncate(bytes);
    }
}

fn apply(names: &mut BTreeMap<String, u64>, change: &Change) {
    match change {
        Change::Create(name, id) => {
            names.insert(name.clone(), *id);
        }
        Change::Rename(from, to, id) => {
            names.remove(from);
            names.insert(to.clone(), *id);
        }
        Change::Remove(name) => {
            names.remove(name);
        }
    }
}

/// Counts down to the call that fails.
fn is_due(until: &mut Option<u32>) -> bool {
    match until {
        Some(0) => {
            *until = None;
            true
        }
        Some(count) => {
            *count -= 1;
            false
        }
        None => false,
    }
}

impl Content {
    fn used(&self) -> u64 {
        self.preallocated.max(self.bytes.len() as u64)
    }

    fn touch(&mut self, from: usize, to: usize) {
        if from < to {
            self.dirty.extend(from / SECTOR..=(to - 1) / SECTOR);
        }
    }

    /// The sector's bytes as they were written are safe, as far as the safe length goes.
    fn keep(&mut self, sector: usize) {
        let start = sector * SECTOR;
        let end = (start + SECTOR).min(self.bytes.len()).min(self.safe.len());
        if start < end {
            self.safe[start..end].copy_from_slice(&self.bytes[start..end]);
        }
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        let grown_from = self.bytes.len().min(offset);
        self.bytes.resize(end.max(self.bytes.len()), 0);
        self.bytes[offset..end].copy_from_slice(bytes);
        self.touch(grown_from, end);
    }
}

impl Open {
    pub(super) fn bytes(&self) -> u64 {
        self.disk.state().content(self.id).bytes.len() as u64
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let bytes = &state.content(self.id).bytes;
        let from = offset as usize;
        let found = bytes.get(from..from + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    pub(super) fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let bytes = parts.concat();
        let mut state = self.disk.state();
        if is_due(&mut state.writes_until_failure) {
            let written = state.between(0, bytes.len().saturating_sub(1));
            let fits = state.fitting(self.id, offset, written);
            state.content(self.id).write(&bytes[..fits], offset as usize);
            return Err(io::Error::other("input/output error"));
        }
        let fits = state.fitting(self.id, offset, bytes.len());
        state.content(self.id).write(&bytes[..fits], offset as usize);
        match fits == bytes.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    pub(super) fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if !state.is_sync_due_to_fail() {
            let content = state.content(self.id);
            content.safe.resize(content.bytes.len(), 0);
            for sector in std::mem::take(&mut content.dirty) {
                content.keep(sector);
            }
            return Ok(());
        }
        let bytes =
            if state.coin() { state.content(self.id).bytes.len() } else { state.content(self.id).safe.len() };
        let mut content = std::mem::take(state.content(self.id));
        state.keep_some(&mut content, bytes);
        *state.content(self.id) = content;
        Err(io::Error::other("input/output error"))
    }

    pub(super) fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let content = state.content(self.id);
        let (before, after) = (content.bytes.len(), bytes as usize);
        content.bytes.resize(after, 0);
        content.touch(before.min(after), before.max(after));
        content.preallocated = 0;
        Ok(())
    }

    pub(super) fn preallocate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let used = state.content(self.id).used();
        if state.used() - used + used.max(bytes) > state.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.content(self.id).preallocated = bytes;
        Ok(())
    }
}

impl State {
    /// How many of these bytes the disk still takes.
    fn fitting(&mut self, id: u64, offset: u64, bytes: usize) -> usize {
        let used = self.content(id).used();
        let most = used + self.capacity.saturating_sub(self.used());
        (most.saturating_sub(offset) as usize).min(bytes)
    }
}
