//! Drills: break something for real, and see the bot detect it through the real monitoring chain, decide, heal
//! and prove it – or refuse, with its reason, where it must.

mod acts;
mod engine;
mod file;
mod observe;
mod report;

use anyhow::{Context, bail, ensure};

pub use engine::wait_for_green;
pub use file::{Decision, Drill, load_all};
pub use report::{Outcome, Times};

use crate::scenario::{Bot, Changes, Installation, Program, install, with_packages};
use crate::{Lab, LabOptions, Progress};

/// Which drills, and where.
#[derive(Debug, Clone, clap::Args)]
pub struct Selection {
    /// Names of drills; see `drills`.
    #[arg(required_unless_present = "all")]
    names: Vec<String>,
    /// Every drill.
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// On hosts of its own, made and deployed now and taken down at the end, instead of on the running demo.
    #[arg(long)]
    fresh: bool,
}

/// Prints all drills.
pub fn list() -> anyhow::Result<()> {
    println!("{}", report::list(&load_all()?));
    Ok(())
}

/// Runs drills from the command line; fails if one did.
pub fn run_selected(selection: &Selection, lab: &Lab, progress: &Progress) -> anyhow::Result<()> {
    let drills = selected(selection, load_all()?)?;
    let outcomes = if selection.fresh || !demo_runs(lab) {
        on_fresh_hosts(&drills, lab, progress)?
    } else {
        let program = Program::build(false)?;
        let installation = Installation::attach(lab, program, &demo_folder(lab));
        on_running(&drills, &installation, progress)?
    };
    if selection.json {
        println!("{}", serde_json::to_string_pretty(&outcomes)?);
    } else {
        println!("{}", report::table(&outcomes));
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    ensure!(failed == 0, "{failed} of {} drills failed", outcomes.len());
    Ok(())
}

/// Runs drills on labs of their own: one for each kind of site. Stops at the first that leaves its site broken.
pub fn on_fresh_hosts(
    drills: &[Drill],
    lab: &Lab,
    progress: &Progress,
) -> anyhow::Result<Vec<Outcome>> {
    let program = Program::build(false)?;
    let layer = with_packages(progress)?;
    let mut outcomes = Vec::new();
    for (hosts, changes) in kinds_of_site(drills) {
        let of_kind: Vec<Drill> = drills
            .iter()
            .filter(|drill| drill.hosts == hosts && drill.site == changes)
            .cloned()
            .collect();
        let name = format!("{}drill", lab.name()).parse()?;
        let own = Lab::named(name);
        own.down()?;
        let options = LabOptions {
            name: own.name().clone(),
            hosts,
            layer: Some(layer.clone()),
        };
        let own = Lab::up(&options, progress)?;
        let result =
            deployed(&own, program.clone(), &changes, progress).and_then(|(installation, bot)| {
                let outcomes = on_running(&of_kind, &installation, progress)?;
                bot.stop()?;
                Ok(outcomes)
            });
        own.down()?;
        outcomes.extend(result?);
    }
    Ok(outcomes)
}

/// Sites that the drills need, without doubles.
fn kinds_of_site(drills: &[Drill]) -> Vec<(u8, Changes)> {
    let mut kinds: Vec<(u8, Changes)> = Vec::new();
    for drill in drills {
        let kind = (drill.hosts, drill.site.clone());
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// A deployed site with a running bot.
pub fn deployed(
    lab: &Lab,
    program: Program,
    changes: &Changes,
    progress: &Progress,
) -> anyhow::Result<(Installation, Bot)> {
    let installation = install(lab, program, &demo_folder(lab), changes)?;
    let phase = progress.phase("deploy the site");
    installation.deploy_alone("site")?;
    phase.done();
    let bot = Bot::start(&installation)?;
    Ok((installation, bot))
}

/// Runs drills one after another; each begins on a green site.
pub fn on_running(
    drills: &[Drill],
    installation: &Installation,
    progress: &Progress,
) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for drill in drills {
        let phase = progress.phase(&format!("drill {}: {}", drill.drill, drill.title));
        let before = installation.lab().hosts()?.len();
        ensure!(
            before == usize::from(drill.hosts),
            "drill {} needs {} hosts, the lab has {before}: use --fresh",
            drill.drill,
            drill.hosts
        );
        engine::wait_for_green(installation)
            .with_context(|| format!("before drill {}", drill.drill))?;
        let outcome = engine::run(drill, installation);
        if outcome.passed {
            phase.done();
        } else {
            progress.say(&format!("drill {} failed: {}", drill.drill, outcome.why));
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

fn demo_folder(lab: &Lab) -> std::path::PathBuf {
    lab.folder().join("demo")
}

fn demo_runs(lab: &Lab) -> bool {
    demo_folder(lab).join("state/control.sock").exists()
}

fn selected(selection: &Selection, all: Vec<Drill>) -> anyhow::Result<Vec<Drill>> {
    if selection.all {
        return Ok(all);
    }
    let known: Vec<&str> = all.iter().map(|drill| drill.drill.as_str()).collect();
    if let Some(name) = selection
        .names
        .iter()
        .find(|name| !known.contains(&name.as_str()))
    {
        bail!("there is no drill `{name}`; there are {}", known.join(", "));
    }
    let wanted = |name: &String| all.iter().find(|drill| drill.drill == *name).cloned();
    Ok(selection.names.iter().filter_map(wanted).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_drill_file_is_right() {
        let drills = load_all().unwrap();
        assert!(drills.len() >= 44, "{}", drills.len());
        assert!(drills.iter().filter(|drill| drill.is_counter()).count() >= 34);
    }

    #[test]
    fn every_runbook_has_its_drills() {
        let known: BTreeSet<String> = load_all().unwrap().into_iter().map(|d| d.drill).collect();
        let library = crate::scenario::workspace().join("runbooks/library");
        let mut count = 0;
        for entry in std::fs::read_dir(library).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let runbook: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
            // A diagnosis changes nothing: it has no drill to pass before it is trusted.
            if runbook["class"] == "diagnosis" {
                continue;
            }
            let counter = runbook["counter_drills"].as_array().into_iter().flatten();
            for name in counter.chain([&runbook["drill"]]) {
                let name = name.as_str().unwrap();
                assert!(
                    known.contains(name),
                    "{}: no drill `{name}`",
                    runbook["runbook"]
                );
            }
            count += 1;
        }
        assert!(count >= 9, "{count} runbooks");
    }

    #[test]
    fn wrong_drill_files_say_what_and_where() {
        let good = "drill: x\ntitle: t\nrunbook: MEM-1\nbreak: [{fault: kill ctl2 memcached}]\n\
            expect: {alerts: [A], decision: refuse, because: b, within: {alert: 1, decision: 1, quiet: 1}}\n";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.yaml");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Drill::load(&path).map_err(|error| format!("{error:#}"))
        };
        load(good).unwrap();
        for (from, to, says) in [
            ("drill: x", "drill: y", "expected `x`"),
            ("kill ctl2", "kill ctl4", "ctl4"),
            ("kill ctl2", "explode ctl2", "explode"),
            ("because: b, ", "", "because"),
            ("runbook:", "runbok:", "runbok"),
            ("quiet: 1", "quite: 1", "quite"),
        ] {
            let error = load(&good.replace(from, to)).unwrap_err();
            assert!(error.contains(says) && error.contains("x.yaml"), "{error}");
        }
    }
}
