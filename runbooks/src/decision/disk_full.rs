//! HOST-1: a filesystem is nearly full, and what may be emptied without loss is enough to give it room.
//!
//! The list of what may be emptied is in the probe; nothing of any service's data is on it. Half a measure would only hide for a
//! night that somebody has to look.

use std::collections::BTreeMap;

use deploy_engine::{
    model::HostName,
    probe::host::{self, DISPENSABLE, DISPENSABLE_PATHS, FILESYSTEM, Filesystem, LARGEST},
};

use super::{
    Act, Facts, Input, Verdict,
    table::{Entry, Role, elsewhere, refuse},
};

/// What stays of the journal, in bytes: the runbook's `--vacuum-size`.
const JOURNAL_KEPT_BYTES: u64 = 200_000_000;
/// Directories named as evidence.
const NAMED: usize = 8;

pub static DECISION: Entry = Entry {
    name: "disk.full",
    doc: "one filesystem of one host is nearly full, and packages and journals that may go are enough to give it room",
    roles: &[Role::always("target")],
    parameters: &[],
    evidence: &[FILESYSTEM, DISPENSABLE],
    settings: &["confirm", "percent"],
    facts,
    decide,
};

/// A filesystem with too little room.
struct Short {
    host: HostName,
    mount: String,
    filesystem: Filesystem,
    percent: u64,
}

/// The one filesystem that is short: of those that hold what may be emptied.
fn short(input: &Input<'_>) -> Result<Short, Verdict> {
    let [host] = input.subjects else {
        return Err(refuse(format!(
            "expected one host that the alerts name; found {}",
            input.subjects.len()
        )));
    };
    let percent = input.number("percent")? as u64;
    let mounted: BTreeMap<String, Filesystem> = input.known(FILESYSTEM, host)?;
    let holding: BTreeMap<&str, &Filesystem> = DISPENSABLE_PATHS
        .iter()
        .filter_map(|path| host::filesystem_of(&mounted, path))
        .collect();
    if holding.is_empty() {
        return Err(refuse(format!("{host}: no filesystem is known")));
    }
    let is_short = |of: &Filesystem| of.size_bytes > 0 && of.free_percent() < percent;
    let found: Vec<_> = holding.into_iter().filter(|(_, of)| is_short(of)).collect();
    match found[..] {
        [(mount, filesystem)] => Ok(Short {
            host: host.clone(),
            mount: mount.to_owned(),
            filesystem: filesystem.clone(),
            percent,
        }),
        [] => Err(match mounted.iter().find(|(_, of)| is_short(of)) {
            // Of data alone: nothing here may be emptied by a program.
            Some((mount, of)) => refuse(format!(
                "{mount} on {host} has {} % free, and nothing on it may be removed",
                of.free_percent()
            )),
            None => elsewhere(format!(
                "every filesystem of {host} has at least {percent} % free"
            )),
        }),
        _ => Err(refuse(format!(
            "several filesystems of {host} are short: a common cause"
        ))),
    }
}

fn facts(input: &Input<'_>) -> Facts {
    short(input)
        .map(|short| {
            (
                "the filesystem that is short",
                format!("{}:{}", short.host, short.mount),
            )
        })
        .into_iter()
        .collect()
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let short = short(input)?;
    let (host, of) = (&short.host, &short.filesystem);
    if of.inodes > 0 && of.inodes_free * 100 / of.inodes < 5 {
        return Err(refuse(format!(
            "{} on {host} has few inodes left: many small files, which nobody may remove by rule",
            short.mount
        )));
    }
    let sizes: BTreeMap<String, u64> = input.known(DISPENSABLE, host)?;
    let gained = gained(&sizes, &short, &input.known(FILESYSTEM, host)?);
    let wanted = u64::try_from(u128::from(of.size_bytes) * u128::from(short.percent) / 100);
    let missing = wanted.unwrap_or(u64::MAX).saturating_sub(of.free_bytes);
    if gained < missing {
        input.was_asked(LARGEST, [host], "what takes the room is asked")?;
        return Err(Verdict::Refuse {
            why: format!(
                "{} on {host} has {} % free; packages and journals would give {} MB of the {} MB that it needs",
                short.mount,
                of.free_percent(),
                gained / 1_000_000,
                missing / 1_000_000
            ),
            evidence: largest(&input.known(LARGEST, host)?),
        });
    }
    input.steadily("the filesystem that is short", "confirm")?;
    let why = format!(
        "{} on {host} has {} % free; packages and journals give {} MB",
        short.mount,
        of.free_percent(),
        gained / 1_000_000
    );
    Ok(Act::on([("target", vec![host.clone()])], why))
}

/// What emptying gives to this filesystem, in bytes.
fn gained(
    sizes: &BTreeMap<String, u64>,
    short: &Short,
    mounted: &BTreeMap<String, Filesystem>,
) -> u64 {
    let here = |path: &&String| {
        host::filesystem_of(mounted, path).is_some_and(|(mount, _)| mount == short.mount)
    };
    let [packages, journal] = DISPENSABLE_PATHS.map(|path| {
        let size = sizes.keys().find(|one| *one == path).filter(here);
        size.and_then(|path| sizes.get(path)).copied().unwrap_or(0)
    });
    packages + journal.saturating_sub(JOURNAL_KEPT_BYTES)
}

/// For the person who looks: the largest directories, a directory only once.
fn largest(sizes: &BTreeMap<String, u64>) -> Vec<String> {
    let mut sizes: Vec<_> = sizes.iter().collect();
    sizes.sort_by_key(|(path, size)| (std::cmp::Reverse(**size), *path));
    let line = |(path, size): (&String, &u64)| format!("{} MB {path}", size / 1_000_000);
    sizes.into_iter().take(NAMED).map(line).collect()
}

#[cfg(test)]
#[path = "disk_full_tests.rs"]
mod tests;
