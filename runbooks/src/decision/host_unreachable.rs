//! HOST-6: a host is said to be down. Is it, and is it alone? The answer decides whom to call: for a host, a rack or the monitoring.

use deploy_engine::{model::HostName, probe::host::BOOT};

use super::{
    Act, Facts, Input, Verdict,
    input::names,
    table::{Entry, elsewhere, page, refuse},
};

pub static DECISION: Entry = Entry {
    name: "host.unreachable",
    doc: "the host that the alert names does not answer the bot either: says whether its rack's other hosts do",
    roles: &[],
    parameters: &[],
    evidence: &[],
    settings: &[],
    facts: |_| Facts::new(),
    decide,
};

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let [host] = input.subjects else {
        let found = input.subjects.len();
        return Err(refuse(format!(
            "expected one host that the alerts name; found {found}"
        )));
    };
    input.was_asked(
        BOOT,
        input.members,
        "every host is asked whether it answers",
    )?;
    let answers = |one: &HostName| input.known::<i64>(BOOT, one);
    let why_not = match answers(host) {
        Ok(_) => {
            return Err(elsewhere(format!(
                "{host} answers the bot: what is said of it comes from its exporters, or from the way to them"
            )));
        }
        Err(unknown) => unknown.why().to_owned(),
    };
    let rack = input.topology.racks.get(host);
    let peers = input.members.iter().filter(|one| *one != host);
    let (mut up, mut down, mut elsewhere_down) = (Vec::new(), Vec::new(), Vec::new());
    for peer in peers {
        let same = rack.is_some() && input.topology.racks.get(peer) == rack;
        match (answers(peer).is_ok(), same) {
            (true, true) => up.push(peer),
            (false, true) => down.push(peer),
            (false, false) => elsewhere_down.push(peer),
            (true, false) => {}
        }
    }
    let evidence = vec![why_not];
    let listed = |hosts: &[&HostName]| names(hosts.iter().copied());
    Err(match rack {
        _ if !elsewhere_down.is_empty() => page(
            format!(
                "{host} does not answer, nor do {} of other racks: a network, or the bot's own way",
                listed(&elsewhere_down)
            ),
            evidence,
        ),
        Some(rack) if !down.is_empty() => page(
            format!(
                "{host} does not answer, nor do {} of its rack {rack}: its power or its switch",
                listed(&down)
            ),
            evidence,
        ),
        Some(rack) if !up.is_empty() => page(
            format!(
                "{host} alone does not answer; {} of its rack {rack} do: the host itself",
                listed(&up)
            ),
            evidence,
        ),
        _ => page(format!("{host} alone does not answer"), evidence),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::testing::{self, Case, expect};

    /// `h1` and `h2` share a rack; `h2` is away.
    fn away() -> Case {
        let mut case = Case::new("host.unreachable", "host", 3);
        case.subjects = vec![testing::host("h2")];
        for (name, rack) in [("h1", "r1"), ("h2", "r1"), ("h3", "r2")] {
            case.set(BOOT, name, &1);
            case.topology
                .racks
                .insert(testing::host(name), rack.to_owned());
        }
        case.lose(BOOT, "h2");
        case
    }

    #[rstest::rstest]
    #[case::alone(|_: &mut Case| {}, "page", "h2 alone does not answer; h1 of its rack r1 do")]
    #[case::rack(|c: &mut Case| c.lose(BOOT, "h1"), "page", "nor do h1 of its rack r1")]
    #[case::network(|c: &mut Case| c.lose(BOOT, "h3"), "page", "nor do h3 of other racks")]
    #[case::no_rack(|c: &mut Case| c.topology.racks.clear(), "page", "h2 alone does not answer")]
    #[case::it_answers(|c: &mut Case| c.set(BOOT, "h2", &1), "elsewhere", "answers the bot")]
    #[case::not_asked(|c: &mut Case| drop(c.readings.by_probe.remove(BOOT)), "more", "asked whether it answers")]
    #[case::nobody(|c: &mut Case| c.subjects.clear(), "refuse", "expected one host")]
    fn situations(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
        let mut case = away();
        change(&mut case);
        expect(&case, kind, part);
    }
}
