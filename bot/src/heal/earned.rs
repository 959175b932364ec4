//! How far runbooks are trusted on this site: what was granted, by whom and why, and what stands behind it.

use std::fmt;

use jiff::Timestamp;
use runbooks::{
    format::{Class, Runbook, RunbookId},
    healer::HealSettings,
    trust::{Drilled, Grant, Mode, Record, SUCCESSES},
};
use serde::Serialize;
use serde_json::json;

use super::settings::{mode_of, trust_of};
use crate::{
    store::{AuditEntry, Store, StoreError, Trust, TrustMode},
    wording::{Cell, Table, Tone, ago},
};

/// Between a runbook and the class of its targets, in records and in commands: `HOST-7@compute`.
const CLASS_SIGN: char = '@';

/// A runbook, and the group of hosts that a grant is about; none: all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TrustKey {
    pub runbook: RunbookId,
    pub class: Option<String>,
}

impl TrustKey {
    pub fn parse(text: &str) -> Self {
        match text.split_once(CLASS_SIGN) {
            Some((runbook, class)) => Self {
                runbook: RunbookId(runbook.to_owned()),
                class: Some(class.to_owned()),
            },
            None => Self {
                runbook: RunbookId(text.to_owned()),
                class: None,
            },
        }
    }
}

impl fmt::Display for TrustKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.class {
            Some(class) => write!(f, "{}{CLASS_SIGN}{class}", self.runbook),
            None => write!(f, "{}", self.runbook),
        }
    }
}

/// Grants of one runbook.
pub async fn granted(store: &Store, runbook: &RunbookId) -> Result<Vec<Grant>, StoreError> {
    let all = store.trust().await?.into_iter();
    let keyed = all.map(|row| (TrustKey::parse(&row.runbook), row.mode));
    let own = keyed.filter(|(key, _)| key.runbook == *runbook);
    Ok(own
        .map(|(key, mode)| Grant {
            class: key.class,
            mode: mode_of(mode),
        })
        .collect())
}

/// Sets one grant; in the audit log first.
pub async fn grant(
    store: &Store,
    key: &TrustKey,
    mode: Mode,
    by: &str,
    why: &str,
    at: Timestamp,
) -> Result<(), StoreError> {
    let entry = AuditEntry {
        at,
        who: by.to_owned(),
        action: "trust".to_owned(),
        target: format!("runbook:{}", key.runbook),
        body: json!({ "key": key.to_string(), "mode": mode, "why": why }),
    };
    store.audit(&entry).await?;
    let trust = Trust {
        runbook: key.to_string(),
        mode: trust_of(mode),
        changed_at: at,
        changed_by: by.to_owned(),
        body: json!({ "why": why }),
    };
    store.put_trust(&trust).await
}

/// Every grant that goes further than `to` goes no further, and neither does the configuration.
pub async fn demote(
    store: &Store,
    runbook: &RunbookId,
    to: Mode,
    by: &str,
    why: &str,
    at: Timestamp,
) -> Result<(), StoreError> {
    let grants = granted(store, runbook).await?;
    let general = grants.iter().all(|one| one.class.is_some());
    let further = grants.into_iter().filter(|one| one.mode > to);
    let classes = further.map(|one| one.class).chain(general.then_some(None));
    for class in classes {
        let key = TrustKey {
            runbook: runbook.clone(),
            class,
        };
        grant(store, &key, to, by, why, at).await?;
    }
    Ok(())
}

/// How one runbook stands here.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    pub key: String,
    pub mode: TrustMode,
    /// What it comes to, all in all.
    pub effective: String,
    pub since: Option<Timestamp>,
    pub by: String,
    pub why: String,
    pub version: String,
    pub record: Record,
    pub drilled: Option<Drilled>,
    #[serde(skip)]
    tone: Tone,
}

impl Standing {
    /// `earned`: the version of the runbook, what it has to show, and its last drill of any version.
    pub fn new(
        runbook: &Runbook,
        settings: &HealSettings,
        key: TrustKey,
        row: Option<&Trust>,
        (version, record, drilled): (String, Record, Option<Drilled>),
    ) -> Self {
        let configured = settings.configured_mode(&runbook.runbook);
        let mode = row.map_or(configured, |row| mode_of(row.mode));
        let guarded = match runbook.class {
            Class::Automatic => None,
            Class::Guarded if settings.opted_in(runbook) => None,
            Class::Guarded => Some("not opted in"),
            Class::Human => Some("a person's, always"),
            Class::Diagnosis => Some("a diagnosis changes nothing"),
        };
        let (effective, tone) = match (mode, guarded, record.earned()) {
            (Mode::Shadow, ..) => ("shadow".to_owned(), Tone::Dim),
            (Mode::Ask, ..) => ("ask".to_owned(), Tone::Warn),
            (Mode::Auto, Some(why), _) => (format!("asks: {why}"), Tone::Warn),
            (Mode::Auto, None, Ok(())) => ("auto".to_owned(), Tone::Good),
            (Mode::Auto, None, Err(_)) if settings.unearned => {
                ("auto (taken as given)".to_owned(), Tone::Good)
            }
            (Mode::Auto, None, Err(_)) => ("asks: not earned".to_owned(), Tone::Warn),
        };
        let why = row.and_then(|row| row.body["why"].as_str());
        Self {
            key: key.to_string(),
            mode: trust_of(mode),
            effective,
            since: row.map(|row| row.changed_at),
            by: row
                .map_or("configuration", |row| &row.changed_by)
                .to_owned(),
            why: why.unwrap_or_default().to_owned(),
            version,
            record,
            drilled,
            tone,
        }
    }

    fn drill(&self) -> Cell {
        match (&self.record.drilled, &self.drilled) {
            (Some(at), Some(drilled)) => {
                Cell::new(format!("passed {:.0}, says {}", at, drilled.by), Tone::Good)
            }
            (None, Some(drilled)) => Cell::new(
                format!("of another version ({})", drilled.version),
                Tone::Warn,
            ),
            _ => Cell::new("none", Tone::Dim),
        }
    }
}

pub fn trust_table(standings: &[Standing], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "runbook",
        "mode",
        "in effect",
        "since",
        "by",
        "why",
        "proven",
        "drill",
        "version",
    ]);
    for one in standings {
        let mode = match one.mode {
            TrustMode::Shadow => "shadow",
            TrustMode::Ask => "ask",
            TrustMode::Auto => "auto",
        };
        let tone = match one.record.streak {
            _ if one.record.failed => Tone::Bad,
            streak if streak >= SUCCESSES => Tone::Good,
            _ => Tone::Plain,
        };
        table.row([
            one.key.clone().into(),
            mode.into(),
            Cell::new(one.effective.clone(), one.tone),
            one.since.map(|at| ago(at, now)).unwrap_or_default().into(),
            one.by.clone().into(),
            one.why.clone().into(),
            Cell::new(format!("{} of {SUCCESSES}", one.record.streak), tone),
            one.drill(),
            one.version.clone().into(),
        ]);
    }
    table
}
