//! Incidents as the store keeps them: what lists show, and apart from it the rest, which is large in a storm.

use std::collections::{BTreeMap, BTreeSet};

use collectors::Alert;
use runbooks::incident::{Domain, Incident, Symptom};
use serde::{Deserialize, Serialize};

use crate::store::IncidentRow;

/// Alerts that a list tells of each incident; `why` tells of all.
const ALERTS_LISTED: usize = 20;
/// The same of an incident with more alerts than it keeps whole: there are many such at once.
const ALERTS_LISTED_IN_STORM: usize = 3;

/// An incident with some of its alerts, and how many there are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listed {
    #[serde(flatten)]
    pub incident: Incident,
    #[serde(flatten)]
    pub counts: Counts,
}

/// Of all alerts of an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    pub alerts_known: usize,
    pub alerts_firing: usize,
    pub names_firing: BTreeSet<String>,
    /// Alerts of other services and hosts that it explains.
    #[serde(default)]
    pub alerts_explained: usize,
    #[serde(default)]
    pub services_explained: BTreeSet<String>,
}

impl Counts {
    fn of(incident: &Incident) -> Self {
        let names = incident.firing().into_iter().map(str::to_owned);
        let services = incident.explained_services();
        Self {
            alerts_known: incident.known_alerts(),
            alerts_firing: incident.firing_count(),
            names_firing: names.collect(),
            alerts_explained: incident.explained.len(),
            services_explained: services.into_iter().map(ToString::to_string).collect(),
        }
    }
}

#[derive(Serialize)]
struct RestOf<'i> {
    alerts: BTreeMap<&'i str, &'i Alert>,
    more: &'i BTreeSet<String>,
    explained: &'i BTreeMap<String, Symptom>,
}

#[derive(Deserialize)]
struct Rest {
    alerts: BTreeMap<String, Alert>,
    more: BTreeSet<String>,
    #[serde(default)]
    explained: BTreeMap<String, Symptom>,
}

/// The incident as the store lists it.
pub fn row(incident: &Incident) -> Result<IncidentRow, serde_json::Error> {
    let service = match &incident.domain {
        Domain::Service(name) => Some(name.to_string()),
        Domain::Host(_) | Domain::Alert(_) => None,
    };
    let count = match incident.more.is_empty() {
        true => ALERTS_LISTED,
        false => ALERTS_LISTED_IN_STORM,
    };
    let listed = Listed {
        incident: incident.brief(count),
        counts: Counts::of(incident),
    };
    let further = incident.alerts.iter().skip(count);
    let rest = RestOf {
        alerts: further.map(|(key, alert)| (key.as_str(), alert)).collect(),
        more: &incident.more,
        explained: &incident.explained,
    };
    let is_all = rest.alerts.is_empty() && rest.more.is_empty() && rest.explained.is_empty();
    Ok(IncidentRow {
        id: incident.id.to_string(),
        state: incident.state.name().to_owned(),
        service,
        runbook: incident.runbooks.first().map(ToString::to_string),
        opened_at: incident.opened_at,
        closed_at: incident.closed_at,
        body: serde_json::to_string(&listed)?,
        rest: (!is_all)
            .then(|| serde_json::to_string(&rest))
            .transpose()?,
    })
}

/// With all of its alerts.
pub fn whole(row: &IncidentRow) -> Result<Incident, serde_json::Error> {
    let mut incident: Incident = serde_json::from_str(&row.body)?;
    if let Some(rest) = &row.rest {
        let rest: Rest = serde_json::from_str(rest)?;
        incident.alerts.extend(rest.alerts);
        incident.more = rest.more;
        incident.explained = rest.explained;
    }
    Ok(incident)
}

/// As lists show it.
pub fn listed(row: &IncidentRow) -> Result<Listed, serde_json::Error> {
    let incident: Incident = serde_json::from_str(&row.body)?;
    // An earlier version kept all in one and counted nothing.
    let counts = serde_json::from_str(&row.body).unwrap_or_else(|_| Counts::of(&incident));
    let is_brief = incident.alerts.len() <= ALERTS_LISTED && incident.more.is_empty();
    let incident = match is_brief {
        true => incident,
        false => incident.brief(ALERTS_LISTED),
    };
    Ok(Listed { incident, counts })
}

#[cfg(test)]
mod tests {
    use collectors::{SourceName, Status};
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn incident(alerts: usize) -> Incident {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut incident: Incident = serde_json::from_value(json!({
            "id": "i1", "domain": {"domain": "alert", "name": "am/Odd"}, "opened_at": now, "closed_at": null,
            "state": {"state": "open"}, "since": now, "alerts": {}, "subjects": ["ctl1"], "runbooks": [],
            "steady": {}, "jobs": [], "unproven": [], "under": null, "tell_only": "w",
        }))
        .unwrap();
        for number in 0..alerts {
            incident.hear(&Alert {
                source: SourceName("am".into()),
                fingerprint: format!("{number:016x}"),
                name: "Odd".into(),
                labels: [("n".to_owned(), number.to_string())].into(),
                annotations: BTreeMap::new(),
                status: Status::Firing,
                starts_at: now,
                ends_at: None,
                generator_url: String::new(),
                received_at: now,
            });
        }
        incident
    }

    #[rstest::rstest]
    #[case(0, 0)]
    #[case(5, 5)]
    #[case(30, 20)]
    #[case(500, 3)]
    fn nothing_is_lost_and_a_list_is_short(#[case] alerts: usize, #[case] shown: usize) {
        let mut incident = incident(alerts);
        let symptom = json!({
            "claim": {
                "name": "ApiDown", "domain": {"domain": "alert", "name": "am/ApiDown"}, "service": "keystone", "subjects": [],
                "host_down": false, "acts": false, "reads": [], "starts_at": incident.opened_at,
            },
            "because": {"because": "needs", "service": "keystone", "on": "mariadb"},
        });
        let symptom: Symptom = serde_json::from_value(symptom).unwrap();
        incident.explained.insert("am/1".into(), symptom);
        let row = row(&incident).unwrap();
        assert_eq!(whole(&row).unwrap(), incident);
        let brief = IncidentRow { rest: None, ..row };
        let listed = listed(&brief).unwrap();
        assert_eq!(listed.incident.alerts.len(), shown);
        assert_eq!(listed.counts, Counts::of(&incident));
        assert_eq!(listed.counts.alerts_firing, alerts);
        let shown = json!(listed);
        assert_eq!(shown["alerts_known"], alerts + 1);
        assert_eq!(shown["alerts_explained"], 1);
        assert_eq!(shown["services_explained"], json!(["keystone"]));
        assert!(
            listed.incident.explained.is_empty(),
            "a list only counts them"
        );
        assert_eq!(shown["state"]["state"], "open");
    }

    #[test]
    fn one_of_an_earlier_version_is_read_as_it_was() {
        let incident = incident(500);
        let earlier = IncidentRow {
            body: serde_json::to_string(&incident).unwrap(),
            rest: None,
            ..row(&incident).unwrap()
        };
        assert_eq!(whole(&earlier).unwrap(), incident);
        assert_eq!(listed(&earlier).unwrap().counts, Counts::of(&incident));
    }
}
