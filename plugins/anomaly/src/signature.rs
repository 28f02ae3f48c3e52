//! What makes two errors the same: the first line of the message without what varies in it, the type of the exception and
//! where it was thrown.

/// Of the line that is looked at; what differs later does not make another error.
const LINE_BYTES_MAX: usize = 160;
/// Of a template, which travels in the key of a series.
pub(crate) const TEMPLATE_BYTES_MAX: usize = 120;
/// A longer word without spaces is a token of some kind.
const WORD_BYTES_MAX: usize = 40;
/// As many hexadecimal letters are no English word.
const HEX_BYTES_MIN: usize = 8;

/// An error by its template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) hash: u64,
    pub(crate) template: String,
}

impl Signature {
    /// Of a message, and the type of the exception and its frame if there are any. `message` may be bytes cut anywhere.
    pub(crate) fn of(exception: &str, message: &[u8], frame: &str) -> Signature {
        let mut template = String::with_capacity(TEMPLATE_BYTES_MAX);
        mask(exception, message, frame, &mut |piece| template.push_str(&String::from_utf8_lossy(piece)));
        if template.len() > TEMPLATE_BYTES_MAX {
            template.truncate(template.floor_char_boundary(TEMPLATE_BYTES_MAX - '…'.len_utf8()));
            template.push('…');
        }
        Signature { hash: Signature::hash_of(exception, message, frame), template }
    }

    /// Its hash alone, which costs less: of all of the template, before that is cut.
    pub(crate) fn hash_of(exception: &str, message: &[u8], frame: &str) -> u64 {
        let mut hash = Hash::default();
        mask(exception, message, frame, &mut |piece| hash.add(piece));
        hash.end()
    }
}

/// 64 bits of FNV-1a, mixed once more so that short texts differ in all of them.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Hash {
        Hash(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn end(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }
}

pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut hash = Hash::default();
    hash.add(bytes);
    hash.end()
}

/// The template, in pieces.
fn mask(exception: &str, message: &[u8], frame: &str, put: &mut impl FnMut(&[u8])) {
    let (exception, message) = (first_line(exception.as_bytes()), first_line(message));
    match (exception.is_empty(), message.is_empty()) {
        (true, true) => put(b"(no message)"),
        (true, false) => mask_line(message, put),
        (false, true) => mask_line(exception, put),
        (false, false) => {
            mask_line(exception, put);
            put(b": ");
            mask_line(message, put);
        }
    }
    // Last, because people look for the message first. It has nothing that varies.
    if !frame.is_empty() {
        put(b" at ");
        put(frame.as_bytes());
    }
}

/// A line with placeholders for numbers, ids, paths and quoted text.
fn mask_line(line: &[u8], put: &mut impl FnMut(&[u8])) {
    let mut rest = line;
    let mut is_after_word = false;
    while let Some(first) = rest.first() {
        let kind = KINDS[usize::from(*first)];
        let is_quote = kind & QUOTE != 0 && !(*first == b'\'' && is_after_word);
        is_after_word = kind & (SPACE | SEPARATOR) == 0;
        let (length, by) = match kind {
            _ if is_quote => (quoted(rest), Some("<text>")),
            _ if kind & SPACE != 0 => (spaces(rest), Some(" ")),
            _ if kind & SEPARATOR != 0 => (1, None),
            _ => word(rest),
        };
        let (piece, after) = rest.split_at(length);
        rest = after;
        put(by.map_or(piece, str::as_bytes));
    }
}

/// What of the first line is looked at, without the space around it.
fn first_line(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii_start();
    let text = &text[..text.len().min(LINE_BYTES_MAX)];
    let end = text.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(text.len());
    // A character that was cut is no character.
    let whole = match std::str::from_utf8(&text[..end]) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => end,
    };
    text[..whole].trim_ascii_end()
}

/// What a byte is to a message; bits.
const SPACE: u8 = 1;
const SEPARATOR: u8 = 2;
/// A separator as well.
const QUOTE: u8 = 4;
const DIGIT: u8 = 8;
/// A digit or a letter of hexadecimal numbers.
const HEX: u8 = 16;
const SLASH: u8 = 32;
const AT: u8 = 64;

/// By byte. A look here costs less than the comparisons, and there is one for each byte of each message.
const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = kind(byte as u8);
        byte += 1;
    }
    kinds
};

const fn kind(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => DIGIT | HEX,
        b'a'..=b'f' | b'A'..=b'F' => HEX,
        b'/' | b'\\' => SLASH,
        b'@' => AT,
        b'"' | b'`' | b'\'' => SEPARATOR | QUOTE,
        b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'<' | b'>' | b',' | b';' | b':' | b'=' | b'|' => SEPARATOR,
        _ if byte.is_ascii_whitespace() || byte.is_ascii_control() => SPACE,
        _ => 0,
    }
}

/// Up to the closing quote; to the end of the line if it was cut off.
fn quoted(text: &[u8]) -> usize {
    text[1..].iter().position(|byte| *byte == text[0]).map_or(text.len(), |end| end + 2)
}

fn spaces(text: &[u8]) -> usize {
    text.iter().position(|byte| KINDS[usize::from(*byte)] & SPACE == 0).unwrap_or(text.len())
}

/// How long a word is, and what it is replaced by if it varies from one message to the next.
fn word(text: &[u8]) -> (usize, Option<&'static str>) {
    let (mut any, mut all, mut length) = (0, HEX, 0);
    for byte in text {
        let kind = KINDS[usize::from(*byte)];
        if kind & (SPACE | SEPARATOR) != 0 {
            break;
        }
        any |= kind;
        all &= kind;
        length += 1;
    }
    let is_number = any & DIGIT != 0 || (all & HEX != 0 && length >= HEX_BYTES_MIN);
    let by = match length {
        1 => (any & DIGIT != 0).then_some("<n>"),
        _ if any & SLASH != 0 => Some("<path>"),
        _ if any & AT != 0 => Some("<id>"),
        _ if length > WORD_BYTES_MAX => Some("<id>"),
        _ => is_number.then_some("<n>"),
    };
    (length, by)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(message: &str) -> String {
        Signature::of("", message.as_bytes(), "").template
    }

    #[test]
    fn what_varies_is_replaced() {
        let cases = [
            ("order 4711 failed after 12.5ms", "order <n> failed after <n>"),
            ("user 'ada' said \"no\" to `x y`", "user <text> said <text> to <text>"),
            ("can't open /var/lib/x.db: it's gone", "can't open <path>: it's gone"),
            ("GET https://shop.example/a?b=1 (503)", "GET https:<path>=<n> (<n>)"),
            ("id 6ba7b810-9dad-11d1-80b4-00c04fd430c8", "id <n>"),
            ("at 0x7ffde, deadbeef facade", "at <n>, <n> facade"),
            ("mail to ada@example.com: {code=17}", "mail to <id>: {code=<n>}"),
            ("token eyJhbGciOiJub25lZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXphYmNk rest", "token <id> rest"),
            ("  tabs\tand   spaces  \nsecond line 5", "tabs and spaces"),
            ("cut 'in the mid", "cut <text>"),
            ("größe überschritten: 漢字", "größe überschritten: 漢字"),
            ("", "(no message)"),
            (" \n ", "(no message)"),
            (" \n x", "x"),
            ("7", "<n>"),
            ("a / b", "a / b"),
        ];
        for (message, expected) in cases {
            assert_eq!(template(message), expected, "{message:?}");
        }
    }

    #[test]
    fn the_type_of_an_exception_stands_before_the_message() {
        let of = |exception: &str, message: &str, frame: &str| {
            Signature::of(exception, message.as_bytes(), frame).template
        };
        assert_eq!(of("java.io.IOException", "disk 7 full", ""), "java.io.IOException: disk <n> full");
        assert_eq!(of("ValueError", "", ""), "ValueError");
        assert_eq!(of("ValueError", "x 1", "shop.pay"), "ValueError: x <n> at shop.pay");
        let hash = |frame: &str| Signature::hash_of("E", b"m", frame);
        assert!(hash("a") != hash("b") && hash("a") != hash(""), "thrown elsewhere, it is another error");
    }

    #[test]
    fn only_templates_that_differ_are_different_errors() {
        let hash = |message: &str| Signature::of("", message.as_bytes(), "").hash;
        assert_eq!(hash("order 1 failed"), hash("order 22 failed\nat line 7"));
        assert_ne!(hash("order 1 failed"), hash("order 1 refused"));
        let long = "word ".repeat(31);
        assert_eq!(
            hash(&(long.clone() + "aaaaaa")),
            hash(&(long.clone() + "aaaaab")),
            "beyond what is looked at"
        );
    }

    #[test]
    fn templates_are_short_whatever_the_message_is() {
        for message in
            ["words ".repeat(1000), "ü".repeat(1000), "'".repeat(1000), "1 ".repeat(1000), "(".repeat(999)]
        {
            for cut in 150..170 {
                let signature = Signature::of("", &message.as_bytes()[..cut], "frame");
                assert!(signature.template.len() <= TEMPLATE_BYTES_MAX, "{}", signature.template);
                assert!(!signature.template.contains('\u{fffd}'), "{}", signature.template);
            }
        }
        let signature = Signature::of("\u{0}|\n", b"\xff\x00\x1b[2J", "");
        assert!(!signature.template.chars().any(char::is_control), "{:?}", signature.template);
    }
}
