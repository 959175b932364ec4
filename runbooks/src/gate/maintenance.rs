//! The forms in which people say "hands off" (gate G4). This is the one place that a new form is added to.
//!
//! A form that a site needs and that nobody could ask is unknown, and unknown refuses.

use std::{collections::BTreeSet, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Somebody halted everything.
    Halt,
    /// An Alertmanager silence on the alert or on a whole host.
    Silence,
    /// A file on a host.
    Marker,
    /// A person switched a part off and left it so: a disabled unit, a drained node, a server in maintenance.
    Disabled,
    /// A deploy that is not finished.
    Deploy,
    /// Members run different versions: a rolling upgrade.
    MixedVersions,
    /// A downtime or an acknowledgement in Icinga.
    Icinga,
    /// Flags of the osdmap that the bot did not set.
    CephFlags,
}

/// One form: how it is called, and where it is needed.
pub struct FormEntry {
    pub form: Form,
    pub name: &'static str,
    /// Only on sites with this service, or where it was asked all the same (an Icinga that the site does not deploy); none:
    /// everywhere.
    pub only_with: Option<&'static str>,
}

pub static FORMS: [FormEntry; 8] = [
    everywhere(Form::Halt, "halt"),
    everywhere(Form::Silence, "silence"),
    everywhere(Form::Marker, "maintenance marker"),
    everywhere(Form::Disabled, "switched off by a person"),
    everywhere(Form::Deploy, "deploy"),
    everywhere(Form::MixedVersions, "unequal versions"),
    with("icinga2", Form::Icinga, "Icinga"),
    with("ceph", Form::CephFlags, "Ceph flags"),
];

const fn everywhere(form: Form, name: &'static str) -> FormEntry {
    FormEntry {
        form,
        name,
        only_with: None,
    }
}

const fn with(service: &'static str, form: Form, name: &'static str) -> FormEntry {
    FormEntry {
        form,
        name,
        only_with: Some(service),
    }
}

/// The forms that must be asked on a site with these services.
pub fn required<'s>(services: impl IntoIterator<Item = &'s str>) -> BTreeSet<Form> {
    let deployed: BTreeSet<&str> = services.into_iter().collect();
    FORMS
        .iter()
        .filter(|entry| entry.only_with.is_none_or(|one| deployed.contains(one)))
        .map(|entry| entry.form)
        .collect()
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = FORMS.iter().find(|entry| entry.form == *self);
        f.write_str(entry.map_or("?", |entry| entry.name))
    }
}

/// One "hands off", worded, with its end if it has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sign {
    pub what: String,
    #[serde(default)]
    pub until: Option<Timestamp>,
}

impl Sign {
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            until: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_needs_the_forms_of_what_it_runs() {
        let names = |services: &[&str]| required(services.iter().copied()).len();
        assert_eq!(names(&["mariadb"]), 6);
        assert_eq!(names(&["mariadb", "ceph"]), 7);
        assert_eq!(names(&["icinga2", "ceph"]), FORMS.len());
    }
}
