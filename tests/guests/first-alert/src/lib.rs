use trommel_sdk::alerts::{Alert, Severity};
use trommel_sdk::{Level, Manifest, Plugin, Signal, Window, alerts, batch, export, series};

/// Tells people while a service logs more than ten errors in ten seconds.
struct Errors;

impl Plugin for Errors {
    fn manifest() -> Manifest {
        Manifest::new("errors", "0.1.0")
            .signals([Signal::Logs])
            .reads(["severity", "resource:service.name"])
            .needs(["series", "alerts"])
            .window_seconds(10)
    }

    fn configure(_settings: &str) -> Result<Errors, String> {
        Ok(Errors)
    }

    // Counts, for each batch: any instance, any worker.
    fn process(&mut self) -> Result<(), String> {
        let severities = batch::severities();
        let resources = batch::parents(Level::Item, Level::Resource);
        for (resource, service) in batch::text_attribute(Level::Resource, "service.name").iter() {
            let of_service = severities.iter().zip(&resources).filter(|(_, of)| **of == resource);
            let errors = of_service.filter(|(severity, _)| **severity >= 17).count();
            if errors > 0 {
                series::add(service, errors as f64);
            }
        }
        Ok(())
    }

    // Decides, once for each tenant: the windows hold what all instances counted.
    fn tick(&mut self, _tenant: &str, _now: u64, closed: &[Window]) -> Result<(), String> {
        for window in closed {
            let key = format!("errors/{}", window.key);
            if window.sum <= 10.0 {
                alerts::resolve(&key);
                continue;
            }
            alerts::fire(&Alert {
                key,
                severity: Severity::Warning,
                title: format!("{} logs errors", window.key),
                text: format!("{} errors in 10 s", window.sum),
                count: window.sum as u32,
                labels: vec![("service".into(), window.key.clone())],
            });
        }
        Ok(())
    }
}
export!(Errors, ticking);
