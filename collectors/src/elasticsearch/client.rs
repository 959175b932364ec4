//! Asking one cluster over HTTP, within limits of time and size.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use super::{Dialect, Settings, Snapshot, answer};
use crate::{
    Answer, SourceError,
    api::{Api, Connection},
};

/// For one page, or one count over hours of lines: a busy node takes seconds.
pub const SEARCH_WITHIN: Duration = Duration::from_secs(30);
/// How long a point in time is kept after the last page.
const KEEP_ALIVE: &str = "1m";

/// Speaks to one cluster, by any of its nodes.
pub struct ElasticsearchClient {
    nodes: Vec<Api>,
    /// The node that answered last.
    at: AtomicUsize,
    index: String,
}

/// A point in time.
pub struct Frozen {
    pub id: String,
}

/// One question.
enum Ask<'a> {
    Get,
    Post(&'a Value),
    Delete(&'a Value),
}

impl ElasticsearchClient {
    /// # Errors
    /// [`SourceError::Address`]: an address or a certificate that is none.
    pub fn new(settings: &Settings) -> Result<Self, SourceError> {
        let node = |url: &String| {
            Api::new(&Connection {
                credentials: settings.credentials.clone(),
                authorities: settings.authorities.clone(),
                answer_within: settings.answer_within,
                ..Connection::plain(url)
            })
        };
        let nodes = settings.urls.iter().map(node);
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            let found = "none".to_owned();
            return Err(SourceError::Address { found });
        }
        Ok(Self {
            nodes,
            at: AtomicUsize::new(0),
            index: settings.index.join(","),
        })
    }

    /// What it is, by its own word.
    ///
    /// # Errors
    /// It does not answer, or is none that is known.
    pub async fn dialect(&self) -> Result<Dialect, SourceError> {
        Dialect::read(&self.ask("", &Ask::Get).await?)
    }

    /// Searches the indices, or a point in time of them.
    ///
    /// # Errors
    /// It does not answer. Whether the answer is whole is not looked at here.
    pub async fn search(
        &self,
        dialect: Dialect,
        body: &Value,
        frozen: Option<&Frozen>,
    ) -> Result<Answer, SourceError> {
        let whole = match dialect.refuses_parts() {
            true => "&allow_partial_search_results=false",
            false => "",
        };
        match frozen {
            // Its indices are fixed.
            Some(frozen) => {
                let mut body = body.clone();
                body["pit"] = json!({ "id": frozen.id, "keep_alive": KEEP_ALIVE });
                let path = format!("_search?request_cache=false{whole}");
                self.ask(&path, &Ask::Post(&body)).await
            }
            None => {
                // The same copies each time: others may lag.
                let path = format!("./{}/_search?preference=nightshift{whole}", self.index);
                self.ask(&path, &Ask::Post(body)).await
            }
        }
    }

    /// How fields are mapped.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn capabilities(
        &self,
        dialect: Dialect,
        fields: &[String],
    ) -> Result<Answer, SourceError> {
        let twins = fields.iter().map(|field| answer::twin(field));
        let fields: Vec<String> = fields.iter().cloned().chain(twins).collect();
        let unmapped = match dialect.tells_unmapped() {
            true => "&include_unmapped=true",
            false => "",
        };
        let fields = fields.join(",");
        let path = format!("./{}/_field_caps?fields={fields}{unmapped}", self.index);
        self.ask(&path, &Ask::Get).await
    }

    /// Lets the indices stand still. None: this server cannot.
    ///
    /// # Errors
    /// It does not answer, or only for a part.
    pub async fn freeze(&self, dialect: Dialect) -> Result<Option<Frozen>, SourceError> {
        let path = match dialect.snapshot() {
            Snapshot::None => return Ok(None),
            Snapshot::Elasticsearch => format!("./{}/_pit?keep_alive={KEEP_ALIVE}", self.index),
            Snapshot::OpenSearch => {
                let index = &self.index;
                format!("./{index}/_search/point_in_time?keep_alive={KEEP_ALIVE}")
            }
        };
        match self.ask(&path, &Ask::Post(&json!({}))).await {
            Ok(opened) => Ok(Some(Frozen {
                id: answer::snapshot(&opened)?,
            })),
            // Builds without the part that knows of it, and accounts that may not.
            Err(SourceError::Status {
                status: 400 | 403 | 405,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lets go of a point in time. It would end by itself.
    pub async fn thaw(&self, dialect: Dialect, frozen: Frozen) {
        let (path, body) = match dialect.snapshot() {
            Snapshot::None => return,
            Snapshot::Elasticsearch => ("_pit", json!({ "id": frozen.id })),
            Snapshot::OpenSearch => ("_search/point_in_time", json!({ "pit_id": [frozen.id] })),
        };
        if let Err(error) = self.ask(path, &Ask::Delete(&body)).await {
            tracing::debug!(%error, "a point in time is left to end by itself");
        }
    }

    /// Asks the node that answered last, and the others if it does not.
    async fn ask(&self, path: &str, ask: &Ask<'_>) -> Result<Answer, SourceError> {
        let first = self.at.load(Ordering::Relaxed);
        let mut turn = 0;
        loop {
            let place = (first + turn) % self.nodes.len();
            let node = &self.nodes[place];
            let told = match ask {
                Ask::Get => node.get(path).await,
                Ask::Post(body) => node.post(path, body).await,
                Ask::Delete(body) => node.delete_with(path, body).await,
            };
            turn += 1;
            match told {
                Err(SourceError::Unreachable { .. } | SourceError::TimedOut { .. })
                    if turn < self.nodes.len() => {}
                told => {
                    self.at.store(place, Ordering::Relaxed);
                    return told.map(|dated| dated.answer);
                }
            }
        }
    }
}
