//! The lives of a bot, as `serve` leads them: it begins anew when it lost the lead or the store.

use std::{sync::Arc, time::Duration};

use bot::{
    halt::Halt,
    jobs::JobDesk,
    replicas::{DutyGate, Lead, Member},
    store::{Store, StoreError},
};
use deploy_engine::{
    model::{HostName, ServiceName},
    probe::{ProbeContext, ProbeSite},
    runner::{Context, NoObserver, OpenGate, Runner},
    transport::Hosts,
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// What all bots of these tests have read.
pub const MODEL: &str = "m";

/// One of them.
#[derive(Clone)]
pub struct Life {
    pub lead: Lead,
    pub desk: JobDesk,
}

#[derive(Default)]
pub struct Lives {
    /// None until the first has begun.
    pub now: Option<Life>,
    /// Why the ones before ended.
    pub over: Vec<String>,
}

struct NoSite;

impl ProbeSite for NoSite {
    fn context(&self, _: Option<&ServiceName>, _: &HostName) -> Result<ProbeContext<'_>, String> {
        Err("there is no site".to_owned())
    }
}

/// Begins a life, in tasks that end when it is stopped.
async fn begin(
    store: &Store,
    hosts: &Arc<dyn Hosts>,
    parts: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<Life, StoreError> {
    let halt = Halt::load(store.clone()).await?;
    let (lead, desk) = (Lead::stand_by(), JobDesk::new(store.clone(), stop.clone()));
    let gate = DutyGate {
        lead: lead.clone(),
        halt: halt.clone(),
        then: Arc::new(OpenGate),
    };
    desk.set_runner(Runner::new(Context::new(
        Arc::new(store.clone()),
        hosts.clone(),
        Arc::new(NoSite),
        Arc::new(gate),
        Arc::new(NoObserver),
        store.replica().to_owned(),
    )));
    let member = Member {
        store: store.clone(),
        lead: lead.clone(),
        halt,
        desk: desk.clone(),
        model: MODEL.to_owned(),
        before: None,
    };
    member.begin(parts, stop);
    let life = Life { lead, desk };
    let (on_duty, token) = (life.clone(), stop.clone());
    parts.spawn(async move {
        let duty = async {
            on_duty.lead.until_leading().await;
            // A store that is away again ends this life as well.
            let _ = on_duty.desk.resume_all().await;
        };
        token.run_until_cancelled(duty).await;
    });
    Ok(life)
}

/// One life after another until told to stop, as `serve` does it.
pub async fn live(
    store: Store,
    hosts: Arc<dyn Hosts>,
    lives: watch::Sender<Lives>,
    stop: CancellationToken,
) {
    loop {
        let (mut parts, token) = (JoinSet::new(), stop.child_token());
        let life = match begin(&store, &hosts, &mut parts, &token).await {
            Ok(life) => life,
            Err(_) => {
                // As the unit does it.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        lives.send_modify(|lives| lives.now = Some(life.clone()));
        let over = stop.run_until_cancelled(life.lead.until_over()).await;
        token.cancel();
        life.desk.rest().await;
        while parts.join_next().await.is_some() {}
        let Some(why) = over else { return };
        lives.send_modify(|lives| lives.over.push(why));
    }
}
