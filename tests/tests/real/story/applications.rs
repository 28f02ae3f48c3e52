//! The clients' applications as processes, the requests that they serve, and what they say they did.

use super::people;
use super::platform::Collector;
use crate::real::servers::{Readiness, Server};
use crate::real::{installed, sources};
use crate::shutdown::free_port;
use crate::world::PATIENCE;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Whose an application is, and by which words its data is known.
pub struct Client {
    pub tenant: &'static str,
    pub project: &'static str,
    pub token: &'static str,
    pub service: &'static str,
    /// Stands in every line and at the root of every trace.
    pub marker: &'static str,
    pub region: &'static str,
    /// Where its requests go, and its spans of one request: name and parent.
    path: &'static str,
    pub spans: [(&'static str, &'static str); 3],
    pub counter: &'static str,
    pub histogram: &'static str,
}

pub const SHOP: Client = Client {
    tenant: "acme",
    project: "shop",
    token: "acme-token",
    service: "orders",
    marker: "harmless-anvil",
    region: "eu-1",
    path: "/orders",
    spans: [("POST /orders", ""), ("charge", "POST /orders"), ("send receipt", "POST /orders")],
    counter: "orders_accepted_total",
    histogram: "order_duration_seconds",
};

pub const MAILER: Client = Client {
    tenant: "globex",
    project: "worker",
    token: "globex-token",
    service: "mailer",
    marker: "harmless-pencil",
    region: "eu-2",
    path: "/jobs",
    spans: [("mail", ""), ("render", "mail"), ("send", "mail")],
    counter: "jobs_done_total",
    histogram: "job_size_bytes",
};

/// What an application counted itself.
#[derive(Debug, Deserialize)]
pub struct Told {
    pub lines: usize,
    /// Trace ids, one per request.
    pub traces: Vec<String>,
    /// The counter by its attribute `kind`.
    pub counted: BTreeMap<String, f64>,
    /// Every value that the histogram took.
    pub recorded: Vec<f64>,
}

pub struct Application {
    server: Server,
    client: &'static Client,
    port: u16,
}

impl Application {
    /// The web service in Python, over OTLP/gRPC.
    pub async fn shop(collector: &Collector) -> Application {
        let mut server =
            Server::new("service.py", installed("TROMMEL_TEST_PYTHON"), Readiness::Prints("ready"));
        server.command.arg(sources().join("story/service.py"));
        Application::start(server, &SHOP, format!("http://127.0.0.1:{}", collector.grpc)).await
    }

    /// The worker in Node, over OTLP/HTTP.
    pub async fn mailer(collector: &Collector) -> Application {
        let mut server = Server::new("worker.js", "node", Readiness::Prints("ready"));
        server.command.env("NODE_PATH", installed("TROMMEL_TEST_NODE"));
        server.command.arg(sources().join("story/worker.js"));
        Application::start(server, &MAILER, format!("http://127.0.0.1:{}", collector.http)).await
    }

    async fn start(mut server: Server, client: &'static Client, endpoint: String) -> Application {
        let port = free_port();
        server.command.args([&port.to_string(), &endpoint, client.token, client.project, client.marker]);
        server.start().await;
        Application { server, client, port }
    }

    /// Serves so many requests, one after the other, each of another person.
    pub async fn serve(&self, requests: usize) {
        let http = crate::world::client();
        let url = format!("http://127.0.0.1:{}{}", self.port, self.client.path);
        for number in 0..requests {
            let customer = people::address(self.client.service, number);
            let body = serde_json::json!({ "customer": customer, "card": people::card(number) });
            let answer = http.post(&url).timeout(PATIENCE).json(&body).send().await.unwrap();
            assert_eq!(answer.status(), 201, "{} serves request {number}", self.client.service);
        }
    }

    /// Ends it when everything is sent; what it counted.
    pub async fn stop(mut self) -> Told {
        let http = crate::world::client();
        let stop = http.post(format!("http://127.0.0.1:{}/stop", self.port));
        let answer = stop.timeout(PATIENCE).send().await.unwrap();
        assert_eq!(answer.status(), 204, "{} stops", self.client.service);
        let code = self.server.ended().await;
        assert_eq!(code, Some(0), "{} could not send all:\n{}", self.client.service, self.server.log());
        let log = self.server.log();
        let last = log.lines().rev().find(|line| line.starts_with('{'));
        serde_json::from_str(last.unwrap_or_else(|| panic!("no report in:\n{log}"))).unwrap()
    }
}
