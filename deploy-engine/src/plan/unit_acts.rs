//! What a unit's observation says will be done to it. The agent words each act as `VERB UNIT…`, one line an act.

use crate::{logic::UnitActs, wire::State};

/// Adds the acts of one unit.
pub fn collect(unit: &str, state: &State, acts: &mut UnitActs) {
    let State::WillChange { diff } = state else {
        return;
    };
    for line in diff {
        let list = match line.split_whitespace().next() {
            Some("enable" | "disable") => continue,
            Some("start") => &mut acts.start,
            Some("reload") => &mut acts.reload,
            Some("stop") => &mut acts.stop,
            // An unknown word counts as the act that is guarded most.
            _ => &mut acts.restart,
        };
        list.push(unit.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case(&["enable a.service", "start a.service (it is inactive)"], false)]
    #[case(&["enable a.service"], false)]
    #[case(&["restart a.service: /etc/a changed"], true)]
    #[case(&["reload a.service: /etc/a changed"], true)]
    #[case(&["stop a.service"], true)]
    #[case(&["something new"], true)]
    fn only_running_units_are_interrupted(#[case] diff: &[&str], #[case] interrupts: bool) {
        let diff = diff.iter().map(|line| (*line).to_owned()).collect();
        let mut acts = UnitActs::default();
        collect("a.service", &State::WillChange { diff }, &mut acts);
        assert_eq!(acts.interrupts(), interrupts);
    }
}
