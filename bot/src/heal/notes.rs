//! What is kept beside a repair of the ledger: the version of its runbook, and who cleared an outcome that was not proven. And the
//! drills that runbooks have passed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use runbooks::{
    budget::{Cleared, RepairOutcome, Spent},
    format::RunbookId,
    trust::Drilled,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::store::{self, AuditEntry, Repair, Store, StoreError};

/// The space of the store with [`Note`]s, by job.
const NOTES: &str = "repair";
/// The space of the store with [`Drilled`], by runbook.
const DRILLS: &str = "drill";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Note {
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    cleared: Option<Cleared>,
}

async fn note_of(store: &Store, job: &str) -> Result<Note, StoreError> {
    let text = store.get(NOTES, job).await?;
    Ok(text
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default())
}

async fn put(store: &Store, job: &str, note: &Note) -> Result<(), StoreError> {
    store.put(NOTES, job, &json!(note).to_string()).await
}

/// Charges a repair, with the version of the runbook that it follows.
pub(super) async fn charge(
    store: &Store,
    repair: &Repair,
    version: Option<&str>,
) -> Result<(), StoreError> {
    let note = version.map(|version| Note {
        version: Some(version.to_owned()),
        ..Note::default()
    });
    let note = note.map(|note| json!(note).to_string());
    let note = note.as_deref().map(|note| (NOTES, note));
    store.repair_started(repair, note).await
}

/// A person takes an outcome that was not proven on themselves; in the audit log first.
pub async fn clear(store: &Store, job: &str, cleared: Cleared) -> Result<(), StoreError> {
    let entry = AuditEntry {
        at: cleared.at,
        who: cleared.by.clone(),
        action: "clear".to_owned(),
        target: format!("job:{job}"),
        body: json!({ "why": cleared.why }),
    };
    store.audit(&entry).await?;
    let note = Note {
        cleared: Some(cleared),
        ..note_of(store, job).await?
    };
    put(store, job, &note).await
}

/// Repairs since then, oldest first, with what is noted beside them.
pub async fn ledger_of(store: &Store, since: Timestamp) -> Result<Vec<Spent>, StoreError> {
    let repairs = store.repairs_since(since).await?;
    let notes = store.list(NOTES).await?;
    let mut notes: BTreeMap<String, Note> = notes
        .into_iter()
        .filter_map(|(job, text)| Some((job, serde_json::from_str(&text).ok()?)))
        .collect();
    let with_note = |repair: Repair| {
        let note = notes.remove(&repair.job).unwrap_or_default();
        spent(repair, note)
    };
    Ok(repairs.into_iter().map(with_note).collect())
}

fn spent(repair: Repair, note: Note) -> Spent {
    let outcome = repair.outcome.map(|outcome| match outcome {
        store::RepairOutcome::Verified => RepairOutcome::Verified,
        store::RepairOutcome::Unverified => RepairOutcome::Unverified,
        store::RepairOutcome::Refused => RepairOutcome::Refused,
        store::RepairOutcome::Cancelled => RepairOutcome::Cancelled,
    });
    Spent {
        job: repair.job,
        runbook: RunbookId(repair.runbook),
        targets: repair.targets,
        at: repair.at,
        by: repair.by,
        outcome,
        ended_at: repair.ended_at,
        version: note.version,
        cleared: note.cleared,
    }
}

pub async fn drilled_of(store: &Store, runbook: &RunbookId) -> Result<Option<Drilled>, StoreError> {
    let text = store.get(DRILLS, &runbook.0).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// In the audit log first: who vouches for it.
pub async fn record_drill(
    store: &Store,
    runbook: &RunbookId,
    drilled: &Drilled,
) -> Result<(), StoreError> {
    let entry = AuditEntry {
        at: drilled.at,
        who: drilled.by.clone(),
        action: "drilled".to_owned(),
        target: format!("runbook:{runbook}"),
        body: json!({ "version": drilled.version, "place": drilled.place }),
    };
    store.audit(&entry).await?;
    store
        .put(DRILLS, &runbook.0, &json!(drilled).to_string())
        .await
}

#[cfg(test)]
mod tests {
    use runbooks::{healer::Records, trust::Mode};

    use super::*;
    use crate::heal::{BotRecords, TrustKey, grant, granted};

    async fn store() -> (tempfile::TempDir, Store) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).await.unwrap();
        (home, store)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[tokio::test]
    async fn a_repair_keeps_its_version_and_who_cleared_it() {
        let (_home, store) = store().await;
        let records = BotRecords {
            halt: crate::halt::Halt::load(store.clone()).await.unwrap(),
            store: store.clone(),
        };
        let charged = Spent {
            job: "h1".into(),
            runbook: RunbookId("MEM-1".into()),
            targets: vec!["domain:memcached".into()],
            at: at(0),
            by: "automation".into(),
            outcome: None,
            ended_at: None,
            version: Some("v1".into()),
            cleared: None,
        };
        records.charge(&charged).await.unwrap();
        records
            .settle("h1", RepairOutcome::Unverified, at(5))
            .await
            .unwrap();
        let cleared = Cleared {
            by: "unix:ann".into(),
            at: at(9),
            why: "a full disk".into(),
        };
        clear(&store, "h1", cleared.clone()).await.unwrap();
        let ledger = records.ledger(at(-1)).await.unwrap();
        assert_eq!(
            ledger,
            [Spent {
                outcome: Some(RepairOutcome::Unverified),
                ended_at: Some(at(5)),
                cleared: Some(cleared),
                ..charged
            }]
        );
        let log = store.audit_log(Some("job:h1"), 9).await.unwrap();
        assert_eq!(
            (log[0].action.as_str(), log[0].who.as_str()),
            ("clear", "unix:ann")
        );
    }

    #[tokio::test]
    async fn trust_is_granted_by_class_taken_away_at_once_and_all_of_it_is_in_the_log() {
        let (_home, store) = store().await;
        let id = RunbookId("HOST-7".into());
        for (key, mode) in [
            ("HOST-7", Mode::Ask),
            ("HOST-7@compute", Mode::Auto),
            ("MEM-1", Mode::Auto),
        ] {
            let key = TrustKey::parse(key);
            grant(&store, &key, mode, "unix:ann", "earned", at(0))
                .await
                .unwrap();
        }
        let modes = |grants: Vec<runbooks::trust::Grant>| -> Vec<(Option<String>, Mode)> {
            grants
                .into_iter()
                .map(|one| (one.class, one.mode))
                .collect()
        };
        assert_eq!(
            modes(granted(&store, &id).await.unwrap()),
            [(None, Mode::Ask), (Some("compute".to_owned()), Mode::Auto)]
        );
        crate::heal::earned::demote(&store, &id, Mode::Ask, "automation", "job h1", at(5))
            .await
            .unwrap();
        assert_eq!(
            modes(granted(&store, &id).await.unwrap()),
            [(None, Mode::Ask), (Some("compute".to_owned()), Mode::Ask)]
        );
        let other = granted(&store, &RunbookId("MEM-1".into())).await.unwrap();
        assert_eq!(modes(other), [(None, Mode::Auto)]);
        let log = store.audit_log(Some("runbook:HOST-7"), 9).await.unwrap();
        assert_eq!(log.len(), 3);
        assert_eq!(log[0].body["why"], "job h1");
    }
}
