use serde_json::json;

use super::*;

fn answer(attributes: Value) -> Answer {
    Answer {
        asked: "POST https://icinga/v1/objects/services".to_owned(),
        body: json!({"results": [{"attrs": attributes, "joins": {}, "meta": {}, "name": "x", "type": "Service"}]})
            .to_string()
            .into_bytes(),
    }
}

fn service(change: impl FnOnce(&mut Value)) -> Value {
    let mut service = json!({
        "name": "memcached", "host_name": "ctl1", "check_command": "tcp", "display_name": "Memcached",
        "flapping": false, "last_check_result": {"output": "connect: refused\u{1b}[31m"}, "last_hard_state_change": 1_795_377_600.5,
        "last_reachable": true, "state": 2.0, "state_type": 1.0, "acknowledgement": 0.0,
        "acknowledgement_expiry": 0.0, "downtime_depth": 0.0, "vars": {"mysql_password": "hush"},
    });
    change(&mut service);
    service
}

fn state(attributes: Value, held: Vec<Held>) -> State {
    let part = Part {
        asked_at: Timestamp::from_second(1_795_377_700).unwrap(),
        named: None,
        checkables: checkables(&answer(attributes)).unwrap(),
        held,
    };
    part.state(&SourceName("icinga2".into()))
}

fn alert(change: impl FnOnce(&mut Value)) -> Alert {
    state(service(change), Vec::new()).firing.remove(0)
}

#[test]
fn an_object_becomes_an_alert() {
    let alert = alert(|_| ());
    assert_eq!(alert.name, "memcached");
    let expected = json!({
        "alertname": "memcached", "check": "memcached", "check_command": "tcp", "host": "ctl1",
        "icinga_service": "memcached", "severity": "critical", "state": "CRITICAL",
    });
    assert_eq!(json!(alert.labels), expected);
    assert_eq!(alert.starts_at, "2026-11-22T20:00:00.5Z".parse().unwrap());
    assert_eq!(
        alert.annotations["description"],
        "connect: refused\\u{1b}[31m"
    );
    assert!(
        !json!(alert).to_string().contains("hush"),
        "a variable is not a label"
    );
}

#[test]
fn one_object_is_one_alert_whatever_its_state_and_name() {
    let critical = alert(|_| ());
    let others = [
        alert(|one| one["state"] = json!(1)),
        alert(|one| one["state"] = json!(3)),
        alert(|one| one["vars"] = json!({"alertname": "MemcachedDown"})),
        alert(|one| one["last_reachable"] = json!(false)),
    ];
    let names: Vec<_> = others.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["memcached", UNKNOWN, "MemcachedDown", "memcached"]);
    for other in &others {
        assert_eq!(other.fingerprint, critical.fingerprint);
    }
    assert_eq!(others[1].labels["check"], "memcached");
    assert_eq!(others[3].labels["reachable"], "false");
    let another = alert(|one| one["host_name"] = json!("ctl2"));
    assert_ne!(another.fingerprint, critical.fingerprint);
}

#[rstest::rstest]
#[case(json!(0), json!(1), "fine")]
#[case(json!(2), json!(1), "fires")]
#[case(json!(2.0), json!(0.0), "undecided")]
#[case(json!(3), json!(0), "undecided")]
fn hard_problems_fire(#[case] is: Value, #[case] kind: Value, #[case] expected: &str) {
    let state = state(
        service(|one| {
            one["state"] = is;
            one["state_type"] = kind;
        }),
        Vec::new(),
    );
    let undecided = matches!(&state.covers, Covers::EverythingBut(those) if !those.is_empty());
    let seen = match (state.firing.len(), state.ended.len(), undecided) {
        (1, 0, false) => "fires",
        (0, 1, false) => "fine",
        (0, 0, true) => "undecided",
        _ => "confused",
    };
    assert_eq!(seen, expected);
}

#[test]
fn who_holds_it_is_said_as_far_as_it_is_known() {
    let what = Named::of_full("ctl1!memcached");
    let care = |by: &str| Care {
        id: "c1".to_owned(),
        by: by.to_owned(),
        comment: String::new(),
        since: None,
        until: None,
    };
    let held = |by, who: &str| Held {
        what: what.clone(),
        by,
        care: care(who),
    };
    let of = |acknowledged: u32, depth: u32, held: Vec<Held>| {
        let object = service(|one| {
            one["acknowledgement"] = json!(acknowledged);
            one["downtime_depth"] = json!(depth);
        });
        state(object, held).handled.remove(&what.fingerprint())
    };
    assert_eq!(of(0, 0, vec![]), None);
    let stale = held(HeldBy::Acknowledgement, "ann");
    assert_eq!(
        of(0, 0, vec![stale.clone()]),
        None,
        "the object says that it is not"
    );
    let by = |handling: Option<Handling>| handling.unwrap().acknowledged.unwrap().by;
    assert_eq!(by(of(2, 0, vec![stale])), "ann");
    assert_eq!(by(of(1, 0, vec![])), "", "somebody");
    let downtimes = |handling: Option<Handling>| handling.unwrap().downtimes.len();
    assert_eq!(downtimes(of(0, 1, vec![held(HeldBy::Downtime, "ann")])), 1);
    assert_eq!(
        downtimes(of(0, 1, vec![])),
        1,
        "one that could not be found"
    );
}

#[rstest::rstest]
#[case(json!({}), true)]
#[case(json!({"start_time": 200.0}), false)]
#[case(json!({"end_time": 100.0}), false)]
#[case(json!({"fixed": false}), false)]
#[case(json!({"fixed": false, "trigger_time": 90, "duration": 20}), true)]
#[case(json!({"fixed": false, "trigger_time": 90, "duration": 10}), false)]
fn downtimes_in_effect(#[case] change: Value, #[case] expected: bool) {
    let mut downtime = json!({
        "name": "d", "host_name": "ctl1", "service_name": "", "author": "ann", "comment": "disks", "entry_time": 1,
        "start_time": 50.0, "end_time": 150.0, "fixed": true, "duration": 0, "trigger_time": 0,
    });
    for (name, value) in change.as_object().unwrap() {
        downtime[name] = value.clone();
    }
    let held = downtimes(&answer(downtime), Timestamp::from_second(100).unwrap()).unwrap();
    assert_eq!(held.len() == 1, expected);
}

#[test]
fn another_schema_is_an_error_and_not_nothing() {
    let without_state = answer(service(|one| {
        drop(one.as_object_mut().unwrap().remove("state"))
    }));
    let error = checkables(&without_state).unwrap_err().to_string();
    assert!(error.contains("missing field `state`"), "{error}");
    let empty = Answer {
        asked: String::new(),
        body: b"{}".to_vec(),
    };
    assert!(checkables(&empty).is_err() && vitals(&empty, &empty).is_err());
}

/// The gates multiply it by their patience.
#[test]
fn an_interval_of_ages_is_a_day() {
    let check = |interval: f64| {
        let check = json!({
            "name": "memcached", "host_name": "ctl1", "check_command": "tcp", "check_interval": interval, "last_check": 1,
            "state": 2, "state_type": 1,
        });
        checks(&answer(check)).unwrap()[0].interval
    };
    assert_eq!(check(30.0), SignedDuration::from_secs(30));
    assert_eq!(check(1e300), SignedDuration::from_hours(24));
    assert_eq!(check(-1e300), SignedDuration::ZERO);
}
