//! One repair, the world around it and what was read, put before the gates.

use std::collections::{BTreeMap, BTreeSet};

use deploy_engine::{
    job::{Action, JobId, Step},
    model::HostName,
};
use jiff::Timestamp;

use super::{
    Ports,
    gatekeeper::{Gatekeeper, World, hosts_of},
    ports::MonitoringLost,
    sighting::Sighting,
};
use crate::{
    budget::Spent,
    compile::facts,
    decision::Roles,
    format::Runbook,
    gate::{
        Answer, BlastFacts, BudgetFacts, EvidenceFacts, GateId, GateInput, LockFacts, MetricPath,
        Overridden, PeopleFacts, Phase, PlanFacts,
        maintenance::{Form, required},
    },
    log_lines::evidence,
    topology::Topology,
};

/// The service whose repairs its own flags hold.
const CEPH: &str = "ceph";

/// What is to be repaired and how.
pub(super) struct Case<'a> {
    pub runbook: &'a Runbook,
    pub roles: &'a Roles,
    pub steps: &'a [Step],
    pub scope: &'a str,
    pub targets: Vec<String>,
    pub own_job: Option<&'a JobId>,
    /// Jobs of the incident that were not proven.
    pub unproven: Vec<String>,
    /// A gate that a person let this repair pass.
    pub overridden: Option<Overridden>,
}

impl<'a> Case<'a> {
    /// Everything that the gates look at.
    pub fn input(
        &self,
        keeper: &'a Gatekeeper,
        phase: Phase,
        world: World,
        metric: Result<Vec<MetricPath>, String>,
        sighting: Sighting,
        ledger: &'a [Spent],
    ) -> GateInput<'a> {
        let (settings, topology) = (&*keeper.settings, &*keeper.topology);
        let members: BTreeSet<HostName> = topology
            .members(&self.runbook.service)
            .unwrap_or_default()
            .into_iter()
            .collect();
        let vitals = keeper.ports.vitals.get();
        let mut signs = world.signs;
        signs.insert(Form::Disabled, sighting.disabled);
        signs.insert(Form::MixedVersions, Ok(sighting.mixed_versions));
        // They hold what is done to Ceph, and nothing else.
        let flags = match self.runbook.service.as_str() {
            CEPH => sighting.ceph_flags,
            _ => Ok(Vec::new()),
        };
        signs.insert(Form::CephFlags, flags);
        let mut forms = required(topology.services.keys().map(|name| name.as_str()));
        // Whatever was asked counts, also where the site does not deploy it.
        forms.extend(signs.keys().copied());
        let now = keeper.ports.clock.now();
        let acted_on = hosts_of(self.steps);
        let service = self.runbook.service.as_str();
        let log_lines = evidence(&world.readings, topology, service, &acted_on, now);
        let away = sighting.unread.iter().chain(&vitals.hosts_down).cloned();
        GateInput {
            now,
            phase,
            limits: &settings.gates,
            evidence: EvidenceFacts {
                metric,
                scrapes: world.scrapes,
                direct: sighting.direct,
                clock_off_seconds: world.clock_off_seconds,
                log_lines,
            },
            monitoring: world.monitoring,
            people: PeopleFacts {
                required: forms,
                signs,
            },
            locks: LockFacts {
                scope: self.scope.to_owned(),
                held: world.held,
            },
            blast: BlastFacts {
                radius: self.runbook.blast,
                affected: affected(self.runbook, self.roles),
                away: away.filter(|host| members.contains(host)).collect(),
                same_elsewhere: same_elsewhere(&keeper.ports, self.runbook, self.scope),
                members,
            },
            budget: BudgetFacts {
                budget: &self.runbook.budget,
                ledger,
                runbook: &self.runbook.runbook,
                targets: self.targets.clone(),
                own_job: self.own_job.map(ToString::to_string),
            },
            storm: vitals.storm,
            plan: self.plan_facts(keeper, sighting.unread),
            overridden: self.overridden.clone(),
        }
    }

    fn plan_facts(&self, keeper: &'a Gatekeeper, unread: BTreeSet<HostName>) -> PlanFacts<'a> {
        plan_facts(
            self.runbook,
            self.roles,
            self.steps,
            &keeper.topology,
            &keeper.settings.bot_needs,
            keeper.settings.own_host.clone(),
            unread,
            self.unproven.clone(),
        )
    }
}

/// What must be true of the plan itself.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a fact of its own, and all are looked at"
)]
pub(crate) fn plan_facts<'a>(
    runbook: &'a Runbook,
    roles: &'a Roles,
    steps: &[Step],
    topology: &'a Topology,
    bot_needs: &'a BTreeSet<deploy_engine::model::ServiceName>,
    kept_on: Option<HostName>,
    unread: BTreeSet<HostName>,
    unproven: Vec<String>,
) -> PlanFacts<'a> {
    PlanFacts {
        service: &runbook.service,
        roles,
        hosts: hosts_of(steps),
        site: topology.hosts.keys().cloned().collect(),
        racks: &topology.racks,
        unread,
        recorded: recorded(steps),
        kept_on,
        first_snapshot: facts::first_snapshot(steps),
        first_act: steps.iter().position(facts::acts),
        unguarded: facts::unguarded(steps),
        proof: facts::ends_with_proof(steps),
        unproven,
        bot_needs,
    }
}

/// Hosts that snapshots ask.
fn recorded(steps: &[Step]) -> BTreeSet<HostName> {
    let asks = steps.iter().filter_map(|step| match &step.action {
        Action::Snapshot { asks } => Some(asks),
        _ => None,
    });
    asks.flatten().map(|ask| ask.host.clone()).collect()
}

/// Members that a repair is about, for the blast radius.
pub(crate) fn affected(runbook: &Runbook, roles: &Roles) -> BTreeSet<HostName> {
    let of_role = runbook.affects.iter().filter_map(|role| roles.get(role));
    of_role.flatten().cloned().collect()
}

/// Other failure domains with an open incident of the same runbook.
fn same_elsewhere(ports: &Ports, runbook: &Runbook, scope: &str) -> Vec<String> {
    let open = ports.vitals.get().open;
    let other =
        |(own, runbooks): &&(String, Vec<_>)| own != scope && runbooks.contains(&runbook.runbook);
    open.iter()
        .filter(other)
        .map(|(scope, _)| scope.clone())
        .collect()
}

/// Alerts that fire, and the label sets of all alerts of an incident: a silence on one that just ended counts too.
pub(super) struct Firing {
    pub names: BTreeSet<String>,
    pub labels: Vec<BTreeMap<String, String>>,
}

impl Firing {
    pub fn of(incident: &crate::incident::Incident) -> Self {
        let firing = incident
            .alerts
            .values()
            .filter(|alert| alert.status == collectors::Status::Firing);
        let all = incident.alerts.values();
        Self {
            names: firing.map(|alert| alert.name.clone()).collect(),
            labels: all.map(|alert| alert.labels.clone()).collect(),
        }
    }
}

/// The last word of G3 is part of the weather: monitoring that cannot be trusted for long is a storm in itself.
pub(super) fn note_monitoring(ports: &Ports, answers: &[Answer], now: Timestamp) {
    let Some(answer) = answers.iter().find(|one| one.id == GateId::G3) else {
        return;
    };
    ports.vitals.set(|vitals| {
        let since = vitals.monitoring_lost.map_or(now, |lost| lost.since);
        vitals.monitoring_lost = (!answer.gate.passes()).then_some(MonitoringLost {
            since,
            judged_at: now,
        });
    });
}
