//! How fast a store of logs is looked through, and how long people wait for lines of it. See `cargo lab bench logs`.
//!
//! Arguments: the address of the store, and an index or a pattern. Prints one line of JSON.

use std::{
    collections::BTreeSet,
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use collectors::{
    SourceName,
    elasticsearch::{About, ElasticsearchSource, Fields, SEARCH_WITHIN, Settings},
    logs::{Fold, Pattern, Severity, Signature, Signatures, Window},
    source::Pace,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Questions as people ask them.
const QUESTIONS: usize = 200;
/// Lines of one answer, as `logs` asks for.
const LINES: usize = 40;
/// Programs that the benchmark writes lines of, beside those with signatures.
const OTHERS: [&str; 3] = ["haproxy", "sshd", "cron"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let url = words.next().ok_or("expected the address of a store")?;
    let index = words.next().ok_or("expected an index")?;
    let built_in = runbooks::signatures::load(&[]).map_err(|errors| errors.to_string())?;
    let mut all: Vec<Signature> = built_in.iter().cloned().collect();
    let source = source(&url, &index, built_in)?;
    let questions = questions(&source).await?;
    let filtered = look_through(&source).await?;
    // With a signature for each program no line can be left out by the server.
    all.push(Signature {
        id: "bench.others".to_owned(),
        service: "host".to_owned(),
        programs: OTHERS.map(str::to_owned).into(),
        pattern: Pattern::Phrase("no line has this".to_owned()),
        severity: Severity::Notice,
        feeds: Vec::new(),
        fold: Fold::Host,
        means: String::new(),
    });
    let all = Signatures::new(all).map_err(|(_, why)| why)?;
    let whole = look_through(&self::source(&url, &index, all)?).await?;
    println!(
        "{}",
        json!({ "questions_ms": questions, "filtered": filtered, "all": whole })
    );
    Ok(())
}

fn source(
    url: &str,
    index: &str,
    signatures: Signatures,
) -> Result<ElasticsearchSource, Box<dyn Error>> {
    let settings = Settings {
        name: SourceName("bench".to_owned()),
        urls: vec![url.to_owned()],
        authorities: None,
        credentials: None,
        answer_within: SEARCH_WITHIN,
        index: vec![index.to_owned()],
        fields: Fields::default(),
        // So that a new cursor begins before the first line.
        window: Window {
            late: SignedDuration::from_hours(1),
            ..Window::default()
        },
        pace: Pace::ASKED,
    };
    Ok(ElasticsearchSource::new(settings, Arc::new(signatures))?)
}

/// Milliseconds of each.
async fn questions(source: &ElasticsearchSource) -> Result<Vec<f64>, Box<dyn Error>> {
    let one = |text: &str| BTreeSet::from([text.to_owned()]);
    let about = |hosts, programs, words: Option<&str>| About {
        hosts,
        programs,
        words: words.map(str::to_owned),
    };
    let kinds = [
        about(one("ctl1"), BTreeSet::new(), None),
        about(BTreeSet::new(), one("mariadb"), None),
        about(
            BTreeSet::new(),
            one("nova-compute"),
            Some("instance claimed"),
        ),
        about(one("cmp7"), BTreeSet::new(), Some("\"took the lock\"")),
    ];
    let mut took = Vec::with_capacity(QUESTIONS);
    for turn in 0..QUESTIONS {
        let now = Timestamp::now();
        let span = (now - SignedDuration::from_hours(1), now);
        let begun = Instant::now();
        let kind = &kinds[turn % kinds.len()];
        source
            .client()
            .lines(&Fields::default(), kind, span, LINES)
            .await?;
        took.push(millis(begun.elapsed()));
    }
    Ok(took)
}

/// From the beginning to the end, as after a long absence.
async fn look_through(source: &ElasticsearchSource) -> Result<Value, Box<dyn Error>> {
    let (begun, mut cursor) = (Instant::now(), None::<String>);
    let (mut lines, mut matched, mut looks) = (0, 0, Vec::new());
    loop {
        let look = Instant::now();
        let polled = source.poll(cursor.as_deref(), Timestamp::now()).await?;
        looks.push(millis(look.elapsed()));
        lines += polled.lines;
        matched += polled.readings.iter().map(|one| one.count).sum::<u64>();
        cursor = Some(serde_json::to_string(&polled.cursor)?);
        if !polled.more {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let idle = Instant::now();
    source.poll(cursor.as_deref(), Timestamp::now()).await?;
    Ok(json!({
        "lines": lines, "matched": matched, "seconds": seconds, "looks_ms": looks, "idle_look_ms": millis(idle.elapsed()),
    }))
}

fn millis(length: Duration) -> f64 {
    length.as_secs_f64() * 1000.0
}
