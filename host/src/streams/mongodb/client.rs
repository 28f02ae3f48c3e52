//! The connection to a MongoDB server: its options, and what is said of its failures.
//!
//! No sentence holds the connection string, which has the password in it, nor anything of a document: the driver's own
//! texts quote both, so they are never passed on.

use super::Settings;
use crate::telemetry::Secret;
use futures_util::FutureExt;
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{ClientOptions, ConnectionString, ServerAddress, Tls};
use mongodb::{Client, Database};
use std::time::Duration;

/// Shorter than a viewer's patience and an attempt of `deliver`, so that both hear what is wrong.
const SERVER_PATIENCE: Duration = Duration::from_secs(4);
/// What the driver's connections are used for at once: the tracks of a write and the readers; the odd small command waits
/// for one of them.
const CONNECTIONS_MAX: u32 = 8;

/// Whether a connection string can be used; what is wrong otherwise, without any part of it. Needs no network.
pub fn check_uri(uri: &Secret) -> Result<(), String> {
    options_of(uri).map(drop)
}

/// Makes the client. Nothing is connected yet.
pub(super) fn open(settings: &Settings) -> Result<Database, String> {
    check_database(&settings.database)?;
    let options = options_of(&settings.uri)?;
    let client = Client::with_options(options).map_err(|error| sentence(&error))?;
    Ok(client.database(&settings.database))
}

/// Whether a name can be a database's. Source: MongoDB manual, "Naming Restrictions".
pub fn check_database(name: &str) -> Result<(), String> {
    let is_good = (1..=63).contains(&name.len())
        && !name.chars().any(|char| char.is_control() || "/\\. \"$".contains(char));
    match is_good {
        true => Ok(()),
        false => Err("it is no name of a database: 1 to 63 bytes without space and / \\ . \" $".into()),
    }
}

fn options_of(uri: &Secret) -> Result<ClientOptions, String> {
    let text = uri.expose();
    if text.starts_with("mongodb+srv://") {
        return Err("`mongodb+srv://` is not supported: write `mongodb://` and the hosts".into());
    }
    if !text.starts_with("mongodb://") {
        return Err("it does not begin with `mongodb://`".into());
    }
    let wrong = || {
        "it is no connection string: mongodb://USER:PASSWORD@HOST:27017/?OPTION=VALUE, \
         in names and passwords %40 for @, %3A for :, %2F for /, %25 for %"
            .to_owned()
    };
    let parsed = ConnectionString::parse(text).map_err(|_| wrong())?;
    // Without names to look up it waits for nothing.
    let parsed = ClientOptions::parse(parsed).into_future().now_or_never().ok_or_else(wrong)?;
    let mut options = parsed.map_err(|_| wrong())?;
    if options.hosts.iter().any(|host| !matches!(host, ServerAddress::Tcp { .. })) {
        return Err("it names a socket in the file system: write host and port".into());
    }
    check_tls(&options)?;
    options.app_name.get_or_insert_with(|| "trommel".into());
    options.max_pool_size.get_or_insert(CONNECTIONS_MAX);
    options.connect_timeout.get_or_insert(SERVER_PATIENCE);
    options.server_selection_timeout.get_or_insert(SERVER_PATIENCE);
    // A retry of the driver's own would see what its first attempt wrote as another's.
    options.retry_writes = Some(false);
    options.selection_criteria = None;
    options.read_concern = None;
    options.write_concern = None;
    Ok(options)
}

fn check_tls(options: &ClientOptions) -> Result<(), String> {
    let Some(Tls::Enabled(tls)) = &options.tls else { return Ok(()) };
    for (name, path) in [("tlsCAFile", &tls.ca_file_path), ("tlsCertificateKeyFile", &tls.cert_key_file_path)]
    {
        if let Some(path) = path {
            std::fs::File::open(path)
                .map_err(|error| format!("its {name} cannot be read: {}", error.kind()))?;
        }
    }
    Ok(())
}

/// What went wrong, in words of our own.
pub(super) fn sentence(error: &Error) -> String {
    match error.kind.as_ref() {
        ErrorKind::Authentication { .. } => "the server refuses the user or the password".into(),
        ErrorKind::Command(command) => said(command.code, &command.code_name),
        ErrorKind::ServerSelection { message, .. } if message.contains("ertificate") => {
            "no server answers: the certificate of one is not trusted".into()
        }
        ErrorKind::ServerSelection { .. } => "no server answers that can be written to".into(),
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => "the connection broke".into(),
        ErrorKind::DnsResolve { .. } => "a host of the connection string has no address".into(),
        ErrorKind::InvalidTlsConfig { .. } => "the files for TLS cannot be used".into(),
        ErrorKind::IncompatibleServer { .. } => "the server is older than MongoDB 4.4".into(),
        ErrorKind::InvalidResponse { .. } | ErrorKind::BsonDeserialization(_) => {
            "the server's answer cannot be read".into()
        }
        _ => "the driver broke off".into(),
    }
}

/// What the server said, by its number and its name for it.
pub(super) fn said(code: i32, code_name: &str) -> String {
    match code {
        18 => return "the server refuses the user or the password".into(),
        13 => return "the user may not do this (Unauthorized)".into(),
        _ => {}
    }
    let name: String = code_name.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    match name.is_empty() {
        true => format!("the server answers with error {code}"),
        false => format!("the server answers with error {code} ({name})"),
    }
}

/// The number of the server's error, if the server answered.
pub(super) fn code_of(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_that_can_be_used_is_taken() {
        for uri in [
            "mongodb://127.0.0.1",
            "mongodb://u:p%40ss@a.example:27017,b.example:27018/admin?replicaSet=r&tls=true",
            "mongodb://u:p@localhost:1/?maxPoolSize=2&w=1&authMechanism=SCRAM-SHA-256",
        ] {
            assert_eq!(check_uri(&Secret::new(uri)), Ok(()), "{uri}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        for (uri, told) in [
            ("", "does not begin"),
            ("postgres://u:hunter2@h", "does not begin"),
            ("mongodb+srv://u:hunter2@h", "is not supported"),
            ("mongodb://", "no connection string"),
            ("mongodb://u:hunter2/x@h", "no connection string"),
            ("mongodb://u:hunter2@h/?hunter2=1", "no connection string"),
            ("mongodb://u:hunter2@h:port", "no connection string"),
            ("mongodb://u:hunter2@h/?socketTimeoutMS=5", "no connection string"),
            ("mongodb://u:hunter2@%2Ftmp%2Fmongo.sock", "host and port"),
            ("mongodb://u:hunter2@h/?tls=true&tlsCAFile=/does/not/exist", "tlsCAFile cannot be read"),
        ] {
            let said = check_uri(&Secret::new(uri)).unwrap_err();
            assert!(said.contains(told), "{uri}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn a_database_has_a_name_that_servers_take() {
        assert_eq!(check_database("trommel"), Ok(()));
        for name in ["", "a b", "a.b", "a/b", "$a", &"a".repeat(64)] {
            assert!(check_database(name).is_err(), "{name}");
        }
    }
}
