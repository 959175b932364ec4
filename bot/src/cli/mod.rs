//! The program `nightshift`: what its words do, and with which exit status.

mod args;
mod asking;
mod auditing;
mod checking;
mod explaining;
mod standalone;
mod storing;

use std::process::ExitCode;

pub use args::{Action, Invocation, StoreKind, grammar, parse};

use crate::serve;

/// Something did not work or was refused.
const FAILED: u8 = 1;
/// The words or the files are wrong; nothing was done.
const WRONG: u8 = 2;

/// How a command ended. Why was told already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Failed,
    Wrong,
}

impl From<bool> for Outcome {
    fn from(ok: bool) -> Self {
        if ok { Self::Ok } else { Self::Failed }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok => Self::SUCCESS,
            Outcome::Failed => Self::from(FAILED),
            Outcome::Wrong => Self::from(WRONG),
        }
    }
}

/// Does what the command line asks.
pub async fn run(invocation: Invocation) -> Outcome {
    let json = invocation.json;
    match &invocation.action {
        Action::Schema { of } => checking::schema(of),
        Action::MigrateStore { from, to } => storing::migrate(&invocation, *from, *to).await,
        Action::Explain { what } => explaining::run(&invocation.config, what, json),
        Action::Check => checking::check(&invocation.config, json),
        Action::AuditVerify { heads } => auditing::verify(&invocation.config, heads, json).await,
        Action::AuditExport { since } => {
            auditing::export(&invocation.config, since.as_deref(), json).await
        }
        Action::Serve { console } => {
            serve::run(&invocation.config, *console, invocation.json_log).await
        }
        Action::Ask { line, follow } => asking::ask(&invocation.config, line, *follow, json).await,
        Action::Plan { target } => standalone::plan(&invocation, target).await,
        Action::Deploy { target, yes } => {
            standalone::deploy(&invocation, target, yes.as_deref()).await
        }
    }
}

/// Tells what is wrong on standard error.
pub(crate) fn wrong(why: impl std::fmt::Display) -> Outcome {
    eprintln!("{why}");
    Outcome::Wrong
}
