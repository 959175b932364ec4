//! Following a cluster: what is new is told with the place up to which it was read, in one.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{ElasticsearchClient, Session, Settings};
use crate::{
    SourceError, SourceName,
    logs::{Cursor, Polled, Signatures, poll},
    source::{Ear, NotKept, Progress, Source, Told, rounds},
};

/// A cluster whose lines are read.
pub struct ElasticsearchSource {
    settings: Settings,
    client: ElasticsearchClient,
    signatures: Arc<Signatures>,
    reach: Arc<Reach>,
}

/// How far a source has got, and how far its lines are behind. For `status` and `/metrics`.
#[derive(Default)]
pub struct Reach(Mutex<Reached>);

/// Figures since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    pub looks: u64,
    pub lines: u64,
    /// Lines with a signature.
    pub matched: u64,
    /// Too large to be read.
    pub too_large: u64,
    /// Of the last look: how old the newest line was. The way there lags, or nobody writes.
    pub lag: Option<SignedDuration>,
    pub looked_at: Option<Timestamp>,
    /// Lines between these times were not read and will not be.
    pub given_up: Option<(Timestamp, Timestamp)>,
    /// There was more than one look could read.
    pub more: bool,
}

impl Reach {
    pub fn get(&self) -> Reached {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, now: Timestamp, polled: &Polled) {
        let mut reached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reached.looks += 1;
        reached.lines += polled.lines;
        reached.matched += polled.readings.iter().map(|one| one.count).sum::<u64>();
        reached.too_large += polled.too_large;
        reached.lag = polled.lag;
        reached.looked_at = Some(now);
        reached.given_up = polled.given_up.or(reached.given_up);
        reached.more = polled.more;
    }
}

impl ElasticsearchSource {
    /// # Errors
    /// [`SourceError::Address`]: an address or a certificate that is none.
    pub fn new(settings: Settings, signatures: Arc<Signatures>) -> Result<Self, SourceError> {
        Ok(Self {
            client: ElasticsearchClient::new(&settings)?,
            settings,
            signatures,
            reach: Arc::default(),
        })
    }

    pub fn reach(&self) -> Arc<Reach> {
        self.reach.clone()
    }

    pub fn client(&self) -> &ElasticsearchClient {
        &self.client
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Looks until there is nothing new.
    async fn round(&self, ear: &dyn Ear) -> Result<(), String> {
        while self.look(ear).await? {}
        Ok(())
    }

    /// One look. True: there is more.
    async fn look(&self, ear: &dyn Ear) -> Result<bool, String> {
        let words = |error: NotKept| error.to_string();
        let from = ear.cursor().await.map_err(words)?;
        let now = Timestamp::now();
        let polled = self.poll(from.as_deref(), now).await;
        let polled = polled.map_err(|error| error.to_string())?;
        let to = serde_json::to_string(&polled.cursor).map_err(|error| error.to_string())?;
        if from.as_ref() != Some(&to) {
            let told = Told::Readings(polled.readings.clone());
            match ear.tell(told, Some(Progress { from, to })).await {
                Ok(()) => {}
                // Whoever read on told it; the next look begins there.
                Err(NotKept::Moved) => return Ok(true),
                Err(error) => return Err(words(error)),
            }
        }
        self.reach.add(now, &polled);
        Ok(polled.more)
    }

    /// What is new since a cursor. `now`: before the cluster is asked.
    ///
    /// # Errors
    /// Anything could not be read as a whole, or the cursor is none.
    pub async fn poll(&self, from: Option<&str>, now: Timestamp) -> Result<Polled, SourceError> {
        let cursor = match from {
            Some(text) => serde_json::from_str(text).map_err(|error| SourceError::Shape {
                asked: "the store".to_owned(),
                expected: "the cursor of this source".to_owned(),
                found: error.to_string(),
            })?,
            None => Cursor::new(now, &self.settings.window),
        };
        let (name, window) = (&self.settings.name, &self.settings.window);
        let fields = &self.settings.fields;
        let mut session = Session::open(&self.client, fields, &self.signatures).await?;
        let polled = poll(&mut session, name, &cursor, &self.signatures, window, now).await;
        session.close().await;
        polled
    }
}

#[async_trait]
impl Source for ElasticsearchSource {
    fn name(&self) -> &SourceName {
        &self.settings.name
    }

    async fn follow(&self, ear: Arc<dyn Ear>, stop: CancellationToken) {
        let round = || self.round(&*ear);
        rounds(&*ear, &self.settings.pace, &stop, round).await;
    }
}
