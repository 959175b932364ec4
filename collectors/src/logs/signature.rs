//! What lines may be evidence for, and finding them in linear time.

use std::collections::{BTreeMap, BTreeSet};

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use serde::{Deserialize, Serialize};

use super::{Line, cut};
use crate::label::tame;

/// Of one compiled expression, in bytes; a larger one is a mistake.
const REGEX_LIMIT_BYTES: usize = 1024 * 1024;
/// The group of an expression whose text tells bursts apart, for example the joiner that asks for a state transfer.
pub const ABOUT: &str = "about";
/// Kept of what that group found, in bytes.
const ABOUT_LIMIT_BYTES: usize = 64;

/// How bad a line is by itself. What is done about it is never decided by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A sign of life: something goes on.
    Progress,
    Notice,
    Warning,
    /// Somebody should look even if nothing else says so.
    Page,
}

impl Severity {
    pub fn word(self) -> &'static str {
        match self {
            Self::Progress => "progress",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Page => "page",
        }
    }
}

/// Lines that count as one burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fold {
    /// Those of one host.
    #[default]
    Host,
    /// Those of all hosts: every peer of a cluster writes of the same event.
    Service,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// This text, letter for letter.
    Phrase(String),
    Regex(String),
}

impl Pattern {
    fn source(&self) -> String {
        match self {
            Self::Phrase(text) => regex::escape(text),
            Self::Regex(source) => source.clone(),
        }
    }
}

/// A kind of line that means something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// For example `mariadb.sst_failed`.
    pub id: String,
    /// The service it is about: one of the catalogue, or `host`.
    pub service: String,
    /// Only lines of these programs, spelled like this.
    pub programs: Vec<String>,
    pub pattern: Pattern,
    pub severity: Severity,
    /// Runbooks that it is evidence for.
    pub feeds: Vec<String>,
    pub fold: Fold,
    /// What it means, for people.
    pub means: String,
}

/// All signatures, ready to be looked for.
#[derive(Clone, Debug, Default)]
pub struct Signatures {
    all: Vec<Signature>,
    /// Beside each signature.
    regexes: Vec<Regex>,
    by_program: BTreeMap<String, (RegexSet, Vec<usize>)>,
}

/// A signature that a line has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match<'s> {
    pub signature: &'s Signature,
    /// What its group [`ABOUT`] found, tamed; empty without one.
    pub about: String,
}

/// Compiles a pattern, within its limit.
///
/// # Errors
/// What is wrong with the expression, for people.
pub fn compile(pattern: &Pattern) -> Result<Regex, String> {
    RegexBuilder::new(&pattern.source())
        .size_limit(REGEX_LIMIT_BYTES)
        .build()
        .map_err(|error| error.to_string())
}

impl Signatures {
    /// # Errors
    /// The place of a signature whose expression cannot be used, and why.
    pub fn new(all: Vec<Signature>) -> Result<Self, (usize, String)> {
        let compiled = all
            .iter()
            .enumerate()
            .map(|(place, signature)| compile(&signature.pattern).map_err(|error| (place, error)));
        let regexes = compiled.collect::<Result<Vec<_>, _>>()?;
        let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, signature) in all.iter().enumerate() {
            for program in signature.programs.iter().collect::<BTreeSet<_>>() {
                places.entry(program.clone()).or_default().push(place);
            }
        }
        let mut by_program = BTreeMap::new();
        for (program, places) in places {
            let sources = places.iter().map(|place| regexes[*place].as_str());
            let set = RegexSetBuilder::new(sources)
                .size_limit(REGEX_LIMIT_BYTES * places.len())
                .build()
                .map_err(|error| (places[0], error.to_string()))?;
            by_program.insert(program, (set, places));
        }
        Ok(Self {
            all,
            regexes,
            by_program,
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Signature> {
        self.all.iter()
    }

    pub fn get(&self, id: &str) -> Option<&Signature> {
        self.all.iter().find(|signature| signature.id == id)
    }

    /// Programs that have any: lines of others mean nothing here.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        self.by_program.keys().map(String::as_str)
    }

    /// The signatures that a line has, in their order. Reads the start of the line, once for all of them.
    pub fn of(&self, line: &Line) -> Vec<Match<'_>> {
        let Some((set, places)) = self.by_program.get(&line.program) else {
            return Vec::new();
        };
        let text = cut(&line.text, super::LINE_LIMIT_BYTES);
        let found = set.matches(text);
        let matched = |within: usize| {
            let place = places[within];
            Match {
                signature: &self.all[place],
                about: about(&self.regexes[place], text),
            }
        };
        found.into_iter().map(matched).collect()
    }
}

fn about(regex: &Regex, text: &str) -> String {
    // Most have no group, and then the text need not be read again.
    if regex.captures_len() < 2 {
        return String::new();
    }
    let found = regex.captures(text);
    let about = found.and_then(|found| Some(found.name(ABOUT)?.as_str().to_owned()));
    about.map_or_else(String::new, |about| tame(&about, ABOUT_LIMIT_BYTES))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    pub fn signature(id: &str, program: &str, pattern: Pattern) -> Signature {
        Signature {
            id: id.into(),
            service: "mariadb".into(),
            programs: vec![program.into()],
            pattern,
            severity: Severity::Warning,
            feeds: vec!["GAL-3".into()],
            fold: Fold::Host,
            means: String::new(),
        }
    }

    fn line(program: &str, text: &str) -> Line {
        Line {
            order: Timestamp::UNIX_EPOCH,
            at: Timestamp::UNIX_EPOCH,
            ingested: None,
            host: "ctl1".into(),
            program: program.into(),
            level: String::new(),
            text: text.into(),
        }
    }

    fn signatures() -> Signatures {
        Signatures::new(vec![
            signature("a", "mariadb", Pattern::Phrase("SST failed (".into())),
            signature(
                "b",
                "mariadb",
                Pattern::Regex(r"Member \S+ \((?<about>[^)]*)\) requested state transfer".into()),
            ),
            signature("c", "ceph", Pattern::Phrase("SST failed".into())),
        ])
        .unwrap()
    }

    fn found(program: &str, text: &str) -> Vec<(String, String)> {
        let signatures = signatures();
        let of = signatures.of(&line(program, text));
        of.into_iter()
            .map(|one| (one.signature.id.clone(), one.about))
            .collect()
    }

    #[test]
    fn only_the_programs_own_lines_count_and_a_phrase_is_no_expression() {
        let is = |id: &str, about: &str| vec![(id.to_owned(), about.to_owned())];
        assert_eq!(found("mariadb", "x SST failed (1)"), is("a", ""));
        assert_eq!(found("mariadb", "x SST failed, 1"), []);
        assert_eq!(found("ceph", "x SST failed (1)"), is("c", ""));
        assert_eq!(found("Mariadb", "x SST failed (1)"), []);
        let asks = "WSREP: Member 1.0 (ctl2) requested state transfer from '*any*'.";
        assert_eq!(found("mariadb", asks), is("b", "ctl2"));
        let hostile = "Member 1.0 (\u{1b}[31m) requested state transfer";
        assert_eq!(found("mariadb", hostile), is("b", "\\u{1b}[31m"));
    }

    #[test]
    fn a_line_of_ten_megabytes_is_read_to_the_limit_only() {
        let mut text = "ü".repeat(5 * 1024 * 1024);
        text.push_str("SST failed (");
        assert_eq!(found("mariadb", &text), []);
        assert_eq!(found("mariadb", &format!("SST failed ({text}")).len(), 1);
    }

    #[test]
    fn an_expression_that_cannot_be_used_is_named() {
        let all = vec![
            signature("a", "x", Pattern::Phrase("(".into())),
            signature("b", "x", Pattern::Regex("(".into())),
        ];
        assert_eq!(Signatures::new(all).unwrap_err().0, 1);
        let huge = signature("a", "x", Pattern::Regex(r"(\w{900}){900}".into()));
        assert!(Signatures::new(vec![huge]).unwrap_err().1.contains("size"));
    }
}
