//! The one table of commands.

use super::{Command, Target, parse::Words};
use crate::rights::Role;

/// What a word of a command may be. The parser checks it before the command is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    /// `site` or a service of the site.
    Target,
    Service,
    Host,
    Runbook,
    /// Id of a job, an incident or an approval: letters, digits and `-`.
    Id,
    /// A command of this table.
    Command,
    /// `shadow`, `ask` or `auto`.
    Trust,
    /// A gate that a person may override.
    Gate,
    /// A runbook, or `RUNBOOK@GROUP` for a group of hosts.
    Trusted,
    /// A length of time from now on, for example `2h`.
    Length,
    /// A length of time back from now, for example `30d`; `--since` before it is read over.
    Since,
    /// A service or a host of the site.
    Place,
    /// As `Length`, back from now; a word that is no length belongs to what follows.
    Back,
    /// All words that remain, as one text.
    Text,
}

/// One argument of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgSpec {
    pub name: &'static str,
    pub kind: ArgKind,
    pub required: bool,
    /// May be given more than once; only for the last argument.
    pub many: bool,
}

/// One command: everything that parser, rights and help need.
pub struct CommandSpec {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub args: &'static [ArgSpec],
    /// The least role that may use it.
    pub role: Role,
    /// One line.
    pub help: &'static str,
    pub example: &'static str,
    pub(super) build: fn(&mut Words) -> Command,
}

const fn need(name: &'static str, kind: ArgKind) -> ArgSpec {
    ArgSpec {
        name,
        kind,
        required: true,
        many: false,
    }
}

const fn may(name: &'static str, kind: ArgKind) -> ArgSpec {
    ArgSpec {
        name,
        kind,
        required: false,
        many: false,
    }
}

/// The entry of a command, by name or alias.
pub fn spec_of(word: &str) -> Option<&'static CommandSpec> {
    TABLE
        .iter()
        .find(|spec| spec.name == word || spec.aliases.contains(&word))
}

impl CommandSpec {
    /// For example `run RUNBOOK [HOST…]`.
    pub fn usage(&self) -> String {
        let words = self.args.iter().map(|arg| {
            let many = if arg.many || arg.kind == ArgKind::Text {
                "…"
            } else {
                ""
            };
            if arg.required {
                format!(" {}{many}", arg.name)
            } else {
                format!(" [{}{many}]", arg.name)
            }
        });
        std::iter::once(self.name.to_owned()).chain(words).collect()
    }
}

macro_rules! command {
    ($name:literal, $aliases:expr, [$($arg:expr),*], $role:ident, $help:literal, $example:literal, $build:expr) => {
        CommandSpec {
            name: $name,
            aliases: &$aliases,
            args: &[$($arg),*],
            role: Role::$role,
            help: $help,
            example: $example,
            build: $build,
        }
    };
}

use ArgKind as K;

/// Every command, in the order of the help.
pub static TABLE: &[CommandSpec] = &[
    command!(
        "help",
        ["h", "?"],
        [may("COMMAND", K::Command)],
        Viewer,
        "What you may do here, or how one command is used",
        "help deploy",
        |w| Command::Help { about: w.word() }
    ),
    command!(
        "status",
        ["st"],
        [may("SERVICE", K::Service)],
        Viewer,
        "Health of every service and host, from the hosts themselves",
        "status mariadb",
        |w| Command::Status {
            service: w.service()
        }
    ),
    command!(
        "alerts",
        [],
        [],
        Viewer,
        "Alerts that fire now, and what the bot is blind to",
        "alerts",
        |_| Command::Alerts
    ),
    command!(
        "logs",
        ["log"],
        [
            need("SERVICE|HOST", K::Place),
            may("SINCE", K::Back),
            may("QUERY", K::Text)
        ],
        Viewer,
        "The latest lines of a service's programs or of a host, with all words of QUERY",
        "logs mariadb 30m SST failed",
        |w| Command::Logs {
            about: w.text(),
            since: w.back(),
            query: w.word(),
        }
    ),
    command!(
        "incidents",
        ["inc"],
        [],
        Viewer,
        "Open incidents and what was decided about each",
        "incidents",
        |_| Command::Incidents
    ),
    command!(
        "ack",
        [],
        [need("INCIDENT", K::Id)],
        Operator,
        "Take an incident: it stays open, but stops paging, and is acknowledged in Icinga and Alertmanager",
        "ack 7f3a",
        |w| Command::Ack { id: w.text() }
    ),
    command!(
        "unack",
        [],
        [need("INCIDENT", K::Id)],
        Operator,
        "Give an incident back: it pages again, and what ack said elsewhere is taken back",
        "unack 7f3a",
        |w| Command::Unack { id: w.text() }
    ),
    command!(
        "silence",
        ["mute"],
        [
            need("INCIDENT", K::Id),
            need("LENGTH", K::Length),
            need("REASON", K::Text)
        ],
        Operator,
        "Silence an incident's alerts in Alertmanager; the bot keeps its hands off as well",
        "silence 7f3a 2h the switch is being replaced",
        |w| Command::Silence {
            id: w.text(),
            length: w.length(),
            why: w.text()
        }
    ),
    command!(
        "silences",
        [],
        [],
        Viewer,
        "What is silenced in Alertmanager, by whom and for how long",
        "silences",
        |_| Command::Silences
    ),
    command!(
        "unsilence",
        ["unmute"],
        [need("SILENCE", K::Id)],
        Operator,
        "End a silence",
        "unsilence 2f1c7a8e-0c53-4c8f-9d0e-5a1b2c3d4e5f",
        |w| Command::Unsilence { id: w.text() }
    ),
    command!(
        "why",
        [],
        [need("ID", K::Id)],
        Viewer,
        "Why an incident or a job is where it is: evidence, gates, decision, steps",
        "why 7f3a",
        |w| Command::Why { id: w.text() }
    ),
    command!(
        "plan",
        [],
        [may("TARGET", K::Target)],
        Viewer,
        "What a deploy would change, and nothing else",
        "plan site",
        |w| Command::Plan {
            target: w.target().unwrap_or(Target::Site)
        }
    ),
    command!(
        "deploy",
        [],
        [need("TARGET", K::Target)],
        Operator,
        "Plan the whole site or one service; approve the plan to run it",
        "deploy site",
        |w| Command::Deploy {
            target: w.target().unwrap_or(Target::Site)
        }
    ),
    command!(
        "redeploy",
        [],
        [need("SERVICE", K::Service)],
        Operator,
        "Plan one service again, member by member; approve the plan to run it",
        "redeploy rabbitmq",
        |w| Command::Redeploy {
            service: w.needed_service()
        }
    ),
    command!(
        "remove",
        [],
        [need("SERVICE", K::Service)],
        Admin,
        "Shows what taking a service off its hosts would delete, data included, and asks for an approval",
        "remove rabbitmq",
        |w| Command::Remove {
            service: w.needed_service()
        }
    ),
    command!(
        "run",
        [],
        [
            need("RUNBOOK", K::Runbook),
            ArgSpec {
                many: true,
                ..may("HOST", K::Host)
            }
        ],
        Operator,
        "Ask a runbook to look now: it gathers evidence, decides, and asks you before it acts",
        "run RMQ-2 ctl2",
        |w| Command::Run {
            runbook: w.text(),
            hosts: w.hosts()
        }
    ),
    command!(
        "approve",
        ["yes", "ok"],
        [may("ID", K::Id)],
        Operator,
        "Approve what waits for approval (without an id: the only one)",
        "approve",
        |w| Command::Approve { id: w.word() }
    ),
    command!(
        "deny",
        ["no"],
        [may("ID", K::Id)],
        Operator,
        "Deny what waits for approval (without an id: the only one)",
        "deny",
        |w| Command::Deny { id: w.word() }
    ),
    command!(
        "jobs",
        [],
        [],
        Viewer,
        "Jobs that run or wait, and the last ones that ended",
        "jobs",
        |_| Command::Jobs
    ),
    command!(
        "job",
        [],
        [need("ID", K::Id)],
        Viewer,
        "One job, step by step",
        "job 0198c2",
        |w| Command::Job { id: w.text() }
    ),
    command!(
        "cancel",
        [],
        [may("JOB", K::Id)],
        Operator,
        "Stop a job after its running steps (without an id: the only one)",
        "cancel",
        |w| Command::Cancel { id: w.word() }
    ),
    command!(
        "halt",
        ["stop"],
        [may("REASON", K::Text)],
        Operator,
        "Stop everything between steps, now, until resume",
        "halt switch maintenance",
        |w| Command::Halt {
            why: w.word().unwrap_or_else(|| "no reason given".to_owned())
        }
    ),
    command!("resume", [], [], Operator, "End a halt", "resume", |_| {
        Command::Resume
    }),
    command!(
        "runbooks",
        ["rb"],
        [],
        Viewer,
        "Runbooks, what each answers to, and its mode here",
        "runbooks",
        |_| Command::Runbooks
    ),
    command!(
        "explain",
        [],
        [need("ALERT", K::Text)],
        Viewer,
        "What would become of an alert: its name, then labels as label=value (on the command line also files and folders)",
        "explain MySQLDown instance=ctl1:9104",
        |w| Command::Explain { what: w.text() }
    ),
    command!(
        "services",
        ["svc"],
        [],
        Viewer,
        "Services of the site and where they run",
        "services",
        |_| Command::Services
    ),
    command!(
        "trust",
        [],
        [
            may("RUNBOOK[@GROUP]", K::Trusted),
            may("MODE", K::Trust),
            may("REASON", K::Text)
        ],
        Admin,
        "How far runbooks are trusted and what they have earned; with RUNBOOK: its history; with MODE: change it",
        "trust RMQ-2 auto three proven repairs",
        |w| {
            let about = w.word();
            let mode = w.mode();
            let why = w.word();
            Command::Trust {
                about,
                change: mode
                    .map(|mode| (mode, why.unwrap_or_else(|| "no reason given".to_owned()))),
            }
        }
    ),
    command!(
        "clear",
        [],
        [need("JOB", K::Id), need("REASON", K::Text)],
        Operator,
        "Take a repair that was not proven on yourself: its runbook may try again, its lock is released",
        "clear h19c3 the disk was full, is not any more",
        |w| Command::Clear {
            job: w.text(),
            why: w.text()
        }
    ),
    command!(
        "drilled",
        [],
        [
            need("RUNBOOK", K::Runbook),
            need("VERSION", K::Id),
            may("PLACE", K::Text)
        ],
        Admin,
        "Record that the drill of this version of a runbook has passed on hosts of a lab",
        "drilled RMQ-2 0a1b2c3d4e5f a copy of this site",
        |w| Command::Drilled {
            runbook: w.text(),
            version: w.text(),
            place: w.word().unwrap_or_default()
        }
    ),
    command!(
        "replay",
        [],
        [may("SINCE", K::Since)],
        Viewer,
        "Today's rules and gates over recorded incidents: what would newly act, wait or stop; changes nothing",
        "replay 30d",
        |w| Command::Replay { since: w.word() }
    ),
    command!(
        "override",
        ["break-glass"],
        [
            need("GATE", K::Gate),
            need("INCIDENT", K::Id),
            need("REASON", K::Text)
        ],
        Admin,
        "Break-glass: let one repair of an incident pass one gate, once, soon; pages everybody and has to be reviewed",
        "override G7 7f3a the disk was replaced by hand",
        |w| Command::Override {
            gate: w.gate(),
            id: w.text(),
            reason: w.text()
        }
    ),
    command!(
        "reviews",
        [],
        [],
        Viewer,
        "Overrides that wait for a review",
        "reviews",
        |_| Command::Reviews
    ),
    command!(
        "review",
        [],
        [need("ID", K::Id), need("NOTE", K::Text)],
        Operator,
        "Close the review of an override with what you found; whoever made it cannot",
        "review 3f9c21 the budget was too small for a rolling upgrade",
        |w| Command::Review {
            id: w.text(),
            note: w.text()
        }
    ),
    command!(
        "drill",
        ["drills"],
        [],
        Viewer,
        "Drills of the runbooks, to be run in the lab",
        "drill",
        |_| Command::Drill
    ),
    command!(
        "whoami",
        [],
        [],
        Viewer,
        "Who you are to the bot, and your role",
        "whoami",
        |_| Command::Whoami
    ),
];
