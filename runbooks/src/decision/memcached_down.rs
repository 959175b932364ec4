//! MEM-1: one memcached is down. A cold cache moves its load to Keystone and the database, so never two at a time and
//! never soon after another one was cold.

use deploy_engine::probe::memcached::{STATS, Stats};
use jiff::SignedDuration;

use super::{
    Act, Facts, Input, Verdict,
    input::names,
    table::{Entry, Role, elsewhere, refuse},
};

const UNIT: &str = "memcached.service";
const UNIT_STATE: &str = "host.unit/memcached.service";

pub static DECISION: Entry = Entry {
    name: "memcached.down",
    doc: "exactly one member is down for good, all others answer, and none of them was started a short while ago",
    roles: &[Role::always("down")],
    parameters: &[],
    evidence: &[UNIT_STATE, STATS],
    settings: &["confirm", "quiet"],
    facts,
    decide,
};

fn facts(input: &Input<'_>) -> Facts {
    input
        .inactive(UNIT)
        .map(|down| ("the set of caches that are down", names(&down)))
        .into_iter()
        .collect()
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let down = input.inactive(UNIT)?;
    let host = match &down[..] {
        [] => return Err(elsewhere("the unit is active on every member")),
        [one] => one,
        several => {
            return Err(refuse(format!(
                "{} of {} are down: a common cause, and starting them all at once empties the cache",
                names(several),
                input.members.len()
            )));
        }
    };
    input.is_startable(host, UNIT)?;
    let quiet = input.seconds("quiet")?;
    for other in input.members.iter().filter(|other| *other != host) {
        let stats: Stats = input.known(STATS, other)?;
        let up = SignedDuration::from_secs(i64::try_from(stats.uptime_seconds).unwrap_or(i64::MAX));
        if up < quiet {
            let until = input.now.saturating_add(quiet - up).unwrap_or(input.soon());
            let why = format!(
                "the cache on {other} is cold: started {} s ago, expected {} s",
                up.as_secs(),
                quiet.as_secs()
            );
            return Err(Verdict::Hold { until, why });
        }
    }
    input.steadily("the set of caches that are down", "confirm")?;
    let why = format!(
        "{host} is down and its unit will not come back by itself; the others answer and are warm"
    );
    Ok(Act::on([("down", down)], why))
}

#[cfg(test)]
#[path = "memcached_down_tests.rs"]
mod tests;
