//! The incidents that are looked after, and where each alert is among them: in a storm there are very many alerts to be found.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Deref,
    sync::Arc,
};

use collectors::Alert;

use super::{Domain, Incident, IncidentId, Symptom, alert_key};

/// Read as a map by id. Alerts come in through [`Incidents::hear`] alone, which keeps the places.
#[derive(Debug, Default)]
pub struct Incidents {
    all: BTreeMap<IncidentId, Incident>,
    /// Key of an alert → the incident that knows it.
    by_alert: HashMap<String, Arc<IncidentId>>,
    by_domain: BTreeMap<Domain, Arc<IncidentId>>,
}

impl Deref for Incidents {
    type Target = BTreeMap<IncidentId, Incident>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl FromIterator<Incident> for Incidents {
    fn from_iter<I: IntoIterator<Item = Incident>>(all: I) -> Self {
        let mut incidents = Self::default();
        all.into_iter().for_each(|one| incidents.insert(one));
        incidents
    }
}

/// Of all alerts that it knows.
fn keys(incident: &Incident) -> impl Iterator<Item = &String> {
    let own = incident.alerts.keys().chain(&incident.more);
    own.chain(incident.explained.keys())
}

impl Incidents {
    pub fn insert(&mut self, incident: Incident) {
        let id = Arc::new(incident.id.clone());
        // The oldest of a domain, as ids sort by time.
        let first = self.by_domain.entry(incident.domain.clone());
        first.or_insert_with(|| id.clone());
        for key in keys(&incident) {
            self.by_alert.insert(key.clone(), id.clone());
        }
        self.all.insert(incident.id.clone(), incident);
    }

    pub fn take(&mut self, id: &IncidentId) -> Option<Incident> {
        let incident = self.all.remove(id)?;
        let is_this = |known: &Arc<IncidentId>| **known == *id;
        if self.by_domain.get(&incident.domain).is_some_and(is_this) {
            let next = self.all.values().find(|one| one.domain == incident.domain);
            match next.map(|next| Arc::new(next.id.clone())) {
                Some(next) => self.by_domain.insert(incident.domain.clone(), next),
                None => self.by_domain.remove(&incident.domain),
            };
        }
        for key in keys(&incident) {
            if self.by_alert.get(key).is_some_and(is_this) {
                self.by_alert.remove(key);
            }
        }
        Some(incident)
    }

    /// For everything but its alerts and its domain.
    pub fn get_mut(&mut self, id: &IncidentId) -> Option<&mut Incident> {
        self.all.get_mut(id)
    }

    /// The incident takes in an alert.
    pub fn hear(&mut self, id: &IncidentId, alert: &Alert) {
        let Some(incident) = self.all.get_mut(id) else {
            return;
        };
        let shared = self.by_domain.get(&incident.domain);
        let shared = shared.filter(|known| ***known == *id).cloned();
        let shared = shared.unwrap_or_else(|| Arc::new(id.clone()));
        let forgotten = incident.hear(alert);
        self.by_alert.insert(alert_key(alert), shared);
        if let Some(forgotten) = forgotten {
            self.by_alert.remove(&forgotten);
        }
    }

    /// The incident explains an alert.
    pub fn explain(&mut self, id: &IncidentId, key: String, symptom: Symptom) {
        let Some(incident) = self.all.get_mut(id) else {
            return;
        };
        if incident.explain(key.clone(), symptom) {
            self.by_alert.insert(key, Arc::new(id.clone()));
        }
    }

    /// The incident knows no more of an alert.
    pub fn forget(&mut self, id: &IncidentId, key: &str) {
        if let Some(incident) = self.all.get_mut(id) {
            incident.alerts.remove(key);
            incident.more.remove(key);
            incident.explained.remove(key);
        }
        if self.by_alert.get(key).is_some_and(|known| **known == *id) {
            self.by_alert.remove(key);
        }
    }

    /// The open incident that knows an alert.
    pub fn with_alert(&self, key: &str) -> Option<&Incident> {
        let id = self.by_alert.get(key)?;
        self.all.get(&**id).filter(|one| one.is_open())
    }

    /// The open incident about a domain.
    pub fn about(&self, domain: &Domain) -> Option<&Incident> {
        let id = self.by_domain.get(domain)?;
        self.all.get(&**id).filter(|one| one.is_open())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use collectors::Status;
    use proptest::prelude::*;

    use super::*;
    use crate::incident::{ALERTS_KEPT, correlate::testing};

    /// What is found by the places is what looking through all of them finds, and nothing is kept of what nobody knows.
    fn places_are_right(incidents: &Incidents) -> Result<(), TestCaseError> {
        let known: BTreeSet<&String> = incidents
            .values()
            .flat_map(|one| one.alerts.keys().chain(&one.more))
            .collect();
        let placed: BTreeSet<&String> = incidents.by_alert.keys().collect();
        prop_assert_eq!(&placed, &known);
        for key in known {
            let by_looking = incidents.values().find(|one| one.has(key));
            prop_assert_eq!(incidents.with_alert(key), by_looking);
        }
        let domains: BTreeSet<&Domain> = incidents.values().map(|one| &one.domain).collect();
        let placed: BTreeSet<&Domain> = incidents.by_domain.keys().collect();
        prop_assert_eq!(placed, domains);
        Ok(())
    }

    proptest! {
        #[test]
        fn every_alert_is_found_where_it_is(
            deeds in prop::collection::vec((0..3_usize, 0..2 * ALERTS_KEPT, any::<bool>()), 1..400),
            removed in 0..3_usize,
        ) {
            let domains = ["X", "Y", "Z"];
            let named = |n: usize| {
                testing::incident(&format!("i{n}"), Domain::Alert(format!("am/{}", domains[n])))
            };
            let mut incidents: Incidents = (0..3).map(named).collect();
            for (number, fingerprint, firing) in deeds {
                let mut alert = testing::alert(domains[number], fingerprint * 3 + number);
                if !firing {
                    alert.status = Status::Resolved;
                }
                incidents.hear(&IncidentId(format!("i{number}")), &alert);
            }
            places_are_right(&incidents)?;
            incidents.take(&IncidentId(format!("i{removed}")));
            places_are_right(&incidents)?;
        }
    }
}
