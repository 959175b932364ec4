//! Where evidence comes from, and how well each source works: what the bot is blind to.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use collectors::{
    SourceError, SourceName,
    alertmanager::{AlertmanagerClient, Silence},
    blind::{self, BlindSpot, SourceHealth},
    icinga2::{CheckState, Held, Icinga2Client, Named},
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
    icinga2: Vec<Icinga2Client>,
    figures: Arc<Figures>,
}

impl Senses {
    /// # Errors
    /// An address that is none.
    pub fn new(
        sources: &Sources,
        icinga2: Vec<Icinga2Client>,
        figures: Arc<Figures>,
    ) -> Result<Self, SourceError> {
        let name = |name: &str| SourceName(name.to_owned());
        let mut health = Vec::new();
        let mut sense = |source: SourceName, shows: &str, expected_every| {
            health.push(SourceHealth {
                source,
                shows: shows.to_owned(),
                expected_every,
                last_success: None,
                last_error: None,
                failures: 0,
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
            icinga2,
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

    pub fn icinga2(&self, source: &SourceName) -> Option<&Icinga2Client> {
        self.icinga2.iter().find(|client| client.name() == source)
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

    /// From now on this source is expected to work that often; what it shows, for people.
    pub fn expect(&self, source: &SourceName, shows: &str, every: Duration) {
        let expected_every = SignedDuration::try_from(every).unwrap_or(SignedDuration::MAX);
        let mut all = self.lock();
        all.retain(|health| health.source != *source);
        all.push(SourceHealth {
            source: source.clone(),
            shows: shows.to_owned(),
            expected_every,
            last_success: None,
            last_error: None,
            failures: 0,
        });
    }

    pub fn works(&self, source: &SourceName) {
        let now = Timestamp::now();
        self.change(source, |health| health.succeeded(now));
    }

    pub fn fails(&self, source: &SourceName, why: &str) {
        let now = Timestamp::now();
        self.change(source, |health| health.failed(now, why));
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

/// Evidence from metrics: the first Prometheus of the configuration (others watch other things), and checks of Icinga.
pub fn metrics(
    sources: &Sources,
    icinga2: Vec<Icinga2Client>,
) -> Result<Arc<dyn Metrics>, SourceError> {
    let metrics: Arc<dyn Metrics> = match sources.prometheus.first() {
        Some(source) => {
            let name = SourceName(source.name.clone());
            Arc::new(PrometheusSource::new(name, &source.url)?)
        }
        None => Arc::new(NoMetrics),
    };
    let with = WithChecks { metrics, icinga2 };
    Ok(Arc::new(KeptMetrics::of(Arc::new(with))))
}

struct WithChecks {
    metrics: Arc<dyn Metrics>,
    icinga2: Vec<Icinga2Client>,
}

#[async_trait]
impl Metrics for WithChecks {
    async fn rules(&self) -> Result<Vec<RuleState>, String> {
        self.metrics.rules().await
    }

    async fn targets(&self) -> Result<Vec<ScrapeTarget>, String> {
        self.metrics.targets().await
    }

    async fn ready(&self) -> Result<(), String> {
        self.metrics.ready().await
    }

    async fn checks(&self, of: &BTreeSet<Named>) -> Result<Vec<CheckState>, String> {
        let mut all = Vec::new();
        for client in &self.icinga2 {
            let checks = client.checks(of).await;
            all.extend(checks.map_err(|error| format!("{}: {error}", client.name()))?);
        }
        Ok(all)
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

/// Silences of all Alertmanagers, and what is held in Icinga. One that does not answer, or that cannot be asked, makes them unknown.
pub fn silences(
    sources: &Sources,
    icinga2: Vec<Icinga2Client>,
) -> Result<Arc<dyn Silences>, SourceError> {
    let mut clients = Vec::new();
    for source in &sources.alertmanager {
        let name = SourceName(source.name.clone());
        clients.push(match &source.url {
            Some(url) => Ok(AlertmanagerClient::new(name, url)?),
            None => Err(format!("{name} has no `url`, so it cannot be asked")),
        });
    }
    Ok(Arc::new(KeptSilences::of(Arc::new(AllSilences {
        alertmanagers: clients,
        icinga2,
    }))))
}

struct AllSilences {
    alertmanagers: Vec<Result<AlertmanagerClient, String>>,
    icinga2: Vec<Icinga2Client>,
}

impl AllSilences {
    /// Without an Alertmanager nobody can say "hands off" there, and nobody could have raised the alert either.
    fn clients(&self) -> Result<Vec<&AlertmanagerClient>, String> {
        if self.alertmanagers.is_empty() {
            return Err("no Alertmanager is configured".to_owned());
        }
        let clients = self.alertmanagers.iter().map(|client| client.as_ref());
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

    async fn held(&self) -> Option<Result<Vec<Held>, String>> {
        if self.icinga2.is_empty() {
            return None;
        }
        let mut all = Vec::new();
        for client in &self.icinga2 {
            match client.held().await {
                Ok(held) => all.extend(held),
                Err(error) => return Some(Err(format!("{}: {error}", client.name()))),
            }
        }
        Some(Ok(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silences_that_cannot_be_asked_are_unknown_not_none() {
        let none = Sources::default();
        let asked = silences(&none, Vec::new()).unwrap();
        assert!(
            asked
                .silences()
                .await
                .unwrap_err()
                .contains("no Alertmanager")
        );
        let text = r#"{"alertmanager": [{"name": "am"}]}"#;
        let without_url: Sources = serde_json::from_str(text).unwrap();
        let asked = silences(&without_url, Vec::new()).unwrap();
        assert!(
            asked
                .silences()
                .await
                .unwrap_err()
                .contains("am has no `url`")
        );
        assert!(asked.well().await.is_err());
    }

    #[tokio::test]
    async fn an_icinga_that_does_not_answer_is_unknown_and_none_is_not_asked() {
        let sources = Sources::default();
        let asked = silences(&sources, Vec::new()).unwrap();
        assert_eq!(asked.held().await, None);
        let nobody = collectors::api::Connection::plain("http://127.0.0.1:1");
        let client = Icinga2Client::new(SourceName("icinga2".into()), &[nobody]).unwrap();
        let asked = silences(&sources, vec![client]).unwrap();
        let why = asked.held().await.unwrap().unwrap_err();
        assert!(
            why.starts_with(
                "icinga2: POST http://127.0.0.1:1/v1/objects/comments: expected a connection"
            ),
            "{why}"
        );
    }
}
