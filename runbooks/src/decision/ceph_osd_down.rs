//! CEPH-1: one OSD is down, and all else is as it should be. It is started once, as it is. That it is taken out, and what then
//! happens to its data, is Ceph's own business.

use std::collections::BTreeMap;

use deploy_engine::{
    model::HostName,
    probe::{
        ceph::{CLUSTER, CRASHES, Cluster, Crash, DEVICE_ERRORS, PGS},
        host::UNITS,
    },
};

use super::{
    Act, Facts, Input, Verdict,
    ceph_views::{
        SHORT_OF_COPIES, cluster, crashed_within, disk_is_sound, full_quorum, may_be_started,
        member_of, pgs, undisturbed, unit_of,
    },
    table::{Entry, Role, elsewhere, refuse},
};

pub static DECISION: Entry = Entry {
    name: "ceph.osd_down",
    doc: "exactly one OSD is down, its host answers and its unit is down for good, its disk shows no error and it did not crash again and again; all monitors \
          are in the quorum, a manager answers, no placement group is worse off than one copy short, and nobody has set a flag",
    roles: &[Role::always("down")],
    parameters: &["osd", "unit"],
    evidence: &[CLUSTER, PGS, UNITS, DEVICE_ERRORS, CRASHES],
    settings: &["confirm", "crashes", "crash_window"],
    facts,
    decide,
};

const FACT: &str = "the set of OSDs that are down";

fn facts(input: &Input<'_>) -> Facts {
    let words = |cluster: Cluster| {
        let down = cluster.down().into_iter();
        let names: Vec<String> = down.map(|id| format!("osd.{id}")).collect();
        (FACT, names.join(", "))
    };
    cluster(input).map(words).into_iter().collect()
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let cluster = cluster(input)?;
    let down: Vec<u32> = cluster.down().into_iter().collect();
    if down.is_empty() {
        return Err(elsewhere("every OSD is up"));
    }
    full_quorum(&cluster)?;
    undisturbed(&cluster)?;
    let osd = the_only_one(input, &cluster, &down)?;
    let host = member_of(input, &cluster, osd)?;
    let groups = pgs(input)?;
    let worse = groups.other_than(&SHORT_OF_COPIES);
    if groups.total == 0 || !worse.is_empty() {
        return Err(refuse(format!(
            "placement groups are worse off than one copy short: {}",
            groups.words()
        )));
    }
    if let Some(state) = groups
        .states
        .keys()
        .find(|state| !state.split('+').any(|part| part == "active"))
    {
        return Err(refuse(format!(
            "placement groups are {state}: their data cannot be used"
        )));
    }
    disk_is_sound(input, &host)?;
    crashed_seldom(input, &host, osd)?;
    let unit = unit_of(osd);
    may_be_started(input, &host, &unit)?;
    input.steadily(FACT, "confirm")?;
    let why = format!(
        "osd.{osd} on {host} is down and its unit will not come back by itself; all other OSDs are up, placement groups: {}",
        groups.words()
    );
    Ok(Act {
        parameters: BTreeMap::from([
            ("osd".to_owned(), osd.to_string()),
            ("unit".to_owned(), unit),
        ]),
        ..Act::on([("down", vec![host])], why)
    })
}

/// Two that are down have a common cause, or take the data of each other's copies along.
fn the_only_one(input: &Input<'_>, cluster: &Cluster, down: &[u32]) -> Result<u32, Verdict> {
    if let [one] = down {
        return Ok(*one);
    }
    let names: Vec<String> = down
        .iter()
        .map(|osd| match member_of(input, cluster, *osd) {
            Ok(host) => format!("osd.{osd} on {host}"),
            Err(_) => format!("osd.{osd}"),
        })
        .collect();
    Err(refuse(format!(
        "{} OSDs are down: {}: not a single one's fault",
        down.len(),
        names.join(", ")
    )))
}

fn crashed_seldom(input: &Input<'_>, host: &HostName, osd: u32) -> Result<(), Verdict> {
    let crashes: Vec<Crash> = input.known(CRASHES, host)?;
    let (most, window) = (input.number("crashes")?, input.seconds("crash_window")?);
    let own = format!("osd.{osd}");
    let mut count = 0_u32;
    for crash in crashes.iter().filter(|crash| crash.daemon == own) {
        if crashed_within(crash, input.now, window)? {
            count += 1;
        }
    }
    if f64::from(count) < most {
        return Ok(());
    }
    Err(refuse(format!(
        "{own} on {host} crashed {count} times within {} h: a start would not mend that",
        window.as_hours()
    )))
}

#[cfg(test)]
#[path = "ceph_osd_down_tests.rs"]
mod tests;
