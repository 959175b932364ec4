//! Where evidence comes from, and how well each source works: what the bot is blind to.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use collectors::{
    SourceError, SourceName,
    alertmanager::{AlertmanagerClient, Silence},
    blind::{self, BlindSpot, SourceHealth},
    prometheus::{PrometheusSource, RuleState, ScrapeTarget},
};
use jiff::{SignedDuration, Timestamp};
use runbooks::healer::{Metrics, Silences};
use tokio_util::sync::CancellationToken;

use super::kept::{KeptMetrics, KeptSilences};
use crate::{config::Sources, web::Figures};

/// How often sources are asked whether they work.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// Three answers may be missed.
const EXPECTED_EVERY: SignedDuration = SignedDuration::from_secs(100);
/// The Watchdog's route repeats every minute (our own Alertmanager) to five (careful settings elsewhere).
const WEBHOOK_EVERY: SignedDuration = SignedDuration::from_mins(5);

/// What the sources of a configuration are worth now.
pub struct Senses {
    health: Mutex<Vec<SourceHealth>>,
    webhooks: Vec<SourceName>,
    /// Those that can be asked.
    alertmanagers: Vec<(SourceName, AlertmanagerClient)>,
    prometheus: Vec<PrometheusSource>,
    figures: Arc<Figures>,
}

impl Senses {
    /// # Errors
    /// An address that is none.
    pub fn new(sources: &Sources, figures: Arc<Figures>) -> Result<Self, SourceError> {
        let name = |name: &str| SourceName(name.to_owned());
        let mut health = Vec::new();
        let mut sense = |source: SourceName, shows: &str, expected_every| {
            health.push(SourceHealth {
                source,
                shows: shows.to_owned(),
                expected_every,
                last_success: None,
                last_error: None,
            });
        };
        let mut alertmanagers = Vec::new();
        for source in &sources.alertmanager {
            sense(name(&source.name), "alerts by webhook", WEBHOOK_EVERY);
            if let Some(url) = &source.url {
                let asked = SourceName(format!("{} (API)", source.name));
                sense(asked.clone(), "silences", EXPECTED_EVERY);
                let client = AlertmanagerClient::new(asked, url)?;
                alertmanagers.push((name(&source.name), client));
            }
        }
        let mut prometheus = Vec::new();
        for source in &sources.prometheus {
            sense(name(&source.name), "rules and targets", EXPECTED_EVERY);
            prometheus.push(PrometheusSource::new(name(&source.name), &source.url)?);
        }
        let webhooks = sources
            .alertmanager
            .iter()
            .map(|source| name(&source.name))
            .collect();
        Ok(Self {
            health: Mutex::new(health),
            webhooks,
            alertmanagers,
            prometheus,
            figures,
        })
    }

    /// Alertmanagers that can be asked, with the names of their sources.
    pub fn alertmanagers(&self) -> &[(SourceName, AlertmanagerClient)] {
        &self.alertmanagers
    }

    pub fn alertmanager(&self, source: &SourceName) -> Option<&AlertmanagerClient> {
        let mut all = self.alertmanagers.iter();
        all.find(|(name, _)| name == source)
            .map(|(_, client)| client)
    }

    pub fn blind_spots(&self, now: Timestamp) -> Vec<BlindSpot> {
        let refused = self.figures.last_unauthorised();
        for source in &self.webhooks {
            self.change(source, |health| {
                health.last_success = self.figures.last_webhook(source);
                health.last_error = refused.map(|at| {
                    let why = "webhooks come with a token that is not the configured one";
                    (at, why.to_owned())
                });
            });
        }
        blind::report(self.lock().iter(), now)
    }

    /// Asks every source now and then, until told to stop.
    pub async fn watch(&self, stop: CancellationToken) {
        loop {
            for (_, client) in &self.alertmanagers {
                self.note(client.name(), client.silences().await.map(drop));
            }
            for source in &self.prometheus {
                self.note(source.name(), source.target_health().await.map(drop));
            }
            tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(ASK_EVERY) => {} }
        }
    }

    fn note(&self, source: &SourceName, how: Result<(), SourceError>) {
        let now = Timestamp::now();
        self.change(source, |health| match how {
            Ok(()) => health.succeeded(now),
            Err(error) => health.failed(now, &error.to_string()),
        });
    }

    fn change(&self, source: &SourceName, change: impl FnOnce(&mut SourceHealth)) {
        if let Some(health) = self
            .lock()
            .iter_mut()
            .find(|health| health.source == *source)
        {
            change(health);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SourceHealth>> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Evidence from metrics: the first Prometheus of the configuration (others watch other things).
pub fn metrics(sources: &Sources) -> Result<Arc<dyn Metrics>, SourceError> {
    match sources.prometheus.first() {
        Some(source) => {
            let name = SourceName(source.name.clone());
            let source = Arc::new(PrometheusSource::new(name, &source.url)?);
            Ok(Arc::new(KeptMetrics::of(source)))
        }
        None => Ok(Arc::new(NoMetrics)),
    }
}

/// Without a Prometheus nothing is known from metrics, and so nothing that needs them is done.
struct NoMetrics;

#[async_trait]
impl Metrics for NoMetrics {
    async fn rules(&self) -> Result<Vec<RuleState>, String> {
        Err("no Prometheus is configured".to_owned())
    }

    async fn targets(&self) -> Result<Vec<ScrapeTarget>, String> {
        Err("no Prometheus is configured".to_owned())
    }

    async fn ready(&self) -> Result<(), String> {
        Err("no Prometheus is configured".to_owned())
    }
}

/// Silences of all Alertmanagers. One that does not answer, or that cannot be asked, makes them unknown.
pub fn silences(sources: &Sources) -> Result<Arc<dyn Silences>, SourceError> {
    let mut clients = Vec::new();
    for source in &sources.alertmanager {
        let name = SourceName(source.name.clone());
        clients.push(match &source.url {
            Some(url) => Ok(AlertmanagerClient::new(name, url)?),
            None => Err(format!("{name} has no `url`, so it cannot be asked")),
        });
    }
    Ok(Arc::new(KeptSilences::of(Arc::new(AllSilences(clients)))))
}

struct AllSilences(Vec<Result<AlertmanagerClient, String>>);

impl AllSilences {
    /// Without an Alertmanager nobody can say "hands off" there, and nobody could have raised the alert either.
    fn clients(&self) -> Result<Vec<&AlertmanagerClient>, String> {
        if self.0.is_empty() {
            return Err("no Alertmanager is configured".to_owned());
        }
        let clients = self.0.iter().map(|client| client.as_ref());
        clients.collect::<Result<_, _>>().map_err(Clone::clone)
    }
}

#[async_trait]
impl Silences for AllSilences {
    async fn silences(&self) -> Result<Vec<Silence>, String> {
        let mut all = Vec::new();
        for client in self.clients()? {
            all.extend(Silences::silences(client).await?);
        }
        Ok(all)
    }

    async fn well(&self) -> Result<(), String> {
        for client in self.clients()? {
            let name = client.name();
            client
                .well()
                .await
                .map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silences_that_cannot_be_asked_are_unknown_not_none() {
        let none = Sources::default();
        let asked = silences(&none).unwrap();
        assert!(
            asked
                .silences()
                .await
                .unwrap_err()
                .contains("no Alertmanager")
        );
        let text = r#"{"alertmanager": [{"name": "am"}]}"#;
        let without_url: Sources = serde_json::from_str(text).unwrap();
        let asked = silences(&without_url).unwrap();
        assert!(
            asked
                .silences()
                .await
                .unwrap_err()
                .contains("am has no `url`")
        );
        assert!(asked.well().await.is_err());
    }
}
