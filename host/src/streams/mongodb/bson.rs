//! BSON written by hand into one buffer; lengths are filled in when a document ends.
//!
//! Source: bsonspec.org, version 1.1.

pub(super) const DOUBLE: u8 = 0x01;
pub(super) const TEXT: u8 = 0x02;
pub(super) const DOCUMENT: u8 = 0x03;
pub(super) const ARRAY: u8 = 0x04;
pub(super) const BINARY: u8 = 0x05;
pub(super) const BOOL: u8 = 0x08;
pub(super) const DATE: u8 = 0x09;
pub(super) const NULL: u8 = 0x0a;
pub(super) const INT32: u8 = 0x10;
pub(super) const INT64: u8 = 0x12;

/// A document in the making. Every `open` is followed by its `close`.
#[derive(Debug, Default)]
pub(super) struct Bson(pub(super) Vec<u8>);

/// Where an open document or array begins.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(super) struct Open(usize);

impl Bson {
    /// Begins a document or an array: the outermost, or the value of the head that was just written.
    pub(super) fn open(&mut self) -> Open {
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        Open(at)
    }

    pub(super) fn close(&mut self, open: Open) {
        self.0.push(0);
        self.patch(open.0, self.0.len() - open.0);
    }

    fn patch(&mut self, at: usize, length: usize) {
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        self.0[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Type and name of a field; its value follows.
    #[inline(always)]
    pub(super) fn head(&mut self, kind: u8, name: &str) {
        self.0.push(kind);
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
    }

    /// The head of an array's element.
    pub(super) fn index_head(&mut self, kind: u8, index: usize) {
        self.0.push(kind);
        let mut digits = [0; 20];
        let (mut at, mut left) = (digits.len(), index);
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        self.0.extend_from_slice(&digits[at..]);
        self.0.push(0);
    }

    #[inline(always)]
    pub(super) fn text_value(&mut self, text: &str) {
        let length = i32::try_from(text.len() + 1).unwrap_or(i32::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.head(TEXT, name);
        self.text_value(text);
    }

    pub(super) fn bool(&mut self, name: &str, is_true: bool) {
        self.head(BOOL, name);
        self.0.push(u8::from(is_true));
    }

    /// As int32 if it fits, else as int64.
    pub(super) fn number(&mut self, name: &str, number: i64) {
        match i32::try_from(number) {
            Ok(number) => {
                self.head(INT32, name);
                self.0.extend_from_slice(&number.to_le_bytes());
            }
            Err(_) => {
                self.head(INT64, name);
                self.0.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    /// Milliseconds since 1970.
    pub(super) fn date(&mut self, name: &str, ms: u64) {
        self.head(DATE, name);
        self.0.extend_from_slice(&i64::try_from(ms).unwrap_or(i64::MAX).to_le_bytes());
    }

    pub(super) fn binary_value(&mut self, bytes: &[u8]) {
        let at = self.open_binary();
        self.0.extend_from_slice(bytes);
        self.close_binary(at);
    }

    pub(super) fn binary(&mut self, name: &str, bytes: &[u8]) {
        self.head(BINARY, name);
        self.binary_value(bytes);
    }

    /// Begins a binary value that is appended to the buffer itself.
    pub(super) fn open_binary(&mut self) -> Open {
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 5]);
        Open(at)
    }

    pub(super) fn close_binary(&mut self, open: Open) {
        self.patch(open.0, self.0.len() - open.0 - 5);
    }
}
