//! The `trommel` command.

fn main() -> std::process::ExitCode {
    trommel::cli::main()
}
