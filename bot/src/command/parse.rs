//! Words → [`Command`]. Pure: which services, hosts and runbooks exist is passed in.

use std::collections::{BTreeMap, BTreeSet};

use deploy_engine::model::{HostName, ServiceName};
use runbooks::{
    format::Span,
    gate::{GateId, OVERRIDABLE},
};

use super::{ArgKind, ArgSpec, Command, CommandSpec, TABLE, Target, Trust, spec_of};

/// The longest line that is read as a command, in bytes: longer ones are pasted texts.
pub const LINE_LIMIT_BYTES: usize = 1_000;
/// The longest id, in characters; ours have at most 36.
const ID_LIMIT_CHARS: usize = 64;
/// How alike two words must be (Jaro-Winkler, 0 to 1) to suggest one for the other.
const SUGGESTION_LIKENESS: f64 = 0.75;

/// The names that words may refer to on this site.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    pub services: BTreeSet<ServiceName>,
    pub hosts: BTreeSet<HostName>,
    pub runbooks: BTreeSet<String>,
    /// Groups of hosts.
    pub groups: BTreeSet<String>,
}

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("no command given; `help` lists what you can say")]
    Empty,
    #[error("expected a command of at most {LINE_LIMIT_BYTES} bytes, found {0}")]
    TooLong(usize),
    #[error("there is no command `{word}`{}", did_you_mean(.suggestion))]
    UnknownCommand {
        word: String,
        suggestion: Option<String>,
    },
    #[error("`{command}` needs {argument}; usage: {usage}")]
    Missing {
        command: &'static str,
        argument: &'static str,
        usage: String,
    },
    #[error("`{command}` takes no further word, found `{word}`; usage: {usage}")]
    Extra {
        command: &'static str,
        word: String,
        usage: String,
    },
    #[error("expected {expected}, found `{word}`{}; usage: {usage}", did_you_mean(.suggestion))]
    Wrong {
        expected: String,
        word: String,
        suggestion: Option<String>,
        usage: String,
    },
}

fn did_you_mean(suggestion: &Option<String>) -> String {
    suggestion
        .as_ref()
        .map(|word| format!("; did you mean `{word}`?"))
        .unwrap_or_default()
}

/// The candidate that `word` was probably meant to be.
pub fn suggestion<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::jaro_winkler(&word, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(likeness, _)| *likeness >= SUGGESTION_LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}

/// Understands one line (without the chat's prefix).
pub fn parse(
    line: &str,
    vocabulary: &Vocabulary,
) -> Result<(&'static CommandSpec, Command), ParseError> {
    if line.len() > LINE_LIMIT_BYTES {
        return Err(ParseError::TooLong(line.len()));
    }
    let mut words = line.split_whitespace();
    let verb = words.next().ok_or(ParseError::Empty)?.to_lowercase();
    let spec = spec_of(&verb).ok_or_else(|| ParseError::UnknownCommand {
        suggestion: suggestion(&verb, TABLE.iter().map(|spec| spec.name)),
        word: shown(&verb),
    })?;
    let given: Vec<&str> = words.collect();
    let mut values = check_all(spec, &given, vocabulary)?;
    Ok((spec, (spec.build)(&mut values)))
}

fn check_all(
    spec: &'static CommandSpec,
    given: &[&str],
    vocabulary: &Vocabulary,
) -> Result<Words, ParseError> {
    let mut values = Words::default();
    let dated = spec.args.iter().any(|arg| arg.kind == ArgKind::Since);
    let said = given.iter().copied();
    let mut rest = said
        .filter(|word| !(dated && *word == "--since"))
        .peekable();
    for arg in spec.args {
        if rest.peek().is_none() {
            if arg.required {
                return Err(ParseError::Missing {
                    command: spec.name,
                    argument: arg.name,
                    usage: spec.usage(),
                });
            }
            continue;
        }
        let no_length = |word: &&str| Span::parse(word).is_err();
        if arg.kind == ArgKind::Back && rest.peek().is_some_and(no_length) {
            continue;
        }
        if arg.kind == ArgKind::Text {
            values.push(arg, rest.by_ref().collect::<Vec<_>>().join(" "));
            continue;
        }
        let count = if arg.many { usize::MAX } else { 1 };
        for word in rest.by_ref().take(count) {
            values.push(arg, check(spec, arg, word, vocabulary)?);
        }
    }
    match rest.next() {
        None => Ok(values),
        Some(word) => Err(ParseError::Extra {
            command: spec.name,
            word: shown(word),
            usage: spec.usage(),
        }),
    }
}

fn check(
    spec: &CommandSpec,
    arg: &ArgSpec,
    word: &str,
    vocabulary: &Vocabulary,
) -> Result<String, ParseError> {
    let services = || vocabulary.services.iter().map(ServiceName::as_str);
    let hosts = || vocabulary.hosts.iter().map(HostName::as_str);
    let (expected, candidates): (&str, BTreeMap<String, &str>) = match arg.kind {
        ArgKind::Id => {
            let fits = word.len() <= ID_LIMIT_CHARS
                && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            return if fits {
                Ok(word.to_owned())
            } else {
                Err(wrong(spec, "an id of letters, digits and `-`", word, None))
            };
        }
        ArgKind::Text => return Ok(word.to_owned()),
        ArgKind::Length | ArgKind::Back => {
            let length = Span::parse(word).ok().filter(|length| length.0.0 > 0);
            let expected = "a length like 30m, 2h or 1d, at most 7d";
            return length
                .map(|_| word.to_owned())
                .ok_or_else(|| wrong(spec, expected, word, None));
        }
        ArgKind::Since => {
            let expected = "a time like 12h or 30d, at most 365d";
            return since(word)
                .map(|_| word.to_owned())
                .ok_or_else(|| wrong(spec, expected, word, None));
        }
        ArgKind::Trusted => return trusted(spec, word, vocabulary),
        ArgKind::Target => (
            "`site` or a service of this site",
            folded(services().chain(["site"])),
        ),
        ArgKind::Service => ("a service of this site", folded(services())),
        ArgKind::Host => ("a host of this site", folded(hosts())),
        ArgKind::Place => (
            "a service or a host of this site",
            folded(services().chain(hosts())),
        ),
        ArgKind::Runbook => (
            "a runbook",
            folded(vocabulary.runbooks.iter().map(String::as_str)),
        ),
        ArgKind::Command => ("a command", folded(TABLE.iter().map(|spec| spec.name))),
        ArgKind::Gate => (
            "a gate that may be overridden",
            folded(OVERRIDABLE.iter().map(|(name, _)| *name)),
        ),
        ArgKind::Trust => (
            "`shadow`, `ask` or `auto`",
            folded(Trust::ALL.iter().map(|(name, _)| *name)),
        ),
    };
    let asked = word.to_lowercase();
    let asked = asked
        .strip_prefix('!')
        .filter(|_| arg.kind == ArgKind::Command)
        .unwrap_or(&asked);
    let alias = (arg.kind == ArgKind::Command)
        .then(|| spec_of(asked))
        .flatten();
    match candidates
        .get(asked)
        .copied()
        .or(alias.map(|spec| spec.name))
    {
        Some(known) => Ok(known.to_owned()),
        None => Err(wrong(
            spec,
            expected,
            word,
            suggestion(word, candidates.values().copied()),
        )),
    }
}

/// A length of time in the past: hours or days, at most a year.
pub fn since(word: &str) -> Option<jiff::SignedDuration> {
    let (number, unit) = word.split_at_checked(word.len().checked_sub(1)?)?;
    let number: i64 = number.parse().ok().filter(|number| *number > 0)?;
    let hours = match unit {
        "h" => number,
        "d" => number.checked_mul(24)?,
        _ => return None,
    };
    (hours <= 365 * 24).then(|| jiff::SignedDuration::from_hours(hours))
}

/// A runbook, or one with a group of hosts after an `@`.
fn trusted(spec: &CommandSpec, word: &str, vocabulary: &Vocabulary) -> Result<String, ParseError> {
    let lower = word.to_lowercase();
    let (runbook, group) = match lower.split_once('@') {
        Some((runbook, group)) => (runbook, Some(group)),
        None => (lower.as_str(), None),
    };
    let runbooks = folded(vocabulary.runbooks.iter().map(String::as_str));
    let groups = folded(vocabulary.groups.iter().map(String::as_str));
    let Some(known) = runbooks.get(runbook) else {
        let likely = suggestion(runbook, runbooks.values().copied());
        return Err(wrong(spec, "a runbook", word, likely));
    };
    match group {
        None => Ok((*known).to_owned()),
        Some(group) => match groups.get(group) {
            Some(group) => Ok(format!("{known}@{group}")),
            None => {
                let likely = suggestion(group, groups.values().copied());
                Err(wrong(spec, "a group of hosts after the @", word, likely))
            }
        },
    }
}

/// Words are compared without regard to case: chat clients on phones capitalise.
fn folded<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<String, &'a str> {
    names.map(|name| (name.to_lowercase(), name)).collect()
}

fn wrong(spec: &CommandSpec, expected: &str, word: &str, suggestion: Option<String>) -> ParseError {
    ParseError::Wrong {
        expected: expected.to_owned(),
        word: shown(word),
        suggestion,
        usage: spec.usage(),
    }
}

/// A word as it may be repeated to people: short, without control characters.
fn shown(word: &str) -> String {
    let clean: String = word.chars().filter(|c| !c.is_control()).take(40).collect();
    if clean.chars().count() < word.chars().count() {
        format!("{clean}…")
    } else {
        clean
    }
}

/// Checked words of one line, in the order of the command's arguments.
#[derive(Debug, Default)]
pub(super) struct Words(std::collections::VecDeque<(ArgKind, String)>);

impl Words {
    fn push(&mut self, arg: &ArgSpec, value: String) {
        self.0.push_back((arg.kind, value));
    }

    pub fn word(&mut self) -> Option<String> {
        self.0.pop_front().map(|(_, value)| value)
    }

    /// A required word: the parser has made sure that it is there.
    pub fn text(&mut self) -> String {
        self.word()
            .expect("the parser checks required arguments before it builds a command")
    }

    pub fn service(&mut self) -> Option<ServiceName> {
        self.word().map(|word| {
            word.parse()
                .expect("the word is the name of a known service")
        })
    }

    pub fn needed_service(&mut self) -> ServiceName {
        self.service()
            .expect("the parser checks required arguments before it builds a command")
    }

    pub fn target(&mut self) -> Option<Target> {
        self.word().map(|word| match word.as_str() {
            "site" => Target::Site,
            name => Target::Service(
                name.parse()
                    .expect("the word is the name of a known service"),
            ),
        })
    }

    /// A required length: the parser has made sure that it is one.
    pub fn length(&mut self) -> Span {
        Span::parse(&self.text()).expect("the word is a length of time")
    }

    /// A length of time back, if one was said: what was not is not in the way.
    pub fn back(&mut self) -> Option<Span> {
        let said = self
            .0
            .front()
            .is_some_and(|(kind, _)| *kind == ArgKind::Back);
        said.then(|| self.length())
    }

    /// A required gate: the parser has made sure that it is one.
    pub fn gate(&mut self) -> GateId {
        let word = self.text();
        let found = OVERRIDABLE.iter().find(|(name, _)| *name == word);
        found
            .expect("the word is the name of a gate that may be overridden")
            .1
    }

    pub fn hosts(&mut self) -> Vec<HostName> {
        self.0
            .drain(..)
            .map(|(_, word)| word.parse().expect("the word is the name of a known host"))
            .collect()
    }

    pub fn mode(&mut self) -> Option<Trust> {
        let mode = self.word()?;
        let found = Trust::ALL.into_iter().find(|(name, _)| *name == mode);
        found.map(|(_, trust)| trust)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        Vocabulary {
            services: ["mariadb", "rabbitmq", "haproxy"]
                .map(|n| n.parse().unwrap())
                .into(),
            hosts: ["ctl1", "ctl2"].map(|n| n.parse().unwrap()).into(),
            runbooks: ["RMQ-1", "RMQ-2", "GAL-4"].map(str::to_owned).into(),
            groups: ["control", "compute"].map(str::to_owned).into(),
        }
    }

    fn said(line: &str) -> String {
        match parse(line, &vocabulary()) {
            Ok((_, command)) => format!("{command:?}"),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn lines_and_what_is_understood() {
        let lines = [
            "help",
            "? deploy",
            "HELP !status",
            "status",
            "st RabbitMQ",
            "status mysql",
            "status mariadb rabbitmq",
            "deploy",
            "deploy site",
            "Deploy Mariadb",
            "deploy ste",
            "redeploy site",
            "plan",
            "run rmq-2 ctl2 CTL1",
            "run RMQ-9",
            "run RMQ-2 ctl9",
            "approve",
            "yes 12ab",
            "approve 1 2",
            "approve $(reboot)",
            "halt",
            "halt switch   works",
            "trust",
            "trust rmq-1",
            "trust rmq-1 AUTO",
            "trust RMQ-1 always",
            "trust rmq-1@COMPUTE auto it was earned",
            "trust rmq-1@storage auto",
            "silence 7f3a 2h the switch is replaced",
            "silence 7f3a 2y it is old",
            "silence 7f3a 2h",
            "clear h19c3",
            "clear h19c3 the disk   was full",
            "drilled RMQ-2 0a1b2c",
            "replay",
            "replay --since 30d",
            "replay 5 weeks",
            "depoly site",
            "frobnicate",
            "",
            "job",
            "why 7f3a-1",
            "logs mariadb",
            "log CTL1 30m",
            "logs mariadb SST   failed",
            "logs ctl2 2h \"SST failed\" -joiner",
            "logs",
            "logs ctl9",
            "logs mariadb 0s",
        ];
        let transcript: Vec<String> = lines
            .iter()
            .map(|line| format!("{line}\n    {}", said(line)))
            .collect();
        insta::assert_snapshot!(transcript.join("\n"));
    }

    /// What is never done has no words here, whoever says it: parsing comes before rights, and knows no argument that a host
    /// would see but names of this site's services, hosts and runbooks.
    #[test]
    fn no_command_reaches_class_n() {
        for line in [
            "rabbitmqctl force_reset",
            "run force_reset",
            "run RMQ-1 force_reset",
            "run RMQ-1 ctl1;reboot",
            "run GAL-4 --wsrep-new-cluster",
            "deploy rm",
            "remove /var/lib/mysql",
            "redeploy mnesia",
            "exec rm -rf /var/lib/mysql/grastate.dat",
            "ceph osd lost 3",
            "docker system prune",
        ] {
            assert!(said(line).starts_with("error: "), "{line}: {}", said(line));
        }
        // Free text goes into records, messages and questions to stores of logs (as a value, never as a query language with
        // fields) only: these are all the commands that take any.
        let with_text: Vec<&str> = TABLE
            .iter()
            .filter(|spec| spec.args.iter().any(|arg| arg.kind == ArgKind::Text))
            .map(|spec| spec.name)
            .collect();
        assert_eq!(
            with_text,
            [
                "logs", "silence", "halt", "explain", "trust", "clear", "drilled", "override",
                "review"
            ]
        );
    }

    #[test]
    fn a_pasted_page_is_no_command() {
        let line = format!("halt {}", "x".repeat(LINE_LIMIT_BYTES));
        assert!(matches!(
            parse(&line, &vocabulary()),
            Err(ParseError::TooLong(_))
        ));
    }

    #[test]
    fn every_name_and_alias_means_one_command_and_every_example_parses() {
        let mut words = BTreeSet::new();
        for spec in TABLE {
            for word in std::iter::once(&spec.name).chain(spec.aliases) {
                assert!(words.insert(*word), "{word} stands twice in the table");
            }
            let (found, _) = parse(spec.example, &vocabulary()).unwrap();
            assert_eq!(found.name, spec.name);
        }
    }
}
