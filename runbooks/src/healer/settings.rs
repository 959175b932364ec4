//! What a site says about its automation.

use std::collections::{BTreeMap, BTreeSet};

use collectors::watchdog;
use deploy_engine::model::{HostName, ServiceName};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    format::{Class, Runbook, RunbookId, Span},
    gate::GateLimits,
    storm::StormLimits,
    trust::Mode,
};

/// The section `automation` of the bot's configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealSettings {
    /// For runbooks that are not named below.
    pub mode: Mode,
    pub modes: BTreeMap<RunbookId, Mode>,
    /// Guarded runbooks that may go as far as their mode says.
    pub opt_in: BTreeSet<RunbookId>,
    /// Settings of runbooks, and `settle` and `deadline` of their proofs: for example `RMQ-1: {settle: 30s}` in a drill.
    pub settings: BTreeMap<RunbookId, BTreeMap<String, Value>>,
    pub gates: GateLimits,
    pub storm: StormLimits,
    /// Services that the bot itself needs (its chat server's database, for example): it never repairs those.
    pub bot_needs: BTreeSet<ServiceName>,
    /// The host of this site that the bot itself runs and keeps its records on, if it is one (gate G9).
    pub own_host: Option<HostName>,
    /// `auto` counts although nothing was earned here: for labs, where trust is to be earned.
    pub unearned: bool,
    /// The Watchdog must have been heard within so many seconds.
    pub watchdog_seconds: Option<u32>,
    /// How long what may be a symptom waits for its cause, and how long a cause is over before what it explained counts by itself.
    pub gathers_seconds: Option<u32>,
    pub settles_seconds: Option<u32>,
}

/// Rules of one outage fire within two or three evaluations of each other.
const GATHERS: SignedDuration = SignedDuration::from_secs(30);
/// Rules look back over some minutes, and senders group what has ended for as long.
const SETTLES: SignedDuration = SignedDuration::from_mins(5);

impl HealSettings {
    pub fn configured_mode(&self, runbook: &RunbookId) -> Mode {
        self.modes.get(runbook).copied().unwrap_or(self.mode)
    }

    pub fn watchdog_fresh(&self) -> SignedDuration {
        let seconds = self.watchdog_seconds.map(i64::from);
        seconds.map_or(watchdog::FRESH, SignedDuration::from_secs)
    }

    pub fn gathers(&self) -> SignedDuration {
        let seconds = self.gathers_seconds.map(i64::from);
        seconds.map_or(GATHERS, SignedDuration::from_secs)
    }

    pub fn settles(&self) -> SignedDuration {
        let seconds = self.settles_seconds.map(i64::from);
        seconds.map_or(SETTLES, SignedDuration::from_secs)
    }

    pub fn opted_in(&self, runbook: &Runbook) -> bool {
        runbook.class == Class::Guarded && self.opt_in.contains(&runbook.runbook)
    }

    pub fn overrides(&self, runbook: &RunbookId) -> BTreeMap<String, Value> {
        self.settings.get(runbook).cloned().unwrap_or_default()
    }

    /// The runbook with its proof's times as this site wants them.
    ///
    /// # Errors
    /// Names the setting and what was expected.
    pub fn adapted(&self, runbook: &Runbook) -> Result<Runbook, String> {
        let mut runbook = runbook.clone();
        for (name, value) in self.overrides(&runbook.runbook) {
            let wrong = |why: String| format!("setting {name} of {}: {why}", runbook.runbook);
            let span = || {
                let text = value
                    .as_str()
                    .ok_or_else(|| wrong(format!("expected a time like 30s; found {value}")))?;
                Span::parse(text).map_err(wrong)
            };
            match (name.as_str(), &mut runbook.proof) {
                ("settle", Some(proof)) => proof.settle = span()?,
                ("deadline", Some(proof)) => proof.deadline = span()?,
                (known, _) if runbook.settings.contains_key(known) => {}
                _ => return Err(wrong("it has no such setting".to_owned())),
            }
        }
        let proof = runbook.proof.as_ref();
        if proof.is_some_and(|proof| proof.settle >= proof.deadline) {
            return Err(format!(
                "{}: expected the proof's deadline after its settle time",
                runbook.runbook
            ));
        }
        Ok(runbook)
    }

    /// Everything that is wrong with the settings, for the configuration's check.
    pub fn check(&self, library: &crate::library::Library) -> Vec<String> {
        let named = self
            .modes
            .keys()
            .chain(&self.opt_in)
            .chain(self.settings.keys());
        let unknown = named
            .filter(|id| library.get(id).is_none())
            .map(|id| format!("there is no runbook {id}"));
        let mut errors: Vec<String> = unknown.collect();
        errors.extend(
            library
                .iter()
                .filter_map(|runbook| self.adapted(runbook).err()),
        );
        errors.extend(
            self.opt_in
                .iter()
                .filter_map(|id| library.get(id))
                .filter(|one| one.class != Class::Guarded)
                .map(|one| {
                    format!(
                        "{} is not guarded: there is nothing to opt in to",
                        one.runbook
                    )
                }),
        );
        errors.sort();
        errors.dedup();
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::Library;

    #[test]
    fn wrong_settings_are_named() {
        let text = r#"{"modes": {"RMQ-9": "auto"}, "opt_in": ["MEM-1"], "settings":
            {"MEM-1": {"quite": "5s"}, "RMQ-1": {"settle": 5}, "RMQ-2": {"settle": "1h"}}}"#;
        let settings: HealSettings = serde_json::from_str(text).unwrap();
        assert_eq!(
            settings.check(&Library::embedded().unwrap()),
            [
                "MEM-1 is not guarded: there is nothing to opt in to",
                "RMQ-2: expected the proof's deadline after its settle time",
                "setting quite of MEM-1: it has no such setting",
                "setting settle of RMQ-1: expected a time like 30s; found 5",
                "there is no runbook RMQ-9",
            ]
        );
        assert_eq!(
            HealSettings::default().check(&Library::embedded().unwrap()),
            Vec::<String>::new()
        );
    }

    #[test]
    fn the_default_is_to_ask() {
        let settings = HealSettings::default();
        assert_eq!(
            settings.configured_mode(&RunbookId("MEM-1".into())),
            Mode::Ask
        );
    }
}
