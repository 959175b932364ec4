//! Plans, deploys and judges a site without the bot: what the engine looks like to a program that uses it.
//!
//! ```text
//! cargo run -p deploy-engine --example site -- SITE.yaml plan
//! cargo run -p deploy-engine --example site -- SITE.yaml deploy
//! cargo run -p deploy-engine --example site -- SITE.yaml remove SERVICE
//! cargo run -p deploy-engine --example site -- SITE.yaml status
//! ```
//! Secrets are kept in the folder `secrets` beside the site file.

use std::{path::Path, process::ExitCode, sync::Arc, time::Instant};

use deploy_engine::{
    condition,
    job::{JobEvent, JobId, JobKind, JobResult, JobState, Journal, MemoryJournal, StepProgress},
    model::Model,
    plan::{self, Goal},
    probe::ProbeSite,
    runner::{Context, JobObserver, OpenGate, Runner},
    secrets::SecretStore,
    transport::{Hosts, SshHosts},
};

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [site, "plan"] => run(site, Goal::Site, false).await,
        [site, "deploy"] => run(site, Goal::Site, true).await,
        [site, "remove", service] => match service.parse() {
            Ok(service) => run(site, Goal::Remove(service), true).await,
            Err(error) => Err(error),
        },
        [site, "status"] => status(site).await,
        _ => Err("expected SITE.yaml and plan, deploy, remove SERVICE or status".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn open(site: &str) -> Result<(Arc<Model>, Arc<SshHosts>), String> {
    let path = Path::new(site);
    let model = Model::load(path, &[]).map_err(|errors| errors.to_string())?;
    let folder = path.parent().unwrap_or(Path::new(".")).join("secrets");
    let secrets = SecretStore::open(&folder).map_err(|error| error.to_string())?;
    let names = model.secret_names();
    secrets
        .ensure(names.iter().map(String::as_str))
        .map_err(|error| error.to_string())?;
    let hosts = SshHosts::new(&model, Arc::new(secrets)).map_err(|error| error.to_string())?;
    Ok((Arc::new(model), Arc::new(hosts)))
}

async fn run(site: &str, goal: Goal, act: bool) -> Result<(), String> {
    let (model, hosts) = open(site)?;
    let began = Instant::now();
    let plan = plan::prepare(&*hosts, &model, &goal, jiff::Timestamp::now())
        .await
        .map_err(|refusal| refusal.to_string())?;
    println!("{}", plan.render(act || plan.changes.len() < 40));
    println!("planned in {:.2?}: {}", began.elapsed(), plan.summary());
    if !act || plan.is_empty() {
        return Ok(());
    }
    let journal = Arc::new(MemoryJournal::default());
    let job = JobId(format!("j{}", jiff::Timestamp::now().as_millisecond()));
    let created = JobEvent::Created {
        kind: JobKind::Deploy {
            plan_digest: plan.digest.clone(),
        },
        title: goal.title(),
        requested_by: "example".to_owned(),
        scope: format!("site:{}", plan.site),
        steps: plan.steps.clone(),
    };
    let now = jiff::Timestamp::now();
    journal
        .create(&job, now, &created)
        .await
        .map_err(|error| error.to_string())?;
    let observer = Arc::new(Tell {
        began: Instant::now(),
    });
    let shared: Arc<dyn Hosts> = hosts.clone();
    let context = Context::new(
        journal,
        shared,
        model,
        Arc::new(OpenGate),
        observer.clone(),
        "example".to_owned(),
    );
    let result = Runner::new(context)
        .run(&job)
        .await
        .map_err(|error| error.to_string())?;
    println!("{:8.2?} {result:?}", observer.began.elapsed());
    hosts.close().await;
    match result {
        JobResult::Succeeded => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Prints every journal entry as it comes.
struct Tell {
    began: Instant,
}

impl JobObserver for Tell {
    fn event(&self, _: &JobId, state: &JobState, event: &JobEvent) {
        let title = |step: &deploy_engine::job::StepId| {
            state
                .job()
                .and_then(|job| job.steps.get(step.0 as usize))
                .map_or("?", |known| known.title.as_str())
                .to_owned()
        };
        let line = match event {
            JobEvent::StepStarted { step, .. } => format!("> {}", title(step)),
            JobEvent::StepEnded { step, end, .. } => format!("< {}: {end:?}", title(step)),
            JobEvent::Evidence { .. } | JobEvent::Created { .. } => return,
            other => format!("{other:?}"),
        };
        println!("{:8.2?} {line}", self.began.elapsed());
    }

    fn progress(&self, _: StepProgress) {}
}

async fn status(site: &str) -> Result<(), String> {
    let (model, hosts) = open(site)?;
    let site: &dyn ProbeSite = &*model;
    let mut healthy = true;
    for service in model.services.keys() {
        let Some(call) = model.health(service, model.members(service)) else {
            continue;
        };
        let (judgement, _) = condition::judge(&*hosts, site, &call, jiff::Timestamp::now()).await;
        healthy &= judgement.holds();
        println!("{service}: {judgement:?}");
    }
    hosts.close().await;
    if healthy {
        Ok(())
    } else {
        Err("not everything is healthy".to_owned())
    }
}
