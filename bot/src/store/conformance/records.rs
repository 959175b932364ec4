//! Alerts, messages, approvals, and what else is kept.

use jiff::SignedDuration;
use serde_json::json;

use super::{Place, at};
use crate::store::{
    AlertKey, AlertRow, Approval, ApprovalState, AuditEntry, DecideError, Detail, Folded, Heard,
    IncidentRow, KnownOfSource, Matters, MessageKey, Repair, RepairOutcome, Store, Trust,
    TrustMode, Urgency,
    db::{Lock, values},
};

fn alert(fingerprint: &str, firing: bool, second: i64) -> AlertRow {
    AlertRow {
        key: AlertKey {
            source: "prometheus".into(),
            fingerprint: fingerprint.into(),
        },
        name: "InstanceDown".into(),
        firing,
        starts_at: at(0),
        updated_at: at(second),
        body: json!({"labels": {"quote": "it's \"quoted\" — ⟦x⟧"}}).to_string(),
    }
}

fn folded<T>(changed: Vec<AlertRow>, answer: T) -> Folded<T> {
    Folded {
        changed,
        parcel: None,
        answer,
    }
}

pub async fn a_fold_sees_what_is_known_and_writes_what_it_decides(place: &dyn Place) {
    let store = place.open().await;
    let rows = [alert("a", true, 1), alert("b", true, 1)];
    let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
    let new = store
        .fold_alerts(&keys, |known| folded(rows.to_vec(), known.len()))
        .await
        .unwrap();
    assert_eq!(new, 0);
    assert_eq!(store.firing_alerts(10).await.unwrap().len(), 2);
    let after = async |last| store.firing_after(last, 1).await.unwrap();
    assert_eq!(after(None).await, rows[..1]);
    assert_eq!(after(Some(&keys[0])).await, rows[1..]);
    assert_eq!(after(Some(&keys[1])).await, []);
    assert_eq!(store.alert(&keys[0]).await.unwrap().unwrap(), rows[0]);

    let known = store
        .fold_alerts(&keys, |known| folded(vec![alert("b", false, 9)], known))
        .await
        .unwrap();
    assert_eq!(known[&keys[1]], rows[1]);
    assert_eq!(store.count_firing().await.unwrap(), 1);
    assert_eq!(store.prune_alerts(at(10)).await.unwrap(), 1);
    assert_eq!(store.alert(&keys[1]).await.unwrap(), None);
}

pub async fn of_a_source_only_what_matters_is_read(place: &dyn Place) {
    let store = place.open().await;
    let rows = [
        alert("a", true, 1),
        alert("b", true, 1),
        alert("c", false, 1),
        alert("d", false, 1),
    ];
    let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
    let source = keys[0].source.clone();
    store
        .fold_alerts(&keys, |_| folded(rows.to_vec(), ()))
        .await
        .unwrap();
    let read = async |matters: Matters| {
        let told = |known: KnownOfSource| Heard {
            changed: vec![],
            values: [("k".to_owned(), Some("v".to_owned()))].into(),
            parcel: None,
            answer: known
                .alerts
                .into_iter()
                .map(|row| row.key.fingerprint)
                .collect(),
        };
        let heard = store.hear(&source, &matters, "space", None, told).await;
        let mut found: Vec<String> = heard.unwrap().unwrap();
        found.sort();
        found
    };
    let named = || vec!["b".to_owned(), "c".to_owned(), "unknown".to_owned()];
    assert_eq!(read(Matters::These(named())).await, ["b", "c"]);
    assert_eq!(
        read(Matters::TheseAndWhatFires(named())).await,
        ["a", "b", "c"]
    );
    assert_eq!(read(Matters::TheseAndWhatFires(vec![])).await, ["a", "b"]);
    assert_eq!(read(Matters::These(vec![])).await, [""; 0]);
    assert_eq!(store.get("space", "k").await.unwrap().as_deref(), Some("v"));
}

async fn say(store: &Store, key: &MessageKey, text: &str, now: i64) -> u64 {
    store.say(key, 1, &json!(text), at(now)).await.unwrap()
}

pub async fn a_message_is_edited_in_place_and_nothing_wanted_is_lost(place: &dyn Place) {
    let store = place.open().await;
    let key = MessageKey {
        room: "matrix:!ops".into(),
        subject: "job:j1".into(),
    };
    assert_eq!(say(&store, &key, "one", 1).await, 1);
    assert_eq!(say(&store, &key, "one", 2).await, 1, "the same words again");
    assert_eq!(say(&store, &key, "two", 3).await, 2);
    let pending = store
        .pending_messages("matrix", Urgency::Severity, at(4), 10)
        .await
        .unwrap();
    assert_eq!(
        (pending.len(), pending[0].wanted, &pending[0].body),
        (1, 2, &json!("two"))
    );

    // The server is away: it waits, and more severe words overtake it.
    store.message_failed(&key, "503", at(60)).await.unwrap();
    assert_eq!(
        store
            .pending_messages("matrix", Urgency::Severity, at(59), 10)
            .await
            .unwrap(),
        []
    );
    let urgent = MessageKey {
        subject: "incident:i1".into(),
        ..key.clone()
    };
    store.say(&urgent, 9, &json!("down"), at(50)).await.unwrap();
    let pending = store
        .pending_messages("matrix", Urgency::Severity, at(61), 10)
        .await
        .unwrap();
    assert_eq!(pending[0].key, urgent);
    assert_eq!(
        (pending[1].tries, pending[1].error.as_deref()),
        (1, Some("503"))
    );

    // Revision 2 was sent while revision 3 was being said.
    assert_eq!(say(&store, &key, "three", 62).await, 3);
    store.message_sent(&key, 2, "$event").await.unwrap();
    let pending = store
        .pending_messages("matrix", Urgency::Severity, at(63), 10)
        .await
        .unwrap();
    assert!(
        pending
            .iter()
            .any(|message| message.key == key && message.sent == 2)
    );
    store.message_sent(&key, 3, "$event").await.unwrap();
    let subject = store.subject_of("matrix:!ops", "$event").await.unwrap();
    assert_eq!(subject.as_deref(), Some("job:j1"));
    assert_eq!(store.prune_messages(at(90)).await.unwrap(), 1);
}

fn request(id: &str) -> Approval {
    Approval {
        id: id.into(),
        digest: "d1".into(),
        requested_by: "alice".into(),
        created_at: at(0),
        expires_at: at(0) + SignedDuration::from_mins(10),
        state: ApprovalState::Pending,
        decided_by: None,
        decided_at: None,
        body: json!({}),
    }
}

pub async fn an_approval_is_decided_once_used_once_for_its_digest_before_it_expires(
    place: &dyn Place,
) {
    let store = place.open().await;
    for id in ["a1", "a2", "a3"] {
        store.request_approval(&request(id)).await.unwrap();
    }
    let early = store.use_approval("a1", "d1", at(1)).await;
    assert!(
        matches!(early, Err(DecideError::NotApproved { .. })),
        "{early:?}"
    );
    store.decide("a1", true, "bob", at(2)).await.unwrap();
    let second = store.decide("a1", false, "carol", at(3)).await;
    assert!(
        matches!(&second, Err(DecideError::Decided { by, .. }) if by == "bob"),
        "{second:?}"
    );
    let other = store.use_approval("a1", "d2", at(4)).await;
    assert!(
        matches!(other, Err(DecideError::OtherDigest { .. })),
        "{other:?}"
    );
    store.use_approval("a1", "d1", at(5)).await.unwrap();
    let twice = store.use_approval("a1", "d1", at(6)).await;
    assert!(
        matches!(twice, Err(DecideError::NotApproved { .. })),
        "{twice:?}"
    );

    store.decide("a2", true, "bob", at(2)).await.unwrap();
    let late = store.use_approval("a2", "d1", at(600)).await;
    assert!(matches!(late, Err(DecideError::Expired { .. })), "{late:?}");
    let late = store.decide("a3", true, "bob", at(600)).await;
    assert!(matches!(late, Err(DecideError::Expired { .. })), "{late:?}");
    assert_eq!(store.open_approvals(at(1)).await.unwrap().len(), 1);
    assert_eq!(store.open_approvals(at(600)).await.unwrap(), []);
}

pub async fn a_chat_event_is_claimed_once(place: &dyn Place) {
    let store = place.open().await;
    assert!(store.claim("matrix", "$1", at(0)).await.unwrap());
    store.close().await;
    let store = place.open().await;
    assert!(!store.claim("matrix", "$1", at(1)).await.unwrap());
    assert!(store.claim("console", "$1", at(1)).await.unwrap());
    assert_eq!(store.prune_claims(at(1)).await.unwrap(), 1);
}

pub async fn values_incidents_repairs_and_trust_come_back(place: &dyn Place) {
    let store = place.open().await;
    store.put("matrix", "sync", "s1").await.unwrap();
    store.put("matrix", "sync", "s2").await.unwrap();
    assert_eq!(
        store.get("matrix", "sync").await.unwrap().as_deref(),
        Some("s2")
    );
    store.delete("matrix", "sync").await.unwrap();
    assert_eq!(store.list("matrix").await.unwrap(), []);

    let mut incident = IncidentRow {
        id: "i1".into(),
        state: "open".into(),
        service: Some("mariadb".into()),
        runbook: None,
        opened_at: at(0),
        closed_at: None,
        body: json!({"alerts": ["a"]}).to_string(),
        rest: Some(json!({"alerts": ["b"]}).to_string()),
    };
    store.put_incident(&incident).await.unwrap();
    let open = store.open_incidents(Detail::Whole).await.unwrap();
    assert_eq!(open, [incident.clone()]);
    let brief = IncidentRow {
        rest: None,
        ..incident.clone()
    };
    let open = store.open_incidents(Detail::Brief).await.unwrap();
    assert_eq!(open, [brief]);
    assert_eq!(store.count_open_incidents().await.unwrap(), 1);
    incident.closed_at = Some(at(9));
    store.put_incident(&incident).await.unwrap();
    assert_eq!(store.open_incidents(Detail::Brief).await.unwrap(), []);
    assert_eq!(store.count_open_incidents().await.unwrap(), 0);
    let ids = store.incident_ids_since(at(0), 10).await.unwrap();
    assert_eq!(ids, [("i1".to_owned(), false)]);
    let since = async |detail| store.incidents_since(at(0), 10, detail).await.unwrap();
    assert_eq!(since(Detail::Whole).await, [incident.clone()]);
    assert_eq!(since(Detail::Brief).await[0].rest, None);
    assert_eq!(store.incident("i1").await.unwrap(), Some(incident));

    let mut repair = Repair {
        job: "j1".into(),
        runbook: "GAL-1".into(),
        targets: vec!["domain:mariadb".into(), "host:ctl1".into()],
        at: at(0),
        by: "automation".into(),
        outcome: None,
        ended_at: None,
    };
    let note = Some(("noted", "v1"));
    store.repair_started(&repair, note).await.unwrap();
    let again = Some(("noted", "v2"));
    store.repair_started(&repair, again).await.unwrap();
    let noted = store.get("noted", "j1").await.unwrap();
    assert_eq!(noted.as_deref(), Some("v1"));
    assert_eq!(store.repairs_since(at(0)).await.unwrap(), [repair.clone()]);
    store
        .repair_ended("j1", RepairOutcome::Unverified, at(5))
        .await
        .unwrap();
    repair.outcome = Some(RepairOutcome::Unverified);
    repair.ended_at = Some(at(5));
    assert_eq!(store.repairs_of("GAL-1", 5).await.unwrap(), [repair]);
    assert_eq!(store.repairs_since(at(1)).await.unwrap(), []);

    let trust = Trust {
        runbook: "GAL-1".into(),
        mode: TrustMode::Ask,
        changed_at: at(0),
        changed_by: "alice".into(),
        body: json!({"why": "drill passed"}),
    };
    store.put_trust(&trust).await.unwrap();
    assert_eq!(store.trust().await.unwrap(), [trust]);
}

pub async fn the_audit_log_cannot_be_changed(place: &dyn Place) {
    let store = place.open().await;
    let entry = AuditEntry {
        at: at(0),
        who: "@alice:example.org".into(),
        action: "halt".into(),
        target: "site:demo".into(),
        body: json!({}),
    };
    store.audit(&entry).await.unwrap();
    for sql in ["DELETE FROM audit", "UPDATE audit SET who = 'nobody'"] {
        let changed = store.db.write("forging", sql, values![]).await;
        let error = changed.err().unwrap().to_string();
        assert!(error.contains("append-only"), "{error}");
    }
    assert_eq!(
        store.audit_log(Some("site:demo"), 5).await.unwrap(),
        [entry]
    );
    assert_eq!(store.audit_log(Some("site:other"), 5).await.unwrap(), []);
}

pub async fn a_nul_in_a_label_stops_nothing(place: &dyn Place) {
    let store = place.open().await;
    let mut hostile = alert("a", true, 1);
    hostile.name = "Instance\0Down".into();
    hostile.body = json!({"labels": {"name": "\0", "beside": "⟦x⟧"}}).to_string();
    let keys = [hostile.key.clone()];
    let rows = vec![hostile.clone(), alert("b", true, 1)];
    store
        .fold_alerts(&keys, |_| folded(rows, ()))
        .await
        .unwrap();
    let kept = store.firing_alerts(10).await.unwrap();
    assert_eq!(kept.len(), 2);
    let kept = store.alert(&keys[0]).await.unwrap().unwrap();
    assert_eq!(kept.body, hostile.body);
    assert!(kept.name.starts_with("Instance"), "{}", kept.name);
}

fn vote(person: &str, second: i64) -> crate::store::Vote {
    crate::store::Vote {
        person: person.into(),
        who: format!("matrix:@{person}:x.org"),
        at: at(second),
    }
}

pub async fn votes_are_counted_once_a_person_until_there_are_enough(place: &dyn Place) {
    use crate::store::Voted;
    let store = place.open().await;
    let mut request = request("a1");
    request.expires_at = at(100);
    store.request_approval(&request).await.unwrap();
    let first = store.vote("a1", &vote("ann", 1), 2, at(1)).await.unwrap();
    assert!(matches!(first, Voted::Waiting { votes } if votes.len() == 1));
    let again = store.vote("a1", &vote("ann", 2), 2, at(2)).await;
    assert!(matches!(again, Err(DecideError::VotedAlready { person, .. }) if person == "ann"));
    assert_eq!(
        store.approval("a1").await.unwrap().unwrap().state,
        ApprovalState::Pending
    );
    let late = store.vote("a1", &vote("bob", 100), 2, at(100)).await;
    assert!(matches!(late, Err(DecideError::Expired { .. })));
    let second = store.vote("a1", &vote("bob", 3), 2, at(3)).await.unwrap();
    let Voted::Approved { approval, votes } = second else {
        panic!("{second:?}")
    };
    assert_eq!((approval.state, votes.len()), (ApprovalState::Approved, 2));
    assert_eq!(
        approval.decided_by.as_deref(),
        Some("matrix:@ann:x.org, matrix:@bob:x.org")
    );
    let third = store.vote("a1", &vote("carl", 4), 2, at(4)).await;
    assert!(matches!(third, Err(DecideError::Decided { .. })));
    let unknown = store.vote("a9", &vote("ann", 1), 1, at(1)).await;
    assert!(matches!(unknown, Err(DecideError::Unknown(_))));
}

pub async fn an_override_counts_for_one_job_until_it_expires_and_waits_for_its_review(
    place: &dyn Place,
) {
    use crate::store::{Override, OverrideError};
    let store = place.open().await;
    let made = Override {
        id: "o1".into(),
        incident: "i1".into(),
        gate: "G7".into(),
        made_by: "unix:ann".into(),
        reason: "seen with my own eyes".into(),
        made_at: at(0),
        expires_at: at(100),
        used_by_job: None,
        used_at: None,
        reviewed_by: None,
        reviewed_at: None,
        review: None,
    };
    store.put_override(&made).await.unwrap();
    assert_eq!(
        store.overrides_of("i1").await.unwrap(),
        std::slice::from_ref(&made)
    );
    assert_eq!(store.overrides_of("i2").await.unwrap(), []);
    assert!(made.counts(None, at(99)) && !made.counts(None, at(100)));
    assert!(store.use_override("o1", "j1", at(1)).await.unwrap());
    assert!(
        store.use_override("o1", "j1", at(2)).await.unwrap(),
        "the same job again"
    );
    assert!(
        !store.use_override("o1", "j2", at(3)).await.unwrap(),
        "once"
    );
    let used = &store.overrides_of("i1").await.unwrap()[0];
    assert!(used.counts(Some("j1"), at(50)));
    assert!(!used.counts(Some("j2"), at(50)) && !used.counts(None, at(50)));
    assert_eq!(store.overrides_to_review().await.unwrap().len(), 1);
    store
        .review_override("o1", "unix:bob", "right", at(5))
        .await
        .unwrap();
    assert_eq!(store.overrides_to_review().await.unwrap(), []);
    let again = store
        .review_override("o1", "unix:bob", "right", at(6))
        .await;
    assert!(matches!(again, Err(OverrideError::NotWaiting(_))));
}

fn audited(number: i64) -> AuditEntry {
    AuditEntry {
        at: at(number),
        who: "unix:ann".into(),
        action: "deploy".into(),
        target: "control".into(),
        body: json!({"line": format!("deploy {number}")}),
    }
}

pub async fn every_entry_of_the_audit_log_follows_the_one_before_it(place: &dyn Place) {
    use crate::audit::Checker;
    let store = place.open().await;
    assert_eq!(store.audit_head().await.unwrap(), None);
    // Written before there was a chain.
    let sql = "INSERT INTO audit (at, who, action, target, body) VALUES (1, 'a', 'b', 'c', '{}')";
    store.db.write("a test", sql, values![]).await.unwrap();
    let many = (2..=20).map(|number| {
        let store = store.clone();
        async move { store.audit(&audited(number)).await.unwrap() }
    });
    futures::future::join_all(many).await;
    let mut checker = Checker::default();
    let kept = store.audit_kept(0, 100).await.unwrap();
    assert_eq!(kept.len(), 20);
    kept.iter().for_each(|entry| checker.next(entry).unwrap());
    let head = store.audit_head().await.unwrap();
    assert_eq!(checker.finish(head.as_ref()).unwrap().number, 20);
    assert_eq!(store.audit_kept(18, 100).await.unwrap().len(), 2);
}

pub async fn an_entry_is_kept_with_what_it_is_about_or_not_at_all(place: &dyn Place) {
    use crate::store::audit::chain;
    let store = place.open().await;
    store.audit(&audited(1)).await.unwrap();
    let head = store.audit_head().await.unwrap();
    let mut tx = store.db.begin("a test", Lock::Rows).await.unwrap();
    chain(&mut tx, &audited(2)).await.unwrap();
    drop(tx);
    assert_eq!(store.audit_head().await.unwrap(), head);
    assert_eq!(store.audit_kept(0, 100).await.unwrap().len(), 1);
    store.audit(&audited(3)).await.unwrap();
    assert_eq!(
        store.audit_kept(1, 100).await.unwrap()[0].number,
        2,
        "no gap is left"
    );
}
