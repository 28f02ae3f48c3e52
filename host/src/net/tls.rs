//! TLS for every listener and every client; files are read again when they change.
//!
//! Files are looked at when a connection begins, at most once a second. A change that cannot be used is warned of
//! once, and what was in use stays. The cryptography is ring's, named explicitly: there is no process-wide default
//! that a library could change.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long files are trusted to be unchanged.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Clients must show a certificate that one of these authorities signed.
    pub client_ca: Option<PathBuf>,
}

/// TLS of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// Authorities to trust, PEM; without it those of the system.
    pub ca: Option<PathBuf>,
    /// Our own certificate and key, for servers that ask for one.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// The name to expect in the server's certificate, where it is not the host of the endpoint.
    pub server_name: Option<String>,
}

/// A file that TLS cannot work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", .path.display())]
pub struct TlsFault {
    pub path: PathBuf,
    pub problem: String,
}

/// Shakes hands on the side of the server.
#[derive(Clone, Debug)]
pub struct Acceptor(Arc<Watch<ServerSettings, Arc<ServerConfig>>>);

impl Acceptor {
    /// Reads the files; a fault names the one that is wrong.
    pub fn open(settings: ServerSettings) -> Result<Acceptor, TlsFault> {
        let files = [Some(&settings.cert), Some(&settings.key), settings.client_ca.as_ref()];
        let files = files.into_iter().flatten().cloned().collect();
        Watch::open(settings, files, server_config).map(|watch| Acceptor(Arc::new(watch)))
    }

    /// The stream, and the SHA-256 of the client's certificate if it showed one that we trust. The caller sets the
    /// deadline.
    pub async fn accept(
        &self,
        socket: TcpStream,
    ) -> std::io::Result<(TlsStream<TcpStream>, Option<[u8; 32]>)> {
        let stream = TlsAcceptor::from(self.0.current()).accept(socket).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = shown.map(|certificate| Sha256::digest(certificate).into());
        Ok((stream, certificate))
    }
}

/// A configuration for any client of rustls (tonic's connector, reqwest, tokio-rustls). It stays right when the files
/// change: certificates and authorities are looked up at each handshake.
///
/// The caller sets `alpn_protocols` where its library does not.
///
/// With `server_name` the certificate must be for that name; the name sent to the server stays the endpoint's.
pub fn client_config(settings: ClientSettings) -> Result<ClientConfig, TlsFault> {
    let expected = settings.server_name.clone().map(|name| {
        ServerName::try_from(name.clone())
            .map_err(|_| TlsFault { path: PathBuf::from(name), problem: "no name of a server".into() })
    });
    let expected = expected.transpose()?;
    let files = [&settings.ca, &settings.cert, &settings.key];
    let files = files.into_iter().flatten().cloned().collect();
    let identity = Arc::new(ClientIdentity { watch: Watch::open(settings, files, client_parts)?, expected });
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions")
        .dangerous()
        // Not weaker than the default: it asks WebPKI, with the authorities of the moment.
        .with_custom_certificate_verifier(identity.clone())
        .with_client_cert_resolver(identity);
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Something made of files, made again when they change.
#[derive(Debug)]
struct Watch<S, T> {
    settings: S,
    files: Vec<PathBuf>,
    make: fn(&S) -> Result<T, TlsFault>,
    made: Mutex<Made<T>>,
}

#[derive(Debug)]
struct Made<T> {
    value: T,
    stamps: Vec<Stamp>,
    looked: Instant,
}

/// What changes with a file.
type Stamp = Option<(SystemTime, u64)>;

impl<S, T: Clone> Watch<S, T> {
    fn open(
        settings: S,
        files: Vec<PathBuf>,
        make: fn(&S) -> Result<T, TlsFault>,
    ) -> Result<Watch<S, T>, TlsFault> {
        let stamps = stamps(&files);
        let value = make(&settings)?;
        let made = Mutex::new(Made { value, stamps, looked: Instant::now() });
        Ok(Watch { settings, files, make, made })
    }

    fn current(&self) -> T {
        let mut made = self.made.lock().expect("no panic while certificates are read");
        if made.looked.elapsed() < LOOK_AGAIN {
            return made.value.clone();
        }
        made.looked = Instant::now();
        let stamps = stamps(&self.files);
        if stamps != made.stamps {
            made.stamps = stamps;
            match (self.make)(&self.settings) {
                Ok(value) => {
                    made.value = value;
                    tracing::info!(files = ?self.files, "certificates were read again");
                }
                Err(fault) => {
                    tracing::warn!(%fault, "changed certificates cannot be used; the old ones stay")
                }
            }
        }
        made.value.clone()
    }
}

/// A few `stat` calls: microseconds, once a second.
fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(stamp).collect()
}

fn server_config(settings: &ServerSettings) -> Result<Arc<ServerConfig>, TlsFault> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions");
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| fault(path, error))?)
        }
    };
    let certificates = certificates(&settings.cert)?;
    let key = private_key(&settings.key)?;
    let mut config =
        builder.with_single_cert(certificates, key).map_err(|error| fault(&settings.cert, error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What a client's handshake needs.
#[derive(Clone, Debug)]
struct ClientParts {
    verifier: Arc<WebPkiServerVerifier>,
    own: Option<Arc<CertifiedKey>>,
}

#[derive(Debug)]
struct ClientIdentity {
    watch: Watch<ClientSettings, ClientParts>,
    expected: Option<ServerName<'static>>,
}

fn client_parts(settings: &ClientSettings) -> Result<ClientParts, TlsFault> {
    let (roots, from) = match &settings.ca {
        Some(path) => (authorities(path)?, path.clone()),
        None => (system_authorities()?, PathBuf::from("system authorities")),
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = verifier.build().map_err(|error| fault(&from, error))?;
    let own = match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => {
            let own = CertifiedKey::from_der(certificates(cert)?, private_key(key)?, &provider());
            Some(Arc::new(own.map_err(|error| fault(cert, error))?))
        }
        (Some(alone), None) | (None, Some(alone)) => return Err(fault(alone, "needs both `cert` and `key`")),
        (None, None) => None,
    };
    Ok(ClientParts { verifier, own })
}

impl ServerCertVerifier for ClientIdentity {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let name = self.expected.as_ref().unwrap_or(name);
        self.watch.current().verifier.verify_server_cert(certificate, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.watch.current().verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.watch.current().verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.watch.current().verifier.supported_verify_schemes()
    }
}

impl rustls::client::ResolvesClientCert for ClientIdentity {
    fn resolve(&self, _authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.watch.current().own.filter(|own| own.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        self.watch.current().own.is_some()
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| fault(path, error))?;
    }
    Ok(roots)
}

fn system_authorities() -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(fault(Path::new("system authorities"), "none found; set `ca`"));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| fault(path, error))?;
    let certificates: Result<Vec<_>, _> = read.collect();
    let certificates = certificates.map_err(|error| fault(path, error))?;
    if certificates.is_empty() {
        return Err(fault(path, "holds no certificate in PEM"));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| fault(path, error))
}

fn fault(path: &Path, problem: impl std::fmt::Display) -> TlsFault {
    TlsFault { path: path.to_owned(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::authority::Authority;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    /// One handshake: what the client saw of the server, what the server of the client.
    async fn shake(server: &Acceptor, client: ClientConfig) -> (Option<Vec<u8>>, Option<Option<[u8; 32]>>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = async {
            let (socket, _) = listener.accept().await.unwrap();
            let (mut stream, certificate) = server.accept(socket).await.ok()?;
            // In TLS 1.3 a client learns of a refusal only when it reads.
            stream.write_all(b"!").await.ok()?;
            stream.shutdown().await.ok();
            Some(certificate)
        };
        let asking = async {
            let socket = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = TlsConnector::from(Arc::new(client)).connect(name, socket).await.ok()?;
            let mut byte = [0];
            stream.read_exact(&mut byte).await.ok()?;
            stream.get_ref().1.peer_certificates().map(|certificates| certificates[0].to_vec())
        };
        let (seen, shown) = tokio::join!(asking, serving);
        (seen, shown)
    }

    #[tokio::test]
    async fn a_client_sees_the_certificate_and_trusts_only_its_authority() {
        let (ours, other) = (Authority::new(), Authority::new());
        let certificate = ours.sign("server", "localhost");
        let server = Acceptor::open(ours.server("server")).unwrap();
        let (seen, shown) = shake(&server, client_config(ours.client()).unwrap()).await;
        assert_eq!((seen, shown), (Some(certificate), Some(None)));
        let (seen, shown) = shake(&server, client_config(other.client()).unwrap()).await;
        assert_eq!((seen, shown), (None, None));
    }

    #[tokio::test]
    async fn the_name_in_the_certificate_must_be_the_hosts_or_the_one_expected() {
        let authority = Authority::new();
        authority.sign("server", "gateway.example");
        let server = Acceptor::open(authority.server("server")).unwrap();
        let named = |name: &str| ClientSettings { server_name: Some(name.into()), ..authority.client() };
        for (client, is_good) in
            [(authority.client(), false), (named("gateway.example"), true), (named("other.example"), false)]
        {
            let (seen, _) = shake(&server, client_config(client.clone()).unwrap()).await;
            assert_eq!(seen.is_some(), is_good, "{client:?}");
        }
    }

    #[tokio::test]
    async fn with_an_authority_for_clients_only_its_clients_come_in() {
        let (ours, other) = (Authority::new(), Authority::new());
        ours.sign("server", "localhost");
        let agent = ours.sign("agent", "agent");
        other.sign("agent", "agent");
        let settings = ServerSettings { client_ca: Some(ours.path("ca.pem")), ..ours.server("server") };
        let server = Acceptor::open(settings).unwrap();
        let stranger = ClientSettings { ca: Some(ours.path("ca.pem")), ..other.client_as("agent") };
        for (client, fingerprint) in [
            (ours.client(), None),
            (stranger, None),
            (ours.client_as("agent"), Some(<[u8; 32]>::from(Sha256::digest(&agent)))),
        ] {
            let (seen, shown) = shake(&server, client_config(client).unwrap()).await;
            assert_eq!(seen.is_some(), fingerprint.is_some());
            assert_eq!(shown.flatten(), fingerprint);
        }
    }

    /// Until a file's change is looked for.
    async fn look_again() {
        tokio::time::advance(LOOK_AGAIN).await;
    }

    #[tokio::test(start_paused = true)]
    async fn changed_files_are_used_and_broken_ones_are_not() {
        let (ours, other) = (Authority::new(), Authority::new());
        let old = ours.sign("server", "localhost");
        let old_agent = ours.sign("agent", "agent");
        let settings = ServerSettings { client_ca: Some(ours.path("ca.pem")), ..ours.server("server") };
        let server = Acceptor::open(settings).unwrap();
        let client = client_config(ours.client_as("agent")).unwrap();
        let print = |der: &[u8]| Some(Some(<[u8; 32]>::from(Sha256::digest(der))));
        assert_eq!(shake(&server, client.clone()).await, (Some(old), print(&old_agent)));

        let new = ours.sign("server", "localhost");
        let new_agent = ours.sign("agent", "agent");
        look_again().await;
        assert_eq!(shake(&server, client.clone()).await, (Some(new.clone()), print(&new_agent)));

        std::fs::write(ours.path("server.pem"), "half a certif").unwrap();
        std::fs::write(ours.path("agent.key"), "half a key").unwrap();
        look_again().await;
        assert_eq!(shake(&server, client.clone()).await, (Some(new), print(&new_agent)));

        // Another authority on both sides.
        std::fs::copy(other.path("ca.pem"), ours.path("ca.pem")).unwrap();
        let theirs = other.sign("server", "localhost");
        let their_agent = other.sign("agent", "agent");
        for file in ["server.pem", "server.key", "agent.pem", "agent.key"] {
            std::fs::copy(other.path(file), ours.path(file)).unwrap();
        }
        look_again().await;
        assert_eq!(shake(&server, client).await, (Some(theirs), print(&their_agent)));
    }

    #[test]
    fn a_fault_names_the_file() {
        let authority = Authority::new();
        authority.sign("server", "localhost");
        authority.sign("other", "localhost");
        let good = authority.server("server");
        let missing = authority.path("missing.pem");
        let check = |settings: ServerSettings, path: &Path| {
            let fault = Acceptor::open(settings).unwrap_err();
            assert_eq!(fault.path, path, "{fault}");
        };
        check(ServerSettings { cert: missing.clone(), ..good.clone() }, &missing);
        check(ServerSettings { key: missing.clone(), ..good.clone() }, &missing);
        check(ServerSettings { client_ca: Some(missing.clone()), ..good.clone() }, &missing);
        // A key where a certificate should be, and the key of another certificate.
        check(ServerSettings { cert: good.key.clone(), ..good.clone() }, &good.key);
        check(ServerSettings { key: authority.path("other.key"), ..good.clone() }, &good.cert);
        let alone = ClientSettings { cert: Some(good.cert.clone()), ..authority.client() };
        assert_eq!(client_config(alone).unwrap_err().path, good.cert);
        let nameless = ClientSettings { server_name: Some("no name".into()), ..authority.client() };
        assert!(client_config(nameless).is_err());
    }
}
