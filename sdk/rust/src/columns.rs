//! Columns as iterators, and iterators as columns.

use crate::{BoolColumn, DoubleColumn, Hits, IntColumn, Packed, TextColumn};
use std::collections::HashMap;

/// The rows of a column whose value passes the test: what `batch::drop` and `batch::route` take.
pub fn rows_where<T>(column: &[T], mut test: impl FnMut(&T) -> bool) -> Vec<u32> {
    (0..).zip(column).filter(|(_, value)| test(value)).map(|(row, _)| row).collect()
}

/// The ids of a column of ids: `ids::<16>(&batch::trace_ids())`, `ids::<8>(&batch::span_ids())`.
pub fn ids<const LENGTH: usize>(column: &[u8]) -> &[[u8; LENGTH]] {
    column.as_chunks().0
}

/// Each row of two columns of the same level.
pub fn pairs<'a, A, B>(left: &'a [A], right: &'a [B]) -> impl Iterator<Item = (u32, &'a A, &'a B)> {
    (0..).zip(left.iter().zip(right)).map(|(row, (left, right))| (row, left, right))
}

impl TextColumn {
    /// Row and value, in the order of the rows.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        self.rows.iter().zip(&self.index).map(|(row, index)| (*row, self.strings[*index as usize].as_str()))
    }

    /// The rows whose value passes the test, which sees each distinct value once.
    pub fn rows_where(&self, mut test: impl FnMut(&str) -> bool) -> Vec<u32> {
        let passes: Vec<bool> = self.strings.iter().map(|value| test(value)).collect();
        let hits = self.rows.iter().zip(&self.index).filter(|(_, index)| passes[**index as usize]);
        hits.map(|(row, _)| *row).collect()
    }

    /// The same rows, each with a new value that depends on the old one alone.
    pub fn map(mut self, mut change: impl FnMut(&str) -> String) -> TextColumn {
        self.strings.iter_mut().for_each(|value| *value = change(value));
        self
    }

    /// One value for all of these rows.
    pub fn same(value: &str, rows: Vec<u32>) -> TextColumn {
        TextColumn { index: vec![0; rows.len()], rows, strings: vec![value.into()] }
    }
}

/// Equal values are sent once.
impl<S: AsRef<str>> FromIterator<(u32, S)> for TextColumn {
    fn from_iter<I: IntoIterator<Item = (u32, S)>>(rows_and_values: I) -> TextColumn {
        let mut column = TextColumn::default();
        let mut numbers = HashMap::<String, u32>::new();
        for (row, value) in rows_and_values {
            let value = value.as_ref();
            let number = numbers.get(value).copied().unwrap_or_else(|| {
                let number = column.strings.len() as u32;
                column.strings.push(value.into());
                numbers.insert(value.into(), number);
                number
            });
            column.rows.push(row);
            column.index.push(number);
        }
        column
    }
}

macro_rules! value_column {
    ($column:ident, $value:ty) => {
        impl $column {
            /// Row and value, in the order of the rows.
            pub fn iter(&self) -> impl Iterator<Item = (u32, $value)> {
                self.rows.iter().copied().zip(self.values.iter().copied())
            }

            /// The rows whose value passes the test.
            pub fn rows_where(&self, mut test: impl FnMut($value) -> bool) -> Vec<u32> {
                self.iter().filter(|(_, value)| test(*value)).map(|(row, _)| row).collect()
            }

            /// One value for all of these rows.
            pub fn same(value: $value, rows: Vec<u32>) -> $column {
                $column { values: vec![value; rows.len()], rows }
            }
        }

        impl FromIterator<(u32, $value)> for $column {
            fn from_iter<I: IntoIterator<Item = (u32, $value)>>(rows_and_values: I) -> $column {
                let (rows, values) = rows_and_values.into_iter().unzip();
                $column { rows, values }
            }
        }

        impl Extend<(u32, $value)> for $column {
            fn extend<I: IntoIterator<Item = (u32, $value)>>(&mut self, rows_and_values: I) {
                for (row, value) in rows_and_values {
                    self.rows.push(row);
                    self.values.push(value);
                }
            }
        }
    };
}

value_column!(IntColumn, i64);
value_column!(DoubleColumn, f64);
value_column!(BoolColumn, bool);

impl Packed {
    /// The strings, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|end| *end as usize + 1));
        starts.zip(&self.ends).map(|(start, end)| &self.data[start..*end as usize])
    }
}

/// One match: bytes `start .. end` of string number `text`, found by pattern number `pattern`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hit {
    /// Which of `batch::texts`.
    pub text: u32,
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
    /// Which of the patterns that were compiled together.
    pub pattern: u32,
}

impl Hits {
    /// One after the other, by text, start and pattern.
    pub fn iter(&self) -> impl Iterator<Item = Hit> {
        (0..self.texts.len()).map(|i| Hit {
            text: self.texts[i],
            start: self.starts[i],
            end: self.ends[i],
            pattern: self.patterns[i],
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

impl FromIterator<Hit> for Hits {
    fn from_iter<I: IntoIterator<Item = Hit>>(hits: I) -> Hits {
        let mut all = Hits::default();
        for hit in hits {
            all.texts.push(hit.text);
            all.patterns.push(hit.pattern);
            all.starts.push(hit.start);
            all.ends.push(hit.end);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_sent_once() {
        let column: TextColumn = [(0, "a"), (3, "b"), (4, "a")].into_iter().collect();
        assert_eq!(
            (column.rows.as_slice(), column.index.as_slice()),
            ([0, 3, 4].as_slice(), [0, 1, 0].as_slice())
        );
        assert_eq!(column.strings, ["a", "b"]);
        assert_eq!(column.iter().collect::<Vec<_>>(), [(0, "a"), (3, "b"), (4, "a")]);
        assert_eq!(column.rows_where(|value| value == "a"), [0, 4]);
        assert_eq!(column.map(|value| value.repeat(2)).strings, ["aa", "bb"]);
    }

    #[test]
    fn a_column_of_one_value_has_it_in_each_row() {
        assert_eq!(TextColumn::same("x", vec![1, 5]).iter().collect::<Vec<_>>(), [(1, "x"), (5, "x")]);
        assert_eq!(IntColumn::same(7, vec![2]).iter().collect::<Vec<_>>(), [(2, 7)]);
    }

    #[test]
    fn packed_strings_come_apart_at_their_ends() {
        let packed = Packed { data: b"ab\0\0c\0".to_vec(), ends: vec![2, 3, 5] };
        assert_eq!(packed.iter().collect::<Vec<_>>(), [b"ab".as_slice(), b"", b"c"]);
        assert_eq!(Packed { data: vec![], ends: vec![] }.iter().count(), 0);
    }

    #[test]
    fn hits_survive_the_way_through_an_iterator() {
        let hits = Hits { texts: vec![0, 2], patterns: vec![1, 0], starts: vec![3, 4], ends: vec![5, 6] };
        assert_eq!(hits.iter().collect::<Hits>(), hits);
        assert_eq!(hits.iter().filter(|hit| hit.pattern == 0).collect::<Hits>().texts, [2]);
    }

    #[test]
    fn rows_are_found_by_their_values() {
        assert_eq!(rows_where(&[1, 9, 17], |value| *value > 8), [1, 2]);
        assert_eq!(pairs(&[1, 2], &["a", "b"]).collect::<Vec<_>>(), [(0, &1, &"a"), (1, &2, &"b")]);
        assert_eq!(ids::<2>(&[1, 2, 3, 4]), [[1, 2], [3, 4]]);
    }
}
