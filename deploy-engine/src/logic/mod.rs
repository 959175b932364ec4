//! How a service is started and rolled, member by member. Most services take `plain`; those that form a cluster in their
//! own way have a file of their own and a line in [`registry`].
//!
//! A logic is pure: from what is to change and what probes read it drafts steps. The planner puts them into the job, where
//! needs between services and the hosts' installs become edges.

mod ceph;
mod elasticsearch;
mod galera;
mod keepalived;
mod plain;
mod rabbitmq;

use crate::{
    condition::ConditionCall,
    job::{Action, Effect},
    model::{Deployment, HostName, Model, Secs, ServiceName},
    probe::{Ask, Readings},
    wire::{Resource, Work},
};

/// The service that is to be rolled out.
#[derive(Clone, Copy)]
pub struct ServiceContext<'a> {
    pub model: &'a Model,
    pub service: &'a ServiceName,
    pub deployment: &'a Deployment,
    /// The members that answered and are not refused. The others stay members: a configuration never leaves them out.
    pub usable: &'a [HostName],
}

/// What happens to the units of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitActs {
    /// Not running now.
    pub start: Vec<String>,
    /// Running now, and must be restarted.
    pub restart: Vec<String>,
    pub reload: Vec<String>,
    pub stop: Vec<String>,
}

impl UnitActs {
    /// A running unit is disturbed, so the guard is asked before.
    pub fn interrupts(&self) -> bool {
        !(self.restart.is_empty() && self.reload.is_empty() && self.stop.is_empty())
    }

    fn verb(&self) -> &'static str {
        match self {
            acts if !acts.restart.is_empty() => "restart",
            acts if !acts.start.is_empty() => "start",
            acts if !acts.reload.is_empty() => "reload",
            acts if !acts.stop.is_empty() => "stop",
            _ => "activate",
        }
    }
}

/// What is to change on one member. Members without a change are not listed.
#[derive(Clone, Debug)]
pub struct MemberChange {
    pub host: HostName,
    /// Files, directories and the like: before the units.
    pub configure: Option<Work>,
    /// Units, and what comes after them.
    pub activate: Option<Work>,
    pub acts: UnitActs,
}

/// A draft's name, unique in its service, for example `start ctl1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DraftKey(pub String);

/// What a draft waits for. The planner drops what this plan has no step for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    Draft(DraftKey),
    /// The packages of the host are installed.
    Installed(HostName),
    /// The services that this one declares in `needs` and `after` are healthy and provisioned.
    ServicesBefore,
}

/// What a draft is for; dependents wait for the health gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Configure,
    Start,
    Restart,
    Health,
    Other,
}

/// A step before it has a number.
#[derive(Clone, Debug)]
pub struct StepDraft {
    pub key: DraftKey,
    pub title: String,
    pub role: Role,
    pub action: Action,
    pub effect: Effect,
    pub timeout: Secs,
    pub needs: Vec<Need>,
    pub guards: Vec<ConditionCall>,
    pub unless: Option<ConditionCall>,
    pub undo: Option<Action>,
}

impl StepDraft {
    /// The host that it acts on; none for checks.
    pub fn host(&self) -> Option<&HostName> {
        match &self.action {
            Action::Host { host, .. } => Some(host),
            _ => None,
        }
    }

    pub fn after(mut self, key: &DraftKey) -> Self {
        self.needs.push(Need::Draft(key.clone()));
        self
    }
}

/// Why a service is not rolled out, and what a person can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicRefusal {
    pub why: String,
    pub remedy: String,
}

/// How one kind of service is rolled out.
pub trait RolloutLogic: Send + Sync {
    fn name(&self) -> &'static str;
    /// What it wants to know of members; asked in the same exchange as everything else.
    fn asks(&self, context: &ServiceContext<'_>) -> Vec<Ask>;
    /// Pure.
    fn rollout(
        &self,
        context: &ServiceContext<'_>,
        readings: &Readings,
        changes: &[MemberChange],
    ) -> Result<Vec<StepDraft>, LogicRefusal>;
}

/// Every logic there is.
pub fn registry() -> impl Iterator<Item = &'static dyn RolloutLogic> {
    let all: [&'static dyn RolloutLogic; 6] = [
        &plain::Plain,
        &elasticsearch::Elasticsearch,
        &galera::Galera,
        &rabbitmq::Rabbitmq,
        &keepalived::Keepalived,
        &ceph::Ceph,
    ];
    all.into_iter()
}

/// The logic of that name; without a name the plain one.
pub fn find(name: Option<&str>) -> Option<&'static dyn RolloutLogic> {
    let name = name.unwrap_or(plain::NAME);
    registry().find(|logic| logic.name() == name)
}

/// Files and directories are written in milliseconds; this bounds a host that hangs.
const CONFIGURE_SECONDS: u32 = 120;
/// systemd gives up on a unit after 90 s by default; a few units in a row fit.
const ACTIVATE_SECONDS: u32 = 360;

impl ServiceContext<'_> {
    /// The step that writes a member's configuration; none when only its units change.
    pub fn configure(&self, change: &MemberChange) -> Option<StepDraft> {
        let work = change.configure.clone()?;
        let key = DraftKey(format!("configure {}", change.host));
        Some(StepDraft {
            title: format!("configure {} on {}", self.service, change.host),
            role: Role::Configure,
            timeout: Secs(CONFIGURE_SECONDS + commands_seconds(&work)),
            needs: vec![Need::Installed(change.host.clone())],
            ..draft(key, &change.host, work)
        })
    }

    /// The step that starts, restarts or reloads a member, guarded when it disturbs a running one.
    pub fn activate(&self, change: &MemberChange) -> Option<StepDraft> {
        let work = change.activate.clone()?;
        let key = DraftKey(format!("activate {}", change.host));
        let interrupts = change.acts.interrupts();
        let mut needs = vec![Need::Installed(change.host.clone()), Need::ServicesBefore];
        if change.configure.is_some() {
            needs.push(Need::Draft(DraftKey(format!("configure {}", change.host))));
        }
        let role = if interrupts {
            Role::Restart
        } else {
            Role::Start
        };
        Some(StepDraft {
            title: format!("{} {} on {}", change.acts.verb(), self.service, change.host),
            role,
            timeout: Secs(ACTIVATE_SECONDS + commands_seconds(&work)),
            needs,
            guards: if interrupts {
                self.before_stop(&change.host).into_iter().collect()
            } else {
                Vec::new()
            },
            ..draft(key, &change.host, work)
        })
    }

    /// The condition under which a member may be stopped.
    pub fn before_stop(&self, host: &HostName) -> Option<ConditionCall> {
        let name = self.deployment.spec.rollout.before_stop.as_deref()?;
        self.model
            .condition(name, self.service, std::slice::from_ref(host))
    }

    /// The gate that members become healthy; none when the service declares no health.
    pub fn health(&self, hosts: &[HostName], after: &[DraftKey]) -> Option<StepDraft> {
        let condition = self.model.health(self.service, hosts)?;
        let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
        let names = names.join(", ");
        let within = self.deployment.spec.healthy_within;
        Some(StepDraft {
            key: DraftKey(format!("health {names}")),
            title: format!("{} is healthy on {names}", self.service),
            role: Role::Health,
            action: Action::Check {
                condition,
                mode: crate::job::CheckMode::Within { deadline: within },
            },
            effect: Effect::Observe,
            // The last look may begin at the deadline.
            timeout: Secs(within.0 + GATE_GRACE_SECONDS),
            needs: after.iter().cloned().map(Need::Draft).collect(),
            guards: Vec::new(),
            unless: None,
            undo: None,
        })
    }
}

/// One exchange with slow hosts fits between a gate's deadline and the end of its step.
const GATE_GRACE_SECONDS: u32 = 60;

fn draft(key: DraftKey, host: &HostName, work: Work) -> StepDraft {
    StepDraft {
        title: key.0.clone(),
        key,
        role: Role::Other,
        action: Action::Host {
            host: host.clone(),
            work,
        },
        effect: Effect::Converge,
        timeout: Secs(CONFIGURE_SECONDS),
        needs: Vec::new(),
        guards: Vec::new(),
        unless: None,
        undo: None,
    }
}

/// A download of some hundred megabytes over a slow line, and its unpacking.
const ARCHIVE_SECONDS: u32 = 900;

/// Guarded commands bring their own limits along, and a download is as slow as its line.
fn commands_seconds(work: &Work) -> u32 {
    let Work::Apply { resources, .. } = work else {
        return 0;
    };
    resources
        .iter()
        .map(|resource| match resource {
            Resource::Command {
                timeout_seconds, ..
            } => *timeout_seconds,
            Resource::Archive { .. } => ARCHIVE_SECONDS,
            _ => 0,
        })
        .sum()
}
