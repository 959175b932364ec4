//! `plan` and `deploy`: through the running bot if there is one, else here and now.

use std::io::{BufRead, IsTerminal, Write};

use deploy_engine::plan::{Goal, Plan, prepare};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{
    Invocation, Outcome,
    asking::{try_ask, view},
    wrong,
};
use crate::{
    answer::{Answer, plan_message},
    bot::{Asked, Bot, Place},
    chat::{Subject, office::Update},
    config,
    control::ClientError,
    jobs::Ended,
    replicas::Lead,
    rights::{self, Role, Spot},
    serve::assemble::{Assembled, assemble, ground},
};

/// Where what is done without a running bot is asked for, in the audit log.
const PLACE: &str = "command line";

/// Shows what a deploy would change.
pub async fn plan(invocation: &Invocation, target: &str) -> Outcome {
    if let Some(outcome) = running_bot(invocation, &format!("plan {target}")).await {
        return outcome;
    }
    let (assembled, _stop) = match alone(invocation).await {
        Ok(assembled) => assembled,
        Err(outcome) => return outcome,
    };
    match make_plan(&assembled.bot, target).await {
        Ok(plan) => {
            show_plan(&plan, invocation.json);
            Outcome::Ok
        }
        Err(answer) => refused(&answer, invocation.json),
    }
}

/// Plans, asks, and drives the job to its end.
pub async fn deploy(invocation: &Invocation, target: &str, yes: Option<&str>) -> Outcome {
    if let Some(outcome) = running_bot(invocation, &format!("deploy {target}")).await {
        return outcome;
    }
    let (assembled, stop) = match alone(invocation).await {
        Ok(assembled) => assembled,
        Err(outcome) => return outcome,
    };
    if assembled.bot.store.is_shared() {
        let why =
            "expected a running bot: where several share a store, only the one that leads deploys";
        return refused(&Answer::refused(why), invocation.json);
    }
    let Assembled { bot, telling, .. } = assembled;
    tokio::spawn(telling);
    if let Err(outcome) = resume_first(&bot).await {
        return outcome;
    }
    let plan = match make_plan(&bot, target).await {
        Ok(plan) => plan,
        Err(answer) => return refused(&answer, invocation.json),
    };
    show_plan(&plan, invocation.json);
    if plan.is_empty() {
        return plan.refused.is_empty().into();
    }
    if !agreed(&plan, yes) {
        return Outcome::Failed;
    }
    let outcome = start(&bot, &plan).await;
    stop.cancel();
    // The job's own messages know only what was done.
    for refused in &plan.refused {
        eprintln!("not done: {refused}");
    }
    match plan.refused.is_empty() {
        true => outcome,
        false => Outcome::Failed,
    }
}

/// `None`: no bot runs.
async fn running_bot(invocation: &Invocation, line: &str) -> Option<Outcome> {
    let config = match config::read(&invocation.config) {
        Ok(config) => config,
        Err(errors) => return Some(wrong(errors)),
    };
    match try_ask(&config.state_dir, line, true, invocation.json).await {
        Ok(outcome) => Some(outcome),
        Err(ClientError::NotRunning { .. }) => None,
        Err(error) => {
            eprintln!("{error}");
            Some(Outcome::Failed)
        }
    }
}

async fn alone(invocation: &Invocation) -> Result<(Assembled, CancellationToken), Outcome> {
    let ground = ground(&invocation.config).await.map_err(wrong)?;
    let stop = CancellationToken::new();
    let lead = Lead::alone();
    let assembled = assemble(&ground, Vec::new(), Default::default(), lead, stop.clone())
        .await
        .map_err(wrong)?;
    // The lock must outlive everything that is done under it: the process.
    std::mem::forget(ground);
    Ok((assembled, stop))
}

/// A job that an earlier run left goes first: its steps may still run on hosts.
async fn resume_first(bot: &Bot) -> Result<(), Outcome> {
    let unfinished = bot.jobs.resume_all().await.map_err(|error| {
        eprintln!("{error}");
        Outcome::Failed
    })?;
    for job in unfinished {
        eprintln!("taking up job {job}, which was left unfinished");
        follow(bot, &job).await;
    }
    Ok(())
}

async fn make_plan(bot: &Bot, target: &str) -> Result<Plan, Answer> {
    let line = format!("plan {target}");
    let goal = match crate::command::parse(&line, &bot.vocabulary) {
        Ok((
            _,
            crate::command::Command::Plan {
                target: crate::command::Target::Service(name),
            },
        )) => Goal::Service(name),
        Ok(_) => Goal::Site,
        Err(error) => return Err(Answer::refused(error.to_string())),
    };
    prepare(&*bot.hosts, &bot.model, &goal, Timestamp::now())
        .await
        .map_err(|refusal| Answer::refused(refusal.to_string()))
}

fn show_plan(plan: &Plan, json: bool) {
    if json {
        println!(
            "{}",
            serde_json::to_value(Answer::new(plan_message(plan)).with(plan)).unwrap_or_default()
        );
    } else {
        println!("{}", plan.render(true));
    }
}

fn refused(answer: &Answer, json: bool) -> Outcome {
    if json {
        println!("{}", serde_json::to_value(answer).unwrap_or_default());
    } else {
        view().show("answer", &answer.message);
    }
    Outcome::Failed
}

/// `--yes` with the beginning of the digest, or a person who types it.
fn agreed(plan: &Plan, yes: Option<&str>) -> bool {
    let names = |word: &str| word.len() >= 4 && plan.digest.starts_with(word);
    if let Some(digest) = yes {
        if !names(digest) {
            eprintln!(
                "expected --yes with plan {}, found {digest}: nothing was changed",
                plan.short_digest()
            );
        }
        return names(digest);
    }
    if !std::io::stdin().is_terminal() {
        eprintln!(
            "expected --yes {} or a terminal to ask at: nothing was changed",
            plan.short_digest()
        );
        return false;
    }
    eprint!("Run this plan? Type {} to run it: ", plan.short_digest());
    let _ = std::io::stderr().flush();
    let mut word = String::new();
    let read = std::io::stdin().lock().read_line(&mut word);
    let ok = read.is_ok() && names(word.trim());
    if !ok {
        eprintln!("nothing was changed");
    }
    ok
}

async fn start(bot: &Bot, plan: &Plan) -> Outcome {
    let spec = crate::command::spec_of("deploy").expect("the table has `deploy`");
    let who = rights::Identity::unix(&crate::control::own_user_name());
    let spot = Spot {
        ceiling: Role::Admin,
        name: PLACE,
    };
    let permit = match rights::permit(&bot.people, &who, spot, spec) {
        Ok(permit) => permit,
        Err(refusal) => return refused(&Answer::refused(refusal.to_string()), false),
    };
    let place = Place {
        rooms: Vec::new(),
        ceiling: Role::Admin,
        prefix: String::new(),
        name: PLACE.to_owned(),
    };
    let body = serde_json::json!({ "goal": plan.goal.title(), "digest": plan.digest });
    if !bot.record(&who, "approve", PLACE, body).await {
        return wrong_end("the audit log cannot be written, so nothing was done");
    }
    match bot.deploy_now(&Asked { permit, place }, plan).await {
        Ok(Answer {
            follow: Some(job), ..
        }) => follow(bot, &job).await,
        Ok(answer) | Err(answer) => refused(&answer, false),
    }
}

/// Shows a job to its end. ^C asks it to stop after its running steps.
async fn follow(bot: &Bot, job: &deploy_engine::job::JobId) -> Outcome {
    let mut updates = bot.office.follow();
    let mut view = view();
    let subject = Subject::job(job);
    let wait = bot.jobs.wait(job);
    tokio::pin!(wait);
    let ended = loop {
        tokio::select! {
            biased;
            update = updates.recv() => match update {
                Ok(Update::Message { subject: of, message }) if of == subject => view.show(&of.0, &message),
                Ok(Update::Detail { subject: of, line }) if of == subject => view.detail(&line),
                _ => {}
            },
            ended = &mut wait => break ended,
            _ = tokio::signal::ctrl_c() => {
                if let Err(error) = bot.jobs.cancel(job, "^C").await {
                    eprintln!("{error}");
                }
            }
        }
    };
    bot.told.caught_up().await;
    while let Ok(update) = updates.try_recv() {
        match update {
            Update::Message {
                subject: of,
                message,
            } if of == subject => view.show(&of.0, &message),
            Update::Detail { subject: of, line } if of == subject => view.detail(&line),
            _ => {}
        }
    }
    view.clear_bars();
    match ended {
        Ok(Ended::Finished(result)) => {
            // Its own message has said how it ended, and why.
            (result == deploy_engine::job::JobResult::Succeeded).into()
        }
        Ok(Ended::Interrupted(why)) => wrong_end(&why),
        Err(error) => wrong_end(&error.to_string()),
    }
}

fn wrong_end(why: &str) -> Outcome {
    eprintln!("{why}");
    Outcome::Failed
}
