//! Asks every host once, all at the same time, and plans from what they said.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio::time::{Instant, timeout};

use super::{Goal, HostSeen, HostView, Plan, PlanRefusal, SiteObserved, observed, plan, precheck};
use crate::{
    model::{HostName, Model},
    transport::{Hosts, Observe},
    wire::{Resource, State},
};

/// Exchanges at once: hundreds of hosts are asked in a few rounds without as many SSH processes at the same moment.
const HOSTS_AT_ONCE: usize = 64;
/// One exchange with a host under load, its SSH connection included; a host that hangs is a host that is down.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(60);

/// Observes and plans. Changes nothing.
///
/// # Errors
/// As [`plan`].
pub async fn prepare(
    hosts: &dyn Hosts,
    model: &Model,
    goal: &Goal,
    now: Timestamp,
) -> Result<Plan, PlanRefusal> {
    let questions = observed::questions(model, goal)?;
    let mut views = ask_all(hosts, questions, now).await;
    // Only a host that lacks packages is asked whether it reaches their repositories: that takes a second.
    let lacking = views
        .iter()
        .filter(|(_, view)| lacks_packages(view))
        .map(|(host, _)| {
            let ask = Observe {
                probes: precheck::repository_questions(),
                ..Observe::default()
            };
            (host.clone(), ask)
        })
        .collect();
    for (host, view) in ask_all(hosts, lacking, now).await {
        if let (HostView::Seen(more), Some(HostView::Seen(seen))) = (view, views.get_mut(&host)) {
            seen.probes.extend(more.probes);
        }
    }
    let readings = observed::readings(model, goal, &views, now);
    let observed = SiteObserved {
        hosts: views,
        readings,
    };
    plan(model, goal, &observed)
}

fn lacks_packages(view: &HostView) -> bool {
    let HostView::Seen(seen) = view else {
        return false;
    };
    seen.observations.iter().any(|(id, observation)| {
        id.0.starts_with("package:") && matches!(observation.state, State::WillChange { .. })
    })
}

async fn ask_all(
    hosts: &dyn Hosts,
    questions: BTreeMap<HostName, Observe>,
    now: Timestamp,
) -> BTreeMap<HostName, HostView> {
    let begun = Instant::now();
    stream::iter(questions)
        .map(|(host, ask)| async move {
            let view = ask_one(hosts, &host, ask, now, begun).await;
            (host, view)
        })
        .buffer_unordered(HOSTS_AT_ONCE)
        .collect()
        .await
}

async fn ask_one(
    hosts: &dyn Hosts,
    host: &HostName,
    ask: Observe,
    now: Timestamp,
    begun: Instant,
) -> HostView {
    let clock = || now + begun.elapsed();
    let wants_facts = ask.facts;
    let count = ask.resources.len();
    let ids: Vec<_> = ask.resources.iter().map(Resource::id).collect();
    let asked_at = clock();
    let answer = timeout(EXCHANGE_LIMIT, hosts.observe(host, ask)).await;
    let answered_at = clock();
    let why = match answer {
        Ok(Ok(answer)) if wants_facts && answer.facts.is_none() => {
            "expected facts, found none".to_owned()
        }
        Ok(Ok(answer)) if answer.observations.len() != count => format!(
            "expected {count} observations, found {}",
            answer.observations.len()
        ),
        Ok(Ok(answer)) => {
            return HostView::Seen(Box::new(HostSeen {
                facts: answer.facts.unwrap_or_default(),
                observations: ids.into_iter().zip(answer.observations).collect(),
                probes: answer.probes,
                asked_at,
                answered_at,
            }));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!(
            "{host}: expected an answer within {} s, found none",
            EXCHANGE_LIMIT.as_secs()
        ),
    };
    HostView::Unreachable { why }
}
