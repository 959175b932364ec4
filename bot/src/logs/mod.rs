//! Stores of logs: where they are asked from, and what is asked of all of them.

mod keep;
mod narrate;
mod wording;

use std::sync::Arc;

use collectors::{
    SourceError, SourceName,
    elasticsearch::{About, ElasticsearchSource, Reach},
    logs::{Line, Signatures},
    source::Reading,
};
use futures::future::join_all;
use jiff::Timestamp;

pub use keep::{Heard, hear};
pub use narrate::narrate;
pub use wording::{about, readings_table, status_lines};

use crate::{
    config::Loaded,
    store::{Store, StoreError},
};

/// The spaces of the store with what sources read that is no alert, one a source: key → reading.
pub const READINGS: &str = "readings";

/// What was read of late in all logs.
pub async fn readings(store: &Store) -> Result<Vec<Reading>, StoreError> {
    let kept = store.list_below(READINGS).await?;
    // One of another version is not understood, and goes with the next that is told.
    Ok(kept
        .iter()
        .filter_map(|(_, text)| serde_json::from_str(text).ok())
        .collect())
}

/// Every store of the configuration.
#[derive(Clone, Default)]
pub struct LogStores {
    sources: Vec<Arc<ElasticsearchSource>>,
    pub signatures: Arc<Signatures>,
}

/// What the stores gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Oldest first.
    pub lines: Vec<Line>,
    /// There are older ones between the same times.
    pub more: bool,
    /// Stores that did not answer, and why.
    pub silent: Vec<String>,
}

impl LogStores {
    /// # Errors
    /// An address or a certificate that is none.
    pub fn new(loaded: &Loaded, signatures: Arc<Signatures>) -> Result<Self, SourceError> {
        let stores = loaded.config.sources.elasticsearch.iter();
        let source = stores.zip(&loaded.logs).map(|(store, access)| {
            ElasticsearchSource::new(store.settings(access), signatures.clone()).map(Arc::new)
        });
        Ok(Self {
            sources: source.collect::<Result<_, _>>()?,
            signatures,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    pub fn sources(&self) -> &[Arc<ElasticsearchSource>] {
        &self.sources
    }

    /// How far each store was read.
    pub fn reaches(&self) -> Vec<(SourceName, Arc<Reach>)> {
        let sources = self.sources.iter();
        sources
            .map(|source| (source.settings().name.clone(), source.reach()))
            .collect()
    }

    /// The newest lines of all stores between two times, at most `most`.
    pub async fn lines(
        &self,
        about: &About,
        (from, to): (Timestamp, Timestamp),
        most: usize,
    ) -> Given {
        let asked = self.sources.iter().map(|source| async move {
            let fields = &source.settings().fields;
            let told = source.client().lines(fields, about, (from, to), most);
            (source, told.await)
        });
        let mut given = Given::default();
        for (source, told) in join_all(asked).await {
            match told {
                Ok(found) => {
                    given.more |= found.more;
                    given.lines.extend(found.lines);
                }
                Err(error) => {
                    let name = &source.settings().name;
                    given.silent.push(format!("{name} did not answer: {error}"));
                }
            }
        }
        // The question finds names that only contain the one that is meant.
        if !about.hosts.is_empty() {
            given
                .lines
                .retain(|line| about.hosts.iter().any(|host| is_host(line, host)));
        }
        given.lines.sort_by_key(|line| line.at);
        let before = given.lines.len().saturating_sub(most);
        given.more |= before > 0;
        given.lines.drain(..before);
        given
    }
}

fn is_host(line: &Line, name: &str) -> bool {
    let rest = line.host.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
