//! The dead man's switch: an address outside of the site is fetched as long as the bot can do its work. Whoever watches that
//! address pages when the calls stop (RECOVERY §8, S-15).

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::{config::Secret, store::Store, web::Figures};

/// One call may take so long; a switch that is slower is as good as away.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// A healer that has not turned for so long is stuck: its loop turns every few seconds.
const HEALER_LIMIT: SignedDuration = SignedDuration::from_secs(60);

pub struct Heart {
    address: reqwest::Url,
    every: Duration,
    client: reqwest::Client,
    store: Store,
    figures: Arc<Figures>,
}

impl Heart {
    /// # Errors
    /// When the address is none; it is not shown.
    pub fn new(
        (address, every): &(Secret, Duration),
        store: Store,
        figures: Arc<Figures>,
    ) -> Result<Self, String> {
        let address = reqwest::Url::parse(address.reveal())
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or("heartbeat: url: expected an address that begins with https:// or http://")?;
        let client = reqwest::Client::builder()
            .timeout(CALL_LIMIT)
            .build()
            .map_err(|error| format!("heartbeat: {error}"))?;
        Ok(Self {
            address,
            every: *every,
            client,
            store,
            figures,
        })
    }

    /// Calls until told to stop.
    pub async fn beat(self, stop: CancellationToken) {
        let mut silent = false;
        loop {
            tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(self.every) => {} }
            let why = self.once().await.err();
            match &why {
                Some(why) if !silent => {
                    tracing::error!(why, "no heartbeat: somebody will be paged")
                }
                None if silent => tracing::info!("the heartbeat is back"),
                _ => {}
            }
            silent = why.is_some();
        }
    }

    async fn once(&self) -> Result<(), String> {
        self.well().await?;
        let answer = self.client.get(self.address.clone()).send().await;
        // The address is a secret: errors are told without it.
        let reached = answer
            .and_then(reqwest::Response::error_for_status)
            .map_err(|error| format!("the switch was not reached: {}", error.without_url()));
        self.figures.switch_called(reached.is_ok());
        reached.map(drop)
    }

    /// Can the bot do its work?
    async fn well(&self) -> Result<(), String> {
        let stored = self.store.count_firing().await;
        stored.map_err(|error| format!("the store does not answer: {error}"))?;
        let now = Timestamp::now();
        match self.figures.last_beat() {
            Some(at) if now.duration_since(at) <= HEALER_LIMIT => Ok(()),
            Some(at) => Err(format!("the healer has not turned since {at}")),
            None => Err("the healer has not turned yet".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpListener};

    use super::*;

    async fn heart(address: &str) -> (Heart, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let switch = (Secret::new(address), Duration::from_secs(1));
        (Heart::new(&switch, store, Arc::default()).unwrap(), dir)
    }

    #[tokio::test]
    async fn it_beats_only_while_the_healer_turns() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/secret-path", listener.local_addr().unwrap());
        let switch = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 64];
            let read = stream.read(&mut head).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
            String::from_utf8_lossy(&head[..read]).into_owned()
        });
        let (heart, _dir) = heart(&address).await;
        assert_eq!(
            heart.once().await,
            Err("the healer has not turned yet".to_owned())
        );
        let stuck = Timestamp::now() - SignedDuration::from_secs(61);
        heart.figures.beat(stuck);
        assert!(
            heart
                .once()
                .await
                .unwrap_err()
                .contains("has not turned since")
        );
        heart.figures.beat(Timestamp::now());
        heart.once().await.unwrap();
        assert!(switch.await.unwrap().starts_with("GET /secret-path"));
    }

    #[tokio::test]
    async fn an_address_that_is_not_reached_is_not_shown() {
        let (heart, _dir) = heart("http://127.0.0.1:1/secret-path").await;
        heart.figures.beat(Timestamp::now());
        let why = heart.once().await.unwrap_err();
        assert!(
            why.starts_with("the switch was not reached") && !why.contains("secret-path"),
            "{why}"
        );
        let none = (Secret::new("secret-path"), Duration::from_secs(1));
        let why = Heart::new(&none, heart.store.clone(), Arc::default())
            .err()
            .unwrap();
        assert!(!why.contains("secret-path"), "{why}");
    }
}
