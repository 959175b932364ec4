//! [`prepare`] over hosts in memory.

use std::{collections::BTreeMap, sync::Mutex};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{
    model, planned,
    world::{NOW, World},
};
use crate::{
    job::JobId,
    model::{HostName, Secs},
    plan::{Goal, prepare},
    transport::{HostError, Hosts, Observe, Observed},
    wire::{Fence, Outcome, Progress, StepKey, StepStatus, Work},
};

#[derive(Default)]
struct Memory {
    world: World,
    exchanges: Mutex<BTreeMap<HostName, u32>>,
    /// Leaves out an observation.
    forgetful: Option<HostName>,
}

fn refused<T>(host: &HostName) -> Result<T, HostError> {
    Err(HostError::Refused {
        host: host.clone(),
        why: "a plan changes nothing".to_owned(),
    })
}

#[async_trait]
impl Hosts for Memory {
    async fn observe(&self, host: &HostName, ask: Observe) -> Result<Observed, HostError> {
        *self
            .exchanges
            .lock()
            .unwrap()
            .entry(host.clone())
            .or_default() += 1;
        let machine = &self.world.machines[host];
        if machine.down {
            return Err(HostError::Unreachable {
                host: host.clone(),
                address: "10.77.0.13:22".to_owned(),
                found: "no route to host".to_owned(),
            });
        }
        let mut seen = machine.observe(&ask.resources);
        let mut observations: Vec<_> = ask
            .resources
            .iter()
            .filter_map(|resource| seen.remove(&resource.id()))
            .collect();
        if self.forgetful.as_ref() == Some(host) {
            observations.pop();
        }
        let asked = machine
            .probes
            .iter()
            .filter(|(key, _)| ask.probes.contains_key(*key));
        Ok(Observed {
            facts: ask.facts.then(|| machine.facts.clone()),
            observations,
            probes: asked
                .map(|(key, result)| (key.clone(), result.clone()))
                .collect(),
        })
    }

    async fn start(
        &self,
        host: &HostName,
        _: StepKey,
        _: Fence,
        _: Work,
        _: Secs,
        _: mpsc::Sender<Progress>,
    ) -> Result<Outcome, HostError> {
        refused(host)
    }

    async fn ask(&self, host: &HostName, _: &StepKey) -> Result<StepStatus, HostError> {
        refused(host)
    }

    async fn cancel(&self, host: &HostName, _: &StepKey, _: &Fence) -> Result<(), HostError> {
        refused(host)
    }

    async fn forget(&self, host: &HostName, _: &JobId, _: &Fence) -> Result<(), HostError> {
        refused(host)
    }
}

#[tokio::test]
async fn one_exchange_a_host_and_a_second_only_where_packages_are_missing() {
    let model = model();
    let now = NOW.parse().unwrap();
    let mut world = World::new(&model);
    let fresh = Memory {
        world: world.clone(),
        ..Memory::default()
    };
    let plan = prepare(&fresh, &model, &Goal::Site, now).await.unwrap();
    assert_eq!(plan.digest, planned(&model, &world, &Goal::Site).digest);
    assert!(
        fresh
            .exchanges
            .lock()
            .unwrap()
            .values()
            .all(|count| *count == 2)
    );
    world.run(&plan).unwrap();
    let deployed = Memory {
        world,
        ..Memory::default()
    };
    let plan = prepare(&deployed, &model, &Goal::Site, now).await.unwrap();
    assert!(plan.is_empty());
    assert!(
        deployed
            .exchanges
            .lock()
            .unwrap()
            .values()
            .all(|count| *count == 1)
    );
}

#[tokio::test]
async fn a_host_that_fails_or_says_half_is_refused_and_the_rest_is_planned() {
    let model = model();
    let mut world = World::new(&model);
    world.machine("ctl3").down = true;
    let forgetful = Some("ctl2".parse().unwrap());
    let hosts = Memory {
        world,
        forgetful,
        ..Memory::default()
    };
    let plan = prepare(&hosts, &model, &Goal::Site, NOW.parse().unwrap())
        .await
        .unwrap();
    let refused: Vec<String> = plan.refused.iter().map(ToString::to_string).collect();
    let says = |words: &str| refused.iter().any(|line| line.contains(words));
    assert!(
        says(
            "db on ctl3: the host cannot be reached: ctl3: expected SSH to answer at 10.77.0.13:22"
        ),
        "{refused:?}"
    );
    assert!(
        says("cache on ctl2: the host cannot be reached: expected 14 observations, found 13"),
        "{refused:?}"
    );
    assert!(
        plan.steps
            .iter()
            .any(|step| step.title == "start cache on ctl1")
    );
}
