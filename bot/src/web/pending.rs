//! Stored changes of alerts that wait for the healer: one place for each alert, in which the newest truth wins.
//!
//! So a storm costs memory by the number of alerts, not of messages, and a healer that is behind never works through
//! what is no longer so. Everything here is in the store already; after a crash the healer begins with that.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use collectors::{Alert, Change};
use indexmap::{IndexMap, map::Entry};
use tokio::sync::Notify;

use super::Batch;
use crate::store::AlertKey;

/// Alerts that may wait: some 100 MB with large labels. Past this senders are asked to come again, which they do.
pub const LIMIT: usize = 50_000;

#[derive(Default)]
pub struct Pending {
    waiting: Mutex<IndexMap<AlertKey, (Alert, Change)>>,
    wake: Notify,
    merged: AtomicU64,
    closed: AtomicBool,
}

impl Pending {
    /// May so many more come? The healer takes them soon; a sender that is told no comes again.
    pub fn has_room(&self, alerts: usize) -> bool {
        !self.is_closed() && self.count() + alerts <= LIMIT
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Changes that a newer one of the same alert replaced before the healer saw them.
    pub fn merged(&self) -> u64 {
        self.merged.load(Ordering::Relaxed)
    }

    pub fn put(&self, batch: Batch) {
        let mut waiting = self.lock();
        for (alert, change) in batch {
            match waiting.entry(AlertKey::of(&alert)) {
                Entry::Vacant(place) => drop(place.insert((alert, change))),
                Entry::Occupied(mut known) => {
                    self.merged.fetch_add(1, Ordering::Relaxed);
                    merge(known.get_mut(), alert, change);
                }
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
                let count = waiting.len().min(at_most);
                waiting.drain(..count).map(|(_, one)| one).collect()
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

    fn lock(&self) -> std::sync::MutexGuard<'_, IndexMap<AlertKey, (Alert, Change)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A later change of an alert that still waits. A repeat only says that the alert was heard of again (the Watchdog lives
/// from that).
fn merge(known: &mut (Alert, Change), alert: Alert, change: Change) {
    match change {
        Change::Stale => {}
        Change::Repeat => known.0.received_at = known.0.received_at.max(alert.received_at),
        Change::New | Change::Refiring | Change::Resolved => *known = (alert, change),
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
