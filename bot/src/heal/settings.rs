//! The configuration's words about automation as the healer's settings.

use runbooks::{format::RunbookId, healer::HealSettings, trust::Mode};

use crate::{command::Trust, config::Automation, store::TrustMode};

/// A mode in the words of the store.
pub fn trust_of(mode: Mode) -> TrustMode {
    match mode {
        Mode::Shadow => TrustMode::Shadow,
        Mode::Ask => TrustMode::Ask,
        Mode::Auto => TrustMode::Auto,
    }
}

pub(super) fn mode_of(mode: TrustMode) -> Mode {
    match mode {
        TrustMode::Shadow => Mode::Shadow,
        TrustMode::Ask => Mode::Ask,
        TrustMode::Auto => Mode::Auto,
    }
}

fn configured(trust: Trust) -> Mode {
    match trust {
        Trust::Shadow => Mode::Shadow,
        Trust::Ask => Mode::Ask,
        Trust::Auto => Mode::Auto,
    }
}

/// The section `automation`.
pub fn heal_settings(automation: &Automation) -> HealSettings {
    let id = |name: &String| RunbookId(name.clone());
    let settings = automation
        .settings
        .iter()
        .map(|(runbook, own)| (id(runbook), own.clone()));
    HealSettings {
        mode: configured(automation.default),
        modes: automation
            .runbooks
            .iter()
            .map(|(name, mode)| (id(name), configured(*mode)))
            .collect(),
        opt_in: automation.opt_in.iter().map(id).collect(),
        settings: settings.collect(),
        storm: automation.storm,
        ..HealSettings::default()
    }
}
