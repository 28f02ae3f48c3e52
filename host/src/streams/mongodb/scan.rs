//! A stretch of a stream: ranges of `_id`, day by day.
//!
//! The collections of one day (the retention was changed, or collectors have different ones) are merged by id.

use super::answer::binary;
use super::client::sentence;
use super::collections::{DAY_MS, Name};
use super::reading::{id_of, request_of};
use super::{Inner, LIST_AGE_MAX, closed, failure};
use crate::batch::RecordId;
use crate::streams::store::{Found, Scan, StoreError};
use futures_util::TryStreamExt;
use mongodb::bson::{Document, RawDocumentBuf, doc};

/// Days that one scan looks into; a long silence takes several.
const DAYS_MAX: usize = 32;
/// Documents in the first batch of the server: a page of the usual size, which then is one round trip.
const BATCH_DOCUMENTS: u32 = 513;

/// Documents ascending by id.
type Rows = Vec<(RecordId, RawDocumentBuf)>;

/// What one collection had.
struct Stretch {
    rows: Rows,
    /// It was read up to its last row only.
    is_cut: bool,
}

impl Inner {
    pub(super) async fn scan(&self, scan: Scan) -> Result<Found, StoreError> {
        let days = self.days(LIST_AGE_MAX).await?;
        let first = scan.from.time_ms() / DAY_MS;
        let days = days.0.range(first..).take_while(|(day, _)| day.saturating_mul(DAY_MS) < scan.to_ms);
        let mut days: Vec<Vec<&Name>> = days.map(|(_, names)| names.iter().collect()).collect();
        let beyond = days.get(DAYS_MAX).and_then(|names| names.first()).map(|name| name.day);
        days.truncate(DAYS_MAX);
        let mut page = Page::of(&scan);
        for (at, names) in days.iter().enumerate() {
            let before = page.rows.len();
            page.add(self.read(&scan, names, scan.from, page.records_left, page.bytes_left).await?);
            // A writer goes from day to day as well: what it wrote into the day before while we read there comes
            // before what it wrote here.
            if page.rows.len() > before
                && at > 0
                && let Some(missed) = self.missed(&scan, &days[..at], &page.rows[..before]).await?
            {
                page.rows.truncate(before);
                page.next = Some(missed);
            }
            if page.next.is_some() {
                break;
            }
        }
        let beyond = beyond.map(|day| RecordId::new(scan.hash, day.saturating_mul(DAY_MS), [0; 4], 0));
        let next = page.next.or(beyond);
        let rows = page.rows;
        let reading = tokio::task::spawn_blocking(move || {
            let requests = rows.iter().filter_map(|(id, row)| Some((*id, request_of(row, &scan.stream)?)));
            requests.collect()
        });
        Ok(Found { records: reading.await.map_err(|_| closed())?, next })
    }

    /// The first id of these days that comes after the rows read.
    async fn missed(
        &self,
        scan: &Scan,
        days: &[Vec<&Name>],
        rows: &[(RecordId, RawDocumentBuf)],
    ) -> Result<Option<RecordId>, StoreError> {
        let from = rows.last().map_or(scan.from, |(last, _)| crate::streams::behind(last));
        // The writer is at most where it was a moment ago: in the day before.
        let Some(names) = days.last() else { return Ok(None) };
        Ok(self.read(scan, names, from, 1, 1).await?.rows.first().map(|(id, _)| *id))
    }

    /// Rows of these collections of one day, merged.
    async fn read(
        &self,
        scan: &Scan,
        names: &[&Name],
        from: RecordId,
        records: usize,
        bytes: usize,
    ) -> Result<Stretch, StoreError> {
        let mut merged = Stretch { rows: Vec::new(), is_cut: false };
        // Up to here every collection was read.
        let mut whole_to: Option<RecordId> = None;
        for name in names {
            let stretch = self.read_one(scan, name, from, records, bytes).await?;
            if let Some((last, _)) = stretch.rows.last().filter(|_| stretch.is_cut) {
                whole_to = Some(whole_to.map_or(*last, |to| to.min(*last)));
                merged.is_cut = true;
            }
            merged.rows.extend(stretch.rows);
        }
        merged.rows.sort_by_key(|(id, _)| *id);
        if let Some(to) = whole_to {
            merged.rows.retain(|(id, _)| *id <= to);
        }
        Ok(merged)
    }

    async fn read_one(
        &self,
        scan: &Scan,
        name: &Name,
        from: RecordId,
        records: usize,
        bytes: usize,
    ) -> Result<Stretch, StoreError> {
        let told = |error| failure(sentence(&error));
        let text = name.text().unwrap_or_default();
        let limit = i64::try_from(records).unwrap_or(i64::MAX).saturating_add(1);
        let batch = BATCH_DOCUMENTS.min(u32::try_from(limit).unwrap_or(u32::MAX));
        let collection = self.database.collection::<RawDocumentBuf>(&text);
        let found = collection.find(range(scan, from)).sort(doc! { "_id": 1 }).limit(limit).batch_size(batch);
        let mut found = found.await.map_err(told)?;
        let mut stretch = Stretch { rows: Vec::new(), is_cut: false };
        let (mut records_left, mut bytes_left) = (records, bytes);
        while let Some(row) = found.try_next().await.map_err(told)? {
            if records_left == 0 || bytes_left == 0 {
                stretch.is_cut = true;
                break;
            }
            let Some(id) = id_of(&row) else { continue };
            records_left -= 1;
            bytes_left = bytes_left.saturating_sub(row.as_bytes().len());
            stretch.rows.push((id, row));
        }
        Ok(stretch)
    }
}

fn range(scan: &Scan, from: RecordId) -> Document {
    // Times in ids have 48 bits.
    let ends = scan.to_ms < 1 << 48;
    let mut last = RecordId([0xff; 24]);
    last.0[..8].copy_from_slice(&scan.hash);
    let to = if ends { RecordId::new(scan.hash, scan.to_ms, [0; 4], 0) } else { last };
    let below = if ends { "$lt" } else { "$lte" };
    doc! { "_id": { "$gte": binary(&from), below: binary(&to) } }
}

/// What a scan has found so far, and may still look at.
struct Page {
    rows: Rows,
    records_left: usize,
    bytes_left: usize,
    next: Option<RecordId>,
}

impl Page {
    fn of(scan: &Scan) -> Page {
        Page {
            rows: Vec::new(),
            records_left: scan.records_max.max(1),
            bytes_left: scan.bytes_max.max(1),
            next: None,
        }
    }

    fn add(&mut self, stretch: Stretch) {
        let Stretch { rows, is_cut } = stretch;
        for (id, row) in rows {
            if self.records_left == 0 || self.bytes_left == 0 {
                self.next = Some(id);
                return;
            }
            self.records_left -= 1;
            self.bytes_left = self.bytes_left.saturating_sub(row.as_bytes().len());
            self.rows.push((id, row));
        }
        if is_cut {
            self.next = self.rows.last().map(|(last, _)| crate::streams::behind(last));
        }
    }
}
