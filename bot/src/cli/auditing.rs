//! `audit verify` and `audit export`: read from the store itself, with or without a running bot.

use std::{
    io::{self, Write},
    path::Path,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Outcome, wrong};
use crate::{
    audit::{Broken, Checker, Head, Kept},
    config::{self, StoreConfig},
    replicas,
    store::{STEP_ACTION, Store, StoreError},
};

/// Entries read at once.
const PAGE: u32 = 1_000;

enum Failure {
    Broken(Broken),
    Store(StoreError),
    Output(io::Error),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Broken(broken) => write!(f, "the audit log is broken: {broken}"),
            Self::Store(error) => error.fmt(f),
            Self::Output(error) => write!(f, "expected to write the export, found: {error}"),
        }
    }
}

/// Follows the chain from its first entry; `heads` were kept elsewhere.
pub async fn verify(path: &Path, heads: &[String], json: bool) -> Outcome {
    let known = match heads.iter().map(|head| head.parse()).collect() {
        Ok(known) => known,
        Err::<Vec<Head>, String>(why) => return wrong(why),
    };
    let store = match open(path).await {
        Ok(store) => store,
        Err(outcome) => return outcome,
    };
    let walked = walk(&store, known, |_| Ok(())).await;
    store.close().await;
    match walked {
        Ok(head) if json => {
            println!(
                "{}",
                json!({ "ok": true, "entries": head.number, "head": head.to_string() })
            );
            Outcome::Ok
        }
        Ok(head) => {
            println!("The audit log is whole: {} entries.", head.number);
            println!("Head {head}");
            println!(
                "Keep it elsewhere: `audit verify --head {head}` proves later that nothing up to here was changed."
            );
            Outcome::Ok
        }
        Err(failure) => failed(&failure, json),
    }
}

/// Every entry as a line of JSON, then the head.
pub async fn export(path: &Path, since: Option<&str>, json: bool) -> Outcome {
    let since = match since.map(|text| moment(text, Timestamp::now())).transpose() {
        Ok(since) => since.map_or(i64::MIN, Timestamp::as_microsecond),
        Err(why) => return wrong(why),
    };
    let store = match open(path).await {
        Ok(store) => store,
        Err(outcome) => return outcome,
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let walked = walk(&store, Vec::new(), |entry| match entry.at >= since {
        true => writeln!(out, "{}", line(entry)),
        false => Ok(()),
    })
    .await;
    let written = match &walked {
        Ok(head) => writeln!(out, "{}", json!({ "head": head.to_string() })),
        Err(_) => Ok(()),
    };
    let flushed = written.and_then(|()| out.flush()).map_err(Failure::Output);
    drop(out);
    store.close().await;
    match walked.and(flushed) {
        Ok(()) => Outcome::Ok,
        Err(failure) => failed(&failure, json),
    }
}

fn failed(failure: &Failure, json: bool) -> Outcome {
    if json {
        println!("{}", json!({ "ok": false, "error": failure.to_string() }));
    } else {
        eprintln!("{failure}");
    }
    Outcome::Failed
}

async fn open(path: &Path) -> Result<Store, Outcome> {
    let config = config::read(path).map_err(wrong)?;
    if config.store == StoreConfig::Embedded {
        return Store::open(&config.state_dir).await.map_err(wrong);
    }
    let loaded = config::load(path).map_err(wrong)?;
    let shared = loaded.shared_store;
    let shared = shared.ok_or_else(|| wrong("expected the address of the shared store"))?;
    let reader = format!("{}:audit", replicas::host_name());
    Store::open_shared(&shared, &reader).await.map_err(wrong)
}

/// Hands over every entry in order, each after it was checked.
async fn walk(
    store: &Store,
    known: Vec<Head>,
    mut each: impl FnMut(&Kept) -> io::Result<()>,
) -> Result<Head, Failure> {
    let mut checker = Checker::new(known);
    loop {
        let page = store.audit_kept(checker.end().number, PAGE).await?;
        for entry in &page {
            checker.next(entry)?;
            journal(store, entry).await?;
            each(entry).map_err(Failure::Output)?;
        }
        if !page.is_empty() {
            continue;
        }
        // An entry and the head are written together, so a head that is read later is never behind an entry that was seen; one
        // that is ahead may be of what a running bot added meanwhile.
        let head = store.audit_head().await?;
        if store.audit_kept(checker.end().number, 1).await?.is_empty() {
            return Ok(checker.finish(head.as_ref())?);
        }
    }
}

/// What happened to a job is in the journal in full; the entry holds its digest.
async fn journal(store: &Store, entry: &Kept) -> Result<(), Failure> {
    if entry.action != STEP_ACTION {
        return Ok(());
    }
    let body: Value = serde_json::from_str(&entry.body).unwrap_or_default();
    let job = entry.target.strip_prefix("job:").unwrap_or_default();
    let (Some(position), Some(expected)) = (body["position"].as_i64(), body["sha256"].as_str())
    else {
        return Ok(());
    };
    let found = store.event_digest(job, position).await?;
    if found.as_deref() == Some(expected) {
        return Ok(());
    }
    Err(Failure::Broken(Broken::Journal {
        number: entry.number,
        job: job.to_owned(),
        position,
        expected: expected.to_owned(),
        found: found.unwrap_or_else(|| "no such event".to_owned()),
    }))
}

/// The body is put in as it is kept, so that whoever reads the export can compute the hashes as well.
fn line(entry: &Kept) -> String {
    let at = Timestamp::from_microsecond(entry.at)
        .map(|at| at.to_string())
        .unwrap_or_default();
    let body = match serde_json::from_str::<Value>(&entry.body) {
        Ok(_) => entry.body.clone(),
        Err(_) => Value::from(entry.body.as_str()).to_string(),
    };
    let text = |text: &str| Value::from(text).to_string();
    format!(
        "{{\"number\":{},\"at\":{},\"who\":{},\"action\":{},\"target\":{},\"body\":{body},\"hash\":{}}}",
        entry.number,
        text(&at),
        text(&entry.who),
        text(&entry.action),
        text(&entry.target),
        json!(entry.hash),
    )
}

/// `2026-11-25T18:00:00Z`, or so long ago: `90m`, `12h`, `30d`.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let wrong = || {
        format!("expected a time like 2026-11-25T18:00:00Z or 90m, 12h, 30d ago, found {text:?}")
    };
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let number = text.trim_end_matches(['m', 'h', 'd']);
    let count: i64 = number.parse().map_err(|_| wrong())?;
    let minutes = match &text[number.len()..] {
        "m" => Some(count),
        "h" => count.checked_mul(60),
        "d" => count.checked_mul(24 * 60),
        _ => None,
    };
    let ago = minutes.filter(|minutes| (0..=i64::from(u32::MAX)).contains(minutes));
    let ago = SignedDuration::from_mins(ago.ok_or_else(wrong)?);
    now.checked_sub(ago).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use deploy_engine::job::{JobEvent, JobId, JobKind, Journal};
    use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

    use super::*;

    #[tokio::test]
    async fn a_changed_event_of_the_journal_is_named_by_its_entry() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let job = JobId("j1".to_owned());
        let created = JobEvent::Created {
            kind: JobKind::Deploy {
                plan_digest: "d1".to_owned(),
            },
            title: "deploy site".to_owned(),
            requested_by: "unix:ann".to_owned(),
            scope: "site:demo".to_owned(),
            steps: vec![],
        };
        let now = Timestamp::now();
        store.create(&job, now, &created).await.unwrap();
        let by = "unix:bob".to_owned();
        let cancelled = JobEvent::CancelRequested { by };
        store.append(&job, 1, now, &cancelled).await.unwrap();
        assert!(store.append(&job, 1, now, &cancelled).await.is_err());
        let mut seen = Vec::new();
        let walked = walk(&store, vec![], |entry| {
            seen.push((
                entry.who.clone(),
                entry.action.clone(),
                entry.target.clone(),
            ));
            Ok(())
        });
        let head = walked.await.unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(head.number, 2, "what was not appended is not recorded");
        let of = |who: &str| (who.to_owned(), STEP_ACTION.to_owned(), "job:j1".to_owned());
        assert_eq!(seen, [of("unix:ann"), of("unix:bob")]);

        let file = SqliteConnectOptions::new().filename(dir.path().join("nightshift.db"));
        let mut connection = file.connect().await.unwrap();
        sqlx::query(
            "UPDATE job_events SET event = replace(event, 'bob', 'eve') WHERE position = 1",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        connection.close().await.unwrap();
        let broken = walk(&store, vec![], |_| Ok(()))
            .await
            .err()
            .map(|failure| failure.to_string());
        let broken = broken.unwrap_or_default();
        assert!(
            broken.contains("entry 2") && broken.contains("event 1 of job j1"),
            "{broken}"
        );
    }

    #[test]
    fn times_are_absolute_or_ago() {
        let now: Timestamp = "2026-11-25T18:00:00Z".parse().unwrap();
        let at = |text: &str| moment(text, now).map(|at| at.to_string());
        assert_eq!(at("2026-01-02T03:04:05Z").unwrap(), "2026-01-02T03:04:05Z");
        assert_eq!(at("30d").unwrap(), "2026-10-26T18:00:00Z");
        assert_eq!(at("90m").unwrap(), "2026-11-25T16:30:00Z");
        for text in [
            "",
            "d",
            "30",
            "-1h",
            "1w",
            "1hh",
            "yesterday",
            "9999999999999d",
        ] {
            assert!(at(text).is_err(), "{text}");
        }
    }
}
