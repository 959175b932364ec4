//! What people can say to the bot: one table gives the parser, the rights and the help.

mod help;
mod parse;
mod table;

use deploy_engine::model::{HostName, ServiceName};
use runbooks::{format::Span, gate::GateId};
use serde::{Deserialize, Serialize};

pub use help::{help, overview};
pub use parse::{LINE_LIMIT_BYTES, ParseError, Vocabulary, parse, since, suggestion};
pub use table::{ArgKind, ArgSpec, CommandSpec, TABLE, spec_of};

/// The whole site, or one service of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Site,
    Service(ServiceName),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Site => f.write_str("site"),
            Self::Service(service) => service.fmt(f),
        }
    }
}

/// A command that was understood. Names of services, hosts and runbooks exist; ids were not looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Help {
        about: Option<String>,
    },
    Status {
        service: Option<ServiceName>,
    },
    Alerts,
    Logs {
        /// A service or a host.
        about: String,
        /// How far back.
        since: Option<Span>,
        query: Option<String>,
    },
    Incidents,
    Ack {
        id: String,
    },
    Unack {
        id: String,
    },
    Silence {
        id: String,
        length: Span,
        why: String,
    },
    Silences,
    Unsilence {
        id: String,
    },
    Plan {
        target: Target,
    },
    Deploy {
        target: Target,
    },
    Remove {
        service: ServiceName,
    },
    Redeploy {
        service: ServiceName,
    },
    Run {
        runbook: String,
        hosts: Vec<HostName>,
    },
    Approve {
        id: Option<String>,
    },
    Deny {
        id: Option<String>,
    },
    Jobs,
    Job {
        id: String,
    },
    Cancel {
        id: Option<String>,
    },
    Halt {
        why: String,
    },
    Resume,
    Runbooks,
    Explain {
        /// A name, then `label=value`s.
        what: String,
    },
    Services,
    Trust {
        /// A runbook, or `RUNBOOK@GROUP`.
        about: Option<String>,
        change: Option<(Trust, String)>,
    },
    Clear {
        job: String,
        why: String,
    },
    Drilled {
        runbook: String,
        version: String,
        place: String,
    },
    Replay {
        /// For example `30d`.
        since: Option<String>,
    },
    /// Break-glass.
    Override {
        gate: GateId,
        id: String,
        reason: String,
    },
    Reviews,
    Review {
        id: String,
        note: String,
    },
    Why {
        id: String,
    },
    Drill,
    Whoami,
}

/// How far a runbook is trusted on this site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Decides and records, does nothing.
    Shadow,
    /// Proposes a job; a person approves it.
    Ask,
    /// Acts by itself behind its gates.
    Auto,
}

impl Trust {
    pub const ALL: [(&str, Self); 3] = [
        ("shadow", Self::Shadow),
        ("ask", Self::Ask),
        ("auto", Self::Auto),
    ];
}

impl std::fmt::Display for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Shadow => "shadow",
            Self::Ask => "ask",
            Self::Auto => "auto",
        })
    }
}
