use collectors::{Alert, SourceName};
use jiff::Timestamp;
use serde_json::json;

use super::*;

fn incident(alerts: &[(&str, &str, Status)]) -> Incident {
    let mut incident: Incident = serde_json::from_value(json!({
        "id": "i1", "domain": {"domain": "service", "name": "memcached"}, "opened_at": Timestamp::UNIX_EPOCH, "closed_at": null,
        "state": {"state": "open"}, "since": Timestamp::UNIX_EPOCH, "alerts": {}, "subjects": [], "runbooks": [],
        "steady": {}, "unproven": [], "under": null, "tell_only": null,
    }))
    .unwrap();
    for (source, fingerprint, status) in alerts {
        incident.hear(&Alert {
            source: SourceName((*source).into()),
            fingerprint: (*fingerprint).into(),
            name: "X".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            status: *status,
            starts_at: Timestamp::UNIX_EPOCH,
            ends_at: None,
            generator_url: String::new(),
            received_at: Timestamp::UNIX_EPOCH,
        });
    }
    incident
}

fn two() -> Incident {
    incident(&[
        ("icinga2", "1", Status::Firing),
        ("alertmanager", "2", Status::Firing),
    ])
}

fn care(by: &str, comment: &str) -> Care {
    Care {
        id: "id".into(),
        by: by.into(),
        comment: comment.into(),
        since: None,
        until: None,
    }
}

fn lines(
    incident: &Incident,
    records: &[(&str, Record)],
    handled: &[(&str, Handling)],
    troubles: &[(String, String)],
) -> Vec<String> {
    let records: BTreeMap<String, Record> = records
        .iter()
        .map(|(key, record)| ((*key).to_owned(), record.clone()))
        .collect();
    let handled = handled
        .iter()
        .map(|(key, handling)| ((*key).to_owned(), handling.clone()))
        .collect();
    let told = Told {
        holder: Some("ann"),
        records: Some(&records),
        handled: &handled,
        troubles,
    };
    told.lines(incident)
}

#[test]
fn what_is_said_there_is_shown_here() {
    let by_bob = Handling {
        acknowledged: Some(care("bob", "I am at it")),
        downtimes: vec![care("", "")],
        silences: Vec::new(),
    };
    let silenced = Handling {
        silences: vec![Care {
            until: Some(Timestamp::UNIX_EPOCH),
            ..care("cat", "known")
        }],
        ..Handling::default()
    };
    let handled = [("icinga2/1", by_bob), ("alertmanager/2", silenced)];
    let expected = [
        "acknowledged in icinga2 by bob: I am at it",
        "in downtime in icinga2 by somebody",
        "silenced in alertmanager by cat until 1970-01-01T00:00:00Z: known",
    ];
    assert_eq!(lines(&two(), &[], &handled, &[]), expected);
    let over = incident(&[("icinga2", "1", Status::Resolved)]);
    assert_eq!(lines(&over, &[], &handled, &[]), Vec::<String>::new());
}

#[test]
fn what_the_bot_wrote_is_said_once_and_conflicts_are_named() {
    let written = Record::Written { by: "ann".into() };
    let ours = Handling {
        acknowledged: Some(care("ann", &comment("i1"))),
        ..Handling::default()
    };
    let said = lines(
        &two(),
        &[("icinga2/1", written)],
        &[("icinga2/1", ours)],
        &[],
    );
    assert_eq!(said, ["acknowledged in icinga2 for ann"]);
    let theirs = Record::Theirs {
        by: "bob".into(),
        comment: "mine".into(),
    };
    let said = lines(&two(), &[("icinga2/1", theirs)], &[], &[]);
    assert_eq!(said, ["two have it: ann here, bob in icinga2: mine"]);
    let removed = Record::Removed { by: "ann".into() };
    let said = lines(&two(), &[("alertmanager/2", removed)], &[], &[]);
    assert_eq!(said.len(), 1);
    assert!(
        said[0].starts_with("the acknowledgement of ann was removed in alertmanager"),
        "{said:?}"
    );
}

#[test]
fn what_others_say_beside_it_is_shown_too() {
    let handling = Handling {
        silences: vec![
            care("ann", &comment("i1")),
            care("carl", "known"),
            care("bob", "mine"),
        ],
        ..Handling::default()
    };
    let handled = [("alertmanager/2", handling)];
    let [carl, bob] =
        ["carl: known", "bob: mine"].map(|one| format!("silenced in alertmanager by {one}"));
    let written = Record::Written { by: "ann".into() };
    let said = lines(&two(), &[("alertmanager/2", written)], &handled, &[]);
    assert_eq!(said, ["acknowledged in alertmanager for ann", &bob, &carl]);
    let theirs = Record::Theirs {
        by: "bob".into(),
        comment: "mine".into(),
    };
    let said = lines(&two(), &[("alertmanager/2", theirs)], &handled, &[]);
    assert_eq!(
        said,
        [&*carl, "two have it: ann here, bob in alertmanager: mine"]
    );
    // Given back here, and not yet taken back there.
    let said = lines(&two(), &[], &handled, &[]);
    assert_eq!(said, [bob, carl]);
}

#[test]
fn what_could_not_be_written_is_said_and_all_of_it_is_bounded() {
    let trouble = |n: usize| (format!("icinga{n}"), "it does not answer".to_owned());
    let said = lines(&two(), &[], &[], &[trouble(2)]);
    assert_eq!(said, ["not yet said in icinga2: it does not answer"]);
    let many: Vec<_> = (0..20).map(trouble).collect();
    let said = lines(&two(), &[], &[], &many);
    assert_eq!(
        (said.len(), said[8].as_str()),
        (9, "and 12 more such words")
    );
}
