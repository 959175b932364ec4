use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::config::{Secret, SigningKey};

const WEBHOOK: &str = include_str!("../../../collectors/src/testdata/webhook-watchdog.json");

struct Served {
    url: String,
    pending: Arc<Pending>,
    store: Store,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

async fn served() -> Served {
    served_with(None, |_| ()).await
}

async fn served_with(tls: Option<Arc<ServerConfig>>, change: impl FnOnce(&mut Door)) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let pending = Arc::new(Pending::default());
    let mut door = Door {
        tokens: Tokens::new(&[("am".to_owned(), Secret::new("secret"))]),
        signers: Signers::default(),
        certified: false,
        pace: WebPace::new(1_000),
        redactor: crate::audit::Redactor::default(),
    };
    change(&mut door);
    let (web, committing) = Web::new(store.clone(), door, pending.clone(), Arc::default());
    tokio::spawn(committing);
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, tls, web, stop.clone()));
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

fn signing_key() -> (String, SigningKey) {
    let secret = Secret::new("relay's secret");
    let key = SigningKey {
        secret,
        window_seconds: 300,
    };
    ("relay".to_owned(), key)
}

#[tokio::test]
async fn a_signed_webhook_is_taken_and_anything_else_about_it_is_not() {
    let served = served_with(None, |door| door.signers = Signers::new(&[signing_key()])).await;
    let now = Timestamp::now().as_second();
    let post = async |source: &str, secret: &str, seconds: i64, body: &str| {
        let headers = signature::tests::headers(source, secret, seconds, WEBHOOK.as_bytes());
        let request = reqwest::Client::new()
            .post(format!("{}/v1/alertmanager", served.url))
            .headers(headers)
            .body(body.to_owned());
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(post("relay", "relay's secret", now, WEBHOOK).await, 200);
    assert_eq!(served.store.count_firing().await.unwrap(), 1);
    let other = WEBHOOK.replace("Watchdog", "Other");
    assert_eq!(post("relay", "relay's secret", now, &other).await, 401);
    assert_eq!(post("relay", "another secret", now, WEBHOOK).await, 401);
    assert_eq!(
        post("relay", "relay's secret", now - 400, WEBHOOK).await,
        401
    );
    assert_eq!(
        post("am", "secret", now, WEBHOOK).await,
        401,
        "a token is no key"
    );
    assert_eq!(
        served.post("relay's secret", WEBHOOK).await.0,
        401,
        "a key is no token"
    );
    assert_eq!(served.store.count_firing().await.unwrap(), 1);
}

#[tokio::test]
async fn whoever_guesses_is_slowed_down_and_known_senders_are_not() {
    let served = served_with(None, |_| ()).await;
    let mut seen = Vec::new();
    for _ in 0..30 {
        seen.push(served.post("guess", WEBHOOK).await.0);
    }
    assert!(seen[..20].iter().all(|status| *status == 401), "{seen:?}");
    assert!(seen.contains(&429), "{seen:?}");
    assert_eq!(served.post("secret", WEBHOOK).await.0, 200);
}

#[tokio::test]
async fn a_source_that_comes_too_fast_is_asked_to_come_again() {
    let served = served_with(None, |door| door.pace = WebPace::new(1)).await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(served.post("secret", WEBHOOK).await.0);
    }
    assert_eq!(seen[..2], [200, 200], "{seen:?}");
    assert!(seen.contains(&503), "{seen:?}");
}

/// An authority, and what it signed.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        Self {
            certificate,
            issuer,
        }
    }

    /// A certificate and its key in PEM.
    fn signs(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn over_https_webhooks_need_a_certificate_of_the_authority_and_health_does_not() {
    let (servers, senders, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = servers.signs("localhost");
    let (chain, ca) = (dir.path().join("chain.pem"), dir.path().join("ca.pem"));
    std::fs::write(&chain, certificate).unwrap();
    std::fs::write(&ca, senders.certificate.pem()).unwrap();
    let config = crate::config::TlsConfig {
        certificate: chain,
        key: crate::config::SecretSource::File("unused".into()),
        client_ca: Some(ca),
    };
    let settings = tls_settings(&config, &Secret::new(key)).unwrap();
    let served = served_with(Some(settings), |door| door.certified = true).await;
    let url = served.url.replace("127.0.0.1", "localhost");
    let client = |identity: Option<(String, String)>| {
        let root = reqwest::Certificate::from_pem(servers.certificate.pem().as_bytes()).unwrap();
        let builder = reqwest::Client::builder().tls_certs_only([root]);
        let builder = match identity {
            None => builder,
            Some((certificate, key)) => {
                let pem = format!("{certificate}{key}");
                builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap())
            }
        };
        builder.build().unwrap()
    };
    let post = async |identity, token: &str| {
        let request = client(identity)
            .post(format!("{url}/v1/alertmanager"))
            .bearer_auth(token)
            .body(WEBHOOK);
        request
            .send()
            .await
            .map(|response| response.status().as_u16())
            .ok()
    };
    assert_eq!(post(Some(senders.signs("am")), "secret").await, Some(200));
    assert_eq!(
        post(Some(senders.signs("am")), "guess").await,
        Some(401),
        "a certificate is no token"
    );
    assert_eq!(
        post(None, "secret").await,
        Some(401),
        "a token is no certificate"
    );
    assert_eq!(
        post(Some(strangers.signs("am")), "secret").await,
        None,
        "the handshake fails"
    );
    assert_eq!(served.store.count_firing().await.unwrap(), 1);
    let health = client(None)
        .get(format!("{url}/healthz"))
        .send()
        .await
        .unwrap();
    assert_eq!(health.text().await.unwrap(), "alive\n");
}

#[tokio::test]
async fn a_peer_that_says_nothing_holds_up_no_handshake() {
    let servers = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = servers.signs("localhost");
    let chain = dir.path().join("chain.pem");
    std::fs::write(&chain, certificate).unwrap();
    let config = crate::config::TlsConfig {
        certificate: chain,
        key: crate::config::SecretSource::File("unused".into()),
        client_ca: None,
    };
    let settings = tls_settings(&config, &Secret::new(key)).unwrap();
    let served = served_with(Some(settings), |_| ()).await;
    let address = served.url.trim_start_matches("https://").to_owned();
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(&address).await.unwrap());
    }
    let root = reqwest::Certificate::from_pem(servers.certificate.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder()
        .tls_certs_only([root])
        .build()
        .unwrap();
    let url = served.url.replace("127.0.0.1", "localhost");
    let health = client.get(format!("{url}/healthz")).send().await.unwrap();
    assert_eq!(health.status().as_u16(), 200);
    assert_eq!(silent.len(), 8);
    assert!(tls_settings(&config, &Secret::new("no key")).is_err());
}
