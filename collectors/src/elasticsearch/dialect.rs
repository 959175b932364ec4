//! What a server is, by its own word, and what follows for how it is asked. Pure.

use serde::Deserialize;

use crate::{Answer, SourceError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Elasticsearch,
    OpenSearch,
}

/// A server of a version that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    pub product: Product,
    pub major: u32,
    pub minor: u32,
}

/// How the server keeps what it shows still while it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// `POST INDEX/_pit`.
    Elasticsearch,
    /// `POST INDEX/_search/point_in_time`.
    OpenSearch,
    /// It cannot: what is added meanwhile is found by its count.
    None,
}

/// What orders lines of the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiebreak {
    /// Unique within a point in time.
    ShardDoc,
    /// A number of a shard: two lines of different shards may have the same, so the next page begins with the last ones again.
    SeqNo,
    /// Unique; the only one that servers before 6 have.
    Uid,
}

impl Tiebreak {
    pub fn field(self) -> &'static str {
        match self {
            Self::ShardDoc => "_shard_doc",
            Self::SeqNo => "_seq_no",
            Self::Uid => "_uid",
        }
    }
}

#[derive(Deserialize)]
struct Root {
    version: Version,
}

#[derive(Deserialize)]
struct Version {
    number: String,
    #[serde(default)]
    distribution: Option<String>,
}

impl Dialect {
    /// What `GET /` says.
    ///
    /// # Errors
    /// [`SourceError::Shape`]: it is no such server, or one of a version that was never tried.
    pub fn read(answer: &Answer) -> Result<Self, SourceError> {
        let root: Root = answer.json()?;
        let product = match root.version.distribution.as_deref() {
            Some("opensearch") => Product::OpenSearch,
            _ => Product::Elasticsearch,
        };
        let mut numbers = root.version.number.split('.').map(|part| part.parse().ok());
        let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
        let known = match (product, major) {
            (Product::Elasticsearch, Some(5..=9)) => true,
            // 7.10.2 is what OpenSearch calls itself for old clients' sake.
            (Product::OpenSearch, Some(1..=3 | 7)) => true,
            _ => false,
        };
        match (major, minor) {
            (Some(major), Some(minor)) if known => Ok(Self {
                product,
                major,
                minor,
            }),
            _ => Err(SourceError::Shape {
                asked: answer.asked.clone(),
                expected: "Elasticsearch 5 to 9 or OpenSearch 1 to 3".to_owned(),
                found: crate::label::tame(&format!("version {:?}", root.version.number), 100),
            }),
        }
    }

    fn at_least(self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }

    pub fn snapshot(self) -> Snapshot {
        match self.product {
            Product::Elasticsearch if self.at_least(7, 10) => Snapshot::Elasticsearch,
            Product::OpenSearch if self.major != 7 && self.at_least(2, 4) => Snapshot::OpenSearch,
            _ => Snapshot::None,
        }
    }

    /// `frozen`: it is asked within a point in time.
    pub fn tiebreak(self, frozen: bool) -> Tiebreak {
        let shard_doc = match self.product {
            Product::Elasticsearch => self.at_least(7, 12),
            Product::OpenSearch => self.major != 7 && self.at_least(3, 3),
        };
        match self.product {
            _ if frozen && shard_doc => Tiebreak::ShardDoc,
            Product::Elasticsearch if self.major < 6 => Tiebreak::Uid,
            _ => Tiebreak::SeqNo,
        }
    }

    /// The name of a histogram's width: `interval` until 7.2.
    pub fn interval(self) -> &'static str {
        match self.product {
            Product::Elasticsearch if !self.at_least(7, 2) => "interval",
            _ => "fixed_interval",
        }
    }

    /// Does it refuse to answer with a part, if asked to?
    pub fn refuses_parts(self) -> bool {
        self.product == Product::OpenSearch || self.at_least(6, 3)
    }

    /// Does it tell fields that only some indices have?
    pub fn tells_unmapped(self) -> bool {
        self.product == Product::OpenSearch || self.at_least(7, 3)
    }

    /// Does it tell how fields are mapped, over many indices?
    pub fn tells_fields(self) -> bool {
        self.product == Product::OpenSearch || self.at_least(5, 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Dialect, SourceError> {
        Dialect::read(&Answer {
            asked: "GET http://es/".into(),
            body: body.as_bytes().to_vec(),
        })
    }

    #[rstest::rstest]
    #[case("5.6.3", "", Snapshot::None, Tiebreak::Uid, "interval")]
    #[case("6.8.23", "", Snapshot::None, Tiebreak::SeqNo, "interval")]
    #[case("7.9.3", "", Snapshot::None, Tiebreak::SeqNo, "fixed_interval")]
    #[case(
        "7.10.2",
        "",
        Snapshot::Elasticsearch,
        Tiebreak::SeqNo,
        "fixed_interval"
    )]
    #[case(
        "8.15.0",
        "",
        Snapshot::Elasticsearch,
        Tiebreak::ShardDoc,
        "fixed_interval"
    )]
    #[case(
        "1.3.20",
        "opensearch",
        Snapshot::None,
        Tiebreak::SeqNo,
        "fixed_interval"
    )]
    #[case(
        "7.10.2",
        "opensearch",
        Snapshot::None,
        Tiebreak::SeqNo,
        "fixed_interval"
    )]
    #[case(
        "2.19.1",
        "opensearch",
        Snapshot::OpenSearch,
        Tiebreak::SeqNo,
        "fixed_interval"
    )]
    #[case(
        "3.3.0",
        "opensearch",
        Snapshot::OpenSearch,
        Tiebreak::ShardDoc,
        "fixed_interval"
    )]
    fn how_versions_are_asked(
        #[case] number: &str,
        #[case] distribution: &str,
        #[case] snapshot: Snapshot,
        #[case] tiebreak: Tiebreak,
        #[case] interval: &str,
    ) {
        let body = serde_json::json!({"version": {"number": number, "distribution": distribution}});
        let dialect = read(&body.to_string()).unwrap();
        assert_eq!(dialect.snapshot(), snapshot);
        let frozen = snapshot != Snapshot::None;
        assert_eq!(dialect.tiebreak(frozen), tiebreak);
        assert_ne!(dialect.tiebreak(false), Tiebreak::ShardDoc);
        assert_eq!(dialect.interval(), interval);
    }

    #[rstest::rstest]
    #[case(r#"{"version": {"number": "2.4.6"}}"#)]
    #[case(r#"{"version": {"number": "twelve"}}"#)]
    #[case(r#"{"message": "Not found"}"#)]
    #[case("<html>")]
    fn anything_else_is_named(#[case] body: &str) {
        assert!(matches!(read(body), Err(SourceError::Shape { .. })));
    }
}
