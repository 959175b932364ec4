//! Alerts find their cause when it is heard of later, and leave it when it explains them no more.

use std::collections::{BTreeMap, BTreeSet};

use collectors::{Alert, Change};
use jiff::Timestamp;

use super::{News, restore::Pages, run::Healer};
use crate::{
    incident::{
        Claim, Domain, Event, Incident, IncidentId, MORE_KEPT, Move, State, alert_key, regroup,
    },
    matching::match_alert,
};

/// Rounds of moving: an alert goes at most from a symptom to its cause and to what is below that; more are a mistake.
const ROUNDS: usize = 8;

/// How far each cause is believed; alerts are put to them anew when this changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Causes(BTreeMap<IncidentId, (std::mem::Discriminant<State>, bool, bool, bool)>);

impl Healer {
    fn causes(&self) -> Causes {
        let (now, settles) = (self.now(), self.view().settles);
        let believed = |one: &Incident| {
            let settled = matches!(&one.state, State::Healed { at, .. } if now.duration_since(*at) >= settles);
            let state = std::mem::discriminant(&one.state);
            (state, settled, one.is_host_down(), one.is_firing())
        };
        let causes = self
            .incidents
            .values()
            .filter(|one| one.is_open() && !matches!(one.domain, Domain::Alert(_)));
        Causes(causes.map(|one| (one.id.clone(), believed(one))).collect())
    }

    /// Puts every alert to its cause, if causes have changed; and those that were left alone for long enough to incidents of their own.
    pub(super) async fn regroup(&mut self) {
        let due = self.leavers.due(self.now());
        if !due.is_empty() {
            self.place_again(&due).await;
        }
        let causes = self.causes();
        if causes == self.causes {
            return;
        }
        for _ in 0..ROUNDS {
            let moves = regroup(&self.view(), |alert| self.claim(alert));
            if moves.is_empty() {
                break;
            }
            self.apply(moves).await;
        }
        self.causes = self.causes();
    }

    fn claim(&self, alert: &Alert) -> Claim {
        let matched = match_alert(&self.library, &self.topology, alert);
        Claim::of(&self.library, &matched, alert)
    }

    async fn apply(&mut self, moves: Vec<Move>) {
        let mut left: BTreeMap<IncidentId, Option<IncidentId>> = BTreeMap::new();
        let (mut again, now) = (BTreeSet::new(), self.now());
        for one in moves {
            match one {
                Move::Joins {
                    key,
                    from,
                    to,
                    symptom,
                } => {
                    self.incidents.forget(&from, &key);
                    self.incidents.explain(&to, key, *symptom);
                    self.pace.changed(&to, now);
                    left.insert(from, Some(to));
                }
                Move::Leaves { key, from } => {
                    self.incidents.forget(&from, &key);
                    left.entry(from).or_default();
                    again.insert(key);
                }
            }
        }
        for (from, cause) in left {
            again.extend(self.leave(&from, cause).await);
        }
        if !again.is_empty() {
            self.place_again(&again).await;
        }
    }

    /// An incident that nothing is left of has gone to its cause; what it knows by key alone is put to its cause, too.
    async fn leave(&mut self, from: &IncidentId, cause: Option<IncidentId>) -> BTreeSet<String> {
        let Some(incident) = self.incidents.get(from) else {
            return BTreeSet::new();
        };
        let only_keys = incident.firing().is_empty() && cause.is_some();
        let again = match only_keys {
            true => incident.more.clone(),
            false => BTreeSet::new(),
        };
        again
            .iter()
            .for_each(|key| self.incidents.forget(from, key));
        let Some(incident) = self.incidents.get(from) else {
            return again;
        };
        let is_left = incident.is_firing() || !incident.explained.is_empty();
        let ended = match cause.filter(|_| !is_left) {
            Some(cause) => self.change(from, &Event::Joined { cause }).await.is_ok(),
            None => false,
        };
        if !ended {
            self.pace.changed(from, self.now());
        }
        again
    }

    /// Alerts that fire and belong to no incident find theirs.
    async fn place_again(&mut self, keys: &BTreeSet<String>) {
        let records = self.ports.records.clone();
        let (mut pages, mut left) = (Pages::default(), keys.clone());
        let mut touched = BTreeSet::new();
        while !left.is_empty() {
            match pages.next(&*records).await {
                Ok(None) => break,
                Ok(Some(page)) => {
                    let ours = page.iter().filter(|alert| left.remove(&alert_key(alert)));
                    let ours: Vec<&Alert> = ours.collect();
                    touched.extend(
                        ours.into_iter()
                            .filter_map(|one| self.place(one, Change::New)),
                    );
                }
                Err(what) => {
                    self.ports.tell.tell(News::Trouble { what });
                    let due = self.now() + self.view().settles;
                    self.leavers.wait(left.into_iter(), due);
                    break;
                }
            }
        }
        for id in touched {
            self.alerts_changed(&id).await;
        }
    }
}

/// Alerts whose cause is over: most end soon after it, and those that do not get an incident of their own.
#[derive(Debug, Default)]
pub(super) struct Leavers(BTreeMap<String, Timestamp>);

impl Leavers {
    pub fn wait(&mut self, keys: impl Iterator<Item = String>, due: Timestamp) {
        let room = MORE_KEPT.saturating_sub(self.0.len());
        self.0.extend(keys.take(room).map(|key| (key, due)));
    }

    pub fn ended_or_placed(&mut self, key: &str) {
        self.0.remove(key);
    }

    pub fn next_at(&self) -> Option<Timestamp> {
        self.0.values().min().copied()
    }

    fn due(&mut self, now: Timestamp) -> BTreeSet<String> {
        let due = self.0.extract_if(.., |_, at| *at <= now);
        due.map(|(key, _)| key).collect()
    }
}
