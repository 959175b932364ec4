//! CEPH-9: of some objects exactly one copy is bad, Ceph knows that by the checksum of its blocks, and the others agree. Ceph is asked
//! to write that copy again. Wherever it is not known which copy is right, a repair may spread the wrong one: people decide.

use std::collections::{BTreeMap, BTreeSet};

use deploy_engine::{
    model::HostName,
    probe::{
        ceph::{CLUSTER, Cluster, DEVICE_ERRORS, PGS, Pool},
        ceph_trouble::{DAMAGE, Damage, DamagedGroup, DamagedObject},
    },
};

use super::{
    Act, Facts, Input, Verdict,
    ceph_views::{
        all_osds_there, cluster, disk_is_sound, full_quorum, member_of, only_in, pgs, undisturbed,
    },
    table::{Entry, Role, elsewhere, refuse},
};

const FACT: &str = "what the monitors say of damaged data";
/// Checks of Ceph that are about it.
const CHECKS: [&str; 2] = ["PG_DAMAGED", "OSD_SCRUB_ERRORS"];
/// Copies that every object has to have.
const COPIES: usize = 3;
/// What is wrong with a copy that Ceph could not read, or whose data differ from the checksum of the object.
const PROVEN_BAD: [&str; 2] = ["read_error", "data_digest_mismatch_info"];
/// In what copies may differ where one of them is proven to be bad.
const EXPLAINED: &str = "data_digest_mismatch";

pub static DECISION: Entry = Entry {
    name: "ceph.damaged_copy",
    doc: "of every damaged object exactly one copy is bad by its checksum and at least two others agree, the bad ones are on one OSD that was not repaired before, all \
          keep their data in BlueStore, all OSDs are up and in, no data moves, and nobody has set a flag",
    roles: &[Role::always("bad")],
    parameters: &["group"],
    evidence: &[CLUSTER, PGS, DEVICE_ERRORS],
    settings: &["confirm", "groups"],
    facts,
    decide,
};

fn facts(input: &Input<'_>) -> Facts {
    let words = |cluster: Cluster| (FACT, reported(&cluster).join("; "));
    cluster(input).map(words).into_iter().collect()
}

fn reported(cluster: &Cluster) -> Vec<String> {
    let named = |(name, check): (&'static str, &deploy_engine::probe::ceph::Check)| {
        format!("{name}: {}", check.message)
    };
    let found = CHECKS
        .iter()
        .filter_map(|name| Some((*name, cluster.checks.get(*name)?)));
    found.map(named).collect()
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let cluster = cluster(input)?;
    let reported = reported(&cluster);
    if reported.is_empty() {
        return Err(elsewhere("Ceph reports no damaged data"));
    }
    full_quorum(&cluster)?;
    undisturbed(&cluster)?;
    all_osds_there(&cluster)?;
    if let Some(check) = cluster.checks.get("OSD_TOO_MANY_REPAIRS") {
        return Err(refuse(format!("{}: CEPH-14", check.message)));
    }
    let groups = pgs(input)?;
    if groups
        .states
        .keys()
        .any(|state| state.split('+').any(|part| part == "repair"))
    {
        return Err(input.hold("a repair is under way"));
    }
    only_in(
        &groups,
        &["active", "clean", "inconsistent", "scrubbing", "deep"],
    )?;
    let damage = damage(input)?;
    let group = the_first(input, &damage)?;
    let osd = the_bad_osd(group)?;
    let pool = pool_of(&cluster, group)?;
    keeps_checksums(&damage, group)?;
    let host = member_of(input, &cluster, osd)?;
    disks_agree(input, &host)?;
    input.steadily(FACT, "confirm")?;
    let why = format!(
        "{}: of {} objects in {} ({}) the copy on osd.{osd} ({host}) is bad by its checksum, and all others agree",
        reported.join("; "),
        group.count,
        group.group,
        pool.name
    );
    Ok(Act {
        parameters: BTreeMap::from([("group".to_owned(), group.group.clone())]),
        ..Act::on([("bad", vec![host])], why)
    })
}

/// Asked of one member: the answer is the cluster's.
fn damage(input: &Input<'_>) -> Result<Damage, Verdict> {
    let asked = input.members.first().into_iter();
    input.was_asked(
        DAMAGE,
        asked.clone(),
        "which copies differ was not asked yet",
    )?;
    let mut answers = asked.map(|host| input.known::<Damage>(DAMAGE, host));
    answers
        .next()
        .unwrap_or_else(|| Err(refuse("nobody was asked")))
}

fn the_first<'a>(input: &Input<'_>, damage: &'a Damage) -> Result<&'a DamagedGroup, Verdict> {
    let most = input.number("groups")?;
    if damage.count as f64 > most {
        return Err(refuse(format!(
            "{} placement groups are damaged, more than {most}: not one disk's fault",
            damage.count
        )));
    }
    let group = damage.groups.first();
    let group = group.ok_or_else(|| input.hold("no placement group is damaged any more"))?;
    let is_name = |name: &str| {
        let parts = name.split_once('.');
        parts.is_some_and(|(pool, number)| {
            pool.parse::<u32>().is_ok() && u32::from_str_radix(number, 16).is_ok()
        })
    };
    match is_name(&group.group) {
        true => Ok(group),
        false => Err(refuse(format!(
            "expected a placement group; found {:?}",
            group.group
        ))),
    }
}

/// The one OSD that has the bad copy of every damaged object.
fn the_bad_osd(group: &DamagedGroup) -> Result<u32, Verdict> {
    if group.objects.is_empty() || group.objects.len() != group.count {
        let why = group.why.first().map_or("", String::as_str);
        return Err(refuse(format!(
            "{}: {} of {} damaged objects are known: a deep scrub has to tell {why}",
            group.group,
            group.objects.len(),
            group.count
        )));
    }
    let bad: Result<BTreeSet<u32>, Verdict> = group.objects.iter().map(the_bad_copy).collect();
    let bad: Vec<u32> = bad?.into_iter().collect();
    match bad[..] {
        [osd] => Ok(osd),
        _ => Err(refuse(format!(
            "{}: bad copies are on the OSDs {bad:?}",
            group.group
        ))),
    }
}

/// The OSD with the only copy that is proven to be bad, where all others are good and agree.
fn the_bad_copy(object: &DamagedObject) -> Result<u32, Verdict> {
    let unclear = |what: String| {
        Err(refuse(format!(
            "{}: {what}: people decide which copy is right",
            object.name
        )))
    };
    if !object.head {
        return unclear("a snapshot of it is damaged".to_owned());
    }
    if !object.authority {
        return unclear("Ceph trusts none of its copies".to_owned());
    }
    if object.errors.iter().any(|error| error != EXPLAINED) {
        return unclear(format!("its copies differ: {:?}", object.errors));
    }
    let (bad, good): (Vec<_>, Vec<_>) = object
        .copies
        .iter()
        .partition(|copy| !copy.errors.is_empty());
    let [bad] = bad[..] else {
        return unclear(format!("{} of its copies are bad", bad.len()));
    };
    if !bad
        .errors
        .iter()
        .all(|error| PROVEN_BAD.contains(&error.as_str()))
    {
        return unclear(format!(
            "the copy on osd.{} is bad: {:?}",
            bad.osd, bad.errors
        ));
    }
    if object.copies.len() < COPIES {
        return unclear(format!("it has {} copies", object.copies.len()));
    }
    let alike: BTreeSet<_> = good
        .iter()
        .map(|copy| (copy.size, &copy.data_digest))
        .collect();
    let whole = good
        .iter()
        .all(|copy| copy.size.is_some() && copy.data_digest.is_some());
    match whole && alike.len() == 1 {
        true => Ok(bad.osd),
        false => unclear("the other copies do not agree".to_owned()),
    }
}

fn pool_of<'a>(cluster: &'a Cluster, group: &DamagedGroup) -> Result<&'a Pool, Verdict> {
    let number = group
        .group
        .split_once('.')
        .and_then(|(pool, _)| pool.parse().ok());
    let pool = cluster
        .pools
        .iter()
        .find(|pool| Some(pool.number) == number);
    match pool {
        Some(pool) if !pool.erasure && pool.size as usize >= COPIES => Ok(pool),
        Some(pool) => Err(refuse(format!(
            "expected {COPIES} copies in the pool {}; found {}{}",
            pool.name,
            pool.size,
            if pool.erasure { ", erasure coded" } else { "" }
        ))),
        None => Err(refuse(format!("no pool is known for {}", group.group))),
    }
}

/// A store without checksums cannot tell which copy is bad; an OSD that was repaired before has a failing disk.
fn keeps_checksums(damage: &Damage, group: &DamagedGroup) -> Result<(), Verdict> {
    let copies = group.objects.iter().flat_map(|object| &object.copies);
    for copy in copies {
        let Some(store) = damage.osds.get(&copy.osd) else {
            return Err(refuse(format!(
                "how osd.{} keeps its data is unknown",
                copy.osd
            )));
        };
        if store.store.as_deref() != Some("bluestore") {
            return Err(refuse(format!(
                "osd.{} has no checksums: {:?}",
                copy.osd, store.store
            )));
        }
        match (copy.errors.is_empty(), store.repaired) {
            (true, _) | (false, Some(0)) => {}
            (false, Some(count)) => {
                return Err(refuse(format!(
                    "osd.{} was repaired {count} times: CEPH-14",
                    copy.osd
                )));
            }
            (false, None) => {
                return Err(refuse(format!(
                    "how often osd.{} was repaired is unknown",
                    copy.osd
                )));
            }
        }
    }
    Ok(())
}

/// No other host's kernel speaks of a failing disk: what it says has to be about the bad copy.
fn disks_agree(input: &Input<'_>, bad: &HostName) -> Result<(), Verdict> {
    let mut others = input.members.iter().filter(|host| *host != bad);
    others.try_for_each(|host| disk_is_sound(input, host))?;
    input.known::<Vec<String>>(DEVICE_ERRORS, bad).map(drop)
}

#[cfg(test)]
#[path = "ceph_damaged_copy_tests.rs"]
mod tests;
