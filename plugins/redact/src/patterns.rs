//! The patterns that have names.
//!
//! Each begins with literal bytes, or holds one in its middle, wherever that is possible: the collector's
//! search skips to them. None matches a NUL byte. A pattern has at most 1,024 bytes.

use crate::card;

/// Name and regular expression, in the order in which they win at one place.
pub(crate) const NAMED: &[(&str, &str)] = &[
    ("private_key", PRIVATE_KEY),
    ("token", TOKEN),
    ("jwt", JWT),
    ("email", EMAIL),
    ("card", card::REGION),
    ("ipv6", IPV6),
    ("ipv4", IPV4),
    ("phone", PHONE),
];

/// Without settings: what is never wanted in a log. Addresses and phone numbers are asked for by name,
/// because people search by them, and because version numbers look like addresses.
pub(crate) const DEFAULT: &[&str] = &["private_key", "token", "jwt", "email", "card"];

/// To the end of the text if the end of the block is cut off.
const PRIVATE_KEY: &str = r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:[^\x00]*?-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|[^\x00]*)";

/// What follows `Bearer` or `Authorization:`, and the shapes that large services give to their keys.
const TOKEN: &str = concat!(
    r"[Bb]earer +(?:[A-Za-z._~+/-]*[0-9][A-Za-z0-9._~+/-]{4,}|[A-Za-z._~+/-]{16,})=*",
    r#"|[Aa]uthorization["']?[:=] *["']?(?:[A-Za-z]+ +)?[^\s"',;\x00]{8,}"#,
    r"|gh[opsru]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}|gl(?:pat|dt|rt|ptt)-[A-Za-z0-9_-]{20,}",
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}",
    r"|[prs]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/]{24,}",
    r"|A(?:KIA|SIA)[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{20,}",
    r"|(?-u:\b)sk-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}",
    r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}",
    r"|do[opr]_v1_[a-f0-9]{64}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}|hv[bsr]\.[A-Za-z0-9_-]{24,}|dapi[a-f0-9]{32}",
);

/// Signed (three parts) and encrypted (five parts).
const JWT: &str = r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){2,4}";

/// With letters of the Latin, Greek and Cyrillic alphabets; a domain that ends in letters.
const EMAIL: &str =
    r"[A-Za-z0-9._%+\-\u{c0}-\u{52f}]+@(?:[A-Za-z0-9\-\u{c0}-\u{52f}]+\.)+[A-Za-z\u{c0}-\u{52f}]{2,}";

const IPV4: &str = r"(?-u:\b)(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?-u:\b)";

/// Global, unique local, link-local, translated and mapped addresses; what begins otherwise is not in use,
/// and would be found in times and in paths of code.
const IPV6: &str = concat!(
    r"(?-u:\b)(?:[23][0-9A-Fa-f]{3}|[Ff][C-Ec-e][0-9A-Fa-f]{2}|64)",
    r"(?:(?::[0-9A-Fa-f]{1,4}){7}",
    r"|(?::[0-9A-Fa-f]{1,4}){0,6}::(?:(?:[0-9A-Fa-f]{1,4}:){0,5}[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,5})?)",
    r"|::[Ff]{4}:[0-9]{1,3}(?:\.[0-9]{1,3}){3}",
);

/// International with `+`, and the North American form.
const PHONE: &str = concat!(
    r"\+[1-9](?:[ ().-]{0,2}[0-9]){7,14}(?-u:\b)",
    r"|(?:\([2-9][0-9]{2}\) ?|(?-u:\b)[2-9][0-9]{2}[-. ])[2-9][0-9]{2}[-. ][0-9]{4}(?-u:\b)",
);

/// Keys whose value is a secret whatever it looks like, alone or as the last word of a longer key.
pub(crate) const SECRET_KEYS: &str = concat!(
    r"(?i-u)(?:[^\x00-\x1f\x7f-\xff]*[._/-])?(?:pass(?:word|wd|phrase|code)|pwd|(?:set-|set_)?cookie",
    r"|(?:proxy[_-])?authorization|(?:x[_-])?(?:api|auth|access|secret|private|signing|encryption)[_-]?key",
    r"|(?:client[_-]?|shared[_-]?)?secret|(?:access|refresh|id|auth|api|bearer|csrf|xsrf|session)?[_-]?token",
    r"|credentials?|cvv2?|cvc|pin|ssn)",
);

/// The regular expression of a named pattern.
pub(crate) fn named(name: &str) -> Option<&'static str> {
    NAMED.iter().find(|(known, _)| *known == name).map(|(_, regex)| *regex)
}
