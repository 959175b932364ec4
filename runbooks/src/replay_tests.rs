use std::sync::Arc;

use super::*;
use crate::{
    healer::testing::{Stage, settings as quick, three_caches},
    trust::Mode,
};

/// One incident that was really decided, and what the healer recorded of it.
async fn past(mode: Mode) -> Past {
    let stage = Stage::new(mode);
    stage.watchdog().await;
    stage.break_cache("h3").await;
    let name = match mode {
        Mode::Auto => "healed",
        Mode::Ask => "asking",
        Mode::Shadow => "shadow",
    };
    let incident = stage.until(name).await;
    // The record is written before the state; the newest is the one that led to it.
    let record = stage.world.now(|now| now.decisions.last().cloned());
    Past { incident, record }
}

struct Site {
    library: Library,
    topology: Arc<Topology>,
    settings: HealSettings,
    ledger: Vec<Spent>,
}

impl Site {
    fn new(mode: Mode) -> Self {
        Self {
            library: Library::embedded().unwrap(),
            topology: three_caches(),
            settings: quick(mode),
            ledger: Vec::new(),
        }
    }

    fn replay(&self, past: &Past) -> Replayed {
        replay(
            past,
            &Today {
                library: &self.library,
                topology: &self.topology,
                settings: &self.settings,
                grants: &BTreeMap::new(),
                drilled: &BTreeMap::new(),
                ledger: &self.ledger,
            },
        )
    }
}

#[tokio::test]
async fn the_same_rules_over_the_same_evidence_say_the_same() {
    for mode in [Mode::Auto, Mode::Ask, Mode::Shadow] {
        let past = past(mode).await;
        let replayed = Site::new(mode).replay(&past);
        assert_eq!(replayed.difference, Difference::Same, "{replayed:#?}");
        assert_eq!(replayed.gates.len(), 13);
        assert!(replayed.newly_matched.is_empty() && replayed.no_longer_matched.is_empty());
    }
}

#[tokio::test]
async fn what_another_mode_gate_or_setting_would_change() {
    let auto = past(Mode::Auto).await;
    let asked = past(Mode::Ask).await;
    assert_eq!(
        Site::new(Mode::Ask).replay(&auto).difference,
        Difference::AsksFirst
    );
    assert_eq!(
        Site::new(Mode::Auto).replay(&asked).difference,
        Difference::ActsAlone
    );

    // A gate that is tighter today.
    let mut site = Site::new(Mode::Auto);
    site.settings.gates.clock_off_seconds = -1.0;
    let stops = site.replay(&auto);
    assert_eq!(stops.difference, Difference::Stops);
    assert!(stops.now.unwrap().why().starts_with("G1: the bot's clock"));

    // A decision that wants longer to be sure.
    let mut site = Site::new(Mode::Auto);
    let own = site.settings.settings.values_mut().next().unwrap();
    own.insert("confirm".into(), "2h".into());
    assert_eq!(site.replay(&auto).difference, Difference::Holds);

    // And the other way round: what was only shown then is asked today.
    let mut held = auto;
    let record = held.record.as_mut().unwrap();
    record.decision = Decision::Hold {
        until: Timestamp::MAX,
        why: "then".into(),
    };
    assert_eq!(
        Site::new(Mode::Ask).replay(&held).difference,
        Difference::Fires
    );
}

#[tokio::test]
async fn what_history_cannot_tell_is_said() {
    let site = Site::new(Mode::Auto);
    let whole = past(Mode::Auto).await;
    let without = |change: &dyn Fn(&mut DecisionRecord)| {
        let mut record = whole.record.clone();
        change(record.as_mut().unwrap());
        site.replay(&Past {
            incident: whole.incident.clone(),
            record,
        })
    };
    for (replayed, part) in [
        (
            without(&|one| one.world = None),
            "what they look at was not recorded",
        ),
        (
            without(&|one| drop(one.readings.by_probe.remove("memcached.stats"))),
            "MEM-1 reads memcached.stats, which was not asked then",
        ),
        (
            site.replay(&Past {
                incident: whole.incident.clone(),
                record: None,
            }),
            "no decision is on record",
        ),
    ] {
        assert_eq!(replayed.difference, Difference::CannotTell);
        assert!(
            replayed.now.clone().unwrap_err().contains(part),
            "{replayed:#?}"
        );
    }
}

#[tokio::test]
async fn alerts_that_no_rule_is_about_any_more() {
    let mut past = past(Mode::Auto).await;
    for alert in past.incident.alerts.values_mut() {
        alert.name = "SomethingElse".into();
    }
    let replayed = Site::new(Mode::Auto).replay(&past);
    assert_eq!(replayed.difference, Difference::Stops);
    assert_eq!(replayed.no_longer_matched, [RunbookId("MEM-1".into())]);
}
