//! Answers of the monitoring that all gates of a moment share: before a repair and before each of its steps the same is
//! asked, and with several incidents by each of them.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use collectors::{
    alertmanager::Silence,
    icinga2::{CheckState, Held, Named},
    prometheus::{RuleState, ScrapeTarget},
};
use runbooks::healer::{Metrics, Silences};
use tokio::sync::Mutex;

/// No rule is evaluated and no target scraped more often than every second; and a silence that was set within the last one was
/// set at the same time as the step began.
const AGE_MAX: Duration = Duration::from_secs(1);

/// One answer, and when it was asked for. Only one asks at a time, the others wait for its answer; an error is not kept.
struct Kept<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Kept<T> {
    /// Is there an answer of the last moment, or of whoever asks now?
    async fn is_fresh(&self) -> bool {
        let kept = self.0.lock().await;
        matches!(&*kept, Some((asked_at, _)) if asked_at.elapsed() < AGE_MAX)
    }

    async fn get(&self, ask: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let mut kept = self.0.lock().await;
        if let Some((asked_at, answer)) = &*kept
            && asked_at.elapsed() < AGE_MAX
        {
            return Ok(answer.clone());
        }
        let asked_at = Instant::now();
        let answer = ask.await?;
        *kept = Some((asked_at, answer.clone()));
        Ok(answer)
    }
}

pub struct KeptMetrics {
    source: Arc<dyn Metrics>,
    rules: Kept<Vec<RuleState>>,
    targets: Kept<Vec<ScrapeTarget>>,
    ready: Kept<()>,
}

impl KeptMetrics {
    pub fn of(source: Arc<dyn Metrics>) -> Self {
        Self {
            source,
            rules: Kept::default(),
            targets: Kept::default(),
            ready: Kept::default(),
        }
    }
}

#[async_trait]
impl Metrics for KeptMetrics {
    async fn rules(&self) -> Result<Vec<RuleState>, String> {
        self.rules.get(self.source.rules()).await
    }

    async fn targets(&self) -> Result<Vec<ScrapeTarget>, String> {
        self.targets.get(self.source.targets()).await
    }

    /// Prometheus answers no question before it is ready (its API says 503 until then), so one that was just answered is the answer.
    async fn ready(&self) -> Result<(), String> {
        if self.targets.is_fresh().await {
            return Ok(());
        }
        self.ready.get(self.source.ready()).await
    }

    async fn checks(&self, of: &BTreeSet<Named>) -> Result<Vec<CheckState>, String> {
        self.source.checks(of).await
    }
}

pub struct KeptSilences {
    source: Arc<dyn Silences>,
    silences: Kept<Vec<Silence>>,
    well: Kept<()>,
    held: Kept<Option<Vec<Held>>>,
}

impl KeptSilences {
    pub fn of(source: Arc<dyn Silences>) -> Self {
        Self {
            source,
            silences: Kept::default(),
            well: Kept::default(),
            held: Kept::default(),
        }
    }
}

#[async_trait]
impl Silences for KeptSilences {
    async fn silences(&self) -> Result<Vec<Silence>, String> {
        self.silences.get(self.source.silences()).await
    }

    async fn well(&self) -> Result<(), String> {
        self.well.get(self.source.well()).await
    }

    async fn held(&self) -> Option<Result<Vec<Held>, String>> {
        let asked = async { self.source.held().await.transpose() };
        self.held.get(asked).await.transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Its rules and targets are there or not; it never says that it is ready.
    struct Starting {
        answers: bool,
    }

    #[async_trait]
    impl Metrics for Starting {
        async fn rules(&self) -> Result<Vec<RuleState>, String> {
            Err("503".to_owned())
        }

        async fn targets(&self) -> Result<Vec<ScrapeTarget>, String> {
            tokio::task::yield_now().await;
            self.answers.then(Vec::new).ok_or_else(|| "503".to_owned())
        }

        async fn ready(&self) -> Result<(), String> {
            Err("503 of its own".to_owned())
        }

        async fn checks(&self, _: &BTreeSet<Named>) -> Result<Vec<CheckState>, String> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn a_prometheus_that_answers_is_ready_and_one_that_does_not_is_asked() {
        for answers in [true, false] {
            let kept = KeptMetrics::of(Arc::new(Starting { answers }));
            let (targets, ready) = tokio::join!(kept.targets(), kept.ready());
            assert_eq!((targets.is_ok(), ready.is_ok()), (answers, answers));
        }
        let kept = KeptMetrics::of(Arc::new(Starting { answers: true }));
        assert_eq!(kept.ready().await, Err("503 of its own".to_owned()));
    }

    #[tokio::test]
    async fn who_asks_meanwhile_shares_the_answer_and_errors_are_asked_again() {
        let kept = Kept::default();
        let asked = AtomicU32::new(0);
        let ask = |answer: Result<u32, String>| async {
            asked.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            answer
        };
        let away = kept.get(ask(Err("away".to_owned()))).await;
        assert_eq!(away, Err("away".to_owned()));
        let all = (0..10).map(|n| kept.get(ask(Ok(n))));
        assert_eq!(futures::future::join_all(all).await, vec![Ok(0); 10]);
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        let old = Instant::now().checked_sub(AGE_MAX).unwrap();
        *kept.0.lock().await = Some((old, 0));
        assert_eq!(kept.get(ask(Ok(7))).await, Ok(7));
    }
}
