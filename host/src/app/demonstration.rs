//! What `run --demo` shows: tenants that exist while the process runs, and a line that follows one of them.

use crate::batch::{Signal, TenantId};
use crate::config::Config;
use crate::demo;
use crate::telemetry::Secret;
use crate::tenants::{Credential, Names, Proof, Rights, Who};
use std::net::SocketAddr;

/// `anomaly` says that an incident is over after 20 s: who watches a demonstration does not wait for long.
const SOON_OVER: &str = r#"{"calm_windows": 2}"#;

/// What the demonstration shows: tenants with tokens drawn at this start.
#[derive(Debug)]
pub struct Demo {
    pub(super) tokens: [Secret; 3],
}

impl Demo {
    /// Makes the demonstration's tenants known, with tokens that end with this process.
    pub fn prepare(config: &mut Config) -> Demo {
        let tokens: [Secret; 3] = std::array::from_fn(|_| Secret::new(random_token()));
        let rights = Rights { send: true, read: true, admin: false };
        config.tenants.is_open = false;
        config.tenants.credentials = demo::TENANTS
            .iter()
            .zip(&tokens)
            .map(|(tenant, token)| Credential {
                proof: Proof::of_token(token.expose()),
                who: Who::Tenant {
                    tenant: TenantId::new(tenant.name).expect("the names are valid"),
                    projects: Names::All,
                },
                rights,
            })
            .collect();
        for plugin in config.plugins.iter_mut().filter(|plugin| plugin.name == "anomaly") {
            plugin.config = SOON_OVER.into();
        }
        Demo { tokens }
    }

    pub fn summary(&self) -> String {
        let tenants: Vec<String> =
            demo::TENANTS.iter().map(|t| format!("{} ({})", t.name, t.projects.join(", "))).collect();
        let signals: Vec<&str> = Signal::ALL.iter().map(|signal| signal.name()).collect();
        format!("{} of {}", signals.join(", "), tenants.join(", "))
    }

    /// What will happen, and when.
    pub fn incident(&self) -> String {
        let (tenant, project) = demo::FAILING;
        let (after, long) = (demo::fails_after().as_secs(), demo::fails_for().as_secs());
        format!(
            "In {after} s {project} of {tenant} begins to fail, for {long} s: soon after, a line `alert opened` stands below, and \
             `alert resolved`\nwithin a minute after the end"
        )
    }

    /// A line for a shell that follows the first tenant's first project.
    pub fn curl(&self, console: SocketAddr) -> String {
        let tenant = demo::TENANTS[0];
        let (name, project, token) = (tenant.name, tenant.projects[0], self.tokens[0].expose());
        format!(
            "curl -N -H 'authorization: Bearer {token}' http://{console}/v1/tenants/{name}/projects/{project}/tail"
        )
    }
}

/// 128 bits from the system, for a token that dies with the process.
fn random_token() -> String {
    let mut bytes = [0; 16];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).expect("the system gives random bytes, or TLS would not work either");
    bytes.iter().fold("demo-".to_owned(), |token, byte| format!("{token}{byte:02x}"))
}
