//! Alerts that only lines of a log tell of.

use collectors::{Alert, Status};

use super::Healer;
use crate::{
    incident::{Domain, Incident, IncidentId, alert_key},
    log_lines::Meant,
};

/// Why nothing is repaired.
const WHY: &str = "only lines of a log say so: that is never enough for a repair";

fn may_repair(incident: &Incident) -> bool {
    !matches!(incident.domain, Domain::Alert(_))
}

impl Healer {
    /// The incident that it changes: its own, never one that may repair. An open incident about the same service or host has it as
    /// evidence anyway, and then there is nothing to open.
    pub(super) fn place_line(&mut self, alert: &Alert) -> Option<IncidentId> {
        let own = Domain::Alert(format!("{}/{}", alert.source, alert.name));
        let known = self.incidents.with_alert(&alert_key(alert));
        let known = known.or_else(|| self.incidents.about(&own));
        let topology = self.topology.clone();
        let meant = Meant::by(&topology, &alert.labels);
        let mut open = self.incidents.values().filter(|one| one.is_open());
        let id = match known.map(|one| one.id.clone()) {
            Some(id) => id,
            None if alert.status == Status::Resolved => return None,
            None if open.any(|one| may_repair(one) && meant.is_of(one)) => return None,
            None => {
                drop(open);
                self.open(own, false)
            }
        };
        self.incidents.hear(&id, alert);
        let incident = self.incidents.get_mut(&id)?;
        incident.subjects.extend(meant.host.cloned());
        incident.tell_only = Some(WHY.to_owned());
        Some(id)
    }
}
