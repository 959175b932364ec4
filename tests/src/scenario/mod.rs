//! Nightshift on a lab: the program, a site, a configuration, and the running bot. Demo, drills, benchmarks
//! and the tests on lab hosts all stand on this.

mod bot;
mod deploy;
mod installation;
mod layer;
mod program;
mod site;

use std::process::Command;
use std::time::Duration;

pub use bot::Bot;
pub use deploy::Deployed;
pub use installation::Installation;
pub use layer::with_packages;
pub use program::{Program, workspace};
pub use site::{Changes, install, rewrite_site};

use crate::command;

/// The longest single program that is waited for: a cold first deploy on a busy machine took minutes.
const PROGRAM_LIMIT: Duration = Duration::from_secs(1800);

/// Runs a program to its end and gives what it printed on both outputs.
///
/// # Errors
/// A non-zero exit, with the end of the output.
pub(crate) fn capture(command: &mut Command) -> crate::Result<String> {
    let output = command::capture(command, b"", PROGRAM_LIMIT)?;
    if output.status.success() {
        return Ok(format!("{}{}", output.stdout, output.stderr));
    }
    Err(command::failure(command, &output))
}
