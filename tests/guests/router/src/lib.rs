//! Gives errors and worse the route `errors`.

use trommel_sdk::{Manifest, Plugin, Signal, batch, export, rows_where};

struct Router;

impl Plugin for Router {
    fn manifest() -> Manifest {
        Manifest::new("router", "0.1.0").signals([Signal::Logs]).reads(["severity"]).writes(["route"])
    }
    fn configure(_settings: &str) -> Result<Router, String> {
        Ok(Router)
    }
    fn process(&mut self) -> Result<(), String> {
        batch::route("errors", &rows_where(&batch::severities(), |severity| *severity >= 17));
        Ok(())
    }
}
export!(Router);
