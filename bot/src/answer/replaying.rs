//! `replay`: reads records, decides anew, says what would be different.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use runbooks::{
    budget::LEDGER_SPAN,
    replay::{Today, replay},
    topology::Topology,
};
use serde_json::json;

use super::Answer;
use crate::{bot::Bot, command, heal};

/// How far back unless said otherwise.
const USUAL: SignedDuration = SignedDuration::from_hours(24 * 30);

impl Bot {
    pub(super) async fn replay(&self, since: Option<&str>) -> Result<Answer, Answer> {
        let now = Timestamp::now();
        let back = since.map_or(Some(USUAL), command::since);
        let back = back.ok_or_else(|| Answer::refused("expected a time like 12h or 30d"))?;
        let (pasts, unread) = heal::pasts(&self.store, now - back).await?;
        let ledger = heal::ledger_of(&self.store, now - LEDGER_SPAN).await?;
        let (mut grants, mut drilled) = (BTreeMap::new(), BTreeMap::new());
        for runbook in self.library.iter() {
            let id = &runbook.runbook;
            grants.insert(id.clone(), heal::granted(&self.store, id).await?);
            if let Some(one) = heal::drilled_of(&self.store, id).await? {
                drilled.insert(id.clone(), one);
            }
        }
        let topology = Topology::from(&*self.model);
        let today = Today {
            library: &self.library,
            topology: &topology,
            settings: &self.healing,
            grants: &grants,
            drilled: &drilled,
            ledger: &ledger,
        };
        let replayed: Vec<_> = pasts.iter().map(|past| replay(past, &today)).collect();
        let message = heal::replay_message(&replayed, unread, now);
        Ok(Answer::new(message)
            .with(json!({ "since": now - back, "replayed": replayed, "unread": unread })))
    }
}
