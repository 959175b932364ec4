//! Alerts that any bot took in, heard by the one that leads.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{
    bot::Bot,
    store::{Parcel, StoreError},
    web::{Batch, Figures},
};

/// Parcels that are read at once.
const AT_ONCE: u32 = 64;
/// How often the inbox is looked at when nothing wakes us.
const LOOK: Duration = Duration::from_secs(1);

/// Hears what is in the inbox, in order, until told to stop. What was heard, but not yet decided on when a bot dies, is known to
/// the next one from the alerts themselves.
pub async fn hear(bot: Arc<Bot>, figures: Arc<Figures>, stop: CancellationToken) {
    let mut woken = bot.store.woken();
    loop {
        figures.beat(Timestamp::now());
        let more = stop.run_until_cancelled(round(&bot, &figures)).await;
        match more {
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

/// True: there may be more.
async fn round(bot: &Bot, figures: &Figures) -> Result<bool, StoreError> {
    let parcels = bot.store.inbox(AT_ONCE).await?;
    for parcel in &parcels {
        hear_parcel(bot, figures, parcel).await;
        bot.store.inbox_heard(parcel.id).await?;
    }
    Ok(!parcels.is_empty())
}

async fn hear_parcel(bot: &Bot, figures: &Figures, parcel: &Parcel) {
    let batch: Batch = match serde_json::from_value(parcel.body.clone()) {
        Ok(batch) => batch,
        Err(error) => {
            // Its alerts are stored all the same; another version wrote this.
            return tracing::error!(parcel = parcel.id, %error, "a parcel cannot be read");
        }
    };
    let Some(healer) = bot.ear.get() else { return };
    for (alert, change) in batch {
        figures.heard_elsewhere(&alert.source, parcel.at);
        if let Err(error) = healer.heard(alert, change).await {
            tracing::error!(%error, "an alert is stored, but was not looked at");
        }
    }
}
