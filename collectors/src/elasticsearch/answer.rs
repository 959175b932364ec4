//! What the server answers. Pure; a part is never taken for the whole.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Fields,
    query::{BUCKETS, NEWEST, WANTED},
};
use crate::{
    Answer, SourceError,
    label::tame,
    logs::{Count, LINE_LIMIT_BYTES, Line, NAME_LIMIT_BYTES, cursor::bucket_of, cut},
};

/// Values of time above this are nanoseconds (as of 1970-04-26), below it milliseconds (until 2286).
const NANOS_FROM: i64 = 10_000_000_000_000_000;

#[derive(Deserialize)]
struct Search {
    timed_out: bool,
    #[serde(default)]
    terminated_early: bool,
    _shards: Shards,
    #[serde(default)]
    hits: Hits,
    #[serde(default)]
    aggregations: Option<Map<String, Value>>,
    #[serde(default)]
    pit_id: Option<String>,
    #[serde(default)]
    _clusters: Option<Clusters>,
}

#[derive(Deserialize)]
struct Shards {
    total: u64,
    successful: u64,
    failed: u64,
    #[serde(default)]
    failures: Vec<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    reason: Option<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Clusters {
    #[serde(default)]
    total: u64,
    #[serde(default)]
    successful: u64,
}

#[derive(Default, Deserialize)]
struct Hits {
    #[serde(default)]
    hits: Vec<Hit>,
}

/// One line as it came.
#[derive(Deserialize)]
pub struct Hit {
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_source", default)]
    source: Map<String, Value>,
    #[serde(default)]
    pub sort: Vec<Value>,
}

impl Hit {
    /// Its index and its name there: nothing else is the same line.
    pub fn place(&self) -> (String, String) {
        (self.index.clone(), self.id.clone())
    }
}

/// Hits of a whole answer.
pub struct Found {
    pub hits: Vec<Hit>,
    /// The point in time goes on under this name.
    pub snapshot: Option<String>,
}

fn shape(answer: &Answer, expected: &str, found: impl Into<String>) -> SourceError {
    SourceError::Shape {
        asked: answer.asked.clone(),
        expected: expected.to_owned(),
        found: found.into(),
    }
}

fn whole(answer: &Answer) -> Result<Search, SourceError> {
    let search: Search = answer.json()?;
    let shards = &search._shards;
    let why = shards
        .failures
        .iter()
        .find_map(|one| one.reason.as_ref()?.reason.as_deref());
    let clusters = search._clusters.as_ref();
    let found = if search.timed_out {
        "it ran out of time".to_owned()
    } else if search.terminated_early {
        "it ended early".to_owned()
    } else if shards.failed > 0 || shards.successful < shards.total {
        let why = tame(why.unwrap_or("they are not there"), 200);
        format!("{} of {} shards: {why}", shards.successful, shards.total)
    } else if clusters.is_some_and(|clusters| clusters.successful < clusters.total) {
        "not all of its clusters".to_owned()
    } else if shards.total == 0 {
        return Err(shape(answer, "an index of this name", "none"));
    } else {
        return Ok(search);
    };
    Err(shape(answer, "the whole answer", found))
}

/// # Errors
/// Anything but a whole answer.
pub fn found(answer: &Answer) -> Result<Found, SourceError> {
    let search = whole(answer)?;
    Ok(Found {
        hits: search.hits.hits,
        snapshot: search.pit_id,
    })
}

#[derive(Deserialize)]
struct Newest {
    value: Option<f64>,
}

#[derive(Deserialize)]
struct Histogram {
    buckets: Vec<HistogramBucket>,
}

#[derive(Deserialize)]
struct HistogramBucket {
    key: f64,
    doc_count: u64,
}

/// The answer to a count, and the name under which the point in time goes on.
///
/// # Errors
/// Anything but a whole answer.
pub fn count(answer: &Answer) -> Result<(Count, Option<String>), SourceError> {
    let search = whole(answer)?;
    let mut aggregations = search.aggregations.unwrap_or_default();
    let expected = "the number of lines in each bucket";
    let wrong = |error: serde_json::Error| shape(answer, expected, error.to_string());
    let newest = aggregations.remove(NEWEST).unwrap_or_default();
    let newest: Newest = serde_json::from_value(newest).map_err(wrong)?;
    let mut wanted = aggregations.remove(WANTED).unwrap_or_default();
    let buckets = wanted.get_mut(BUCKETS).map(Value::take).unwrap_or_default();
    let buckets: Histogram = serde_json::from_value(buckets).map_err(wrong)?;
    let bucket = |one: HistogramBucket| {
        let start = Timestamp::from_second((one.key / 1_000.0).floor() as i64).ok()?;
        Some((bucket_of(start), one.doc_count))
    };
    let count = Count {
        buckets: buckets.buckets.into_iter().filter_map(bucket).collect(),
        newest: newest.value.and_then(|value| time_of(value as i64)),
    };
    Ok((count, search.pit_id))
}

/// A time as the server sorts by it.
fn time_of(value: i64) -> Option<Timestamp> {
    match value {
        NANOS_FROM.. => Timestamp::from_nanosecond(i128::from(value)).ok(),
        _ => Timestamp::from_millisecond(value).ok(),
    }
}

/// The line of a hit. One without a readable time of its own has that of its place in the order.
///
/// # Errors
/// [`SourceError::Shape`]: it has no place in the order.
pub fn line(answer: &Answer, hit: &Hit, fields: &Fields) -> Result<Line, SourceError> {
    let sorted = hit.sort.first().and_then(|value| match value {
        Value::Number(number) => number.as_i64().or(number.as_f64().map(|f| f as i64)),
        Value::String(text) => text.parse().ok(),
        _ => None,
    });
    let order = sorted.and_then(time_of);
    let order =
        order.ok_or_else(|| shape(answer, "lines with a time to sort by", "one without"))?;
    let at = field(&hit.source, &fields.time).and_then(time);
    let name = |of: &[String]| tame(&first(&hit.source, of), NAME_LIMIT_BYTES);
    let text = first(&hit.source, &fields.text);
    Ok(Line {
        order,
        at: at.unwrap_or(order),
        ingested: fields.ingested.as_ref().map(|_| order),
        host: name(&fields.host),
        program: name(&fields.program),
        level: name(&fields.level),
        text: cut(&text, LINE_LIMIT_BYTES).to_owned(),
    })
}

/// A time as lines carry it: a text with a zone, or milliseconds.
fn time(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => time_of(number.as_i64()?),
        _ => None,
    }
}

/// The first of the fields that is there; numbers and lists as JSON.
fn first<'s>(source: &'s Map<String, Value>, fields: &[String]) -> Cow<'s, str> {
    match fields.iter().find_map(|name| field(source, name)) {
        None | Some(Value::Null) => Cow::Borrowed(""),
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(other) => Cow::Owned(other.to_string()),
    }
}

/// A field by its name, which may lead into objects.
fn field<'s>(source: &'s Map<String, Value>, name: &str) -> Option<&'s Value> {
    if let Some(value) = source.get(name) {
        return Some(value);
    }
    let (head, rest) = name.split_once('.')?;
    field(source.get(head)?.as_object()?, rest)
}

/// Where servers keep the whole value of a text, if nobody says otherwise.
pub fn twin(field: &str) -> String {
    format!("{field}.keyword")
}

#[derive(Deserialize)]
struct Capabilities {
    fields: BTreeMap<String, BTreeMap<String, Value>>,
}

/// Those of the fields, or of their exact twins (`FIELD.keyword`), whose values are kept whole in all indices. None: some field may
/// hold a program that no exact question finds.
///
/// # Errors
/// It is no such answer.
pub fn exact_fields(
    answer: &Answer,
    fields: &[String],
) -> Result<Option<Vec<String>>, SourceError> {
    let known: Capabilities = answer.json()?;
    let types = |name: &str| {
        known
            .fields
            .get(name)
            .map(|types| types.keys().collect::<Vec<_>>())
    };
    let only = |name: &str, kind: &str| types(name).is_some_and(|types| types == [kind]);
    let mut exact = Vec::new();
    for field in fields {
        let twin = twin(field);
        match types(field) {
            None => {}
            Some(_) if only(field, "keyword") => exact.push(field.clone()),
            Some(_) if only(field, "text") && only(&twin, "keyword") => exact.push(twin),
            Some(types) if types == ["unmapped"] => {}
            Some(_) => return Ok(None),
        }
    }
    Ok((!exact.is_empty()).then_some(exact))
}

/// The name of a point in time.
///
/// # Errors
/// It is no such answer, or a point in time of a part.
pub fn snapshot(answer: &Answer) -> Result<String, SourceError> {
    #[derive(Deserialize)]
    struct Opened {
        #[serde(alias = "pit_id")]
        id: String,
        #[serde(default)]
        _shards: Option<Shards>,
    }
    let opened: Opened = answer.json()?;
    match opened._shards {
        Some(shards) if shards.failed > 0 || shards.successful < shards.total => {
            let found = format!("{} of {} shards", shards.successful, shards.total);
            Err(shape(answer, "a point in time of all shards", found))
        }
        _ => Ok(opened.id),
    }
}
