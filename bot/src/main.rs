#![recursion_limit = "256"] // matrix-sdk's futures are deep

use std::process::ExitCode;

/// glibc's kept most of what a storm took: 776 MiB where this one keeps 175 (docs/benchmarks.md, flood).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let invocation = match bot::cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) => error.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(bot::cli::run(invocation));
    // A thread that waits for a line of a terminal would hold up the end.
    runtime.shutdown_background();
    outcome.into()
}
