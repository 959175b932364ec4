//! Alerts that any bot took in, put before the healer of the one that leads.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    store::{Store, StoreError},
    web::{Batch, Figures, Pending},
};

/// Parcels that are read at once.
const AT_ONCE: u32 = 64;
/// How often the inbox is looked at when nothing wakes us.
const LOOK: Duration = Duration::from_secs(1);

/// Puts what is in the inbox before the healer, in order, until told to stop. What was put there, but not yet decided on when a bot
/// dies, is known to the next one from the alerts themselves.
pub async fn hear(
    store: Store,
    pending: Arc<Pending>,
    figures: Arc<Figures>,
    stop: CancellationToken,
) {
    let mut woken = store.woken();
    loop {
        let more = stop.run_until_cancelled(round(&store, &pending, &figures));
        match more.await {
            None => return,
            Some(Ok(true)) => continue,
            Some(Ok(false)) => {}
            Some(Err(error)) => tracing::error!(%error, "the inbox cannot be read"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = woken.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// True: there may be more, and room for it.
async fn round(store: &Store, pending: &Pending, figures: &Figures) -> Result<bool, StoreError> {
    let parcels = store.inbox(AT_ONCE).await?;
    for parcel in &parcels {
        let batch: Batch = serde_json::from_value(parcel.body.clone()).unwrap_or_else(|error| {
            // Its alerts are stored all the same; another version wrote this.
            tracing::error!(parcel = parcel.id, %error, "a parcel cannot be read");
            Batch::new()
        });
        if !pending.has_room(batch.len()) {
            return Ok(false);
        }
        for (alert, _) in &batch {
            figures.heard_elsewhere(&alert.source, parcel.at);
        }
        pending.put(batch);
        if !store.inbox_heard(parcel.id).await? {
            return Ok(false);
        }
    }
    Ok(!parcels.is_empty())
}
