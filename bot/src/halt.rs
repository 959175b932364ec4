//! `halt`: nothing new starts until `resume`. Kept in the store, so a restart does not end it.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use async_trait::async_trait;
use deploy_engine::{
    job::{JobId, JobState, Step},
    runner::{GateVerdict, StepGate},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    rights::Identity,
    store::{Store, StoreError},
};

const SPACE: &str = "bot";
const KEY: &str = "halt";

/// Who stopped everything, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halted {
    pub by: Identity,
    pub at: Timestamp,
    pub why: String,
}

impl std::fmt::Display for Halted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "halted by {}: {}", self.by, self.why)
    }
}

/// The switch. Cheap to clone.
#[derive(Clone)]
pub struct Halt {
    store: Store,
    now: Arc<RwLock<Option<Halted>>>,
    /// When the last look at a shared store began.
    looked: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

impl Halt {
    /// As it was left.
    ///
    /// # Errors
    /// The store's, or words in it that cannot be read: then nobody knows whether work may go on.
    pub async fn load(store: Store) -> Result<Self, StoreError> {
        let store = store.vital();
        let now = stored(&store).await?;
        Ok(Self {
            store,
            now: Arc::new(RwLock::new(now)),
            looked: Arc::default(),
        })
    }

    pub fn now(&self) -> Option<Halted> {
        self.now
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Looks into a store that other bots share, where any of them may have halted or resumed; the only bot of a store knows.
    ///
    /// # Errors
    /// The store's: then nobody knows whether work may go on.
    pub async fn look(&self) -> Result<(), StoreError> {
        if !self.store.is_shared() {
            return Ok(());
        }
        // Every step that is about to begin asks; hundreds at once would take all connections. One look serves all who came
        // before it began.
        let came = Instant::now();
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|began| began >= came) {
            return Ok(());
        }
        let began = Instant::now();
        self.set(stored(&self.store).await?);
        *looked = Some(began);
        Ok(())
    }

    /// Takes effect at once, also when the store cannot keep it.
    pub async fn halt(&self, halted: Halted) -> Result<(), StoreError> {
        self.set(Some(halted.clone()));
        self.store
            .put(
                SPACE,
                KEY,
                &serde_json::to_string(&halted).unwrap_or_default(),
            )
            .await
    }

    /// Ends it, first in the store.
    pub async fn resume(&self) -> Result<Option<Halted>, StoreError> {
        self.store.delete(SPACE, KEY).await?;
        let before = self.now();
        self.set(None);
        Ok(before)
    }

    fn set(&self, halted: Option<Halted>) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = halted;
    }
}

async fn stored(store: &Store) -> Result<Option<Halted>, StoreError> {
    let text = store.get(SPACE, KEY).await?;
    Ok(text.map(|text| {
        serde_json::from_str(&text).unwrap_or_else(|_| Halted {
            by: Identity::unix("nobody"),
            at: Timestamp::UNIX_EPOCH,
            why: "the stored halt cannot be read; `resume` ends it".to_owned(),
        })
    }))
}

/// Asks the switch first, then the gates of repairs.
pub struct HaltGate {
    pub halt: Halt,
    pub then: Arc<dyn StepGate>,
}

#[async_trait]
impl StepGate for HaltGate {
    async fn before(&self, id: &JobId, job: &JobState, step: &Step, now: Timestamp) -> GateVerdict {
        match self.halt.now() {
            Some(halted) => GateVerdict::Hold {
                until: None,
                why: halted.to_string(),
            },
            None => self.then.before(id, job, step, now).await,
        }
    }

    async fn before_undo(
        &self,
        id: &JobId,
        job: &JobState,
        step: &Step,
        now: Timestamp,
    ) -> GateVerdict {
        match self.halt.now() {
            Some(halted) => GateVerdict::Hold {
                until: None,
                why: halted.to_string(),
            },
            None => self.then.before_undo(id, job, step, now).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_halt_outlives_the_bot() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let halt = Halt::load(store.clone()).await.unwrap();
        assert_eq!(halt.now(), None);
        let halted = Halted {
            by: Identity::unix("ann"),
            at: Timestamp::from_second(1_800_000_000).unwrap(),
            why: "switch works".into(),
        };
        halt.halt(halted.clone()).await.unwrap();
        let again = Halt::load(store.clone()).await.unwrap();
        assert_eq!(again.now(), Some(halted));
        again.resume().await.unwrap();
        assert_eq!(Halt::load(store).await.unwrap().now(), None);
    }
}
