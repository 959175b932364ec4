//! The format of a runbook file. Names, hosts' roles, argument vectors and limits; no expressions, loops or shell text.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use deploy_engine::{
    job::Effect,
    model::{Secs, ServiceName},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::budget::Budget;

/// For example `RMQ-1`.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct RunbookId(
    #[schemars(regex(pattern = r"^[A-Z][A-Z0-9]{1,15}-[0-9]{1,3}[A-Z]?$"))] pub String,
);

impl RunbookId {
    /// `MON-1M` is a variant of `MON-1`: the same repair of another service.
    pub fn is_variant_of(&self, other: &Self) -> bool {
        let rest = self.0.strip_prefix(other.0.as_str());
        rest.is_some_and(|rest| rest.len() == 1 && rest.bytes().all(|b| b.is_ascii_uppercase()))
    }
}

impl fmt::Display for RunbookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A length of time as people write it: `30s`, `10m`, `2h`, `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Secs);

/// Seven days: nothing in a runbook waits longer.
const SPAN_MAX_SECONDS: u32 = 7 * 86_400;
const SPAN_PATTERN: &str = "^[0-9]{1,6}[smhd]$";

impl Span {
    pub const fn seconds(seconds: u32) -> Self {
        Self(Secs(seconds))
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("expected a time like 30s, 10m, 2h or 1d, at most 7d; found {text:?}");
        let unit = text.chars().last().ok_or_else(wrong)?;
        let factor = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let number: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
        let seconds = number
            .checked_mul(factor)
            .filter(|seconds| *seconds <= SPAN_MAX_SECONDS);
        seconds.map(Self::seconds).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{}s", self.0.0))
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": SPAN_PATTERN, "description": "a time, for example 30s, 10m, 2h or 1d"})
    }
}

/// Who may start it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// May run by itself once trusted.
    Automatic,
    /// Only where the site has opted in, else it asks.
    Guarded,
    /// A person presses the button, always.
    Human,
    /// It only finds out what is wrong and calls a person: no steps, no proof, nothing is changed.
    Diagnosis,
}

/// What one repair keeps others away from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lock {
    Service,
    Host,
}

/// How much of a service the repair is about (gate G6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Blast {
    /// A member or two; more of them at once have another cause.
    #[default]
    Member,
    /// A side that has lost the majority.
    Minority,
    /// The service is down as a whole: there is nothing left to protect by waiting.
    Cluster,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Runbook {
    pub runbook: RunbookId,
    pub title: String,
    /// For people: what it does and what it leaves to them.
    #[serde(default)]
    pub about: String,
    /// The service it is about; `host` for a host itself.
    pub service: ServiceName,
    pub class: Class,
    pub lock: Lock,
    #[serde(default)]
    pub blast: Blast,
    /// Roles whose hosts are broken, and so count for the blast radius.
    #[serde(default)]
    pub affects: Vec<String>,
    /// Probes asked before deciding.
    pub evidence: Vec<String>,
    /// A named decision.
    pub decide: String,
    /// What the decision reads; times as `30s`, `10m`. A site's configuration overrides them.
    #[serde(default)]
    pub settings: BTreeMap<String, Value>,
    #[serde(default)]
    pub budget: Budget,
    /// None of a diagnosis.
    #[serde(default)]
    pub steps: Vec<StepSpec>,
    /// Of everything but a diagnosis.
    #[serde(default)]
    pub proof: Option<ProofSpec>,
    /// The drill that proves it.
    #[serde(default)]
    pub drill: String,
    /// Drills in which it must refuse.
    #[serde(default)]
    pub counter_drills: Vec<String>,
}

/// One step: exactly one of `snapshot`, `run`, `wait`, or `then` alone (a check).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepSpec {
    /// For people, for example `stop RabbitMQ`.
    #[serde(default)]
    pub title: String,
    /// Probes whose answers are kept before anything is changed; of all members.
    #[serde(default)]
    pub snapshot: Option<Vec<String>>,
    /// A role of the decision.
    #[serde(default)]
    pub on: Option<String>,
    /// An argument vector. An argument that is exactly `{name}` stands for a parameter of the decision.
    #[serde(default)]
    pub run: Option<Vec<String>>,
    /// One host after another instead of all at once; `then` is checked after each.
    #[serde(default)]
    pub each: bool,
    #[serde(default)]
    pub effect: Option<Effect>,
    /// Of the command.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// Must hold immediately before, of the host that is acted on.
    #[serde(default)]
    pub guard: Option<String>,
    /// More guards, of all hosts of a role.
    #[serde(default)]
    pub guards: Vec<GuardSpec>,
    /// If it holds already, nothing is done.
    #[serde(default)]
    pub unless: Option<String>,
    /// Must come to hold afterwards.
    #[serde(default)]
    pub then: Option<String>,
    /// How soon.
    #[serde(default)]
    pub within: Option<Span>,
    /// Settings for the conditions of this step; `{name}` as in `run`.
    #[serde(default)]
    pub with: BTreeMap<String, Value>,
    #[serde(default)]
    pub wait: Option<Span>,
    /// Takes back what `run` did.
    #[serde(default)]
    pub undo: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardSpec {
    pub condition: String,
    /// A role, or `members`.
    pub on: String,
}

/// What must be true of the raw state, and for how long, before anybody says that it is mended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProofSpec {
    pub condition: String,
    /// A role; absent: all members.
    #[serde(default)]
    pub on: Option<String>,
    #[serde(default)]
    pub with: BTreeMap<String, Value>,
    pub settle: Span,
    pub deadline: Span,
}

/// The role that stands for all members.
pub const MEMBERS: &str = "members";

/// `{name}` → `name`, when the whole text is a placeholder.
pub fn placeholder(text: &str) -> Option<&str> {
    text.strip_prefix('{')?.strip_suffix('}')
}

/// A setting as decisions read it: times become seconds.
pub fn normalised(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            Span::parse(text).map_or_else(|_| value.clone(), |span| span.0.0.into())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds) in [
            ("30s", 30),
            ("10m", 600),
            ("2h", 7_200),
            ("7d", 604_800),
            ("0s", 0),
        ] {
            assert_eq!(Span::parse(text), Ok(Span::seconds(seconds)));
        }
        for text in [
            "",
            "s",
            "10",
            "1.5h",
            "-1s",
            "8d",
            "99999999d",
            "10 m",
            "1ä",
        ] {
            assert!(Span::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_whole_argument_is_a_placeholder() {
        assert_eq!(placeholder("{unit}"), Some("unit"));
        assert_eq!(placeholder("{unit"), None);
        assert_eq!(placeholder("a{unit}"), None);
    }
}
