//! What sources told: their alerts, who handles them, their readings, and how far they have read. One transaction each, so that after a
//! crash nothing was read without being kept, or kept without being read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    AlertRow, Store, StoreError,
    alerts::{self, AlertKey},
    db::{Lock, Tx, values},
    inbox, kv,
    row::Reader,
};

/// The space of the store with how far each source has read.
const CURSORS: &str = "cursor";

/// A source moves on from one place to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moves {
    pub from: Option<String>,
    pub to: String,
}

/// What of the known alerts matters for what a source tells. In a storm one source has tens of thousands of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matters {
    /// Those with these fingerprints, whether they fire or not.
    These(Vec<String>),
    /// Also all others that fire.
    TheseAndWhatFires(Vec<String>),
}

/// What is known of a source when it tells something.
pub struct KnownOfSource {
    /// Those that matter.
    pub alerts: Vec<AlertRow>,
    /// The values of the space that was asked for.
    pub values: BTreeMap<String, String>,
}

/// What is to be written.
pub struct Heard<T> {
    pub changed: Vec<AlertRow>,
    /// Key → value in the space; none: forgotten.
    pub values: BTreeMap<String, Option<String>>,
    pub parcel: Option<(Timestamp, Value)>,
    pub answer: T,
}

impl Store {
    /// How far a source has read; none: nothing yet.
    pub async fn cursor(&self, source: &str) -> Result<Option<String>, StoreError> {
        self.get(CURSORS, source).await
    }

    /// Reads what is known of a source, lets `hear` decide what to write, and writes it with the progress: durable when it
    /// returns. None: the source is not where it moves from, and nothing was written.
    pub async fn hear<T>(
        &self,
        source: &str,
        matters: &Matters,
        space: &str,
        moves: Option<&Moves>,
        hear: impl FnOnce(KnownOfSource) -> Heard<T> + Send,
    ) -> Result<Option<T>, StoreError> {
        let what = "recording what a source told";
        let mut tx = self.db.begin(what, Lock::Alerts).await?;
        if let Some(moves) = moves {
            let found = tx.run(what, kv::GET, values![CURSORS, source]).await?;
            if value(found.first())? != moves.from {
                return Ok(None);
            }
            let to = values![CURSORS, source, &moves.to];
            tx.later(what, kv::PUT, to).await?;
        }
        let known = KnownOfSource {
            alerts: known(&mut tx, source, matters).await?,
            values: space_of(&mut tx, space).await?,
        };
        let heard = hear(known);
        alerts::upsert(&mut tx, what, heard.changed).await?;
        for (key, value) in &heard.values {
            match value {
                Some(value) => tx.later(what, kv::PUT, values![space, key, value]).await?,
                None => tx.later(what, kv::DELETE, values![space, key]).await?,
            }
        }
        if let Some((at, parcel)) = &heard.parcel {
            inbox::put(&mut tx, parcel, *at).await?;
        }
        tx.commit(what).await?;
        Ok(Some(heard.answer))
    }
}

async fn known(tx: &mut Tx, source: &str, matters: &Matters) -> Result<Vec<AlertRow>, StoreError> {
    let (Matters::These(named) | Matters::TheseAndWhatFires(named)) = matters;
    let key = |fingerprint: &String| AlertKey {
        source: source.to_owned(),
        fingerprint: fingerprint.clone(),
    };
    let keys: Vec<_> = named.iter().map(key).collect();
    let mut rows = alerts::known(tx, &keys).await?;
    if let Matters::TheseAndWhatFires(_) = matters {
        rows.extend(alerts::others_firing(tx, source, named).await?);
    }
    Ok(rows)
}

async fn space_of(tx: &mut Tx, space: &str) -> Result<BTreeMap<String, String>, StoreError> {
    let found = tx.run("reading values", kv::LIST, values![space]).await?;
    let pair = |row| {
        let reader = Reader::new("value", "key", row);
        Ok((reader.get("key")?, reader.get("value")?))
    };
    found.rows.iter().map(pair).collect()
}

fn value(row: Option<super::db::Row>) -> Result<Option<String>, StoreError> {
    row.map(|row| Reader::new("value", "key", &row).get("value"))
        .transpose()
}
