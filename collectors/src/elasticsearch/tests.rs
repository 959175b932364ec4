//! Answers as OpenSearch 2.19 gave them, and what would be taken for the whole if nobody looked.

use serde_json::{Value, json};

use super::*;
use crate::Answer;

fn captured(body: &str) -> Answer {
    Answer {
        asked: "POST http://es/_search".into(),
        body: body.as_bytes().to_vec(),
    }
}

const ROOT: &str = include_str!("../testdata/opensearch-root.json");
const COUNT: &str = include_str!("../testdata/opensearch-count.json");
const PAGE: &str = include_str!("../testdata/opensearch-page.json");
const PIT: &str = include_str!("../testdata/opensearch-pit.json");
const PARTIAL: &str = include_str!("../testdata/opensearch-partial.json");
const NO_INDEX: &str = include_str!("../testdata/opensearch-no-index.json");
const FIELDS: &str = include_str!("../testdata/opensearch-field-caps.json");
const MIXED: &str = include_str!("../testdata/opensearch-field-caps-mixed.json");

#[test]
fn what_a_real_server_says() {
    let dialect = Dialect::read(&captured(ROOT)).unwrap();
    assert_eq!(
        (dialect.product, dialect.major, dialect.minor),
        (Product::OpenSearch, 2, 19)
    );
    let (count, _) = answer::count(&captured(COUNT)).unwrap();
    let five = "2026-11-26T05:00:00Z".parse::<Timestamp>().unwrap();
    assert_eq!(count.buckets, [(five.as_second(), 8)].into());
    assert_eq!(
        count.newest.unwrap().to_string(),
        "2026-11-26T05:00:07.123Z"
    );
    assert!(answer::snapshot(&captured(PIT)).unwrap().len() > 100);
    let answer = captured(PAGE);
    let found = answer::found(&answer).unwrap();
    assert!(found.snapshot.is_some());
    let line = answer::line(&answer, &found.hits[1], &Fields::default()).unwrap();
    assert_eq!(line.at.to_string(), "2026-11-26T05:00:02.123Z");
    assert_eq!((line.order, line.ingested), (line.at, None));
    assert_eq!(
        (line.host.as_str(), line.program.as_str()),
        ("ctl1", "mariadb")
    );
    assert_eq!(line.text, "line 2 SST failed: 1 \u{1b}[31m");
    assert_eq!(line.shown(100), "line 2 SST failed: 1 \\u{1b}[31m");
}

#[test]
fn a_filter_only_where_it_loses_nothing() {
    let program = ["programname".to_owned()];
    let exact = |body| answer::exact_fields(&captured(body), &program).unwrap();
    assert_eq!(exact(FIELDS), Some(vec!["programname.keyword".to_owned()]));
    assert_eq!(exact(MIXED), None, "one index keeps it in another way");
    assert_eq!(exact(r#"{"fields": {}}"#), None, "no index has it");
    let keyword = r#"{"fields": {"programname": {"keyword": {}}}}"#;
    assert_eq!(exact(keyword), Some(vec!["programname".to_owned()]));
    let unmapped = r#"{"fields": {"programname": {"keyword": {}, "unmapped": {}}}}"#;
    assert_eq!(exact(unmapped), None);
}

fn changed(change: impl FnOnce(&mut Value)) -> Answer {
    let mut body: Value = serde_json::from_str(COUNT).unwrap();
    change(&mut body);
    captured(&body.to_string())
}

#[test]
fn a_part_is_never_taken_for_the_whole() {
    let why = |answer: &Answer| answer::count(answer).unwrap_err().to_string();
    let is = |answer: &Answer, part: &str| assert!(why(answer).contains(part), "{}", why(answer));
    is(
        &captured(PARTIAL),
        "1 of 3 shards: Text fields are not optimised",
    );
    is(
        &captured(NO_INDEX),
        "expected an index of this name, found none",
    );
    is(
        &changed(|body| body["timed_out"] = json!(true)),
        "ran out of time",
    );
    is(
        &changed(|body| body["terminated_early"] = json!(true)),
        "ended early",
    );
    is(
        &changed(|body| body["_shards"]["failed"] = json!(1)),
        "2 of 2 shards",
    );
    // A shard without a copy is not even counted as failed.
    is(
        &changed(|body| body["_shards"]["successful"] = json!(1)),
        "1 of 2 shards",
    );
    let clusters = json!({"total": 2, "successful": 1, "skipped": 1});
    is(
        &changed(|body| body["_clusters"] = clusters),
        "not all of its clusters",
    );
    is(
        &changed(|body| body["aggregations"] = json!({})),
        "expected the number of lines",
    );
    is(&captured("{}"), "missing field");
    is(&captured("<html>"), "<html>");
    let part = r#"{"id": "x", "_shards": {"total": 2, "successful": 1, "failed": 0}}"#;
    assert!(answer::snapshot(&captured(part)).is_err());
}

fn hit(source: Value, sort: Value) -> answer::Hit {
    serde_json::from_value(json!({"_index": "i", "_id": "1", "_source": source, "sort": sort}))
        .unwrap()
}

#[test]
fn fields_may_lead_into_objects_and_times_be_written_in_many_ways() {
    let fields = Fields {
        time: "@timestamp".into(),
        ingested: Some("event.ingested".into()),
        host: vec!["Hostname".into(), "host.name".into()],
        program: vec!["process.name".into()],
        level: vec![],
        text: vec!["message".into()],
    };
    let line = |source, sort| answer::line(&captured("{}"), &hit(source, sort), &fields);
    let source = json!({"@timestamp": "2026-11-26T05:00:00.123456789+01:00", "host": {"name": "a\nb"}, "process.name": "x", "message": {"k": 1}});
    let one = line(source, json!([1_795_669_200_123_i64, 0])).unwrap();
    assert_eq!(one.at.to_string(), "2026-11-26T04:00:00.123456789Z");
    assert_eq!(one.order.to_string(), "2026-11-26T05:00:00.123Z");
    assert_eq!(one.ingested, Some(one.order));
    assert_eq!((one.host.as_str(), one.program.as_str()), ("a\\u{a}b", "x"));
    assert_eq!(one.text, "{\"k\":1}");
    let nanos = line(
        json!({"@timestamp": 1_795_669_200_123_i64}),
        json!([1_795_669_200_123_456_789_i64]),
    )
    .unwrap();
    assert_eq!(nanos.order.to_string(), "2026-11-26T05:00:00.123456789Z");
    assert_eq!(nanos.at.to_string(), "2026-11-26T05:00:00.123Z");
    let odd = line(
        json!({"@timestamp": "yesterday"}),
        json!([1_795_669_200_123_i64]),
    )
    .unwrap();
    assert_eq!(odd.at, odd.order, "its place in the order is known");
    for unsorted in [json!([]), json!([null]), json!(["x"])] {
        assert!(line(json!({}), unsorted).is_err());
    }
    let huge = json!({"message": "ü".repeat(5_000_000)});
    let cut = line(huge, json!([1])).unwrap();
    assert_eq!(cut.text.len(), crate::logs::LINE_LIMIT_BYTES);
}

#[test]
fn words_of_people_are_values_in_a_query_and_nothing_else() {
    let about = About {
        hosts: ["ctl1".to_owned()].into(),
        programs: ["mariadb".to_owned()].into(),
        words: Some("\"}}, {\"match_all\": {}} OR _exists_:x".to_owned()),
    };
    let at = Timestamp::UNIX_EPOCH;
    let body = query::lines(&Fields::default(), &about, (at, at), 7);
    let filters = body["query"]["bool"]["filter"].as_array().unwrap();
    assert_eq!(filters.len(), 4);
    let words = &filters[3]["simple_query_string"];
    assert_eq!(words["query"], json!(about.words));
    assert_eq!(words["fields"], json!(["Payload"]));
    assert_eq!(body["size"], json!(7));
    let all = query::lines(&Fields::default(), &About::default(), (at, at), 7);
    assert_eq!(all["query"]["bool"]["filter"].as_array().unwrap().len(), 1);
}
