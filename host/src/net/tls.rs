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
