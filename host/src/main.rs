//! The `trommel` command.

/// Requests and inserts come as buffers of some hundred kilobytes. The system's allocator gives them back to the kernel
/// each time and faults them in again: half of what an insert into MongoDB cost (`bench/README.md`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    trommel::cli::main()
}
