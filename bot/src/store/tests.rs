//! The store on a real file.

use deploy_engine::job::{
    JobEvent, JobId, JobKind, JobResult, Journal, JournalError, Lease, LeaseError,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

async fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    (dir, store)
}

fn job(id: &str) -> JobId {
    JobId(id.to_owned())
}

fn created(scope: &str) -> JobEvent {
    JobEvent::Created {
        kind: JobKind::Deploy {
            plan_digest: "d1".into(),
        },
        title: "deploy site".into(),
        requested_by: "alice".into(),
        scope: scope.into(),
        steps: vec![],
    }
}

fn leased(token: u64) -> JobEvent {
    JobEvent::Leased {
        holder: "bot1".into(),
        token,
    }
}

fn finished() -> JobEvent {
    JobEvent::Finished {
        result: JobResult::Succeeded,
    }
}

#[tokio::test]
async fn events_come_back_in_order_after_the_store_was_opened_again() {
    let (dir, store) = open().await;
    let id = job("j1");
    store
        .create(&id, at(0), &created("site:demo"))
        .await
        .unwrap();
    store.append(&id, 1, at(1), &leased(7)).await.unwrap();
    assert_eq!(store.unfinished().await.unwrap(), [id.clone()]);
    store.close().await;

    let store = Store::open(dir.path()).await.unwrap();
    store.append(&id, 2, at(2), &finished()).await.unwrap();
    let expected = vec![
        (at(0), created("site:demo")),
        (at(1), leased(7)),
        (at(2), finished()),
    ];
    assert_eq!(store.load(&id).await.unwrap(), expected);
    assert_eq!(store.unfinished().await.unwrap(), []);
    let summary = store.job(&id).await.unwrap().unwrap();
    assert_eq!(summary.result, Some(JobResult::Succeeded));
    assert_eq!(summary.finished_at, Some(at(2)));
}

#[tokio::test]
async fn an_append_at_another_length_is_a_conflict() {
    let (_dir, store) = open().await;
    let id = job("j1");
    store
        .create(&id, at(0), &created("site:demo"))
        .await
        .unwrap();
    let again = store.create(&id, at(0), &created("site:demo")).await;
    assert!(matches!(again, Err(JournalError::Exists(_))), "{again:?}");
    store.append(&id, 1, at(1), &leased(7)).await.unwrap();
    let late = store.append(&id, 1, at(2), &finished()).await;
    let conflict = matches!(
        late,
        Err(JournalError::Conflict {
            expected: 1,
            found: 2,
            ..
        })
    );
    assert!(conflict, "{late:?}");
    let unknown = store.append(&job("j9"), 0, at(0), &finished()).await;
    assert!(
        matches!(unknown, Err(JournalError::Unknown(_))),
        "{unknown:?}"
    );
    let unknown = store.load(&job("j9")).await;
    assert!(
        matches!(unknown, Err(JournalError::Unknown(_))),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn of_many_writers_at_one_length_exactly_one_wins() {
    let (_dir, store) = open().await;
    let id = job("j1");
    store
        .create(&id, at(0), &created("site:demo"))
        .await
        .unwrap();
    let writers = (0..20).map(|token| {
        let (store, id) = (store.clone(), id.clone());
        tokio::spawn(async move { store.append(&id, 1, at(1), &leased(token)).await.is_ok() })
    });
    let won = futures::future::join_all(writers.collect::<Vec<_>>()).await;
    assert_eq!(
        won.into_iter().filter(|won| *won.as_ref().unwrap()).count(),
        1
    );
}

async fn acquire(store: &Store, scope: &str, id: &str, now: i64) -> Result<Lease, LeaseError> {
    store.acquire(scope, "bot1", &job(id), at(now)).await
}

#[tokio::test]
async fn a_lease_ends_with_its_job_and_tokens_grow_for_ever() {
    let (dir, store) = open().await;
    for id in ["j1", "j2", "j3"] {
        store
            .create(&job(id), at(0), &created("site:demo"))
            .await
            .unwrap();
    }
    let first = acquire(&store, "site:demo", "j1", 1).await.unwrap();
    // A day later nobody has renewed it: it is still not handed over, but the error says so.
    let other = acquire(&store, "site:demo", "j2", 86_400).await;
    assert!(
        matches!(other, Err(LeaseError::Held { expired: true, .. })),
        "{other:?}"
    );
    // A repair waits for the deploy, too.
    let repair = acquire(&store, "domain:mariadb", "j3", 2).await;
    assert!(
        matches!(repair, Err(LeaseError::Held { expired: false, .. })),
        "{repair:?}"
    );

    // The same job takes it again: the old holder has lost it.
    let second = acquire(&store, "site:demo", "j1", 3).await.unwrap();
    assert!(second.token > first.token);
    let lost = store.renew(&first, at(4)).await;
    assert!(matches!(lost, Err(LeaseError::Lost { .. })), "{lost:?}");
    store.renew(&second, at(4)).await.unwrap();
    assert_eq!(store.leases().await.unwrap()[0].renewed_at, at(4));

    // Its end frees it, even if nobody came to release it.
    store
        .append(&job("j1"), 1, at(5), &finished())
        .await
        .unwrap();
    assert_eq!(store.leases().await.unwrap(), []);
    let third = acquire(&store, "site:demo", "j2", 6).await.unwrap();
    assert!(third.token > second.token);
    store.release(&third).await.unwrap();
    store.close().await;

    let store = Store::open(dir.path()).await.unwrap();
    let fourth = acquire(&store, "site:demo", "j2", -1_000).await.unwrap();
    assert_eq!(
        fourth.token,
        third.token + 1,
        "even when the clock was set back"
    );
}

#[tokio::test]
async fn repairs_of_two_domains_do_not_exclude_each_other_but_a_deploy_does() {
    let (_dir, store) = open().await;
    for id in ["j1", "j2", "j3"] {
        store.create(&job(id), at(0), &created("x")).await.unwrap();
    }
    acquire(&store, "domain:mariadb", "j1", 1).await.unwrap();
    acquire(&store, "domain:rabbitmq", "j2", 1).await.unwrap();
    let deploy = acquire(&store, "site:demo", "j3", 1).await;
    assert!(matches!(deploy, Err(LeaseError::Held { .. })), "{deploy:?}");
}

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
        body: json!({"labels": {"quote": "it's \"quoted\" — ⟦x⟧"}}),
    }
}

#[tokio::test]
async fn a_fold_sees_what_is_known_and_writes_what_it_decides() {
    let (_dir, store) = open().await;
    let rows = [alert("a", true, 1), alert("b", true, 1)];
    let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
    let new = store
        .fold_alerts(&keys, |known| (rows.to_vec(), known.len()))
        .await
        .unwrap();
    assert_eq!(new, 0);
    assert_eq!(store.firing_alerts(10).await.unwrap().len(), 2);
    assert_eq!(store.alert(&keys[0]).await.unwrap().unwrap(), rows[0]);

    let known = store
        .fold_alerts(&keys, |known| (vec![alert("b", false, 9)], known))
        .await
        .unwrap();
    assert_eq!(known[&keys[1]], rows[1]);
    assert_eq!(store.count_firing().await.unwrap(), 1);
    assert_eq!(store.prune_alerts(at(10)).await.unwrap(), 1);
    assert_eq!(store.alert(&keys[1]).await.unwrap(), None);
}

#[tokio::test]
async fn a_message_is_edited_in_place_and_nothing_wanted_is_lost() {
    let (_dir, store) = open().await;
    let key = MessageKey {
        room: "!ops".into(),
        subject: "job:j1".into(),
    };
    let say = |text: &'static str, now| store.say(&key, 1, &json!(text), at(now)).now_or_wait();
    assert_eq!(say("one", 1).await, 1);
    assert_eq!(say("one", 2).await, 1, "the same words again");
    assert_eq!(say("two", 3).await, 2);
    let pending = store.pending_messages(at(4), 10).await.unwrap();
    assert_eq!(
        (pending.len(), pending[0].wanted, &pending[0].body),
        (1, 2, &json!("two"))
    );

    // The server is away: it waits, and more severe words overtake it.
    store.message_failed(&key, "503", at(60)).await.unwrap();
    assert_eq!(store.pending_messages(at(59), 10).await.unwrap(), []);
    let urgent = MessageKey {
        subject: "incident:i1".into(),
        ..key.clone()
    };
    store.say(&urgent, 9, &json!("down"), at(50)).await.unwrap();
    let pending = store.pending_messages(at(61), 10).await.unwrap();
    assert_eq!(pending[0].key, urgent);
    assert_eq!(
        (pending[1].tries, pending[1].error.as_deref()),
        (1, Some("503"))
    );

    // Revision 2 was sent while revision 3 was being said.
    assert_eq!(say("three", 62).await, 3);
    store.message_sent(&key, 2, "$event").await.unwrap();
    let pending = store.pending_messages(at(63), 10).await.unwrap();
    assert!(
        pending
            .iter()
            .any(|message| message.key == key && message.sent == 2)
    );
    store.message_sent(&key, 3, "$event").await.unwrap();
    let subject = store.subject_of("!ops", "$event").await.unwrap();
    assert_eq!(subject.as_deref(), Some("job:j1"));
    assert_eq!(store.prune_messages(at(90)).await.unwrap(), 1);
}

/// Unwraps the revision, so that the tests above read as a transcript.
trait NowOrWait {
    fn now_or_wait(self) -> impl Future<Output = u64>;
}

impl<F: Future<Output = Result<u64, StoreError>>> NowOrWait for F {
    async fn now_or_wait(self) -> u64 {
        self.await.unwrap()
    }
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

#[tokio::test]
async fn an_approval_is_decided_once_used_once_for_its_digest_before_it_expires() {
    let (_dir, store) = open().await;
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

#[tokio::test]
async fn a_chat_event_is_claimed_once() {
    let (dir, store) = open().await;
    assert!(store.claim("matrix", "$1", at(0)).await.unwrap());
    store.close().await;
    let store = Store::open(dir.path()).await.unwrap();
    assert!(!store.claim("matrix", "$1", at(1)).await.unwrap());
    assert!(store.claim("console", "$1", at(1)).await.unwrap());
    assert_eq!(store.prune_claims(at(1)).await.unwrap(), 1);
}

#[tokio::test]
async fn values_incidents_repairs_and_trust_come_back() {
    let (_dir, store) = open().await;
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
        body: json!({"alerts": ["a"]}),
    };
    store.put_incident(&incident).await.unwrap();
    assert_eq!(store.open_incidents().await.unwrap(), [incident.clone()]);
    incident.closed_at = Some(at(9));
    store.put_incident(&incident).await.unwrap();
    assert_eq!(store.open_incidents().await.unwrap(), []);
    assert_eq!(
        store.incidents_since(at(0), 10).await.unwrap(),
        [incident.clone()]
    );
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
    store.repair_started(&repair).await.unwrap();
    store.repair_started(&repair).await.unwrap();
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

#[tokio::test]
async fn the_audit_log_cannot_be_changed() {
    let (_dir, store) = open().await;
    let entry = AuditEntry {
        at: at(0),
        who: "@alice:example.org".into(),
        action: "halt".into(),
        target: "site:demo".into(),
        body: json!({}),
    };
    store.audit(&entry).await.unwrap();
    for sql in ["DELETE FROM audit", "UPDATE audit SET who = 'nobody'"] {
        let changed = sqlx::query(sql).execute(&store.writer).await;
        assert!(changed.unwrap_err().to_string().contains("append-only"));
    }
    assert_eq!(
        store.audit_log(Some("site:demo"), 5).await.unwrap(),
        [entry]
    );
    assert_eq!(store.audit_log(Some("site:other"), 5).await.unwrap(), []);
}

#[tokio::test]
async fn a_store_that_cannot_be_used_says_why() {
    // A file where the directory should be.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    std::fs::write(&path, "").unwrap();
    let error = Store::open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::Directory { .. }), "{error}");

    // Not a database.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE_NAME), "x".repeat(8_192)).unwrap();
    let error = Store::open(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");

    // A page in the middle was overwritten.
    let (dir, store) = open().await;
    for n in 0..200 {
        let id = job(&format!("j{n}"));
        store
            .create(&id, at(n), &created("site:demo"))
            .await
            .unwrap();
    }
    store.close().await;
    let file = dir.path().join(FILE_NAME);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8_192].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    let error = Store::open(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");

    // Made by a newer version.
    let (dir, store) = open().await;
    sqlx::query("UPDATE _sqlx_migrations SET version = 99")
        .execute(&store.writer)
        .await
        .unwrap();
    store.close().await;
    let error = Store::open(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Version { .. }), "{error}");
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_named() {
    let (_dir, store) = open().await;
    let id = job("j1");
    store
        .create(&id, at(0), &created("site:demo"))
        .await
        .unwrap();
    sqlx::query("UPDATE job_events SET event = '{}'")
        .execute(&store.writer)
        .await
        .unwrap();
    let error = store.load(&id).await.unwrap_err();
    assert!(
        matches!(error, JournalError::Corrupt { position: 0, .. }),
        "{error}"
    );
}
