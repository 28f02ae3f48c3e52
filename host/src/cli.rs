//! The command line.

/// Runs the command line; the exit code: 0 stopped as asked, 1 failed while running, 2 the command line or the configuration is wrong.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(2)
}
