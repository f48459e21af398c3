//! Parse arguments, call one function, turn an error into an exit code.

/// Votes arrive on one thread and are freed on another; mimalloc takes that best (perf/README.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    assent::cli::main()
}
