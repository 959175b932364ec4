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
    batches: mpsc::Receiver<Batch>,
    store: Store,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

async fn served(queue: usize) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let (send, batches) = mpsc::channel(queue);
    let web = Web {
        store: store.clone(),
        tokens: Tokens::new(&[("am".to_owned(), Secret::new("secret"))]),
        batches: send,
        figures: Arc::default(),
    };
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, Arc::new(web), stop.clone()));
    Served {
        url,
        batches,
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
    let mut served = served(4).await;
    assert_eq!(served.post("secret", WEBHOOK).await.0, 200);
    assert_eq!(served.store.count_firing().await.unwrap(), 1);
    let first = served.batches.recv().await.unwrap();
    assert_eq!(first[0].1, Change::New);
    assert_eq!(served.post("secret", WEBHOOK).await.0, 200);
    let second = served.batches.recv().await.unwrap();
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
    let served = served(4).await;
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
async fn a_full_queue_makes_the_sender_come_again() {
    let mut served = served(1).await;
    assert_eq!(served.post("secret", WEBHOOK).await.0, 200);
    assert_eq!(served.post("secret", WEBHOOK).await.0, 503);
    served.batches.recv().await.unwrap();
    assert_eq!(served.post("secret", WEBHOOK).await.0, 200);
}

#[tokio::test]
async fn what_will_be_refused_is_not_read() {
    let served = served(8).await;
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
