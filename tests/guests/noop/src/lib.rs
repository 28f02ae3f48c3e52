use trommel_sdk::{Manifest, Plugin, Signal, export};

struct Noop;

impl Plugin for Noop {
    fn manifest() -> Manifest {
        Manifest::new("noop", "0.1.0").signals([Signal::Logs, Signal::Traces, Signal::Metrics])
    }
    fn configure(_settings: &str) -> Result<Noop, String> {
        Ok(Noop)
    }
    fn process(&mut self) -> Result<(), String> {
        Ok(())
    }
}
export!(Noop);
