use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::config::Secret;

const WEBHOOK: &str = include_str!("../../../collectors/src/testdata/webhook-watchdog.json");

struct Served {
    url: String,
    pending: Arc<Pending>,
    store: Store,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

async fn served() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let pending = Arc::new(Pending::default());
    let tokens = Tokens::new(&[("am".to_owned(), Secret::new("secret"))]);
    let (web, committing) = Web::new(store.clone(), tokens, pending.clone(), Arc::default());
    tokio::spawn(committing);
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, web, stop.clone()));
    Served {
        url,
        pending,
        store,
        stop,
        _dir: dir,
    }
}

impl Served {
    async fn post(&self, token: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
        let request = reqwest::Client::new()
            .post(format!("{}/v1/alertmanager", self.url))
            .bearer_auth(token)
            .body(body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn get(&self, path: &str) -> String {
        reqwest::get(format!("{}{path}", self.url))
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn a_webhook_is_stored_before_it_is_answered_and_a_resend_changes_nothing() {
    let served = served().await;
    assert_eq!(served.post("secret", WEBHOOK).await.0, 200);
    assert_eq!(served.store.count_firing().await.unwrap(), 1);
    let first = served.pending.take(10).await;
    assert_eq!(first[0].1, Change::New);
    assert_eq!(served.post("secret", WEBHOOK).await.0, 200);
    let second = served.pending.take(10).await;
    assert_eq!(second[0].1, Change::Repeat);
    assert_eq!(served.store.count_firing().await.unwrap(), 1);
    let metrics = served.get("/metrics").await;
    assert!(
        metrics.contains("nightshift_webhooks_total{source=\"am\"} 2"),
        "{metrics}"
    );
    assert_eq!(served.get("/readyz").await, "ready\n");
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_nothing_is_stored() {
    let served = served().await;
    assert_eq!(served.post("guess", WEBHOOK).await.0, 401);
    let (status, why) = served.post("secret", "{\"version\": \"3\"}").await;
    assert_eq!(status, 400);
    assert!(why.contains("`version`"), "{why}");
    let huge = vec![b' '; collectors::alertmanager::BODY_LIMIT_BYTES + 1];
    assert_eq!(served.post("guess", huge.clone()).await.0, 401);
    assert_eq!(served.post("secret", huge).await.0, 413);
    assert_eq!(served.store.count_firing().await.unwrap(), 0);
    let metrics = served.get("/metrics").await;
    assert!(
        metrics.contains("nightshift_webhooks_refused_total 4"),
        "{metrics}"
    );
}

#[tokio::test]
async fn without_a_healer_the_sender_comes_again_and_nothing_is_stored() {
    let served = served().await;
    served.pending.close();
    assert_eq!(served.post("secret", WEBHOOK).await.0, 503);
    assert_eq!(served.store.count_firing().await.unwrap(), 0);
    let metrics = served.get("/metrics").await;
    assert!(
        metrics.contains("nightshift_webhooks_shed_total 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn webhooks_that_come_together_share_commits_and_all_are_stored() {
    let served = served().await;
    let body = |n: usize| WEBHOOK.replace("Watchdog", &format!("Many{n}"));
    let posts = (0..200).map(|n| served.post("secret", body(n)));
    let answers = futures::future::join_all(posts).await;
    assert!(answers.iter().all(|(status, _)| *status == 200));
    assert_eq!(served.store.count_firing().await.unwrap(), 200);
    let metrics = served.get("/metrics").await;
    let commits = metrics
        .lines()
        .find_map(|line| line.strip_prefix("nightshift_alert_commits_total "));
    let commits: u32 = commits.unwrap().parse().unwrap();
    assert!(commits < 200, "{commits} commits");
    assert_eq!(served.pending.count(), 200);
}

#[tokio::test]
async fn what_will_be_refused_is_not_read() {
    let served = served().await;
    for (token, status) in [("secret", "413"), ("wrong", "401")] {
        let address = served.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /v1/alertmanager HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: 33554432\r\nExpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(answer, format!("HTTP/1.1 {status}"));
    }
}
