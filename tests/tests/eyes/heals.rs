//! A cache is stopped: Icinga's check and Prometheus' alert of it are one incident, which is repaired, proven and told.

use std::time::Instant;

use lab::wait;
use serde_json::Value;

use crate::{
    icinga,
    stage::{LIMIT, Stage},
};

const MEMCACHED: &str = "memcached";

pub fn play(stage: &Stage<'_>) {
    let lab = stage.lab();
    icinga::written_by_people(lab, "");
    for host in ["ctl1", "ctl2", "ctl3"] {
        icinga::until_hard(lab, (host, MEMCACHED), 0.0);
    }
    let stopped = Instant::now();
    lab.ssh_ok("ctl2", &["systemctl", "stop", "memcached.service"])
        .unwrap();
    let id = stage.open_incident(MEMCACHED, &[MEMCACHED]);
    let icinga = stopped.elapsed();
    let same = stage.open_incident(MEMCACHED, &[MEMCACHED, "MemcachedDown"]);
    let both = stopped.elapsed();
    assert_eq!(same, id, "both sources tell of one incident");
    let repair = wait::until("a proven repair", LIMIT, || {
        let why = stage.data(&["why", &id]);
        let proven = why["repairs"].as_array().into_iter().flatten();
        let mut proven = proven.filter(|one| one["outcome"] == "verified");
        proven.next().cloned().ok_or_else(|| why.to_string())
    });
    let (repair, proven) = (repair.unwrap(), stopped.elapsed());
    assert_eq!(repair["runbook"], "MEM-1");
    icinga::until_hard(lab, ("ctl2", MEMCACHED), 0.0);
    stage.until_told(&id, "`proven` in the room", |words| {
        words.contains("proven")
    });
    stage.until_over(MEMCACHED, LIMIT);
    let sources = sources(&stage.data(&["why", &id]));
    assert_eq!(sources, ["alertmanager", "icinga2"]);
    println!(
        "memcached stopped on ctl2: Icinga's alert after {:.1} s, Prometheus' too after {:.1} s, proven after {:.1} s",
        icinga.as_secs_f64(),
        both.as_secs_f64(),
        proven.as_secs_f64()
    );
}

/// Whose alerts the incident has.
fn sources(why: &Value) -> Vec<String> {
    let alerts = why["incident"]["alerts"].as_object().unwrap().values();
    let mut sources: Vec<String> = alerts
        .filter_map(|one| Some(one["source"].as_str()?.to_owned()))
        .collect();
    sources.sort();
    sources.dedup();
    sources
}
