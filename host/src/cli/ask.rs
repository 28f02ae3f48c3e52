//! Asks the console of a running collector.

use super::{FAILED, complain, runtime};
use crate::net::{http, tls};
use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue, Method};
use clap::Args;
use reqwest::Url;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is made for people is small; a list of letters comes in pages.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A replay may have to wait for the disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Where the collector runs, and who asks.
#[derive(Args, Clone)]
pub(super) struct Console {
    /// The console of the collector.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4380")]
    console: String,
    /// A file that holds a token with the right `admin`. Not asked on loopback.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The authority to trust for https://, in PEM; without it those of the system.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Console {
    /// `path` begins with a slash, and may have a query. An error is a sentence for people.
    pub(super) fn get(&self, path: &str) -> Result<Value, String> {
        self.ask(Method::GET, path, Vec::new())
    }

    /// As [`Console::get`], with a body of JSON.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.ask(Method::POST, path, body.to_string().into_bytes())
    }

    /// As [`Console::get`].
    pub(super) fn delete(&self, path: &str) -> Result<Value, String> {
        self.ask(Method::DELETE, path, Vec::new())
    }

    /// A client, and the address and headers of what is asked for.
    pub(super) fn reach(&self, path: &str) -> Result<(http::Client, Url, HeaderMap), String> {
        let url = Url::parse(&self.console).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.and_then(|url| url.join(path).ok());
        let Some(url) = url else { return Err("--console: right would be http://127.0.0.1:4380".into()) };
        let tls = tls::ClientSettings { ca: self.ca.clone(), ..tls::ClientSettings::default() };
        let client = http::Client::open(http::tls_of(url.scheme() == "https", &tls)?)?;
        Ok((client, url, bearer(self.token_file.as_deref())?))
    }

    fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Value, String> {
        let (client, url, mut headers) = self.reach(path)?;
        if !body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let runtime = runtime().ok_or("nothing was asked")?;
        let asked = async {
            let answer = client.send(method, &url, &headers, body, ANSWER_BYTES_MAX);
            tokio::time::timeout(ANSWER_WITHIN, answer).await
        };
        let answered =
            runtime.block_on(asked).map_err(|_| "the console did not answer in time".to_owned())?;
        let (head, body) = answered.map_err(|error| format!("{}: {}", self.console, error.reason))?;
        let body = body?;
        if !head.status.is_success() {
            return Err(refusal(head.status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| format!("{}: no console: {error}", self.console))
    }
}

/// What the console said instead of an answer.
pub(super) fn refusal(status: ::http::StatusCode, body: &[u8]) -> String {
    let fault: Option<Value> = serde_json::from_slice(body).ok();
    let words = fault.as_ref().and_then(|fault| fault["error"].as_str()).unwrap_or_default();
    format!("the console answered {status}: {}", http::shown(words))
}

/// The header for the token in a file.
pub(super) fn bearer(token_file: Option<&Path>) -> Result<HeaderMap, String> {
    let Some(file) = token_file else { return Ok(HeaderMap::new()) };
    let token = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    http::headers([("authorization", format!("Bearer {}", token.trim()).as_str())].into_iter())
}

/// The answer, or a complaint and the code to end with.
pub(super) fn answered<T>(answer: Result<T, String>) -> Result<T, u8> {
    answer.map_err(|error| {
        complain(error);
        FAILED
    })
}

/// Columns as wide as their widest cell, two spaces between; numbers stand at the right.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|word| word.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let is_number = |cell: &str| !cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit() || c == '-');
    let numbers: Vec<bool> =
        (0..head.len()).map(|at| !rows.is_empty() && rows.iter().all(|row| is_number(&row[at]))).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).zip(&numbers).map(|((cell, width), is_number)| {
            if *is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let lines =
        std::iter::once(head.to_vec()).chain(rows.iter().map(|row| row.iter().map(String::as_str).collect()));
    lines.map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_numbers_stand_at_the_right() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["acme", "7", "a"]), row(["initech", "1200", "-"])];
        let expected = "\
tenant   records  note
acme           7  a
initech     1200  -";
        assert_eq!(table(&["tenant", "records", "note"], &rows), expected);
        assert_eq!(table(&["a", "b"], &[]), "a  b");
    }
}
