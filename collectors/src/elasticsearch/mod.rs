//! Elasticsearch 5 to 9 and OpenSearch 1 to 3 as a store of logs.
//!
//! `dialect`, `query` and `answer` are pure; `client` asks within limits; [`ElasticsearchSource`] reads what is new by
//! [`crate::logs::poll()`], and [`Lines`] are what people ask for.

pub mod answer;
mod client;
pub mod dialect;
mod follow;
pub mod query;
mod shelf;

use std::time::Duration;

use jiff::Timestamp;

pub use client::{ElasticsearchClient, SEARCH_WITHIN};
pub use dialect::{Dialect, Product, Snapshot, Tiebreak};
pub use query::About;

use crate::{
    SourceError, SourceName,
    api::Credentials,
    logs::{Line, Window},
    source::Pace,
};
pub use follow::{ElasticsearchSource, Reach, Reached};
pub use shelf::Session;

/// Where and how.
#[derive(Clone, Debug)]
pub struct Settings {
    pub name: SourceName,
    /// Of nodes of one cluster; the next one is asked when one does not answer.
    pub urls: Vec<String>,
    /// PEM: the only authorities that are believed; none: those of the system.
    pub authorities: Option<Vec<u8>>,
    pub credentials: Option<Credentials>,
    /// For one answer.
    pub answer_within: Duration,
    /// Names and patterns, for example `flog-*`.
    pub index: Vec<String>,
    pub fields: Fields,
    pub window: Window,
    pub pace: Pace,
}

/// Where in a document the parts of a line are. Of several names the first that is there counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// When the program wrote it; mapped as a date.
    pub time: String,
    /// When the store took it in; mapped as a date. Lines are then read in this order, which knows no late ones.
    pub ingested: Option<String>,
    pub host: Vec<String>,
    pub program: Vec<String>,
    pub level: Vec<String>,
    pub text: Vec<String>,
}

impl Default for Fields {
    /// Kolla's, by fluentd.
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            time: "@timestamp".to_owned(),
            ingested: None,
            host: names(&["Hostname"]),
            program: names(&["programname"]),
            level: names(&["log_level", "severity_label"]),
            text: names(&["Payload"]),
        }
    }
}

impl Fields {
    /// What lines are read in the order of.
    pub fn order(&self) -> &str {
        self.ingested.as_deref().unwrap_or(&self.time)
    }

    pub(crate) fn all_but_text(&self) -> Vec<&str> {
        let names = self.host.iter().chain(&self.program).chain(&self.level);
        std::iter::once(&self.time)
            .chain(names)
            .map(String::as_str)
            .collect()
    }

    pub(crate) fn all(&self) -> Vec<&str> {
        let text = self.text.iter().map(String::as_str);
        self.all_but_text().into_iter().chain(text).collect()
    }
}

/// Lines that a person asked for, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    pub lines: Vec<Line>,
    /// There are older ones between the same times.
    pub more: bool,
}

impl ElasticsearchClient {
    /// The newest lines between two times, at most `most`.
    ///
    /// # Errors
    /// It does not answer, or not with the whole.
    pub async fn lines(
        &self,
        fields: &Fields,
        about: &About,
        (from, to): (Timestamp, Timestamp),
        most: usize,
    ) -> Result<Lines, SourceError> {
        let body = query::lines(fields, about, (from, to), most + 1);
        let answer = self.search(self.dialect().await?, &body, None).await?;
        let found = answer::found(&answer)?;
        let line = |hit: &answer::Hit| answer::line(&answer, hit, fields);
        let mut lines = found.hits.iter().map(line).collect::<Result<Vec<_>, _>>()?;
        let more = lines.len() > most;
        lines.truncate(most);
        Ok(Lines { lines, more })
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
#[path = "conformance_tests.rs"]
mod conformance_tests;
