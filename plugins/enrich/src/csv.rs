//! Comma-separated values as RFC 4180 has them, and as spreadsheets write them.
//!
//! A byte order mark is skipped, lines end with LF, CRLF or CR, a field in quotes may hold commas, line ends and doubled
//! quotes, and lines without any text are left out.

/// One line: its number in the text, from 1, and its fields.
#[derive(Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) line: usize,
    pub(crate) fields: Vec<String>,
}

pub(crate) fn records(text: &str) -> Result<Vec<Record>, String> {
    let mut reader = Reader { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let mut records = Vec::new();
    while !reader.rest.is_empty() {
        let record = reader.record()?;
        if record.fields.iter().any(|field| !field.trim().is_empty()) {
            records.push(record);
        }
    }
    Ok(records)
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    fn record(&mut self) -> Result<Record, String> {
        let line = self.line;
        let mut fields = vec![self.field()?];
        loop {
            if self.takes(",") {
                fields.push(self.field()?);
            } else if self.takes_line_end() || self.rest.is_empty() {
                return Ok(Record { line, fields });
            } else {
                return Err(format!("line {}: text follows the closing quote of a field", self.line));
            }
        }
    }

    fn field(&mut self) -> Result<String, String> {
        if self.takes("\"") {
            return self.quoted();
        }
        let end = self.rest.find([',', '\n', '\r']).unwrap_or(self.rest.len());
        let (field, rest) = self.rest.split_at(end);
        if field.contains('"') {
            return Err(format!(
                "line {}: a quote stands inside a field that does not begin with one",
                self.line
            ));
        }
        self.rest = rest;
        Ok(field.into())
    }

    fn quoted(&mut self) -> Result<String, String> {
        let opened = self.line;
        let mut field = String::new();
        loop {
            let Some(end) = self.rest.find('"') else {
                return Err(format!("line {opened}: the quote that opens a field is never closed"));
            };
            let (text, rest) = self.rest.split_at(end);
            self.line += text.matches('\n').count();
            field.push_str(text);
            self.rest = &rest[1..];
            if !self.takes("\"") {
                return Ok(field);
            }
            field.push('"');
        }
    }

    fn takes(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn takes_line_end(&mut self) -> bool {
        let ends = self.takes("\r\n") || self.takes("\n") || self.takes("\r");
        self.line += usize::from(ends);
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&[&str]]) {
        let fields: Vec<Vec<String>> =
            records(text).unwrap().into_iter().map(|record| record.fields).collect();
        assert_eq!(fields, expected, "{text:?}");
    }

    #[test]
    fn lines_and_fields_come_apart() {
        check("a,b\n1,2\n", &[&["a", "b"], &["1", "2"]]);
        check("a,b\r\n1,2", &[&["a", "b"], &["1", "2"]]);
        check("a,b\r1,2", &[&["a", "b"], &["1", "2"]]);
        check("a,,b,", &[&["a", "", "b", ""]]);
        check("", &[]);
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        check("\u{feff}a\n", &[&["a"]]);
        check("\u{feff}\"a\"\n", &[&["a"]]);
    }

    #[test]
    fn lines_without_text_are_left_out() {
        check("\na\n\n,,\n \nb\n\n", &[&["a"], &["b"]]);
    }

    #[test]
    fn quotes_protect_what_they_enclose() {
        check("\"a,b\",\"c\"\"d\"\n", &[&["a,b", "c\"d"]]);
        check("\"two\nlines\",x", &[&["two\nlines", "x"]]);
        check("\"\",x", &[&["", "x"]]);
        check("\"\"\"\",x", &[&["\"", "x"]]);
        check("\"ä€\",ß", &[&["ä€", "ß"]]);
    }

    #[test]
    fn lines_are_counted_through_quoted_ends() {
        let records = records("a\n\"1\n2\"\n\nb").unwrap();
        assert_eq!(records.iter().map(|record| record.line).collect::<Vec<_>>(), [1, 2, 5]);
    }

    #[test]
    fn what_is_no_csv_is_refused_with_its_line() {
        let cases = [
            ("a\nb,\"c", "line 2: the quote that opens"),
            ("a\n\nb\"c\"", "line 3: a quote stands inside"),
            ("\"a\nb\"c", "line 2: text follows"),
        ];
        for (text, expected) in cases {
            assert!(records(text).unwrap_err().starts_with(expected), "{text:?}: {:?}", records(text));
        }
    }

    /// Any fields, written with quotes around each, are read as they were.
    #[test]
    fn quoted_fields_survive() {
        let mut seed = 1u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % below
        };
        for _ in 0..2000 {
            let (height, width) = (1 + random(4), 1 + random(4));
            let mut rows = Vec::new();
            for _ in 0..height {
                let mut row = vec![String::new(); width as usize];
                // A line without text would be left out.
                row[0].push('x');
                for field in &mut row {
                    (0..random(5))
                        .for_each(|_| field.push(['a', '"', ',', '\n', '\r', 'é'][random(6) as usize]));
                }
                rows.push(row);
            }
            let quoted = |field: &String| format!("\"{}\"", field.replace('"', "\"\""));
            let line = |row: &Vec<String>| row.iter().map(quoted).collect::<Vec<_>>().join(",");
            let text = rows.iter().map(line).collect::<Vec<_>>().join("\r\n");
            let read: Vec<Vec<String>> =
                records(&text).unwrap().into_iter().map(|record| record.fields).collect();
            assert_eq!(read, rows, "{text:?}");
        }
    }
}
