//! What the store holds of the past, for `replay`.

use jiff::Timestamp;
use runbooks::replay::Past;

use super::{decision_of, listed::whole};
use crate::store::{Detail, Store, StoreError};

/// Incidents of one replay, the newest: each is decided anew from the records of one.
pub const INCIDENTS_MAX: u32 = 500;

/// Incidents since then with their last decisions, oldest first; and how many could not be read, for they are of another version.
pub async fn pasts(store: &Store, since: Timestamp) -> Result<(Vec<Past>, usize), StoreError> {
    let (mut pasts, mut unread) = (Vec::new(), 0);
    let rows = store.incidents_since(since, INCIDENTS_MAX, Detail::Whole);
    for row in rows.await? {
        let Ok(incident) = whole(&row) else {
            unread += 1;
            continue;
        };
        let record = decision_of(store, &row.id).await?;
        pasts.push(Past { incident, record });
    }
    pasts.reverse();
    Ok((pasts, unread))
}
