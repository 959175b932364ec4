//! Locks that nobody renews are told to people; they are never handed over by time alone (gate G5).

use std::{collections::BTreeSet, time::Duration};

use deploy_engine::job::LeaseRecord;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{
    chat::{Room, Subject, office::Office},
    jobs,
    store::Store,
    wording::{Message, Severity, ago},
};

/// How often they are looked at: well within the time after which one counts as expired.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// Pages for every lock that expires, once; until told to stop.
pub async fn watch(store: Store, office: Office, rooms: Vec<Room>, stop: CancellationToken) {
    let mut paged = BTreeSet::new();
    loop {
        let now = Timestamp::now();
        match store.leases().await {
            Ok(leases) => {
                for lease in newly_expired(&leases, &mut paged, now) {
                    let subject = Subject(format!("lease:{}", lease.lease.scope));
                    if let Err(error) = office.say(&rooms, &subject, &message(lease, now)).await {
                        tracing::error!(%error, "an expired lock could not be told");
                    }
                }
            }
            Err(error) => tracing::error!(%error, "locks cannot be looked at"),
        }
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(LOOK_EVERY) => {} }
    }
}

/// Pure but for the memory of what was told: scope and token, so that a lock that is renewed and expires again is told again.
fn newly_expired<'a>(
    leases: &'a [LeaseRecord],
    paged: &mut BTreeSet<(String, u64)>,
    now: Timestamp,
) -> Vec<&'a LeaseRecord> {
    let key = |one: &LeaseRecord| (one.lease.scope.clone(), one.lease.token);
    let expired: Vec<&LeaseRecord> = leases.iter().filter(|one| one.is_expired(now)).collect();
    let known = std::mem::take(paged);
    *paged = expired.iter().map(|one| key(one)).collect();
    expired
        .into_iter()
        .filter(|one| !known.contains(&key(one)))
        .collect()
}

fn message(lease: &LeaseRecord, now: Timestamp) -> Message {
    let title = format!(
        "The lock {} is held and nobody renews it",
        lease.lease.scope
    );
    Message::new(Severity::Bad, title)
        .line(format!(
            "held for job {} by {}, last renewed {}",
            jobs::short_id(&lease.lease.job),
            lease.holder,
            ago(lease.renewed_at, now)
        ))
        .line("Nothing else is started there until that job has ended: what it was doing is not known.")
        .hint(format!("job {} shows how far it came", jobs::short_id(&lease.lease.job)))
}

#[cfg(test)]
mod tests {
    use deploy_engine::job::{JobId, Lease};

    use super::*;

    #[test]
    fn each_is_told_once_and_again_when_it_expires_anew() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let lease = |token, renewed| LeaseRecord {
            lease: Lease {
                scope: "site:demo".into(),
                token,
                job: JobId("j1".into()),
            },
            holder: "bot:1".into(),
            acquired_at: at(0),
            renewed_at: at(renewed),
        };
        let mut paged = BTreeSet::new();
        let mut told = |lease: LeaseRecord, now| newly_expired(&[lease], &mut paged, at(now)).len();
        assert_eq!(told(lease(1, 0), 1), 0, "it is renewed in time");
        assert_eq!(told(lease(1, 0), 3_600), 1);
        assert_eq!(told(lease(1, 0), 3_601), 0, "once");
        assert_eq!(told(lease(1, 3_602), 3_603), 0, "renewed");
        assert_eq!(told(lease(1, 3_602), 7_200), 1, "and expired again");
        assert_eq!(told(lease(2, 0), 7_201), 1, "another holder's");
    }
}
