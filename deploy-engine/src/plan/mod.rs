//! Model × observations → plan: which steps, in which order, and why some parts are refused. Pure but for [`prepare`],
//! which asks every host once.
//!
//! A plan decides everything: nothing is left to choose when it runs. Membership comes from the site file alone, so a host
//! that is down is left out of the steps but never out of a configuration.

mod assemble;
mod member;
mod observed;
mod order;
mod precheck;
mod prepare;
mod remove;
mod roll;
mod show;
mod unit_acts;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use observed::{HostSeen, HostView, SiteObserved, questions};
pub use precheck::{Precheck, Verdict};
pub use prepare::prepare;

use crate::{
    job::{Step, StepId},
    model::{HostName, Model, ServiceName},
    wire::ResourceId,
};

/// What a plan is to reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "goal", content = "service", rename_all = "snake_case")]
pub enum Goal {
    /// Everything in the site file.
    Site,
    /// One service of it.
    Service(ServiceName),
    /// One service away from all its members, without a trace. Only ever on explicit request.
    Remove(ServiceName),
}

impl Goal {
    /// For people, for example `deploy site`.
    pub fn title(&self) -> String {
        match self {
            Self::Site => "deploy site".to_owned(),
            Self::Service(name) => format!("deploy {name}"),
            Self::Remove(name) => format!("remove {name}"),
        }
    }
}

/// One resource that will be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub host: HostName,
    /// Several services may want the same package: the first of them.
    pub service: ServiceName,
    pub resource: ResourceId,
    pub sign: Sign,
    /// As the host worded it; contents of sensitive files never get here.
    pub diff: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    Add,
    Alter,
    Remove,
}

impl Sign {
    pub fn symbol(self) -> char {
        match self {
            Self::Add => '+',
            Self::Alter => '~',
            Self::Remove => '-',
        }
    }
}

/// A part of the site that this plan leaves alone, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refused {
    /// `None`: every service of the host.
    pub service: Option<ServiceName>,
    /// `None`: the service on all its members.
    pub host: Option<HostName>,
    pub why: String,
    /// What a person can do about it.
    pub remedy: String,
}

/// An immutable, complete plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub site: String,
    pub goal: Goal,
    /// Names this plan: hex SHA-256 over site, goal, steps and what was seen of the resources that change.
    pub digest: String,
    /// Every step needs only steps before it.
    pub steps: Vec<Step>,
    pub changes: Vec<Change>,
    /// Running units that are restarted, reloaded or stopped.
    pub interruptions: u32,
    pub refused: Vec<Refused>,
    pub warnings: Vec<String>,
    pub prechecks: Vec<Precheck>,
}

/// Why there is no plan at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanRefusal {
    #[error("expected a service of this site, found `{found}`; the site has {known}")]
    UnknownService { found: ServiceName, known: String },
    #[error("`{service}` is still needed by {by}: remove those first")]
    StillNeeded { service: ServiceName, by: String },
    #[error("nothing can be planned: {}", refused_words(.0))]
    Refused(Vec<Refused>),
    /// A roll-out logic drafted steps that wait for each other.
    #[error("the steps of {services} wait for each other")]
    Circular { services: String },
}

fn refused_words(refused: &[Refused]) -> String {
    let words: Vec<String> = refused.iter().map(Refused::to_string).collect();
    words.join("; ")
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.service, &self.host) {
            (Some(service), Some(host)) => write!(f, "{service} on {host}")?,
            (Some(service), None) => write!(f, "{service}")?,
            (None, Some(host)) => write!(f, "{host}")?,
            (None, None) => write!(f, "the site")?,
        }
        write!(f, ": {}", self.why)?;
        if !self.remedy.is_empty() {
            write!(f, " ({})", self.remedy)?;
        }
        Ok(())
    }
}

/// Plans what leads from what was observed to the goal.
///
/// # Errors
/// When there is nothing that could be planned; parts that are refused are in the plan itself.
pub fn plan(model: &Model, goal: &Goal, observed: &SiteObserved) -> Result<Plan, PlanRefusal> {
    let services = goal_services(model, goal)?;
    match goal {
        Goal::Site | Goal::Service(_) => roll::plan(model, goal, &services, observed),
        Goal::Remove(service) => remove::plan(model, goal, service, observed),
    }
}

/// The services of a goal in the order of their needs.
fn goal_services(model: &Model, goal: &Goal) -> Result<Vec<ServiceName>, PlanRefusal> {
    match goal {
        Goal::Site => Ok(order::by_needs(model)),
        Goal::Service(name) | Goal::Remove(name) => {
            if model.services.contains_key(name) {
                return Ok(vec![name.clone()]);
            }
            let known: Vec<&str> = model.services.keys().map(ServiceName::as_str).collect();
            Err(PlanRefusal::UnknownService {
                found: name.clone(),
                known: known.join(", "),
            })
        }
    }
}

impl Plan {
    /// Nothing has to change. What is healthy, `status` tells.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Steps that could run at the same time, for display; the runner knows only needs.
    pub fn waves(&self) -> Vec<Vec<StepId>> {
        let mut depth: BTreeMap<StepId, usize> = BTreeMap::new();
        let mut waves: Vec<Vec<StepId>> = Vec::new();
        for step in &self.steps {
            let needs = step.needs.iter().filter_map(|need| depth.get(need));
            let level = needs.max().map_or(0, |deepest| deepest + 1);
            depth.insert(step.id, level);
            if waves.len() <= level {
                waves.resize_with(level + 1, Vec::new);
            }
            waves[level].push(step.id);
        }
        waves
    }

    /// Hosts that are changed.
    pub fn hosts(&self) -> BTreeSet<&HostName> {
        self.changes.iter().map(|change| &change.host).collect()
    }
}

/// Everything that goes into a plan, before it has its digest.
struct Parts {
    steps: Vec<Step>,
    changes: Vec<Change>,
    interruptions: u32,
    refused: Vec<Refused>,
    warnings: Vec<String>,
    prechecks: Vec<Precheck>,
}

fn finish(model: &Model, goal: &Goal, observed: &SiteObserved, mut parts: Parts) -> Plan {
    parts.refused.sort();
    parts.refused.dedup();
    let seen: Vec<(&HostName, &ResourceId, Option<&str>)> = parts
        .changes
        .iter()
        .map(|change| {
            let digest = observed.observation(&change.host, &change.resource);
            let digest = digest.map(|observation| observation.digest.as_str());
            (&change.host, &change.resource, digest)
        })
        .collect();
    let named = serde_json::json!({
        "site": model.site.name,
        "goal": goal,
        "steps": parts.steps,
        "seen": seen,
    });
    let digest = Sha256::digest(named.to_string().as_bytes());
    Plan {
        site: model.site.name.clone(),
        goal: goal.clone(),
        digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        steps: parts.steps,
        changes: parts.changes,
        interruptions: parts.interruptions,
        refused: parts.refused,
        warnings: parts.warnings,
        prechecks: parts.prechecks,
    }
}

#[cfg(test)]
mod tests;
