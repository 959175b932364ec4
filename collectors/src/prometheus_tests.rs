//! Against answers captured from Prometheus 2.42.

use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{method, path, query_param},
};

use super::*;

const ALERTS: &str = include_str!("testdata/prometheus-alerts.json");
const TARGETS: &str = include_str!("testdata/prometheus-targets.json");
const RULES: &str = include_str!("testdata/prometheus-rules.json");
const QUERY: &str = include_str!("testdata/prometheus-query.json");
const QUERY_ERROR: &str = include_str!("testdata/prometheus-query-error.json");

fn now() -> Timestamp {
    Timestamp::from_second(1_795_377_600).unwrap()
}

async fn serving(at: &str, status: u16, body: &str) -> (MockServer, PrometheusSource) {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path(at))
        .respond_with(ResponseTemplate::new(status).set_body_raw(body, "application/json"))
        .mount(&server)
        .await;
    let source = PrometheusSource::new(SourceName("prom".into()), &server.uri()).unwrap();
    (server, source)
}

#[tokio::test]
async fn firing_alerts() {
    let (_server, source) = serving("/api/v1/alerts", 200, ALERTS).await;
    let alerts = source.active_alerts(now()).await.unwrap();
    let seen: Vec<_> = alerts
        .iter()
        .map(|alert| (alert.name.as_str(), alert.fingerprint.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            ("Watchdog", "448881ef475b9b26"),
            ("TargetDown", "136642542b7f5e3e")
        ],
        "the fingerprints that Alertmanager gave the same alerts"
    );
}

#[tokio::test]
async fn a_pending_alert_is_not_one() {
    let pending = ALERTS.replace("\"state\":\"firing\"", "\"state\":\"pending\"");
    let (_server, source) = serving("/api/v1/alerts", 200, &pending).await;
    assert_eq!(source.active_alerts(now()).await.unwrap(), []);
}

#[tokio::test]
async fn share_of_targets_down() {
    let (_server, source) = serving("/api/v1/targets", 200, TARGETS).await;
    let health = source.target_health().await.unwrap();
    assert_eq!(
        health,
        TargetHealth {
            up: 1,
            down: 1,
            unknown: 0
        }
    );
    assert_eq!(health.share_down(), Some(0.5));
    assert_eq!(TargetHealth::default().share_down(), None);
}

#[tokio::test]
async fn rules_with_their_errors() {
    let broken = RULES.replacen(
        "\"health\":\"ok\"",
        "\"health\":\"err\",\"lastError\":\"vector contains duplicates\"",
        1,
    );
    let (_server, source) = serving("/api/v1/rules", 200, &broken).await;
    let rules = source.alerting_rules().await.unwrap();
    assert_eq!(rules.len(), 2, "recording rules are left out");
    assert_eq!(
        rules[0].error.as_deref(),
        Some("vector contains duplicates")
    );
    assert!(rules[1].firing && rules[1].error.is_none());
    assert_eq!(rules[1].interval, SignedDuration::from_secs(2));
}

#[tokio::test]
async fn instant_query_and_sample_times() {
    let server = MockServer::start().await;
    Mock::given(path("/api/v1/query"))
        .and(query_param("query", "timestamp(up)"))
        .respond_with(ResponseTemplate::new(200).set_body_raw(
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"job":"dead"},"value":[1795377571.7,"1795377570.25"]}]}}"#,
            "application/json",
        ))
        .mount(&server)
        .await;
    Mock::given(path("/api/v1/query"))
        .and(query_param("query", "up"))
        .respond_with(ResponseTemplate::new(200).set_body_raw(QUERY, "application/json"))
        .mount(&server)
        .await;
    let source = PrometheusSource::new(SourceName("prom".into()), &server.uri()).unwrap();
    let samples = source.query("up").await.unwrap();
    assert_eq!((samples[0].value, samples[1].value), (1.0, 0.0));
    assert_eq!(samples[1].labels["job"], "dead");
    let times = source.sample_times("up").await.unwrap();
    assert_eq!(
        times[0].1,
        Timestamp::from_millisecond(1_795_377_570_250).unwrap()
    );
}

#[tokio::test]
async fn errors_name_what_was_asked_and_found() {
    let (server, source) = serving("/api/v1/query", 400, QUERY_ERROR).await;
    let error = source.query("up{").await.unwrap_err().to_string();
    let expected = format!(
        "GET {}/api/v1/query: expected status 200, found 400",
        server.uri()
    );
    assert!(
        error.starts_with(&expected) && error.contains("unexpected end of input"),
        "{error}"
    );

    let (_server, source) = serving("/api/v1/alerts", 200, r#"{"status":"success"}"#).await;
    let error = source.active_alerts(now()).await.unwrap_err().to_string();
    assert!(error.contains("missing field `data`"), "{error}");
}

#[tokio::test]
async fn a_passing_error_is_asked_again_and_a_lasting_one_not() {
    let server = MockServer::start().await;
    let broken = Mock::given(path("/api/v1/alerts")).respond_with(ResponseTemplate::new(503));
    broken.up_to_n_times(2).expect(2).mount(&server).await;
    Mock::given(path("/api/v1/alerts"))
        .respond_with(ResponseTemplate::new(200).set_body_raw(ALERTS, "application/json"))
        .expect(1)
        .mount(&server)
        .await;
    Mock::given(path("/api/v1/rules"))
        .respond_with(ResponseTemplate::new(404))
        .expect(1)
        .mount(&server)
        .await;
    let source = PrometheusSource::new(SourceName("prom".into()), &server.uri()).unwrap();
    assert_eq!(source.active_alerts(now()).await.unwrap().len(), 2);
    assert!(matches!(
        source.alerting_rules().await,
        Err(SourceError::Status { status: 404, .. })
    ));
}

#[tokio::test]
async fn nobody_there() {
    let source = PrometheusSource::new(
        SourceName("prom".into()),
        "http://user:secret@127.0.0.1:1/p",
    )
    .unwrap();
    let error = source.ready().await.unwrap_err().to_string();
    assert!(
        error.starts_with("GET http://127.0.0.1:1/p/-/ready: expected a connection"),
        "{error}"
    );
    assert!(PrometheusSource::new(SourceName("prom".into()), "localhost:9090").is_err());
}
