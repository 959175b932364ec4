use serde_json::json;

use super::*;
use crate::{condition::find, condition::table::testing};

fn unit(active: &str, enabled: &str) -> serde_json::Value {
    json!({"load": "loaded", "active": active, "sub": "x", "result": "success", "restarts": 0, "enabled": enabled,
        "active_since_monotonic_us": 0, "inactive_since_monotonic_us": 0})
}

fn silent<T>() -> Heard<T> {
    Heard::Silent {
        why: "connection refused".to_owned(),
    }
}

fn exporter_call() -> ConditionCall {
    let mut call = testing::call(
        "exporter.may_restart",
        "node_exporter",
        &["h2"],
        &["h1", "h2"],
    );
    let unit = json!("x.service");
    call.settings.insert(UNIT_SETTING.to_owned(), unit);
    call
}

/// The exporter of h2 is silent and its unit is so.
fn exporter(active: &str, enabled: &str) -> Readings {
    let mut readings = Readings::default();
    testing::known(
        &mut readings,
        monitoring::NODE_EXPORTER,
        "h2",
        &silent::<Page>(),
    );
    let unit = unit(active, enabled);
    testing::known(&mut readings, "host.unit/x.service", "h2", &unit);
    readings
}

fn judged(call: &ConditionCall, readings: &Readings) -> Judgement {
    find(&call.name).unwrap().judge(call, readings)
}

#[test]
fn an_exporter_that_is_silent_and_wanted_may_be_restarted() {
    let call = exporter_call();
    let asked = find(&call.name).unwrap().asks(&call);
    let asked: Vec<&str> = asked.iter().map(|ask| ask.probe.as_str()).collect();
    assert_eq!(asked, [monitoring::NODE_EXPORTER, "host.unit/x.service"]);
    for active in ["failed", "inactive", "active"] {
        assert!(
            judged(&call, &exporter(active, "enabled")).holds(),
            "{active}"
        );
    }
}

#[test]
fn and_not_otherwise() {
    let call = exporter_call();
    let not = |readings: &Readings| judged(&call, readings);
    assert!(matches!(
        not(&exporter("failed", "masked")),
        Judgement::Refuted { .. }
    ));
    assert!(matches!(
        not(&exporter("failed", "disabled")),
        Judgement::Refuted { .. }
    ));
    assert!(matches!(
        not(&exporter("activating", "enabled")),
        Judgement::NotYet { .. }
    ));
    let mut answers = exporter("active", "enabled");
    let page = Heard::Answers(Page { samples: 3 });
    testing::known(&mut answers, monitoring::NODE_EXPORTER, "h2", &page);
    assert!(matches!(not(&answers), Judgement::NotYet { .. }));
    for probe in [monitoring::NODE_EXPORTER, "host.unit/x.service"] {
        let mut blind = exporter("failed", "enabled");
        testing::unknown(&mut blind, probe, "h2");
        assert!(matches!(not(&blind), Judgement::Unknown { .. }), "{probe}");
    }
    let mut without = exporter_call();
    without.settings.clear();
    let judgement = judged(&without, &exporter("failed", "enabled"));
    assert!(matches!(judgement, Judgement::Unknown { .. }));
}

/// h1 serves alone, h2 does not answer.
fn alertmanagers() -> Readings {
    let mut readings = Readings::default();
    gossips(&mut readings, "h1", "ready");
    testing::known(
        &mut readings,
        ALERTMANAGER_CLUSTER,
        "h2",
        &silent::<AlertmanagerCluster>(),
    );
    configured(&mut readings, true);
    readings
}

fn gossips(readings: &mut Readings, on: &str, status: &str) {
    let cluster = AlertmanagerCluster {
        status: status.to_owned(),
        peers: vec!["10.0.0.1:9094".to_owned()],
    };
    testing::known(readings, ALERTMANAGER_CLUSTER, on, &Heard::Answers(cluster));
}

fn configured(readings: &mut Readings, valid: bool) {
    let message = "no route".to_owned();
    let check = ConfigCheck { valid, message };
    testing::known(readings, monitoring::ALERTMANAGER_CONFIG, "h2", &check);
}

#[test]
fn an_alertmanager_may_be_restarted_while_another_one_serves() {
    let call = testing::call(
        "alertmanager.may_restart",
        "alertmanager",
        &["h2"],
        &["h1", "h2"],
    );
    assert!(judged(&call, &alertmanagers()).holds());
    let mut invalid = alertmanagers();
    configured(&mut invalid, false);
    assert!(
        judged(&call, &invalid)
            .why()
            .contains("would not start: no route")
    );
    assert!(matches!(judged(&call, &invalid), Judgement::Refuted { .. }));
    let mut starts = alertmanagers();
    gossips(&mut starts, "h1", "settling");
    assert!(matches!(judged(&call, &starts), Judgement::NotYet { .. }));
    let mut both = alertmanagers();
    testing::known(
        &mut both,
        ALERTMANAGER_CLUSTER,
        "h1",
        &silent::<AlertmanagerCluster>(),
    );
    assert!(matches!(judged(&call, &both), Judgement::NotYet { .. }));
    for probe in [ALERTMANAGER_CLUSTER, monitoring::ALERTMANAGER_CONFIG] {
        let mut blind = alertmanagers();
        testing::unknown(
            &mut blind,
            probe,
            if probe == ALERTMANAGER_CLUSTER {
                "h1"
            } else {
                "h2"
            },
        );
        assert!(
            matches!(judged(&call, &blind), Judgement::Unknown { .. }),
            "{probe}"
        );
    }
    let alone = testing::call("alertmanager.may_restart", "alertmanager", &["h2"], &["h2"]);
    assert!(matches!(
        judged(&alone, &alertmanagers()),
        Judgement::Refuted { .. }
    ));
}

#[test]
fn members_see_each_other() {
    let call = testing::call(
        "alertmanager.cluster_healthy",
        "alertmanager",
        &["h1"],
        &["h1", "h2"],
    );
    let judgement = judged(&call, &alertmanagers());
    assert!(
        matches!(judgement, Judgement::NotYet { .. }),
        "{judgement:?}"
    );
    let mut split = alertmanagers();
    gossips(&mut split, "h2", "ready");
    assert!(judged(&call, &split).why().contains("different peers"));
}
