//! Sources that the bot follows itself, beside the webhooks that come to it. A new kind is one line in [`configured`].

mod ear;
mod icinga2;
mod keep;
mod redact;

use std::{sync::Arc, time::Duration};

use collectors::{
    SourceName,
    alertmanager::Reconcile,
    api::Connection,
    icinga2::Icinga2,
    source::{Pace, Source},
};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use ear::StoreEar;
pub use icinga2::{
    Settings as Icinga2Settings, client as icinga2_client, settings as icinga2_settings,
};
pub use keep::{Kept, handled_space, keep, readings_space};

use crate::{config::Sources, heal::Senses, logs::LogStores, store::Store, web};

/// One source, and what of it people see in `status`.
pub struct Followed {
    pub source: Arc<dyn Source>,
    /// The name of its health: one system may be asked in several ways.
    pub sense: SourceName,
    pub shows: &'static str,
}

/// Everything that the configuration says to follow.
///
/// # Errors
/// An address or a certificate that is none.
pub fn configured(
    sources: &Sources,
    icinga2: &[Icinga2Settings],
    logs: &LogStores,
) -> Result<Vec<Followed>, String> {
    let mut all = Vec::new();
    for source in &sources.alertmanager {
        let members: Vec<_> = source.url.iter().chain(&source.peers).collect();
        if members.is_empty() {
            continue;
        }
        let members: Vec<_> = members.into_iter().map(Connection::plain).collect();
        let name = SourceName(source.name.clone());
        let reconcile = Reconcile::new(name, &members, Pace::ASKED);
        all.push(Followed {
            source: Arc::new(reconcile.map_err(|error| error.to_string())?),
            sense: SourceName(format!("{} (list)", source.name)),
            shows: "alerts that no webhook brought",
        });
    }
    for source in logs.sources() {
        all.push(Followed {
            sense: source.settings().name.clone(),
            source: source.clone(),
            shows: "lines of logs that mean something",
        });
    }
    for settings in icinga2 {
        let client = icinga2_client(settings)?;
        all.push(Followed {
            sense: client.name().clone(),
            source: Arc::new(Icinga2::new(client, collectors::icinga2::PACE)),
            shows: "hosts and services of Icinga",
        });
    }
    Ok(all)
}

/// What following needs.
pub struct Follows {
    pub store: Store,
    pub intake: web::Intake,
    pub pending: Arc<web::Pending>,
    pub senses: Arc<Senses>,
    pub redactor: crate::audit::Redactor,
    /// Woken when somebody took care of an alert in a monitoring system.
    pub handling: Arc<Notify>,
}

/// Longest time between two successes of a source that works: three questions of the slowest may be missed.
const EXPECTED_EVERY: Duration = Duration::from_secs(200);

/// Follows all, each in a task of its own, until told to stop.
pub fn follow_all(
    all: Vec<Followed>,
    with: &Follows,
    parts: &mut JoinSet<()>,
    stop: &CancellationToken,
) {
    for one in all {
        with.senses.expect(&one.sense, one.shows, EXPECTED_EVERY);
        let ear = StoreEar {
            source: one.source.name().clone(),
            sense: one.sense,
            store: with.store.clone(),
            intake: with.intake.clone(),
            pending: with.pending.clone(),
            senses: with.senses.clone(),
            redactor: with.redactor.clone(),
            handling: with.handling.clone(),
        };
        let stop = stop.clone();
        parts.spawn(async move { one.source.follow(Arc::new(ear), stop).await });
    }
}
