//! What makes two errors the same: the first line of the message without what varies in it.

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
    /// Of a message, and the type of the exception if there is one. `message` may be bytes cut anywhere.
    pub(crate) fn of(exception: &str, message: &[u8]) -> Signature {
        let mut template = String::with_capacity(TEMPLATE_BYTES_MAX);
        if !exception.is_empty() {
            mask(exception.as_bytes(), &mut template);
        }
        if !message.is_empty() {
            if !template.is_empty() {
                template.push_str(": ");
            }
            mask(message, &mut template);
        }
        if template.is_empty() {
            template.push_str("(no message)");
        }
        let hash = hash(template.as_bytes());
        if template.len() > TEMPLATE_BYTES_MAX {
            template.truncate(template.floor_char_boundary(TEMPLATE_BYTES_MAX - '…'.len_utf8()));
            template.push('…');
        }
        Signature { hash, template }
    }
}

/// 64 bits of FNV-1a, mixed once more so that short texts differ in all of them.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

/// Adds the first line of a text that is not empty, with placeholders for numbers, ids, paths and quoted text.
fn mask(text: &[u8], masked: &mut String) {
    let mut rest = first_line(text);
    let mut is_after_word = false;
    while let Some(first) = rest.first().copied() {
        let is_quote = matches!(first, b'"' | b'`') || (first == b'\'' && !is_after_word);
        let length = match first {
            _ if is_quote => quoted(rest),
            _ if is_space(first) => run(rest, is_space),
            _ if is_separator(first) => 1,
            _ => run(rest, |byte| !is_space(byte) && !is_separator(byte)),
        };
        let (piece, after) = rest.split_at(length);
        rest = after;
        is_after_word = !is_quote && !is_space(first) && !is_separator(first);
        match first {
            _ if is_quote => masked.push_str("<text>"),
            _ if is_space(first) => masked.push(' '),
            _ if is_separator(first) => masked.push(first as char),
            _ => match placeholder(piece) {
                Some(placeholder) => masked.push_str(placeholder),
                None => masked.push_str(&String::from_utf8_lossy(piece)),
            },
        }
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

fn run(text: &[u8], is_part: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|byte| !is_part(*byte)).unwrap_or(text.len())
}

/// Up to the closing quote; to the end of the line if it was cut off.
fn quoted(text: &[u8]) -> usize {
    text[1..].iter().position(|byte| *byte == text[0]).map_or(text.len(), |end| end + 2)
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte.is_ascii_control()
}

fn is_separator(byte: u8) -> bool {
    matches!(
        byte,
        b'(' | b')'
            | b'['
            | b']'
            | b'{'
            | b'}'
            | b'<'
            | b'>'
            | b','
            | b';'
            | b':'
            | b'='
            | b'|'
            | b'"'
            | b'\''
            | b'`'
    )
}

/// What a word is replaced by if it varies from one message to the next.
fn placeholder(word: &[u8]) -> Option<&'static str> {
    let (mut has_digit, mut has_slash, mut has_at, mut is_hex) = (false, false, false, true);
    for byte in word {
        has_digit |= byte.is_ascii_digit();
        has_slash |= matches!(byte, b'/' | b'\\');
        has_at |= *byte == b'@';
        is_hex &= byte.is_ascii_hexdigit();
    }
    match word.len() {
        1 => has_digit.then_some("<n>"),
        _ if has_slash => Some("<path>"),
        _ if has_at => Some("<id>"),
        length if length > WORD_BYTES_MAX => Some("<id>"),
        length if has_digit || (is_hex && length >= HEX_BYTES_MIN) => Some("<n>"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(message: &str) -> String {
        Signature::of("", message.as_bytes()).template
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
        let of = |exception: &str, message: &str| Signature::of(exception, message.as_bytes()).template;
        assert_eq!(of("java.io.IOException", "disk 7 full"), "java.io.IOException: disk <n> full");
        assert_eq!(of("ValueError", ""), "ValueError");
    }

    #[test]
    fn only_templates_that_differ_are_different_errors() {
        let hash = |message: &str| Signature::of("", message.as_bytes()).hash;
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
                let signature = Signature::of("", &message.as_bytes()[..cut]);
                assert!(signature.template.len() <= TEMPLATE_BYTES_MAX, "{}", signature.template);
                assert!(!signature.template.contains('\u{fffd}'), "{}", signature.template);
            }
        }
        let signature = Signature::of("\u{0}|\n", b"\xff\x00\x1b[2J");
        assert!(!signature.template.chars().any(char::is_control), "{:?}", signature.template);
    }
}
