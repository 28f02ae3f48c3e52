use trommel_sdk::{Manifest, Plugin, Signal, Window, batch, export, host, series};

/// Counts the records of each tenant in windows of ten seconds.
struct Counting;

impl Plugin for Counting {
    fn manifest() -> Manifest {
        Manifest::new("counting", "0.1.0").signals([Signal::Logs]).needs(["series"]).window_seconds(10)
    }
    fn configure(_settings: &str) -> Result<Counting, String> {
        Ok(Counting)
    }
    fn process(&mut self) -> Result<(), String> {
        series::add("records", f64::from(batch::rows(trommel_sdk::Level::Item)));
        Ok(())
    }
    fn tick(&mut self, tenant: &str, _now: u64, closed: &[Window]) -> Result<(), String> {
        for window in closed {
            host::log(host::LogLevel::Info, &format!("{tenant}: {} in {}", window.sum, window.key));
        }
        Ok(())
    }
}
export!(Counting, ticking);
