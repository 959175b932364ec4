//! The program that the engine copies to hosts. See `deploy_engine::agent`.

use std::process::ExitCode;

fn main() -> ExitCode {
    deploy_engine::agent::main(std::env::args())
}
