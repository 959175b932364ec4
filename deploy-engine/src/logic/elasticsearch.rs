//! Elasticsearch and OpenSearch: where no member has data yet, the first of them founds the cluster and the others join it when it
//! stands, so that two clusters can never form. The founder is told by a file that is there for its first start alone.

use super::{
    DraftKey, LogicRefusal, MemberChange, Need, Role, RolloutLogic, ServiceContext, StepDraft,
    draft, plain,
};
use crate::{
    model::HostName,
    probe::{Ask, Readings, elasticsearch},
    wire::{Resource, Work},
};

/// The unit reads it when it is there.
const FOUNDER: &str = "/etc/elasticsearch/founder";

pub struct Elasticsearch;

impl RolloutLogic for Elasticsearch {
    fn name(&self) -> &'static str {
        "elasticsearch"
    }

    fn asks(&self, context: &ServiceContext<'_>) -> Vec<Ask> {
        context
            .deployment
            .members
            .iter()
            .map(|host| Ask {
                probe: elasticsearch::FRESH.to_owned(),
                host: host.clone(),
                service: Some(context.service.clone()),
            })
            .collect()
    }

    fn rollout(
        &self,
        context: &ServiceContext<'_>,
        readings: &Readings,
        changes: &[MemberChange],
    ) -> Result<Vec<StepDraft>, LogicRefusal> {
        let drafts = plain::Plain.rollout(context, readings, changes)?;
        let starts: Vec<&HostName> = drafts
            .iter()
            .filter(|draft| draft.role == Role::Start)
            .filter_map(StepDraft::host)
            .collect();
        let Some(first) = starts.first() else {
            return Ok(drafts);
        };
        match is_new(context, readings) {
            Ok(true) => {
                let founder = (*first).clone();
                Ok(found(context, drafts, &founder))
            }
            Ok(false) => Ok(drafts),
            Err(why) => Err(LogicRefusal {
                why: format!("whether a cluster exists is unknown: {why}"),
                remedy: "bring all members up, or take the one that is gone out of the site"
                    .to_owned(),
            }),
        }
    }
}

/// No member has data. One that has some settles it: the others join that cluster.
fn is_new(context: &ServiceContext<'_>, readings: &Readings) -> Result<bool, String> {
    let mut doubt = None;
    for member in &context.deployment.members {
        match readings.get::<bool>(elasticsearch::FRESH, member) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => doubt = Some(why),
        }
    }
    doubt.map_or(Ok(true), Err)
}

fn found(
    context: &ServiceContext<'_>,
    mut drafts: Vec<StepDraft>,
    founder: &HostName,
) -> Vec<StepDraft> {
    let tell = tell(context, founder);
    let mut first_start = None;
    for draft in drafts.iter_mut().filter(|draft| draft.role == Role::Start) {
        if draft.host() == Some(founder) {
            draft.needs.push(Need::Draft(tell.key.clone()));
            first_start = Some(draft.key.clone());
        }
    }
    let health = first_start.and_then(|key| {
        let mut health =
            context.health(std::slice::from_ref(founder), std::slice::from_ref(&key))?;
        // The gate over all members has the same name when there is only one.
        health.key.0 = format!("founded {}", health.key.0);
        Some(health)
    });
    let Some(health) = health else {
        drafts.push(tell);
        return drafts;
    };
    for draft in drafts.iter_mut().filter(|draft| draft.role == Role::Start) {
        if draft.host() != Some(founder) {
            draft.needs.push(Need::Draft(health.key.clone()));
        }
    }
    let forget = forget(founder, &health.key);
    drafts.extend([tell, health, forget]);
    drafts
}

/// Before the founder's first start.
fn tell(context: &ServiceContext<'_>, founder: &HostName) -> StepDraft {
    let text = format!("FOUNDER=-Ecluster.initial_master_nodes={founder}\n");
    let key = DraftKey(format!("found {founder}"));
    let guard = context.model.condition(
        "elasticsearch.may_found",
        context.service,
        std::slice::from_ref(founder),
    );
    StepDraft {
        title: format!("let {founder} found the {} cluster", context.service),
        needs: vec![
            Need::Installed(founder.clone()),
            Need::ServicesBefore,
            Need::Draft(DraftKey(format!("configure {founder}"))),
        ],
        guards: guard.into_iter().collect(),
        ..draft(key, founder, founder_file(text, false))
    }
}

/// As soon as the cluster stands: a founder that loses its data later joins like anybody else.
fn forget(founder: &HostName, after: &DraftKey) -> StepDraft {
    let key = DraftKey(format!("founded {founder}"));
    StepDraft {
        title: format!("let {founder} never found a cluster again"),
        needs: vec![Need::Draft(after.clone())],
        ..draft(key, founder, founder_file(String::new(), true))
    }
}

fn founder_file(content: String, absent: bool) -> Work {
    Work::Apply {
        resources: vec![Resource::File {
            path: FOUNDER.to_owned(),
            content,
            mode: "0640".to_owned(),
            owner: "root".to_owned(),
            group: "elasticsearch".to_owned(),
            validate: None,
            sensitive: false,
            absent,
        }],
        expected: Default::default(),
    }
}
