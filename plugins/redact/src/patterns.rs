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
    r"(?-u:\b)(?:[23][0-9A-Fa-f]{3}|[Ff](?:[C-Ec-e][0-9A-Fa-f]{2}|[Ff]{3})|64):",
    r"(?:(?:[0-9A-Fa-f]{1,4}:){6}[0-9A-Fa-f]{1,4}",
    r"|(?:[0-9A-Fa-f]{1,4}:){0,6}:(?:(?:[0-9A-Fa-f]{1,4}:){0,5}[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,5})?",
    r"|[0-9]{1,3}(?:\.[0-9]{1,3}){3})",
);

/// International with `+`, and the North American form.
const PHONE: &str = concat!(
    r"\+[1-9](?:[ ().-]{0,2}[0-9]){7,14}(?-u:\b)",
    r"|(?:\([2-9][0-9]{2}\) ?|(?-u:\b)[2-9][0-9]{2}[-. ])[2-9][0-9]{2}[-. ][0-9]{4}(?-u:\b)",
);

/// Keys whose value is a secret whatever it looks like, alone or as the last word of a longer key, `snake_case` and
/// `camelCase` alike.
pub(crate) const SECRET_KEYS: &str = concat!(
    r"(?:(?s:.*)[._/-])?(?i-u:pass(?:word|wd|phrase|code)|pwd|(?:set-|set_)?cookie",
    r"|(?:proxy[_-])?authorization|(?:x[_-])?(?:api|auth|access|secret|private|signing|encryption)[_-]?key",
    r"|(?:client[_-]?|shared[_-]?)?secret|(?:access|refresh|id|auth|api|bearer|csrf|xsrf|session)?[_-]?token",
    r"|credentials?|cvv2?|cvc|pin|ssn)",
    r"|(?s:.*)[a-z0-9](?:Pass(?:word|wd|phrase|code)|Pwd|Cookie|Authorization|(?:Api|Auth|Access|Secret|Private)Key|Secret|Token|Credentials?)",
);

/// The regular expression of a named pattern.
pub(crate) fn named(name: &str) -> Option<&'static str> {
    NAMED.iter().find(|(known, _)| *known == name).map(|(_, regex)| *regex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex_automata::meta::Regex;

    fn check(name: &str, cases: &[(&str, &[&str])]) {
        let regex = Regex::new(named(name).unwrap()).unwrap();
        for (text, expected) in cases {
            let found: Vec<&str> = regex.find_iter(text).map(|found| &text[found.range()]).collect();
            assert_eq!(found, *expected, "{name} in {text:?}");
        }
    }

    #[test]
    fn every_pattern_is_short_enough_to_compile() {
        for (name, regex) in NAMED.iter().chain([&("keys", SECRET_KEYS)]) {
            assert!(regex.len() <= 1024, "{name} has {} bytes", regex.len());
            assert!(!Regex::new(regex).unwrap().is_match(""), "{name} matches nothing");
        }
        assert!(DEFAULT.iter().all(|name| named(name).is_some()));
    }

    #[test]
    fn email() {
        check(
            "email",
            &[
                ("mail jane.doe+x@example.co.uk, now", &["jane.doe+x@example.co.uk"]),
                ("<a@b.io>", &["a@b.io"]),
                ("josé@exämple.de und иван@почта.рф", &["josé@exämple.de", "иван@почта.рф"]),
                ("联系a@b.cn谢谢", &["a@b.cn"]),
                ("react@18.2.0 git@10.0.0.1 user@host @me a@", &[]),
                ("see x@y.zz.", &["x@y.zz"]),
            ],
        );
    }

    /// The keys are put together here, so that nobody's scanner takes them for real ones.
    #[test]
    fn token() {
        let long = "abcdefghij0123456789ABCDEFGHIJabcdef";
        let short = "abcdefghij0123456789";
        for begin in [
            "gh|p_",
            "gh|o_",
            "np|m_",
            "xox|b-",
            "sk_|live_",
            "rk_|test_",
            "hf|_",
            "sk|-",
            "sk-|proj-",
            "gl|pat-",
            "ya|29.",
            "GOC|SPX-",
        ] {
            let key = format!("{}{long}", begin.replace('|', ""));
            check("token", &[(&format!("key={key}; {key}"), &[&key, &key]), (&key[..key.len() - 30], &[])]);
        }
        let google = format!("AI{}{}", "za", &long[..35]);
        let amazon = format!("AK{}", "IAIOSFODNN7EXAMPLE");
        check(
            "token",
            &[
                (&format!("{google} {amazon}."), &[&google, &amazon]),
                ("with Bearer abc123def456, then", &["Bearer abc123def456"]),
                ("bearer of bad news, bearer token missing, Bearer authentication", &[]),
                (r#"{"Authorization": "Basic dXNlcjpwYXNz"}"#, &[r#"Authorization": "Basic dXNlcjpwYXNz"#]),
                ("authorization: Bearer x.y-z_0123456789", &["authorization: Bearer x.y-z_0123456789"]),
                (&format!("task-{short}"), &[]),
            ],
        );
    }

    #[test]
    fn jwt() {
        let signed = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let encrypted = "eyJhbGciOiJkaXIifQ..c2FsdA.Y2lwaGVy.dGFn";
        let text = format!("a={signed}; b={encrypted}");
        check("jwt", &[(&text, &[signed, encrypted]), ("eyJhbGciOiJIUzI1NiJ9 alone, eyJ.a.b", &[])]);
    }

    #[test]
    fn private_key() {
        let block = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----";
        let escaped = r"-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----";
        let cut = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl";
        check(
            "private_key",
            &[
                (&format!("x {block} y {block}"), &[block, block]),
                (&format!("{escaped}, y"), &[escaped]),
                (&format!("x {cut}"), &[cut]),
                ("-----BEGIN PUBLIC KEY-----\nMIIE\n-----END PUBLIC KEY-----", &[]),
            ],
        );
    }

    #[test]
    fn card() {
        check(
            "card",
            &[
                ("pay 4111 1111 1111 1111 now", &["4111 1111 1111 1111"]),
                ("4111-1111-1111-1111", &["4111-1111-1111-1111"]),
                ("n=4111111111111111,", &["4111111111111111"]),
                ("0.4111111111111111", &["0.4111111111111111"]),
                ("id4111111111111111 4111111111111111x 411111111111", &[]),
                ("4111  1111  1111  1111", &[]),
                ("2024-11-24 10:20:30", &[]),
            ],
        );
    }

    #[test]
    fn ipv4() {
        check(
            "ipv4",
            &[
                ("from 192.168.0.1:8080 to 8.8.8.8.", &["192.168.0.1", "8.8.8.8"]),
                ("256.1.1.1 1.2.3 01.2.3.4", &[]),
                ("v1.2.3.4", &[]),
            ],
        );
    }

    #[test]
    fn ipv6() {
        check(
            "ipv6",
            &[
                ("[2001:db8::1]:443", &["2001:db8::1"]),
                ("2001:0db8:85a3:0000:0000:8a2e:0370:7334", &["2001:0db8:85a3:0000:0000:8a2e:0370:7334"]),
                ("fe80::1ff:fe23:4567:890a%eth0 fd00::", &["fe80::1ff:fe23:4567:890a", "fd00::"]),
                ("64:ff9b::192.0.2.33", &["64:ff9b::192.0.2.33"]),
                ("::ffff:192.0.2.1", &["ffff:192.0.2.1"]),
                ("std::cell::Cell a::b dead::beef 10:20:30 2024:10:20", &[]),
                ("::1", &[]),
            ],
        );
    }

    #[test]
    fn phone() {
        check(
            "phone",
            &[
                ("call +49 171 1234567 or +1 (555) 234-5678.", &["+49 171 1234567", "+1 (555) 234-5678"]),
                (
                    "(555) 234-5678, 555-234-5678, 555.234.5678",
                    &["(555) 234-5678", "555-234-5678", "555.234.5678"],
                ),
                ("+0200 2024-11-24 192.168.100.2000 +1 2", &[]),
            ],
        );
    }

    #[test]
    fn keys_that_hold_secrets() {
        let regex = Regex::new(&format!("^(?:{SECRET_KEYS})$")).unwrap();
        let secret = [
            "password",
            "db.Password",
            "http.request.header.authorization",
            "http.request.header.set-cookie",
            "X-API-Key",
            "client_secret",
            "clientSecret",
            "refresh_token",
            "ID_TOKEN",
            "token",
            "user.pin",
            "aws/secret_access_key",
            "größe.pwd",
            "accessToken",
            "api_token",
            "userPassword",
            "req.dbPasswd",
            "stripeApiKey",
        ];
        let harmless = [
            "passwords_total",
            "gen_ai.usage.input_tokens",
            "session.id",
            "cookie_count",
            "author",
            "spin",
            "topin",
            "k8s.secret.name",
            "password.length",
            "key",
            "messaging.kafka.message.key",
            "mytoken",
            "maxTokens",
            "tokenType",
            "",
            "http.request.header.accept",
        ];
        for key in secret {
            assert!(regex.is_match(key), "{key}");
        }
        for key in harmless {
            assert!(!regex.is_match(key), "{key}");
        }
    }
}
