//! One drill from the fault to the proof.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use jiff::Timestamp;

use super::acts::Stage;
use super::file::{Act, Drill};
use super::observe::{Seen, look};
use super::report::{Outcome, Times};
use crate::scenario::Installation;

/// Pause between two looks at the bot.
const POLL: Duration = Duration::from_millis(500);
/// The alert that always fires.
const WATCHDOG: &str = "Watchdog";
/// From a mended lab to a site that is all green and silent again, before the next drill.
const GREEN_LIMIT: Duration = Duration::from_secs(300);

/// Runs a drill and brings the lab back to where it was. What goes wrong is in the outcome.
pub fn run(drill: &Drill, installation: &Installation) -> Outcome {
    let mut stage = Stage::new(installation);
    let mut times = Times::default();
    let result = play(drill, &mut stage, &mut times);
    let mut cleaned = stage.clean(&drill.clean);
    if result.is_err() {
        // What was broken and not healed is put right as a person would, so that the next drill starts on a whole site.
        cleaned = cleaned.and(installation.deploy_with_bot("site").map(drop));
    }
    let (passed, why) = match (result, cleaned) {
        (Ok(why), Ok(())) => (true, why),
        (Ok(_), Err(error)) => (
            false,
            format!("it passed, but cleaning up failed: {error:#}"),
        ),
        (Err(error), _) => (false, format!("{error:#}")),
    };
    Outcome {
        drill: drill.drill.clone(),
        runbook: drill.runbook.clone(),
        counter: drill.is_counter(),
        passed,
        why,
        seconds: times,
    }
}

fn play(drill: &Drill, stage: &mut Stage<'_>, times: &mut Times) -> anyhow::Result<String> {
    for act in &drill.prepare {
        stage.act(act)?;
    }
    let since = Timestamp::now();
    // The clock starts when the last fault took effect; what comes after (mending it, looking) is already the bot's time.
    let mut fault = since;
    let has_fault = drill
        .break_it
        .iter()
        .any(|act| matches!(act, Act::Fault(_)));
    for act in &drill.break_it {
        stage.act(act)?;
        if matches!(act, Act::Fault(_)) || !has_fault {
            fault = Timestamp::now();
        }
    }
    let why = follow(drill, stage.installation, (since, fault), times)?;
    for run in &drill.check {
        stage.run(run)?;
    }
    Ok(why)
}

/// Waits for alert, decision, first step and proof, each within its time.
fn follow(
    drill: &Drill,
    installation: &Installation,
    (since, fault): (Timestamp, Timestamp),
    times: &mut Times,
) -> anyhow::Result<String> {
    let within = &drill.expect.within;
    let watch = Watch {
        drill,
        installation,
        since,
    };
    let alert = watch.until("the alert", within.alert, |seen| seen.alert)?;
    times.alert = Some(between(fault, alert));
    let (decided, why) = watch.until("the decision", within.decision, |seen| {
        seen.decision.clone()
    })?;
    times.decision = Some(between(alert, decided));
    times.total = Some(between(fault, decided));
    let (Some(first), Some(proven)) = (within.first_step, within.proven) else {
        watch.stays_quiet(within.quiet.unwrap_or_default())?;
        return Ok(why);
    };
    let acted = watch.until("the first step", first, |seen| seen.first_step)?;
    times.first_step = Some(between(decided, acted));
    let healed = watch.until("the proof", proven, |seen| seen.proven)?;
    times.proven = Some(between(acted, healed));
    times.total = Some(between(fault, healed));
    Ok(why)
}

struct Watch<'a> {
    drill: &'a Drill,
    installation: &'a Installation,
    since: Timestamp,
}

impl Watch<'_> {
    /// Looks until `pick` finds something, for so many seconds.
    fn until<T>(
        &self,
        what: &str,
        seconds: u64,
        pick: impl Fn(&Seen) -> Option<T>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        loop {
            let seen = look(self.installation, self.drill, self.since)?;
            if let Some(found) = pick(&seen) {
                return Ok(found);
            }
            if let Some(why) = &seen.failed {
                bail!("waiting for {what}: the repair failed: {why}");
            }
            if self.drill.is_counter() {
                ensure!(seen.jobs.is_empty(), "a job was started: {:?}", seen.last);
            }
            if start.elapsed() >= Duration::from_secs(seconds) {
                let last = seen.last.as_deref().unwrap_or("no decision yet");
                bail!("waited {seconds} s for {what}; last decision: {last}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// No repair may start.
    fn stays_quiet(&self, seconds: u64) -> anyhow::Result<()> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            let seen = look(self.installation, self.drill, self.since)?;
            ensure!(
                seen.jobs.is_empty(),
                "a job was started after all: {:?}",
                seen.last
            );
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// Seconds; an alert may be older than the end of the last fault.
fn between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// Waits until the hosts say that everything is healthy, and no alert fires but the Watchdog, which has been heard: without it nothing is
/// repaired.
pub fn wait_for_green(installation: &Installation) -> anyhow::Result<()> {
    let look = || {
        let status = installation
            .ask(&["status"])
            .map_err(|e| format!("{e:#}"))?;
        let data = &status["data"];
        if data["healthy"] != true {
            return Err(format!("not healthy: {}", status["message"]));
        }
        let alerts = installation
            .ask(&["alerts"])
            .map_err(|e| format!("{e:#}"))?;
        let firing: Vec<&str> = names(&alerts["data"]["firing"])
            .ok_or_else(|| format!("no list of alerts in {alerts}"))?;
        match firing[..] {
            [WATCHDOG] => Ok(()),
            [] => Err(format!("{WATCHDOG} has not been heard")),
            _ => Err(format!("firing: {}", firing.join(", "))),
        }
    };
    crate::wait::until("a green and silent site", GREEN_LIMIT, || {
        let found = look();
        if found.is_err() {
            std::thread::sleep(POLL);
        }
        found
    })?;
    Ok(())
}

fn names(alerts: &serde_json::Value) -> Option<Vec<&str>> {
    let names = alerts.as_array()?.iter();
    Some(names.filter_map(|alert| alert["name"].as_str()).collect())
}
