//! Which collections there are: `logs_<class>_<yyyymmdd>`, one per retention class and UTC day of commit.
//!
//! The class is the retention when the day was written (`7d`), so that each collection says itself when it may go,
//! also after the retention was changed. What has another name is not ours and is never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Milliseconds of a day; days are UTC.
pub(super) const DAY_MS: u64 = 86_400_000;

/// A collection of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// Days since 1970.
    pub(super) day: u64,
    pub(super) class: String,
}

impl Name {
    pub(super) fn parse(text: &str) -> Option<Name> {
        let (class, day) = text.strip_prefix("logs_")?.split_once('_')?;
        let name = Name { day: day_number(day)?, class: class.to_owned() };
        (retention_of(class).is_some() && name.text()? == text).then_some(name)
    }

    /// `None` beyond the year 9999.
    pub(super) fn text(&self) -> Option<String> {
        Some(format!("logs_{}_{}", self.class, day_text(self.day)?))
    }

    /// Whether its youngest record is older than its class keeps records.
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        let keeps_ms = retention_of(&self.class).unwrap_or(u64::MAX);
        (self.day + 1).saturating_mul(DAY_MS).saturating_add(keeps_ms) <= now_ms
    }
}

/// The class of a retention: whole days, else hours, else seconds.
pub(super) fn class_of(retention: Duration) -> String {
    let seconds = retention.as_secs();
    match seconds {
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ => format!("{seconds}s"),
    }
}

/// How long a class keeps records, in ms.
fn retention_of(class: &str) -> Option<u64> {
    let (number, unit_ms) = match class.split_at_checked(class.len().checked_sub(1)?)? {
        (number, "d") => (number, DAY_MS),
        (number, "h") => (number, 3_600_000),
        (number, "s") => (number, 1_000),
        _ => return None,
    };
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
    number.parse::<u64>().ok().filter(|_| is_plain)?.checked_mul(unit_ms)
}

fn day_text(day: u64) -> Option<String> {
    let seconds = i64::try_from(day).ok()?.checked_mul(86_400)?;
    Some(jiff::Timestamp::from_second(seconds).ok()?.strftime("%Y%m%d").to_string())
}

fn day_number(text: &str) -> Option<u64> {
    let date = jiff::civil::Date::strptime("%Y%m%d", text).ok()?;
    let seconds = jiff::tz::Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?.as_second();
    u64::try_from(seconds).ok().map(|seconds| seconds / 86_400)
}

/// The collections that there are, by day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Days(pub(super) BTreeMap<u64, BTreeSet<Name>>);

impl Days {
    pub(super) fn of(names: &[String]) -> Days {
        let mut days = Days::default();
        names.iter().filter_map(|name| Name::parse(name)).for_each(|name| days.insert(name));
        days
    }

    pub(super) fn insert(&mut self, name: Name) {
        self.0.entry(name.day).or_default().insert(name);
    }

    pub(super) fn remove(&mut self, name: &Name) {
        if let Some(names) = self.0.get_mut(&name.day) {
            names.remove(name);
            if names.is_empty() {
                self.0.remove(&name.day);
            }
        }
    }

    pub(super) fn contains(&self, name: &Name) -> bool {
        self.0.get(&name.day).is_some_and(|names| names.contains(name))
    }

    /// The oldest day of each class.
    pub(super) fn oldest(&self) -> BTreeMap<String, u64> {
        let mut oldest = BTreeMap::new();
        for name in self.names() {
            oldest.entry(name.class.clone()).or_insert(name.day);
        }
        oldest
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_class_and_day() {
        let name = Name { day: 20_416, class: "7d".into() };
        assert_eq!(name.text().unwrap(), "logs_7d_20251124");
        assert_eq!(Name::parse("logs_7d_20251124"), Some(name));
    }

    #[test]
    fn what_has_another_name_is_not_ours() {
        for text in [
            "",
            "logs",
            "logs_7d",
            "logs_7d_",
            "logs_7d_2025112",
            "logs_7d_20251324",
            "logs_7d_20251124_old",
            "logs_07d_20251124",
            "logs_d_20251124",
            "logs_7w_20251124",
            "logs_7d_2025-11-24",
            "xlogs_7d_20251124",
            "logs_99999999999999999999d_20251124",
        ] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_retention_has_a_class_that_says_how_long() {
        for (seconds, class) in [(7 * 86_400, "7d"), (36 * 3_600, "36h"), (90_000, "25h"), (90_001, "90001s")]
        {
            assert_eq!(class_of(Duration::from_secs(seconds)), class);
            assert_eq!(retention_of(class), Some(seconds * 1_000));
        }
    }

    #[test]
    fn a_collection_is_over_when_its_youngest_record_is_too_old() {
        let name = Name { day: 100, class: "2d".into() };
        assert!(!name.is_over(103 * DAY_MS - 1));
        assert!(name.is_over(103 * DAY_MS));
    }
}
