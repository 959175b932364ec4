//! Asking one Icinga, or the masters of one zone.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::json;

use super::{
    events::{Lines, TYPES},
    objects::{self, CheckState, Checkable, HOST, Held, Kind, Named, Part, SERVICE, Vitals},
};
use crate::{
    SourceError, SourceName,
    api::{Api, Connection},
};

/// Cheap to clone.
#[derive(Clone)]
pub struct Icinga2Client {
    name: SourceName,
    masters: Vec<Master>,
}

#[derive(Clone)]
pub(super) struct Master {
    pub api: Api,
    url: String,
}

impl Icinga2Client {
    /// # Errors
    /// [`SourceError::Address`].
    pub fn new(name: SourceName, masters: &[Connection]) -> Result<Self, SourceError> {
        let master = |at: &Connection| {
            let (api, url) = (Api::new(at)?, at.url.clone());
            Ok(Master { api, url })
        };
        Ok(Self {
            name,
            masters: masters.iter().map(master).collect::<Result<_, _>>()?,
        })
    }

    pub fn name(&self) -> &SourceName {
        &self.name
    }

    pub(super) fn master(&self, turn: usize) -> Option<&Master> {
        self.masters.get(turn % self.masters.len().max(1))
    }

    /// Acknowledgements and downtimes in effect, of all hosts and services.
    ///
    /// # Errors
    /// No master answered: it is unknown.
    pub async fn held(&self) -> Result<Vec<Held>, SourceError> {
        self.first(|master| async move { master.held(Timestamp::now()).await })
            .await
    }

    /// These hosts and services as Icinga last checked them; those that there are.
    ///
    /// # Errors
    /// No master answered: it is unknown.
    pub async fn checks(&self, of: &BTreeSet<Named>) -> Result<Vec<CheckState>, SourceError> {
        self.first(|master| async move { master.checks(of).await })
            .await
    }

    /// The answer of the first master that gives one.
    pub(super) async fn first<T, Fut>(
        &self,
        mut ask: impl FnMut(Master) -> Fut,
    ) -> Result<T, SourceError>
    where
        Fut: Future<Output = Result<T, SourceError>>,
    {
        let mut last = SourceError::Address {
            found: "none".to_owned(),
        };
        for master in &self.masters {
            match ask(master.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Master {
    pub fn says(&self, why: &str) -> String {
        format!("{}: {why}", self.url)
    }

    pub async fn events(&self) -> Result<Lines, SourceError> {
        // Who shares a queue shares its events.
        let (process, now) = (std::process::id(), Timestamp::now().as_nanosecond());
        let body = json!({ "queue": format!("nightshift-{process}-{now}"), "types": TYPES });
        self.api.open("v1/events", &body).await.map(Lines::new)
    }

    pub async fn vitals(&self) -> Result<Vitals, SourceError> {
        let counts = self.api.get("v1/status/CIB").await?;
        let app = self.api.get("v1/status/IcingaApplication").await?;
        objects::vitals(&counts.answer, &app.answer)
    }

    /// Everything, or some objects, as they are now.
    pub async fn read(&self, named: Option<&BTreeSet<Named>>) -> Result<Part, SourceError> {
        let asked_at = Timestamp::now();
        let mut checkables = Vec::new();
        for kind in [&HOST, &SERVICE] {
            checkables.extend(self.checkables(kind, named).await?);
        }
        Ok(Part {
            asked_at,
            named: named.cloned(),
            checkables,
            held: self.held(asked_at).await?,
        })
    }

    async fn checkables(
        &self,
        kind: &Kind,
        named: Option<&BTreeSet<Named>>,
    ) -> Result<Vec<Checkable>, SourceError> {
        let body = match named {
            None => json!({ "filter": kind.problems, "attrs": kind.attributes }),
            Some(named) => match kind.names(named) {
                None => return Ok(Vec::new()),
                Some(names) => {
                    json!({ "filter": kind.named, "filter_vars": names, "attrs": kind.attributes })
                }
            },
        };
        objects::checkables(&self.api.query(kind.path, &body).await?.answer)
    }

    async fn checks(&self, of: &BTreeSet<Named>) -> Result<Vec<CheckState>, SourceError> {
        let mut all = Vec::new();
        for kind in [&HOST, &SERVICE] {
            let Some(names) = kind.names(of) else {
                continue;
            };
            let body = json!({ "filter": kind.named, "filter_vars": names, "attrs": objects::CHECK_ATTRIBUTES });
            let answer = self.api.query(kind.path, &body).await?.answer;
            all.extend(objects::checks(&answer)?);
        }
        Ok(all)
    }

    pub async fn held(&self, now: Timestamp) -> Result<Vec<Held>, SourceError> {
        let acknowledgements = json!({ "filter": "comment.entry_type == 4" });
        let comments = self.api.query("v1/objects/comments", &acknowledgements);
        let mut held = objects::acknowledgements(&comments.await?.answer)?;
        let downtimes = self.api.get("v1/objects/downtimes").await?;
        held.extend(objects::downtimes(&downtimes.answer, now)?);
        Ok(held)
    }
}
