//! Evidence from the hosts themselves, the newest of which is kept for a moment.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::ports::Evidence;
use crate::{
    condition::{self, ConditionCall, Judgement},
    probe::{Ask, ProbeSite, Reading, Readings, gather},
    transport::Hosts,
};

/// How long readings are kept: what a repair is decided on is its state before, if the repair begins within this time.
const RECENT: SignedDuration = SignedDuration::from_secs(1);

/// Asks the hosts themselves.
pub struct HostEvidence {
    hosts: Arc<dyn Hosts>,
    site: Arc<dyn ProbeSite>,
    recent: Recent,
}

impl HostEvidence {
    pub fn new(hosts: Arc<dyn Hosts>, site: Arc<dyn ProbeSite>) -> Self {
        Self {
            hosts,
            site,
            recent: Recent::default(),
        }
    }
}

#[async_trait]
impl Evidence for HostEvidence {
    async fn gather(&self, asks: &[Ask], now: Timestamp) -> Readings {
        let readings = gather(&*self.hosts, &*self.site, asks, now).await;
        self.recent.keep(asks, &readings, now);
        readings
    }

    async fn gather_recent(&self, asks: &[Ask], now: Timestamp) -> Readings {
        let (mut readings, left) = self.recent.of(asks, now);
        let asked = gather(&*self.hosts, &*self.site, &left, now).await;
        for (probe, of) in asked.by_probe {
            readings.by_probe.entry(probe).or_default().extend(of);
        }
        readings
    }

    async fn judge(&self, call: &ConditionCall, now: Timestamp) -> (Judgement, Readings) {
        condition::judge(&*self.hosts, &*self.site, call, now).await
    }

    async fn judge_all(&self, calls: &[&ConditionCall], now: Timestamp) -> Vec<Judgement> {
        condition::judge_all(&*self.hosts, &*self.site, calls, now).await
    }
}

/// What was gathered within the last moment, by question. Bounded by what is asked in that time.
#[derive(Default)]
struct Recent(Mutex<BTreeMap<Ask, Reading>>);

impl Recent {
    /// Unknown readings are not kept: whoever needs them asks again.
    fn keep(&self, asks: &[Ask], readings: &Readings, now: Timestamp) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, reading| is_since(reading, before(now)));
        for ask in asks {
            let reading = readings.by_probe.get(&ask.probe);
            let reading = reading.and_then(|of| of.get(&ask.host));
            if let Some(known @ Reading::Known { .. }) = reading {
                kept.insert(ask.clone(), known.clone());
            }
        }
    }

    /// Those that are there, and the questions that are left.
    fn of(&self, asks: &[Ask], now: Timestamp) -> (Readings, Vec<Ask>) {
        let since = before(now);
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut readings, mut left) = (Readings::default(), Vec::new());
        for ask in asks {
            match kept.get(ask).filter(|reading| is_since(reading, since)) {
                Some(reading) => readings.insert(&ask.probe, ask.host.clone(), reading.clone()),
                None => left.push(ask.clone()),
            }
        }
        (readings, left)
    }
}

fn before(now: Timestamp) -> Timestamp {
    now.saturating_sub(RECENT).unwrap_or(Timestamp::MIN)
}

fn is_since(reading: &Reading, since: Timestamp) -> bool {
    match reading {
        Reading::Known { at, .. } | Reading::Unknown { at, .. } => *at >= since,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(host: &str) -> Ask {
        Ask {
            probe: "host.unit/a.service".into(),
            host: host.parse().unwrap(),
            service: None,
        }
    }

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    #[test]
    fn what_is_known_is_kept_for_a_moment_and_nothing_else() {
        let recent = Recent::default();
        let mut readings = Readings::default();
        let value = serde_json::json!("active");
        let known = Reading::Known { value, at: at(0) };
        readings.insert(&ask("a").probe, ask("a").host, known);
        let why = "no route".to_owned();
        let unknown = Reading::Unknown { why, at: at(0) };
        readings.insert(&ask("b").probe, ask("b").host, unknown);
        recent.keep(&[ask("a"), ask("b"), ask("c")], &readings, at(0));
        let left = |now| recent.of(&[ask("a"), ask("b"), ask("c")], at(now)).1;
        assert_eq!(left(1_000), [ask("b"), ask("c")]);
        let (found, _) = recent.of(&[ask("a")], at(1_000));
        assert_eq!(found.by_probe.len(), 1);
        assert_eq!(left(1_001).len(), 3);
        // Of another service: other words may have been sent to the host.
        let service = Some("mariadb".parse().unwrap());
        let other = Ask {
            service,
            ..ask("a")
        };
        assert_eq!(recent.of(&[other], at(1)).1.len(), 1);
        recent.keep(&[], &Readings::default(), at(1_001));
        assert!(recent.0.lock().unwrap().is_empty());
    }
}
