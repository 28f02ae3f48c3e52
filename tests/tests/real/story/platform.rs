//! The platform of `examples/platform`, with real servers around it and a collector as a process of its own.

use super::recorder::Recorder;
use crate::real::servers::{
    Entrance, FerretDb, Jaeger, Prometheus, Readiness, Server, Telegram, VictoriaMetrics,
};
use crate::shutdown::{binary, free_port};
use std::path::Path;

/// The bot that the platform's alerts come from. Its token is looked for in every log.
pub const BOT: &str = "123456:a-token-that-nobody-may-read";

pub const CHAT: &str = "-100123";

pub struct Platform {
    pub jaeger: Jaeger,
    pub prometheus: Prometheus,
    pub victoria: VictoriaMetrics,
    pub ferret: FerretDb,
    pub telegram: Telegram,
    /// Between the collector and Telegram.
    pub recorder: Recorder,
    pub collector: Collector,
}

impl Platform {
    pub async fn start() -> Platform {
        let (jaeger, prometheus, victoria, ferret, telegram) = tokio::join!(
            Jaeger::start(),
            Prometheus::start(),
            VictoriaMetrics::start(),
            FerretDb::start(Entrance::Scram),
            Telegram::start(),
        );
        let recorder = Recorder::start(telegram.api()).await;
        let collector = Collector::start(&[
            ("MONGODB_URI", ferret.uri.clone()),
            ("JAEGER_ENDPOINT", format!("http://127.0.0.1:{}", jaeger.otlp_grpc)),
            ("PROMETHEUS_ENDPOINT", prometheus.remote_write()),
            ("VICTORIAMETRICS_ENDPOINT", victoria.remote_write()),
            ("TELEGRAM_API", recorder.api()),
        ])
        .await;
        Platform { jaeger, prometheus, victoria, ferret, telegram, recorder, collector }
    }

    /// Every folder in which something of the story is on disk: data, logs.
    pub fn folders(&self) -> [(&'static str, &Path); 6] {
        [
            ("the collector", self.collector.server.folder()),
            ("FerretDB", self.ferret.server.folder()),
            ("Jaeger", self.jaeger.server.folder()),
            ("Prometheus", self.prometheus.server.folder()),
            ("VictoriaMetrics", self.victoria.server.folder()),
            ("the server of Telegram", self.telegram.server.folder()),
        ]
    }
}

/// `trommel run --config examples/platform/trommel.yaml`, with its data and its log in a folder of the test.
pub struct Collector {
    pub server: Server,
    pub grpc: u16,
    pub http: u16,
    console: u16,
}

impl Collector {
    /// Where other servers are stands in `environment`; what it leaves out is where nobody listens.
    pub async fn start(environment: &[(&str, String)]) -> Collector {
        let [grpc, http, console, nobody]: [u16; 4] = std::array::from_fn(|_| free_port());
        let ready = Readiness::Answers(format!("http://127.0.0.1:{console}/readyz"));
        let program = tokio::task::spawn_blocking(binary).await.unwrap();
        let mut server = Server::new("the collector", program, ready);
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/platform/trommel.yaml");
        let data = server.path("data").display().to_string();
        let nowhere = format!("http://127.0.0.1:{nobody}");
        server.command.args(["run", "--config"]).arg(example);
        server.command.env("TROMMEL_DATA", data).env("TROMMEL_LOG", "trommel=debug");
        server.command.env("TELEGRAM_TOKEN", BOT).env("TELEGRAM_CHAT", CHAT);
        for (variable, port) in [("TROMMEL_GRPC", grpc), ("TROMMEL_HTTP", http), ("TROMMEL_CONSOLE", console)]
        {
            server.command.env(variable, format!("127.0.0.1:{port}"));
        }
        for (variable, path) in [
            ("JAEGER_ENDPOINT", ""),
            ("PROMETHEUS_ENDPOINT", "/api/v1/write"),
            ("VICTORIAMETRICS_ENDPOINT", "/api/v1/write"),
            ("TELEGRAM_API", ""),
        ] {
            server.command.env(variable, format!("{nowhere}{path}"));
        }
        server.command.env("MONGODB_URI", format!("mongodb://127.0.0.1:{nobody}"));
        server.command.envs(environment.iter().map(|(name, value)| (name, value)));
        server.start().await;
        Collector { server, grpc, http, console }
    }

    pub fn console(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.console)
    }

    /// `logs` or `tail` of a stream.
    pub fn stream(&self, tenant: &str, project: &str, what: &str) -> String {
        self.console(&format!("/v1/tenants/{tenant}/projects/{project}/{what}"))
    }
}
