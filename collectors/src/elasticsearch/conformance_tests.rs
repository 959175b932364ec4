//! The rules of every source, held by this one against a small server that answers as OpenSearch does.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::{
    logs::{Fold, Pattern, Severity, Signature, Signatures, cursor::BUCKET_SECONDS, reading},
    source::{
        Source,
        conformance::{Rig, conformance},
        testing::{ANSWER_WITHIN, Asked, Kept, PACE, Reply, Server},
    },
};

type Written = Arc<Mutex<Vec<(i64, String)>>>;

struct Logs {
    server: Server,
    written: Written,
}

impl Logs {
    async fn start() -> Self {
        let written = Written::default();
        let lines = written.clone();
        Self {
            server: Server::start(move |asked| answer(asked, &lines.lock().unwrap())).await,
            written,
        }
    }
}

fn answer(asked: &Asked, lines: &[(i64, String)]) -> Reply {
    Reply::Json(match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/") => json!({"version": {"number": "2.19.6", "distribution": "opensearch"}}),
        ("GET", "/flog-*/_field_caps") => json!({"fields": {"programname": {"keyword": {}}}}),
        ("POST", "/flog-*/_search/point_in_time") => json!({"pit_id": "one"}),
        ("DELETE", "/_search/point_in_time") => json!({"pits": []}),
        ("POST", "/_search") => search(&asked.json(), lines),
        other => return Reply::Status(404, json!({"error": format!("{other:?}")})),
    })
}

fn search(body: &Value, lines: &[(i64, String)]) -> Value {
    assert_eq!(body["pit"]["id"], "one");
    let range = &body["query"]["bool"]["filter"][0]["range"]["@timestamp"];
    let (from, to) = (
        range["gte"].as_i64().unwrap(),
        range["lt"].as_i64().unwrap(),
    );
    let within = lines.iter().enumerate();
    let within = within.filter(|(_, (at, _))| (from..to).contains(at));
    let mut found: Vec<(usize, &(i64, String))> = within.collect();
    found.sort_by_key(|(place, (at, _))| (*at, *place));
    let shards = json!({"total": 1, "successful": 1, "skipped": 0, "failed": 0});
    if body["size"] == 0 {
        let mut buckets = std::collections::BTreeMap::new();
        for (_, (at, _)) in &found {
            let width = BUCKET_SECONDS * 1_000;
            *buckets.entry(at.div_euclid(width) * width).or_insert(0) += 1;
        }
        let buckets: Vec<Value> = buckets
            .iter()
            .map(|(key, count)| json!({"key": key, "doc_count": count}))
            .collect();
        let newest = found.last().map(|(_, (at, _))| at);
        return json!({"timed_out": false, "_shards": shards, "pit_id": "one", "aggregations": {
            "newest": {"value": newest}, "wanted": {"doc_count": found.len(), "buckets": {"buckets": buckets}},
        }});
    }
    if let Some(after) = body["search_after"].as_array() {
        let after = (after[0].as_i64().unwrap(), after[1].as_i64().unwrap());
        found.retain(|(place, (at, _))| (*at, *place as i64) > after);
    }
    found.truncate(body["size"].as_u64().unwrap() as usize);
    let hit = |(place, (at, text)): &(usize, &(i64, String))| {
        json!({"_index": "flog-1", "_id": place.to_string(), "sort": [at, place], "_source": {
            "@timestamp": Timestamp::from_millisecond(*at).unwrap().to_string(),
            "Hostname": "ctl1", "programname": "mariadb", "Payload": text,
        }})
    };
    let hits: Vec<Value> = found.iter().map(hit).collect();
    json!({"timed_out": false, "_shards": shards, "pit_id": "one", "hits": {"hits": hits}})
}

#[async_trait]
impl Rig for Logs {
    fn server(&self) -> &Server {
        &self.server
    }

    fn source(&self) -> Arc<dyn Source> {
        let signature = Signature {
            id: "test.thing".into(),
            service: "mariadb".into(),
            programs: vec!["mariadb".into()],
            pattern: Pattern::Regex(r"thing (?<about>\w+) begins".into()),
            severity: Severity::Notice,
            feeds: vec![],
            fold: Fold::Host,
            means: String::new(),
        };
        let settings = Settings {
            name: SourceName("logs".into()),
            urls: vec![self.server.url()],
            authorities: None,
            credentials: None,
            answer_within: ANSWER_WITHIN,
            index: vec!["flog-*".into()],
            fields: Fields::default(),
            window: Window::default(),
            pace: PACE,
        };
        let signatures = Arc::new(Signatures::new(vec![signature]).unwrap());
        Arc::new(ElasticsearchSource::new(settings, signatures).unwrap())
    }

    async fn begins(&self, thing: &str) {
        let now = Timestamp::now().as_millisecond();
        let mut written = self.written.lock().unwrap();
        written.push((now, format!("the thing {thing} begins")));
        written.push((now, "nothing of note".into()));
    }

    async fn ends(&self, _: &str) -> bool {
        false
    }

    fn heard(&self, kept: &Kept, thing: &str) -> (u64, u64) {
        let about = |one: &&crate::source::Reading| {
            one.labels
                .get(reading::ABOUT)
                .is_some_and(|about| about == thing)
        };
        let counts = kept.readings.iter().filter(about).map(|one| one.count);
        (counts.sum(), 0)
    }

    fn remembers_what_is_over(&self) -> bool {
        true
    }
}

conformance!(Logs::start);
