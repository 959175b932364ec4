//! Break-glass: what an override does to a gate. Pure.
//!
//! One gate, for one incident, until a time. Who may override, that it is used for one job only, and its review are the bot's
//! affair. What no runbook may do stays out of reach: there is no gate that forbids it, there is no way to it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Gate, GateId};

/// Gates that a person may override: those about the situation, which somebody who stands before the machine may know better. The
/// lock (G5) and the form of the repair itself (G9 to G13) are not a matter of opinion. A halt is held by the step gate as well,
/// which no override reaches.
pub const OVERRIDABLE: [(&str, GateId); 7] = [
    ("G1", GateId::G1),
    ("G2", GateId::G2),
    ("G3", GateId::G3),
    ("G4", GateId::G4),
    ("G6", GateId::G6),
    ("G7", GateId::G7),
    ("G8", GateId::G8),
];

/// One gate that an admin overrode, once, for the incident that is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overridden {
    pub gate: GateId,
    pub by: String,
    pub why: String,
    pub until: Timestamp,
}

/// The gate's answer, or a pass that says what it would have been.
pub(super) fn apply(
    overridden: Option<&Overridden>,
    id: GateId,
    gate: Gate,
    now: Timestamp,
) -> Gate {
    let may = OVERRIDABLE.iter().any(|(_, one)| *one == id);
    match overridden {
        Some(one) if one.gate == id && may && now < one.until && !gate.passes() => {
            Gate::pass(format!(
                "overridden once by {} ({}); it says: {}",
                one.by,
                one.why,
                gate.why()
            ))
        }
        _ => gate,
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::gate::testing::now;

    const ALL: [GateId; 13] = [
        GateId::G1,
        GateId::G2,
        GateId::G3,
        GateId::G4,
        GateId::G5,
        GateId::G6,
        GateId::G7,
        GateId::G8,
        GateId::G9,
        GateId::G10,
        GateId::G11,
        GateId::G12,
        GateId::G13,
    ];

    fn by_ann(gate: GateId) -> Overridden {
        Overridden {
            gate,
            by: "ann".into(),
            why: "seen with my own eyes".into(),
            until: now() + SignedDuration::from_mins(5),
        }
    }

    #[test]
    fn an_override_lets_its_gate_pass_and_no_other() {
        let mut passed = Vec::new();
        for gate in ALL {
            for id in ALL {
                let answer = apply(Some(&by_ann(gate)), id, Gate::refuse("no"), now());
                if answer.passes() {
                    let expected = "overridden once by ann (seen with my own eyes); it says: no";
                    assert_eq!(answer.why(), expected);
                    passed.push((gate, id));
                }
            }
        }
        let expected: Vec<_> = OVERRIDABLE.iter().map(|(_, id)| (*id, *id)).collect();
        assert_eq!(
            passed, expected,
            "neither the lock nor the form of a repair"
        );
    }

    #[test]
    fn holds_pass_as_well_and_what_passes_is_left_as_it_is() {
        let hold = Gate::hold_briefly(now(), "later");
        assert!(apply(Some(&by_ann(GateId::G7)), GateId::G7, hold.clone(), now()).passes());
        assert_eq!(apply(None, GateId::G7, hold.clone(), now()), hold);
        let fine = Gate::pass("fine");
        assert_eq!(
            apply(Some(&by_ann(GateId::G7)), GateId::G7, fine.clone(), now()),
            fine
        );
    }

    #[test]
    fn an_override_that_is_over_lets_nothing_pass() {
        let late = now() + SignedDuration::from_mins(5);
        let answer = apply(
            Some(&by_ann(GateId::G7)),
            GateId::G7,
            Gate::refuse("no"),
            late,
        );
        assert_eq!(answer, Gate::refuse("no"));
    }

    #[test]
    fn all_gates_together_pass_with_the_one_that_was_overridden() {
        use crate::{
            gate::{evaluate, testing::Site, together},
            storm::Storm,
        };
        let site = Site::new();
        let mut input = site.input();
        input.storm = Storm::Raging { since: now() };
        assert!(!together(&evaluate(&input)).passes());
        input.overridden = Some(by_ann(GateId::G7));
        assert!(!together(&evaluate(&input)).passes(), "another gate");
        input.overridden = Some(by_ann(GateId::G8));
        let answers = evaluate(&input);
        assert!(together(&answers).passes(), "{answers:?}");
    }

    #[test]
    fn gates_are_named_as_they_print() {
        for (name, gate) in OVERRIDABLE {
            assert_eq!(gate.to_string(), name);
        }
    }
}
