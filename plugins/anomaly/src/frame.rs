//! Where an exception was thrown: the top frame of its stack, without what varies from one build to the next.

/// Of a stack that is looked at, from its begin and, in languages that write the latest call last, from its end.
const LOOKED_AT_BYTES: usize = 4_096;
/// Of a frame.
const FRAME_BYTES_MAX: usize = 64;
/// Python, and those who write like it.
const LATEST_LAST: &str = "Traceback (most recent call last)";

/// Empty if there is none. As languages write it: `at TYPE.METHOD(FILE:LINE)` (Java, JavaScript, .NET), `File "FILE", line
/// LINE, in FUNCTION` (Python), else the first line that is no headline: a function in Go and Rust.
pub(crate) fn top(stack: &str) -> String {
    let head = &stack[..stack.floor_char_boundary(LOOKED_AT_BYTES)];
    if head.trim_start().starts_with(LATEST_LAST) {
        let tail = &stack[stack.ceil_char_boundary(stack.len().saturating_sub(LOOKED_AT_BYTES))..];
        let last = tail.lines().map(str::trim).rfind(|line| line.starts_with("File \""));
        return last.map(python).unwrap_or_default();
    }
    let mut lines = head.lines().map(str::trim).filter(|line| !line.is_empty());
    if let Some(frame) = lines.clone().find_map(|line| line.strip_prefix("at ")) {
        return steady(called(frame));
    }
    let is_frame = |line: &&str| !line.starts_with("goroutine ") && !line.ends_with(':');
    // The first line says what was thrown.
    lines.next();
    lines.find(is_frame).map(|line| steady(called(numberless(line)))).unwrap_or_default()
}

/// `File "/srv/shop/pay.py", line 12, in charge`: `pay.py charge`.
fn python(line: &str) -> String {
    let path = line.trim_start_matches("File \"").split('"').next().unwrap_or_default();
    let file = path.rsplit(['/', '\\']).next().unwrap_or_default();
    let function = line.rsplit_once(", in ").map_or("", |(_, function)| function);
    steady(format!("{file} {function}").trim_end())
}

/// Without arguments, file and line.
fn called(frame: &str) -> &str {
    let end = frame.find(" in ").unwrap_or(frame.len());
    let frame = &frame[..end];
    // `main.(*Shop).Pay(0x1)` of Go holds a parenthesis in its name.
    let begin = frame.find("(*").map_or(0, |at| at + 2);
    let end = frame[begin..].find(['(']).map_or(frame.len(), |at| begin + at);
    let name = frame[..end].trim();
    // `at /srv/app.js:1:2`, a frame without a function.
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

/// `  3: shop::pay` of Rust.
fn numberless(line: &str) -> &str {
    line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches(": ")
}

/// One 0 for each number: those of lambdas, classes without a name, lines and versions vary.
fn steady(frame: &str) -> String {
    let mut steady = String::with_capacity(frame.len().min(FRAME_BYTES_MAX));
    let mut is_number = false;
    for character in frame.chars() {
        let is_digit = character.is_ascii_digit();
        if steady.len() + character.len_utf8() > FRAME_BYTES_MAX {
            break;
        }
        if !(is_digit && is_number) {
            steady.push(match character {
                _ if is_digit => '0',
                _ if character.is_control() => ' ',
                _ => character,
            });
        }
        is_number = is_digit;
    }
    steady
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_frame_is_found_in_the_stacks_of_many_languages() {
        let cases = [
            (
                "java.io.IOException: disk full\n\tat shop.Order.pay(Order.java:17)\n\tat shop.Web.run(Web.java:3)",
                "shop.Order.pay",
            ),
            ("E\n\tat shop.Order.lambda$pay$12(Order.java:17)", "shop.Order.lambda$pay$0"),
            ("Error: no\n    at charge (/srv/app/pay.js:12:7)\n    at next (x.js:1:2)", "charge"),
            ("Error: no\n    at /srv/app/pay.js:12:7", "pay.js:0:0"),
            (
                "System.Exception: no\n   at Shop.Pay.Charge(Int32 sum) in /src/Pay.cs:line 12",
                "Shop.Pay.Charge",
            ),
            (
                "Traceback (most recent call last):\n  File \"/srv/web.py\", line 3, in serve\n    pay()\n  File \"/srv/pay.py\", line 9, in charge\n    raise E\nE: no",
                "pay.py charge",
            ),
            (
                "goroutine 7 [running]:\nmain.(*Shop).Pay(0xc000, 0x1)\n\t/srv/pay.go:12 +0x1d",
                "main.(*Shop).Pay",
            ),
            ("stack backtrace:\n   0: shop::pay::charge\n             at src/pay.rs:12", "pay.rs:0"),
            ("no stack at all", ""),
            ("", ""),
        ];
        for (stack, expected) in cases {
            assert_eq!(top(stack), expected, "{stack}");
        }
    }

    #[test]
    fn a_frame_is_short_whatever_the_stack_is() {
        for stack in [
            format!("E\n at {}(", "ü".repeat(5_000)),
            format!("E\n{}", "7".repeat(9_000)),
            format!("{LATEST_LAST}\n File \"{}", "漢/".repeat(9_000)),
            "E\n at \u{1b}[2J\0".to_owned(),
            "ü".repeat(9_000),
        ] {
            let frame = top(&stack);
            assert!(frame.len() <= FRAME_BYTES_MAX && !frame.chars().any(char::is_control), "{frame:?}");
        }
    }
}
