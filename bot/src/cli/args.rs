//! The command line's grammar: a few commands of its own, and every command of the chat.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::command::{ArgKind, CommandSpec, TABLE};

/// Where the configuration is unless said otherwise.
pub(super) const CONFIG: &str = "/etc/nightshift/nightshift.yaml";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Invocation {
    pub config: PathBuf,
    pub json: bool,
    pub json_log: bool,
    pub action: Action,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Serve {
        console: bool,
    },
    Check,
    Schema {
        of: String,
    },
    /// Copies one store into the other.
    MigrateStore {
        from: StoreKind,
        to: StoreKind,
    },
    AuditVerify {
        /// `NUMBER:HASH` that somebody kept.
        heads: Vec<String>,
    },
    AuditExport {
        since: Option<String>,
    },
    /// What would become of alerts, from files alone.
    Explain {
        /// Files and folders, or a name with `label=value`s.
        what: Vec<String>,
    },
    /// Words of the chat, to the running bot.
    Ask {
        line: String,
        follow: bool,
    },
    /// As `Ask`; without a running bot done here and now.
    Plan {
        target: String,
    },
    Deploy {
        target: String,
        yes: Option<String>,
    },
}

/// The stores that a configuration knows: the file in its state directory, and what `store` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    Embedded,
    Postgres,
}

impl StoreKind {
    const NAMES: [&str; 2] = ["embedded", "postgres"];

    fn of(name: &str) -> Self {
        match name {
            "postgres" => Self::Postgres,
            _ => Self::Embedded,
        }
    }
}

/// The grammar, for parsing and for the manual.
pub fn grammar() -> Command {
    let own = Command::new("nightshift")
        .about("Looks after a site: deploys it, watches it, heals it, and tells you about it")
        .after_help("Commands below `audit` are those of the chat; they speak to the running bot.")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .arg(
            Arg::new("config")
                .long("config")
                .global(true)
                .env("NIGHTSHIFT_CONFIG")
                .default_value(CONFIG)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("The configuration"),
        )
        .arg(flag("json", "Answer with JSON on standard output").global(true))
        .arg(flag("json-log", "Log JSON lines on standard error").global(true))
        .subcommand(Command::new("serve").about("Run the bot").arg(flag(
            "console",
            "Take commands from standard input, too; end with it",
        )))
        .subcommand(
            Command::new("check")
                .about("Check configuration, site, services and runbooks; change nothing"),
        )
        .subcommand(
            Command::new("schema")
                .about("Print the JSON Schema of a file format, for editors")
                .arg(Arg::new("of").required(true).value_parser([
                    "site",
                    "service",
                    "runbook",
                    "alerts",
                    "signatures",
                    "config",
                ])),
        )
        .subcommand(
            Command::new("store")
                .about("Look after the store")
                .subcommand_required(true)
                .subcommand(
                    Command::new("migrate")
                        .about("Copy one store into the other, which must be empty; no bot may run")
                        .arg(store_arg("from", "The store that has everything"))
                        .arg(store_arg("to", "The store that gets it")),
                ),
        )
        .subcommand(audit());
    TABLE
        .iter()
        .fold(own, |grammar, spec| grammar.subcommand(of_table(spec)))
}

fn audit() -> Command {
    Command::new("audit")
        .about("The audit log, from the store itself")
        .subcommand_required(true)
        .subcommand(
            Command::new("verify")
                .about("Has anybody changed or removed an entry? Names the first that is wrong")
                .arg(
                    Arg::new("head")
                        .long("head")
                        .value_name("NUMBER:HASH")
                        .action(ArgAction::Append)
                        .help("What an earlier verify or export printed: must still be true"),
                ),
        )
        .subcommand(
            Command::new("export")
                .about("Every entry as a line of JSON, and where the log ends")
                .arg(
                    Arg::new("since")
                        .long("since")
                        .value_name("TIME")
                        .help("Only from then on: 2026-11-25T18:00:00Z, or 90m, 12h, 30d ago"),
                ),
        )
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

fn store_arg(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .required(true)
        .value_name("STORE")
        .value_parser(StoreKind::NAMES)
        .help(help)
}

fn of_table(spec: &'static CommandSpec) -> Command {
    let mut command = Command::new(spec.name)
        .about(spec.help)
        .after_help(format!("Example: nightshift {}", spec.example));
    for arg in spec.args {
        let many = arg.many || arg.kind == ArgKind::Text;
        command = command.arg(Arg::new(arg.name).required(arg.required).num_args(if many {
            clap::builder::ValueRange::new(1..)
        } else {
            1.into()
        }));
    }
    match spec.name {
        "deploy" => command.arg(
            Arg::new("yes")
                .long("yes")
                .value_name("DIGEST")
                .help("Without a running bot: run the plan if its digest begins so"),
        ),
        "replay" => command.arg(
            Arg::new("since")
                .long("since")
                .value_name("SINCE")
                .conflicts_with("SINCE")
                .help("How far back, for example 30d"),
        ),
        "approve" => command.arg(flag("detach", "Do not wait for the end of the job")),
        _ => command,
    }
}

/// Understands the words of a command line; what clap cannot is its own error or help.
pub fn parse(
    words: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<Invocation, clap::Error> {
    let matches = grammar().try_get_matches_from(words)?;
    let config = matches
        .get_one::<PathBuf>("config")
        .cloned()
        .unwrap_or_else(|| CONFIG.into());
    let (name, sub) = matches.subcommand().expect("clap requires a subcommand");
    Ok(Invocation {
        config,
        json: matches.get_flag("json") || sub.get_flag("json"),
        json_log: matches.get_flag("json-log"),
        action: action(name, sub),
    })
}

fn action(name: &str, matches: &ArgMatches) -> Action {
    let text = |id: &str| matches.get_one::<String>(id).cloned();
    match name {
        "serve" => Action::Serve {
            console: matches.get_flag("console"),
        },
        "check" => Action::Check,
        "schema" => Action::Schema {
            of: text("of").unwrap_or_default(),
        },
        "store" => {
            let kind = |id: &str| {
                let migrate = matches.subcommand_matches("migrate");
                let word = migrate.and_then(|migrate| migrate.get_one::<String>(id));
                StoreKind::of(word.map_or("", String::as_str))
            };
            Action::MigrateStore {
                from: kind("from"),
                to: kind("to"),
            }
        }
        "audit" => match matches.subcommand() {
            Some(("verify", verify)) => Action::AuditVerify {
                heads: verify
                    .get_many::<String>("head")
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect(),
            },
            Some((_, export)) => Action::AuditExport {
                since: export.get_one::<String>("since").cloned(),
            },
            None => unreachable!("clap requires a subcommand"),
        },
        "explain" => Action::Explain {
            what: matches
                .get_many::<String>("ALERT")
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
        },
        "plan" => Action::Plan {
            target: text("TARGET").unwrap_or_else(|| "site".to_owned()),
        },
        "deploy" => Action::Deploy {
            target: text("TARGET").unwrap_or_default(),
            yes: text("yes"),
        },
        name => Action::Ask {
            line: line(name, matches),
            follow: name != "approve" || !matches.get_flag("detach"),
        },
    }
}

/// The words as they would be said in the chat.
fn line(name: &str, matches: &ArgMatches) -> String {
    let Some(spec) = crate::command::spec_of(name) else {
        return name.to_owned();
    };
    let words = spec.args.iter().flat_map(|arg| {
        matches
            .get_many::<String>(arg.name)
            .into_iter()
            .flatten()
            .map(String::as_str)
    });
    let since = (name == "replay")
        .then(|| matches.get_one::<String>("since"))
        .flatten()
        .map(String::as_str);
    std::iter::once(name)
        .chain(words)
        .chain(since)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(line: &str) -> Action {
        let words = std::iter::once("nightshift")
            .chain(line.split_whitespace())
            .map(Into::into);
        parse(words).unwrap().action
    }

    #[test]
    fn the_grammar_is_sound_and_has_every_command_of_the_chat() {
        grammar().debug_assert();
        for spec in TABLE {
            let action = understood(spec.example);
            match spec.name {
                "plan" | "deploy" | "explain" => {}
                _ => assert!(
                    matches!(&action, Action::Ask { line, .. } if line == spec.example),
                    "{action:?}"
                ),
            }
        }
    }

    #[rstest::rstest]
    #[case("serve --console", Action::Serve { console: true })]
    #[case("deploy site --yes 12ab", Action::Deploy { target: "site".into(), yes: Some("12ab".into()) })]
    #[case("store migrate --from embedded --to postgres", Action::MigrateStore { from: StoreKind::Embedded, to: StoreKind::Postgres })]
    #[case("replay --since 30d", Action::Ask { line: "replay 30d".into(), follow: true })]
    #[case("explain rules/ a.json", Action::Explain { what: vec!["rules/".into(), "a.json".into()] })]
    #[case("plan", Action::Plan { target: "site".into() })]
    #[case("halt switch works --json", Action::Ask { line: "halt switch works".into(), follow: true })]
    #[case("audit verify --head 3:ab --head 4:cd", Action::AuditVerify { heads: vec!["3:ab".into(), "4:cd".into()] })]
    #[case("audit export --since 30d --json", Action::AuditExport { since: Some("30d".into()) })]
    #[case("approve --detach", Action::Ask { line: "approve".into(), follow: false })]
    #[case("run RMQ-2 ctl1 ctl2", Action::Ask { line: "run RMQ-2 ctl1 ctl2".into(), follow: true })]
    fn lines(#[case] line: &str, #[case] expected: Action) {
        assert_eq!(understood(line), expected);
    }
}
