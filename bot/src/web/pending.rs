//! Stored changes of alerts that wait for the healer: one place for each alert, in which the newest truth wins.
//!
//! So a storm costs memory by the number of alerts, not of messages, and a healer that is behind never works through
//! what is no longer so. Everything here is in the store already; after a crash the healer begins with that.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use collectors::{Alert, Change};
use tokio::sync::Notify;

use super::Batch;
use crate::store::AlertKey;

/// Alerts that may wait: some 100 MB with large labels. Past this senders are asked to come again, which they do.
pub const LIMIT: usize = 50_000;

#[derive(Default)]
pub struct Pending {
    waiting: Mutex<Waiting>,
    wake: Notify,
    merged: AtomicU64,
    closed: AtomicBool,
}

/// In the order of arrival; taking from the front moves nothing else, however many wait.
#[derive(Default)]
struct Waiting {
    changes: VecDeque<(AlertKey, Alert, Change)>,
    /// Of each alert that waits: its place, counted from the first alert ever.
    places: HashMap<AlertKey, u64>,
    /// The place of the first of `changes`.
    first: u64,
}

impl Waiting {
    /// False: an older change of the same alert has taken it in.
    fn put(&mut self, alert: Alert, change: Change) -> bool {
        let key = AlertKey::of(&alert);
        let index = self.places.get(&key).map(|place| place - self.first);
        let known = index.and_then(|index| self.changes.get_mut(usize::try_from(index).ok()?));
        if let Some((_, known, known_change)) = known {
            merge(known, known_change, alert, change);
            return false;
        }
        let place = self.first + self.changes.len() as u64;
        self.places.insert(key.clone(), place);
        self.changes.push_back((key, alert, change));
        true
    }

    fn take(&mut self) -> Option<(Alert, Change)> {
        let (key, alert, change) = self.changes.pop_front()?;
        self.places.remove(&key);
        self.first += 1;
        Some((alert, change))
    }
}

impl Pending {
    /// May so many more come? The healer takes them soon; a sender that is told no comes again.
    pub fn has_room(&self, alerts: usize) -> bool {
        !self.is_closed() && self.count() + alerts <= LIMIT
    }

    pub fn count(&self) -> usize {
        self.lock().changes.len()
    }

    /// Changes that a newer one of the same alert replaced before the healer saw them.
    pub fn merged(&self) -> u64 {
        self.merged.load(Ordering::Relaxed)
    }

    pub fn put(&self, batch: Batch) {
        let mut waiting = self.lock();
        for (alert, change) in batch {
            if !waiting.put(alert, change) {
                self.merged.fetch_add(1, Ordering::Relaxed);
            }
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// The oldest changes, at most so many; waits for the first.
    pub async fn take(&self, at_most: usize) -> Batch {
        loop {
            let woken = self.wake.notified();
            let batch: Batch = {
                let mut waiting = self.lock();
                std::iter::from_fn(|| waiting.take())
                    .take(at_most)
                    .collect()
            };
            if !batch.is_empty() {
                return batch;
            }
            woken.await;
        }
    }

    /// The healer has ended: nothing is taken any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A later change of an alert that still waits. A repeat only says that the alert was heard of again (the Watchdog lives
/// from that).
fn merge(known: &mut Alert, known_change: &mut Change, alert: Alert, change: Change) {
    match change {
        Change::Stale => {}
        Change::Repeat => known.received_at = known.received_at.max(alert.received_at),
        Change::New | Change::Refiring | Change::Resolved => {
            (*known, *known_change) = (alert, change);
        }
    }
}

#[cfg(test)]
mod tests {
    use collectors::{SourceName, Status};
    use jiff::Timestamp;

    use super::*;

    fn alert(fingerprint: &str, status: Status, received: i64) -> Alert {
        Alert {
            source: SourceName("am".into()),
            fingerprint: fingerprint.into(),
            name: "X".into(),
            labels: Default::default(),
            annotations: Default::default(),
            status,
            starts_at: Timestamp::UNIX_EPOCH,
            ends_at: None,
            generator_url: String::new(),
            received_at: Timestamp::from_second(received).unwrap(),
        }
    }

    #[tokio::test]
    async fn the_newest_truth_of_each_alert_waits_once() {
        let pending = Pending::default();
        let firing = |fingerprint, received| alert(fingerprint, Status::Firing, received);
        pending.put(vec![
            (firing("a", 1), Change::New),
            (firing("b", 1), Change::New),
        ]);
        pending.put(vec![(firing("b", 9), Change::Repeat)]);
        pending.put(vec![(alert("a", Status::Resolved, 2), Change::Resolved)]);
        pending.put(vec![(firing("a", 3), Change::Stale)]);
        assert_eq!((pending.count(), pending.merged()), (2, 3));
        let first = pending.take(1).await;
        assert_eq!(
            first,
            vec![(alert("a", Status::Resolved, 2), Change::Resolved)]
        );
        let second = pending.take(10).await;
        assert_eq!(second, vec![(firing("b", 9), Change::New)]);
    }

    #[test]
    fn a_full_or_closed_place_takes_nothing_more() {
        let pending = Pending::default();
        assert!(pending.has_room(LIMIT) && !pending.has_room(LIMIT + 1));
        pending.close();
        assert!(!pending.has_room(1));
    }
}
