//! What the server is asked, as JSON values. Nothing from outside becomes a part of a query but as a value in its place. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Dialect, Fields, Tiebreak};
use crate::logs::cursor::BUCKET_SECONDS;

/// Of the answer to a count, the parts that are read.
pub(super) const NEWEST: &str = "newest";
pub(super) const WANTED: &str = "wanted";
pub(super) const BUCKETS: &str = "buckets";

/// Only these programs, by these fields whose values are kept whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub fields: Vec<String>,
    pub programs: BTreeSet<String>,
}

impl Filter {
    fn query(&self) -> Value {
        let one = |field: &String| json!({ "terms": { field: self.programs } });
        let any: Vec<Value> = self.fields.iter().map(one).collect();
        json!({ "bool": { "should": any, "minimum_should_match": 1 } })
    }
}

fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

fn range(field: &str, from: Timestamp, to: Timestamp) -> Value {
    let (from, to) = (millis(from), millis(to));
    json!({ "range": { field: { "gte": from, "lt": to, "format": "epoch_millis" } } })
}

/// How many lines there are in each bucket.
pub fn count(
    dialect: Dialect,
    fields: &Fields,
    filter: Option<&Filter>,
    from: Timestamp,
    to: Timestamp,
) -> Value {
    let order = fields.order();
    let wanted = filter.map_or_else(|| json!({ "match_all": {} }), Filter::query);
    let width = format!("{BUCKET_SECONDS}s");
    let histogram = json!({ "field": order, dialect.interval(): width, "min_doc_count": 1 });
    json!({
        "size": 0,
        "query": { "bool": { "filter": [range(order, from, to)] } },
        "aggs": {
            NEWEST: { "max": { "field": order } },
            WANTED: {
                "filter": wanted,
                "aggs": { BUCKETS: { "date_histogram": histogram } },
            },
        },
    })
}

/// A page of a range, in the order of time and tiebreak. `after`: the sort values of the last line before it.
pub fn page(
    fields: &Fields,
    filter: Option<&Filter>,
    (from, to): (Timestamp, Timestamp),
    tiebreak: Tiebreak,
    after: Option<&[Value]>,
) -> Value {
    let order = fields.order();
    let mut filters = vec![range(order, from, to)];
    filters.extend(filter.map(Filter::query));
    let mut body = json!({
        "query": { "bool": { "filter": filters } },
        "sort": [{ order: { "order": "asc" } }, { tiebreak.field(): { "order": "asc" } }],
        "_source": fields.all(),
    });
    if let Some(after) = after {
        body["search_after"] = json!(after);
    }
    body
}

/// As a page of one line, but without the text.
pub fn without_text(mut page: Value, fields: &Fields) -> Value {
    page["_source"] = json!(fields.all_but_text());
    page
}

/// The newest lines about hosts or programs, for people.
pub fn lines(
    fields: &Fields,
    about: &About,
    (from, to): (Timestamp, Timestamp),
    size: usize,
) -> Value {
    let mut filters = vec![range(&fields.time, from, to)];
    filters.extend(any(&fields.host, &about.hosts, true));
    filters.extend(any(&fields.program, &about.programs, false));
    if let Some(words) = &about.words {
        // Never a query language with fields, ranges or scripts: words, phrases in quotes, and + - | of the simple one.
        filters.push(json!({ "simple_query_string": {
            "query": words, "fields": fields.text, "default_operator": "and", "lenient": true,
            "flags": "PHRASE|OR|AND|NOT|WHITESPACE",
        } }));
    }
    json!({
        "size": size,
        "query": { "bool": { "filter": filters } },
        "sort": [{ &fields.time: { "order": "desc" } }],
        "_source": fields.all(),
        "timeout": "5s",
    })
}

/// Any of the fields holds any of the values, or one that goes on after it with a dot, as names of hosts do; none wanted: no filter.
fn any(fields: &[String], values: &BTreeSet<String>, longer: bool) -> Option<Value> {
    let of = |value: &String| {
        let longer = longer.then(|| format!("{value}."));
        let one = |field: &String| {
            let exact = json!({ "match_phrase": { field: value } });
            let longer = longer
                .as_ref()
                .map(|start| json!({ "prefix": { field: start } }));
            std::iter::once(exact).chain(longer).collect::<Vec<_>>()
        };
        fields.iter().flat_map(one).collect::<Vec<_>>()
    };
    let any: Vec<Value> = values.iter().flat_map(of).collect();
    (!values.is_empty()).then(|| json!({ "bool": { "should": any, "minimum_should_match": 1 } }))
}

/// Whose lines people want to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Any of these hosts; empty: all.
    pub hosts: BTreeSet<String>,
    /// Any of these programs; empty: all.
    pub programs: BTreeSet<String>,
    /// Words that are all in the text.
    pub words: Option<String>,
}
