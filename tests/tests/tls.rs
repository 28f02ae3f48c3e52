//! TLS on every listener and every client, and certificates as credentials.

use crate::world::{PATIENCE, World, eventually, logs, sha256};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tonic::Code;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// An authority that signs certificates into a folder: `NAME.pem` and `NAME.key`.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub fn write(&self, file: &Path) {
        std::fs::write(file, self.issuer.pem()).unwrap();
    }

    /// The certificate's DER.
    pub fn sign(&self, folder: &Path, name: &str, host: &str) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        certificate.der().to_vec()
    }
}

/// Files for a server, a client that is a credential, one that is not, and one of an authority that nobody trusts.
struct Files {
    folder: tempfile::TempDir,
    authority: Authority,
    agent_sha256: String,
}

impl Files {
    fn new() -> Files {
        let folder = tempfile::tempdir().unwrap();
        let (authority, stranger) = (Authority::new("ours"), Authority::new("stranger"));
        authority.write(&folder.path().join("ca.pem"));
        stranger.write(&folder.path().join("stranger-ca.pem"));
        authority.sign(folder.path(), "server", "localhost");
        let agent = authority.sign(folder.path(), "agent", "agent");
        authority.sign(folder.path(), "other", "other");
        stranger.sign(folder.path(), "stranger", "agent");
        Files { folder, authority, agent_sha256: digest(&agent) }
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    /// A client for HTTP that trusts the authority, with the certificate of this name.
    fn http(&self, own: Option<&str>) -> reqwest::Client {
        crate::world::client();
        let authority = reqwest::Certificate::from_pem(self.text("ca.pem").as_bytes()).unwrap();
        let mut builder =
            reqwest::Client::builder().tls_certs_only([authority]).tls_info(true).timeout(PATIENCE);
        builder = builder.resolve("localhost", "127.0.0.1:0".parse().unwrap());
        if let Some(own) = own {
            let pem = self.text(&format!("{own}.key")) + &self.text(&format!("{own}.pem"));
            builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
        }
        builder.build().unwrap()
    }

    async fn grpc(
        &self,
        to: SocketAddr,
        own: Option<&str>,
    ) -> Result<LogsServiceClient<Channel>, tonic::transport::Error> {
        let mut tls = ClientTlsConfig::new()
            .domain_name("localhost")
            .ca_certificate(tonic::transport::Certificate::from_pem(self.text("ca.pem")));
        if let Some(own) = own {
            tls = tls.identity(tonic::transport::Identity::from_pem(
                self.text(&format!("{own}.pem")),
                self.text(&format!("{own}.key")),
            ));
        }
        let endpoint = Endpoint::from_shared(format!("https://{to}")).unwrap().tls_config(tls)?;
        Ok(LogsServiceClient::new(endpoint.connect().await?))
    }
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn https(to: Option<SocketAddr>, path: &str) -> String {
    format!("https://localhost:{}{path}", to.unwrap().port())
}

const SINKS: &str = "pipelines: [{ name: all, sinks: [streams] }]\nsinks: { streams: { type: streams } }\n";

/// Every listener asks for a certificate; the agent's is tenant acme's.
fn closed(files: &Files) -> String {
    let tls = "tls: { cert: server.pem, key: server.key, client_ca: ca.pem }";
    format!(
        "receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:0, {tls} }}, http: {{ listen: 127.0.0.1:0, {tls} }} }} }}\n\
         console: {{ listen: 127.0.0.1:0, {tls} }}\n\
         identity: {{ tokens: [{{ certificate_sha256: \"{}\", tenant: acme, rights: [send, read] }}] }}\n{SINKS}",
        files.agent_sha256,
    )
}

/// A collector whose configuration names the files; they stay where they are.
async fn start(files: &Files, yaml: &str) -> World {
    let folder = tempfile::tempdir().unwrap();
    let absolute = |name: &str| format!(": {}", files.folder.path().join(name).display());
    let mut yaml = yaml.to_owned();
    for name in
        ["stranger-ca.pem", "server.pem", "server.key", "agent.pem", "agent.key", "ca.pem", "trusted.pem"]
    {
        yaml = yaml.replace(&format!(": {name}"), &absolute(name));
    }
    World::start_in(folder, &yaml).await
}

async fn post(client: &reqwest::Client, world: &World) -> reqwest::Result<u16> {
    let body = logs(&[("project.id", "shop")], &["over http"]).encode_to_vec();
    let request =
        client.post(https(world.app.http, "/v1/logs")).header("content-type", "application/x-protobuf");
    Ok(request.body(body).send().await?.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_the_credential_on_every_listener() {
    let files = Files::new();
    let world = start(&files, &closed(&files)).await;
    let history = |client: reqwest::Client| {
        client.get(https(world.app.console, "/v1/tenants/acme/projects/shop/logs")).send()
    };

    let agent = files.http(Some("agent"));
    let mut grpc = files.grpc(world.grpc(), Some("agent")).await.unwrap();
    grpc.export(logs(&[("project.id", "shop"), ("tenant.id", "globex")], &["over grpc"])).await.unwrap();
    assert_eq!(post(&agent, &world).await.unwrap(), 200);
    eventually("both lines are in the agent's stream", || async {
        let page: serde_json::Value = history(agent.clone()).await.unwrap().json().await.unwrap();
        page["records"].as_array().is_some_and(|records| records.len() == 2)
    })
    .await;

    // A certificate of the right authority that is no credential.
    let mut other = files.grpc(world.grpc(), Some("other")).await.unwrap();
    assert_eq!(other.export(logs(&[], &["x"])).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(post(&files.http(Some("other")), &world).await.unwrap(), 401);
    assert_eq!(history(files.http(Some("other"))).await.unwrap().status(), 401);

    // No certificate, one of another authority, and no TLS: no connection.
    for own in [None, Some("stranger")] {
        let refused = match files.grpc(world.grpc(), own).await {
            Err(_) => true,
            Ok(mut client) => {
                client.export(logs(&[], &["x"])).await.is_err_and(|status| status.code() != Code::Ok)
            }
        };
        assert!(refused, "{own:?}");
        assert!(post(&files.http(own), &world).await.is_err(), "{own:?}");
        assert!(history(files.http(own)).await.is_err(), "{own:?}");
    }
    assert!(world.send(None, logs(&[], &["x"])).await.is_err());
    assert!(world.http.get(world.console("/healthz")).send().await.is_err());

    assert_eq!(post(&agent, &world).await.unwrap(), 200, "the next good request is served");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_connections_see_a_changed_certificate_and_a_broken_one_changes_nothing() {
    let files = Files::new();
    let tls = "tls: { cert: server.pem, key: server.key }";
    let yaml = format!(
        "receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:0, {tls} }}, http: {{ listen: 127.0.0.1:0, {tls} }} }} }}\nconsole: {{ listen: 127.0.0.1:0, {tls} }}\n{SINKS}"
    );
    let world = start(&files, &yaml).await;
    let shown = |to| {
        let client = files.http(None);
        async move {
            let answer = client.get(https(to, "/healthz")).send().await.unwrap();
            answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap().peer_certificate().unwrap().to_vec()
        }
    };
    let mut old = files.grpc(world.grpc(), None).await.unwrap();
    let before = shown(world.app.console).await;

    let renewed = files.authority.sign(files.folder.path(), "server", "localhost");
    assert_ne!(before, renewed);
    for to in [world.app.console, world.app.http] {
        eventually("the new certificate is shown", || async { shown(to).await == renewed }).await;
    }
    old.export(logs(&[("project.id", "shop")], &["over the connection of before"])).await.unwrap();
    files
        .grpc(world.grpc(), None)
        .await
        .unwrap()
        .export(logs(&[("project.id", "shop")], &["over a new one"]))
        .await
        .unwrap();

    std::fs::write(files.folder.path().join("server.pem"), "no certificate").unwrap();
    let until = tokio::time::Instant::now() + std::time::Duration::from_millis(1500);
    while tokio::time::Instant::now() < until {
        assert_eq!(shown(world.app.console).await, renewed);
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_missing_is_named_at_start() {
    let yaml = format!(
        "receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:0, tls: {{ cert: gone.pem, key: gone.key }} }} }} }}\n{SINKS}"
    );
    let folder = tempfile::tempdir().unwrap();
    let config = trommel::config::Config::parse(&yaml, folder.path(), "test.yaml").unwrap();
    let error = format!("{:#}", trommel::app::App::start(config).await.unwrap_err());
    assert!(error.contains("receivers.otlp.grpc") && error.contains("gone.pem"), "{error}");
}

/// A gateway that asks for certificates, with a console in clear that a token may read.
fn gateway(files: &Files) -> String {
    let token = format!("tokens: [{{ sha256: \"{}\", tenant: acme, rights: [read] }}, ", sha256("reader"));
    let in_clear = "console: { listen: 127.0.0.1:0 }";
    closed(files)
        .replace("tokens: [", &token)
        .lines()
        .map(|line| if line.starts_with("console") { in_clear } else { line })
        .collect::<Vec<_>>()
        .join("\n")
}

fn sidecar(gateway: &World, protocol: &str, ca: &str) -> String {
    let to = if protocol == "grpc" { gateway.app.grpc } else { gateway.app.http };
    format!(
        "receivers: {{ otlp: {{ grpc: {{ listen: 127.0.0.1:0 }} }} }}\nconsole: {{ listen: 127.0.0.1:0 }}\npipelines: [{{ name: all, sinks: [gateway] }}]\n\
         sinks: {{ gateway: {{ type: otlp, protocol: {protocol}, endpoint: \"{}\", headers: {{ x-key: \"swordfish\" }}, tls: {{ ca: {ca}, cert: agent.pem, key: agent.key }} }} }}\n",
        https(to, ""),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_shows_its_certificate_to_a_server_of_its_own_authority() {
    let files = Files::new();
    let gateway = start(&files, &gateway(&files)).await;
    for (number, protocol) in ["grpc", "http"].into_iter().enumerate() {
        let sidecar = start(&files, &sidecar(&gateway, protocol, "ca.pem")).await;
        sidecar.send(None, logs(&[("project.id", "shop")], &[protocol])).await.unwrap();
        let records = gateway.history_of(Some("reader"), "acme", "shop", number + 1).await;
        assert_eq!(records[number]["body"], protocol);
        assert_eq!(records[number]["resource"]["tenant.id"], "acme");
        sidecar.end().await;
    }
    gateway.end().await;
}

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// On one thread, so that its log can be read.
#[tokio::test]
async fn a_server_of_a_wrong_authority_gets_nothing_until_the_authority_is_put_right() {
    let files = Files::new();
    let trusted = files.folder.path().join("trusted.pem");
    std::fs::copy(files.folder.path().join("stranger-ca.pem"), &trusted).unwrap();
    let gateway = start(&files, &gateway(&files)).await;
    let said = Said::default();
    let writer = said.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let logging = tracing::subscriber::set_default(subscriber);
    let sidecar = start(&files, &sidecar(&gateway, "grpc", "trusted.pem")).await;
    sidecar.send(None, logs(&[("project.id", "shop")], &["waits"])).await.unwrap();
    eventually("a few failed attempts", || async {
        sidecar.metric("trommel_deliver_circuit_open{sink=\"gateway\"}").await == Some(1.0)
    })
    .await;
    drop(logging);
    let text = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
    let told = text
        .lines()
        .find(|line| line.contains("does not take data"))
        .unwrap_or_else(|| panic!("nothing was told:\n{text}"));
    assert!(
        told.contains("gateway") && told.contains("certificate") && told.contains("UnknownIssuer"),
        "{told}"
    );
    assert!(
        !text.contains("swordfish") && !text.contains("waits") && !text.contains("PRIVATE KEY"),
        "{text}"
    );
    assert_eq!(gateway.history(Some("reader"), "acme", "shop").await.unwrap().len(), 0);

    std::fs::copy(files.folder.path().join("ca.pem"), &trusted).unwrap();
    let records = gateway.history_of(Some("reader"), "acme", "shop", 1).await;
    assert_eq!(records[0]["body"], "waits");
    sidecar.end().await;
    gateway.end().await;
}
