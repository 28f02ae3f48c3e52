use trommel_sdk::{Manifest, Plugin, Signal, batch, export, rows_where};

struct Quiet;

impl Plugin for Quiet {
    fn manifest() -> Manifest {
        Manifest::new("quiet", "0.1.0").signals([Signal::Logs]).reads(["severity"]).writes(["drop"])
    }
    fn configure(_settings: &str) -> Result<Quiet, String> {
        Ok(Quiet)
    }
    fn process(&mut self) -> Result<(), String> {
        batch::drop(&rows_where(&batch::severities(), |severity| *severity < 9));
        Ok(())
    }
}
export!(Quiet);
