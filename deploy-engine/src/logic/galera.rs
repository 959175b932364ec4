//! Galera: the first start founds the cluster on one member, the others join one by one, each Synced before the next. A cluster
//! that has data but does not run is never started here: which member has the newest data is a repair's question (GAL-5).

use super::{
    DraftKey, LogicRefusal, MemberChange, Need, Role, RolloutLogic, ServiceContext, StepDraft,
    draft, plain,
};
use crate::{
    condition::galera_start::{self, Start},
    job::{Action, Effect},
    model::{HostName, Secs},
    probe::{Ask, Readings},
    wire::{Command, ResourceId, Work},
};

const UNIT: &str = "mariadb.service";
/// The unit's own limit on a start.
const BOOTSTRAP_SECONDS: u32 = 900;
const OUTPUT_LIMIT_BYTES: u32 = 64 * 1024;

pub struct Galera;

impl RolloutLogic for Galera {
    fn name(&self) -> &'static str {
        "galera"
    }

    fn asks(&self, context: &ServiceContext<'_>) -> Vec<Ask> {
        if context.deployment.members.len() < 2 {
            return Vec::new();
        }
        galera_start::asks(context.service, &context.deployment.members)
    }

    fn rollout(
        &self,
        context: &ServiceContext<'_>,
        readings: &Readings,
        changes: &[MemberChange],
    ) -> Result<Vec<StepDraft>, LogicRefusal> {
        let members = &context.deployment.members;
        if members.len() < 2 || changes.is_empty() {
            return plain::Plain.rollout(context, readings, changes);
        }
        // The load balancer sends writes to the first member: it is restarted last.
        let mut ordered: Vec<MemberChange> = changes.to_vec();
        ordered.sort_by_key(|change| {
            let position = members.iter().position(|member| *member == change.host);
            match change.acts.interrupts() && position == Some(0) {
                true => usize::MAX,
                false => position.unwrap_or(members.len()),
            }
        });
        match galera_start::decide(members, readings) {
            Ok(Start::Join) => plain::Plain.rollout(context, readings, &ordered),
            Ok(Start::Bootstrap(founder)) => found(context, readings, &founder, ordered),
            Err(refusal) => Err(LogicRefusal {
                why: refusal.why,
                remedy: refusal.remedy,
            }),
        }
    }
}

fn found(
    context: &ServiceContext<'_>,
    readings: &Readings,
    founder: &HostName,
    mut changes: Vec<MemberChange>,
) -> Result<Vec<StepDraft>, LogicRefusal> {
    let position = changes
        .iter()
        .position(|change| change.host == *founder && change.activate.is_some());
    let change = match position {
        Some(position) => changes.remove(position),
        None => {
            return Err(LogicRefusal {
                why: format!("{founder} should found the cluster, but nothing is to change on it"),
                remedy: format!("look why {UNIT} runs on {founder} without replication"),
            });
        }
    };
    let mut drafts = Vec::new();
    let configured = context.configure(&change);
    let mut needs = vec![Need::Installed(founder.clone()), Need::ServicesBefore];
    needs.extend(
        configured
            .iter()
            .map(|draft| Need::Draft(draft.key.clone())),
    );
    drafts.extend(configured);
    let bootstrap = bootstrap(context, founder, needs);
    let founded = bootstrap.key.clone();
    drafts.push(bootstrap);
    if let Some(activate) = context.activate(&change) {
        drafts.push(started_already(activate).after(&founded));
    }
    let gate = drafts[drafts.len() - 1].key.clone();
    let health = context.health(std::slice::from_ref(founder), std::slice::from_ref(&gate));
    let gate = health.as_ref().map_or(gate, |draft| draft.key.clone());
    drafts.extend(health);
    // Whoever joins, joins the cluster that was founded: nobody else starts before.
    let joining = plain::Plain.rollout(context, readings, &changes)?;
    drafts.extend(joining.into_iter().map(|draft| match draft.role {
        Role::Start | Role::Restart => draft.after(&gate),
        _ => draft,
    }));
    Ok(drafts)
}

fn bootstrap(context: &ServiceContext<'_>, founder: &HostName, needs: Vec<Need>) -> StepDraft {
    let condition = |name| {
        context
            .model
            .condition(name, context.service, std::slice::from_ref(founder))
    };
    let command = Command {
        argv: vec!["galera_new_cluster".to_owned()],
        env: Default::default(),
        stdin: None,
        user: None,
        timeout_seconds: BOOTSTRAP_SECONDS,
        output_limit_bytes: OUTPUT_LIMIT_BYTES,
    };
    let key = DraftKey(format!("bootstrap {founder}"));
    StepDraft {
        title: format!("found the {} cluster on {founder}", context.service),
        role: Role::Start,
        effect: Effect::Once,
        timeout: Secs(BOOTSTRAP_SECONDS),
        needs,
        guards: condition("galera.may_bootstrap").into_iter().collect(),
        unless: condition("galera.synced"),
        ..draft(key, founder, Work::Run { command })
    }
}

/// The founder's unit runs when its activation comes, which is not how the plan saw it.
fn started_already(mut activate: StepDraft) -> StepDraft {
    if let Action::Host {
        work: Work::Apply { expected, .. },
        ..
    } = &mut activate.action
    {
        expected.remove(&ResourceId(format!("unit:{UNIT}")));
    }
    activate.guards.clear();
    activate.role = Role::Other;
    activate
}
