//! A copy from this kind of store into the embedded one and back.

use async_trait::async_trait;
use deploy_engine::job::{JobEvent, JobId, JobKind, JobResult, Journal};
use jiff::SignedDuration;
use serde_json::json;

use super::{Place, at, whole_chain};
use crate::store::{
    AlertKey, AlertRow, Approval, ApprovalState, AuditEntry, CopyError, Folded, IncidentRow,
    MessageKey, Override, Repair, Store, Trust, TrustMode, Vote, copy,
    copy::{KEPT_BACK, columns},
    db::{Sql, values},
    row::Reader,
};

/// A store beside the place, of the embedded kind.
struct Beside(tempfile::TempDir);

#[async_trait]
impl Place for Beside {
    async fn open(&self) -> Store {
        Store::open(self.0.path()).await.unwrap()
    }

    async fn open_as(&self, _: &str) -> Store {
        self.open().await
    }

    async fn another(&self) -> Box<dyn Place> {
        Box::new(beside())
    }
}

fn beside() -> Beside {
    Beside(tempfile::tempdir().unwrap())
}

/// Something in every table.
async fn fill(store: &Store) {
    for (number, id) in ["j1", "j2"].iter().enumerate() {
        let job = JobId((*id).to_owned());
        let created = JobEvent::Created {
            kind: JobKind::Deploy {
                plan_digest: "d1".into(),
            },
            title: "deploy — ⟦x⟧ it's \"quoted\"".into(),
            requested_by: "alice".into(),
            scope: format!("site:demo{number}"),
            steps: vec![],
        };
        store.create(&job, at(0), &created).await.unwrap();
    }
    let job = JobId("j1".to_owned());
    store
        .acquire("domain:x", "bot1", &job, at(1))
        .await
        .unwrap();
    let finished = JobEvent::Finished {
        result: JobResult::Succeeded,
    };
    store
        .append(&JobId("j2".into()), 1, at(2), &finished)
        .await
        .unwrap();
    // More than one batch.
    let alert = |number: usize| AlertRow {
        key: AlertKey {
            source: "am".into(),
            fingerprint: format!("{number:016x}"),
        },
        name: "Down".into(),
        firing: number.is_multiple_of(2),
        starts_at: at(0),
        updated_at: at(1),
        body: json!({"labels": {"nul": "\0", "n": number}}).to_string(),
    };
    let folded = store.fold_alerts(&[], |_| Folded {
        changed: (0..1_201).map(alert).collect(),
        parcel: None,
        answer: (),
    });
    folded.await.unwrap();
    let incident = IncidentRow {
        id: "i1".into(),
        state: "open".into(),
        service: None,
        runbook: Some("GAL-1".into()),
        opened_at: at(0),
        closed_at: None,
        body: json!({}).to_string(),
        rest: Some(json!({"more": []}).to_string()),
    };
    store.put_incident(&incident).await.unwrap();
    for number in 0..3 {
        let entry = AuditEntry {
            at: at(number),
            who: "ann".into(),
            action: "halt".into(),
            target: "site:demo".into(),
            body: json!({ "number": number }),
        };
        store.audit(&entry).await.unwrap();
    }
    let key = MessageKey {
        room: "matrix:!ops".into(),
        subject: "job:j1".into(),
    };
    store.say(&key, 1, &json!("one"), at(1)).await.unwrap();
    store.message_sent(&key, 1, "$1").await.unwrap();
    let approval = Approval {
        id: "a1".into(),
        digest: "d1".into(),
        requested_by: "alice".into(),
        created_at: at(0),
        expires_at: at(0) + SignedDuration::from_mins(10),
        state: ApprovalState::Pending,
        decided_by: None,
        decided_at: None,
        body: json!({}),
    };
    store.request_approval(&approval).await.unwrap();
    let vote = Vote {
        person: "ann".into(),
        who: "matrix:@ann:x.org".into(),
        at: at(1),
    };
    store.vote("a1", &vote, 2, at(1)).await.unwrap();
    store.put_override(&overridden()).await.unwrap();
    store.put("bot", "halt", "{}").await.unwrap();
    store.claim("matrix", "$1", at(0)).await.unwrap();
    let repair = Repair {
        job: "j1".into(),
        runbook: "GAL-1".into(),
        targets: vec!["domain:mariadb".into(), "host:ctl1".into()],
        at: at(0),
        by: "automation".into(),
        outcome: None,
        ended_at: None,
    };
    store.repair_started(&repair, None).await.unwrap();
    let trust = Trust {
        runbook: "GAL-1".into(),
        mode: TrustMode::Ask,
        changed_at: at(0),
        changed_by: "alice".into(),
        body: json!({}),
    };
    store.put_trust(&trust).await.unwrap();
}

fn overridden() -> Override {
    Override {
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
    }
}

pub async fn a_copy_is_complete_and_the_same(place: &dyn Place) {
    let (here, there) = (place.open().await, beside());
    fill(&here).await;
    let out = there.open().await;
    let copied = copy(&here, &out).await.unwrap();
    for table in &copied {
        assert!(
            table.rows > 0,
            "nothing was in {}: this shows nothing",
            table.table
        );
    }
    let events = here.load(&JobId("j2".into())).await.unwrap();
    assert_eq!(out.load(&JobId("j2".into())).await.unwrap(), events);
    assert_eq!(out.leases().await.unwrap(), here.leases().await.unwrap());
    assert_eq!(out.count_firing().await.unwrap(), 601);

    // And back, into an empty one of the place's kind: what was written before is continued, not written over.
    let fresh = place.another().await;
    let back = fresh.open().await;
    assert_eq!(copy(&out, &back).await.unwrap(), copied);
    let entry = AuditEntry {
        at: at(9),
        who: "ann".into(),
        action: "resume".into(),
        target: "site:demo".into(),
        body: json!({}),
    };
    back.audit(&entry).await.unwrap();
    let log = back.audit_log(Some("site:demo"), 10).await.unwrap();
    assert_eq!((log.len(), log[0].action.as_str()), (4, "resume"));
    whole_chain(&back).await;
    let lease = back
        .acquire("domain:x", "bot2", &JobId("j1".into()), at(-9))
        .await
        .unwrap();
    assert!(lease.token > here.leases().await.unwrap()[0].lease.token);
}

pub async fn a_copy_refuses_what_is_not_empty(place: &dyn Place) {
    let (here, there) = (place.open().await, beside());
    let out = there.open().await;
    out.put("bot", "halt", "{}").await.unwrap();
    fill(&here).await;
    let refused = copy(&here, &out).await.unwrap_err();
    assert!(
        matches!(refused, CopyError::NotEmpty { table: "kv", .. }),
        "{refused}"
    );
    assert_eq!(out.jobs(false, 9).await.unwrap(), []);
    // And the other way round.
    let refused = copy(&out, &here).await.unwrap_err();
    assert!(matches!(refused, CopyError::NotEmpty { .. }), "{refused}");
}

pub async fn a_copy_refuses_a_store_with_a_bot_that_runs(place: &dyn Place) {
    let (here, there) = (place.open_as("bot1").await, beside());
    let out = there.open().await;
    here.beat("host1", at(0)).await.unwrap();
    let beating = {
        let here = here.clone();
        tokio::spawn(async move {
            loop {
                here.beat("host1", at(1)).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
    };
    let refused = copy(&here, &out).await.unwrap_err();
    assert!(matches!(refused, CopyError::BotRuns { .. }), "{refused}");
    beating.abort();
    let _ = beating.await;
    // One that died left its row, and stops nobody.
    here.put("bot", "halt", "{}").await.unwrap();
    copy(&here, &out).await.unwrap();
    assert_eq!(out.get("bot", "halt").await.unwrap().as_deref(), Some("{}"));
}

/// A new table or column must be copied, or be named among those that are not.
pub async fn every_column_is_copied_or_known_not_to_be(place: &dyn Place) {
    const COLUMNS: Sql = Sql::each(
        "SELECT t.name || '.' || c.name AS name FROM sqlite_schema t, pragma_table_info(t.name) c \
         WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND t.name NOT LIKE '\\_sqlx%' ESCAPE '\\'",
        "SELECT table_name || '.' || column_name AS name FROM information_schema.columns \
         WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%'",
    );
    let store = place.open().await;
    let found = store
        .db
        .read("listing columns", COLUMNS, values![])
        .await
        .unwrap();
    let name = |row| {
        Reader::new("column", "name", row)
            .get::<String>("name")
            .unwrap()
    };
    let mut found: Vec<String> = found.rows.iter().map(name).collect();
    let kept_back = KEPT_BACK.iter().map(|name| (*name).to_owned());
    let mut known: Vec<String> = columns().into_iter().chain(kept_back).collect();
    found.sort();
    known.sort();
    assert_eq!(found, known);
}
