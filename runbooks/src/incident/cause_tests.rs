use std::collections::BTreeMap;

use collectors::{SourceName, Status};
use proptest::prelude::*;

use super::*;
use crate::{
    incident::{Event, Placement, place},
    matching::match_alert,
    topology::Deployed,
};

const HOSTS: [&str; 4] = ["h1", "h2", "h3", "h4"];

/// keystone and nova stand on mariadb and rabbitmq, horizon on keystone; keepalived on haproxy, which its runbook looks at itself.
fn topology() -> Topology {
    let service = |name: &str| -> ServiceName { name.parse().unwrap() };
    let members: Vec<HostName> = HOSTS.iter().map(|name| name.parse().unwrap()).collect();
    let needs = [
        ("keystone", vec!["mariadb"]),
        ("nova", vec!["keystone", "rabbitmq", "mariadb"]),
        ("horizon", vec!["keystone"]),
        ("mysqld_exporter", vec!["mariadb"]),
        ("keepalived", vec!["haproxy"]),
        // Each the other's cause would be nobody's.
        ("glance", vec!["swift"]),
        ("swift", vec!["glance"]),
    ];
    let all = ["mariadb", "rabbitmq", "memcached", "haproxy"];
    let names = needs.iter().map(|(name, _)| *name).chain(all);
    let deployed = Deployed {
        members: members.clone(),
        settings: BTreeMap::new(),
    };
    Topology {
        site: "test".into(),
        hosts: members
            .iter()
            .map(|host| (host.clone(), format!("10.0.0.{}", &host.as_str()[1..])))
            .collect(),
        racks: [("h1", "r1"), ("h2", "r1"), ("h3", "r2")]
            .map(|(host, rack)| (host.parse().unwrap(), rack.to_owned()))
            .into(),
        services: names
            .map(|name| (service(name), deployed.clone()))
            .collect(),
        needs: needs
            .iter()
            .map(|(name, on)| (service(name), on.iter().map(|on| service(on)).collect()))
            .collect(),
        units: [("mariadb.service".to_owned(), service("mariadb"))].into(),
        scrape_jobs: [("mysqld".to_owned(), service("mysqld_exporter"))].into(),
        ..Topology::default()
    }
}

fn alert(name: &str, labels: &[(&str, &str)]) -> Alert {
    let labels: BTreeMap<String, String> = labels
        .iter()
        .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
        .collect();
    Alert {
        source: SourceName("am".into()),
        fingerprint: format!("{name}{labels:?}"),
        name: name.into(),
        labels,
        annotations: BTreeMap::new(),
        status: Status::Firing,
        starts_at: Timestamp::UNIX_EPOCH,
        ends_at: None,
        generator_url: String::new(),
        received_at: Timestamp::UNIX_EPOCH,
    }
}

/// Alerts of all kinds: causes, symptoms of services and hosts, and what has nothing to do with either.
fn alerts() -> Vec<Alert> {
    let mut all = vec![
        alert("GaleraClusterDown", &[]),
        alert("GaleraNodeDown", &[("instance", "h1:9104")]),
        alert("RabbitmqNodeDown", &[("instance", "h2:15692")]),
        alert("HaproxyDown", &[("instance", "h1:8404")]),
        alert("VipMissing", &[]),
        alert("KeepalivedDown", &[("instance", "h1:9100")]),
        alert("OpenStackIdentityIsDown", &[("instance", "h1:9198")]),
        alert("OpenStackNovaIsDown", &[("instance", "h1:9198")]),
        alert("os_nova_api_availability", &[("url", "x")]),
        alert("OpenStackGlanceIsDown", &[]),
        alert("os_swift_api_availability", &[]),
        alert("MysqlSlowQueries", &[("instance", "h1:9104")]),
        alert("TargetDown", &[("job", "mysqld"), ("instance", "h2:9104")]),
        alert("UnitFailed", &[("host", "h3"), ("name", "mariadb.service")]),
        alert("MemcachedDown", &[("instance", "h3:9808")]),
        alert("SomethingElse", &[("instance", "h1:1")]),
        alert("HostOutOfMemory", &[("instance", "h1:9100")]),
        alert("HostOutOfMemory", &[("instance", "h4:9100")]),
    ];
    all.extend(HOSTS.map(|host| alert("HostDown", &[("host", host)])));
    all
}

fn library() -> &'static Library {
    static LIBRARY: std::sync::LazyLock<Library> =
        std::sync::LazyLock::new(|| Library::embedded().unwrap());
    &LIBRARY
}

/// The pure part of what the healer does with an alert, and with causes that are heard of later.
struct Site {
    library: &'static Library,
    topology: Topology,
    incidents: Incidents,
    now: Timestamp,
}

impl Site {
    fn new() -> Self {
        Self {
            library: library(),
            topology: topology(),
            incidents: Incidents::default(),
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn view(&self) -> View<'_> {
        View {
            incidents: &self.incidents,
            library: self.library,
            topology: &self.topology,
            now: self.now,
            settles: SignedDuration::from_mins(5),
        }
    }

    fn claim(&self, alert: &Alert) -> Claim {
        let matched = match_alert(self.library, &self.topology, alert);
        Claim::of(self.library, &matched, alert)
    }

    fn hear(&mut self, alert: &Alert) {
        let matched = match_alert(self.library, &self.topology, alert);
        let claim = self.claim(alert);
        let id = match place(&self.view(), &claim, alert) {
            Placement::Existing(id) => id,
            Placement::Explained(id, because) => {
                let symptom = Symptom { claim, because };
                return self.incidents.explain(&id, alert_key(alert), symptom);
            }
            Placement::New(domain) => {
                let id = IncidentId(format!("i{:03}", self.incidents.len()));
                let incident = Incident::opened(id.clone(), domain, self.now);
                self.incidents.insert(incident);
                id
            }
        };
        self.incidents.hear(&id, alert);
        let incident = self.incidents.get_mut(&id).unwrap();
        incident.learn(&alert.name, matched);
    }

    fn regroup(&mut self) {
        for round in 0.. {
            assert!(round < 8, "moving does not end");
            let moves = regroup(&self.view(), |alert| self.claim(alert));
            if moves.is_empty() {
                return;
            }
            for one in moves {
                let Move::Joins {
                    key,
                    from,
                    to,
                    symptom,
                } = one
                else {
                    panic!("nothing is mended here: {one:?}")
                };
                self.incidents.forget(&from, &key);
                self.incidents.explain(&to, key, *symptom);
                let left = self.incidents.get_mut(&from).unwrap();
                if !left.is_firing() && left.explained.is_empty() {
                    left.apply(&Event::Joined { cause: to }, self.now).unwrap();
                }
            }
        }
    }

    /// Key of an alert → what its incident is about, and whether it is explained there.
    fn places(&self) -> BTreeMap<String, (Domain, bool)> {
        let mut places = BTreeMap::new();
        for one in self.incidents.values().filter(|one| one.is_open()) {
            let own = one.alerts.keys().map(|key| (key, false));
            let explained = one.explained.keys().map(|key| (key, true));
            for (key, is_explained) in own.chain(explained) {
                let twice = places.insert(key.clone(), (one.domain.clone(), is_explained));
                assert_eq!(twice, None, "{key} is in two places");
            }
        }
        places
    }
}

fn domain_of(name: &str) -> Domain {
    Domain::Service(name.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever fires, in whatever order and in whatever groups: nothing is lost, nothing is in two places, and it ends the same.
    #[test]
    fn the_order_of_arrival_does_not_matter(
        (all, groups) in prop::sample::subsequence(alerts(), 1..alerts().len())
            .prop_shuffle()
            .prop_flat_map(|all| {
                let count = all.len();
                (Just(all), prop::collection::vec(any::<bool>(), count))
            }),
    ) {
        let (mut one, mut other) = (Site::new(), Site::new());
        for (alert, ends_group) in all.iter().zip(groups) {
            one.hear(alert);
            if ends_group {
                one.regroup();
            }
        }
        one.regroup();
        let mut sorted = all.clone();
        sorted.sort_by_key(alert_key);
        sorted.iter().for_each(|alert| other.hear(alert));
        other.regroup();
        let (places, others) = (one.places(), other.places());
        prop_assert_eq!(&places, &others);
        let keys: BTreeSet<String> = all.iter().map(alert_key).collect();
        prop_assert_eq!(places.keys().cloned().collect::<BTreeSet<_>>(), keys);
        for incident in one.incidents.values().filter(|one| one.is_open()) {
            prop_assert!(incident.is_firing(), "{} has nothing of its own", incident.domain);
        }
    }
}

#[test]
fn everything_that_stands_on_a_database_is_one_incident() {
    let mut site = Site::new();
    let names = [
        "OpenStackIdentityIsDown",
        "OpenStackNovaIsDown",
        "MysqlSlowQueries",
        "TargetDown",
        "UnitFailed",
    ];
    for one in alerts()
        .iter()
        .filter(|one| names.contains(&one.name.as_str()))
    {
        site.hear(one);
    }
    assert_eq!(site.incidents.len(), 5);
    site.hear(&alert("GaleraClusterDown", &[]));
    site.regroup();
    let open: Vec<&Incident> = site
        .incidents
        .values()
        .filter(|one| one.is_open())
        .collect();
    assert_eq!(open.len(), 1);
    assert_eq!(
        (&open[0].domain, open[0].explained.len()),
        (&domain_of("mariadb"), 5)
    );
    let because: BTreeSet<&Because> = open[0].explained.values().map(|one| &one.because).collect();
    let needs = |service: &str| Because::Needs {
        service: service.parse().unwrap(),
        on: "mariadb".parse().unwrap(),
    };
    assert!(because.contains(&needs("keystone")) && because.contains(&needs("nova")));
    let closed = site.incidents.values().find(|one| !one.is_open()).unwrap();
    assert!(
        matches!(&closed.state, State::Resolved { how } if how.contains("a symptom of incident"))
    );
}

#[test]
fn a_repair_that_looks_at_the_lower_service_itself_stays_by_itself() {
    let mut site = Site::new();
    site.hear(&alert("HaproxyDown", &[("instance", "h1:8404")]));
    site.hear(&alert("VipMissing", &[]));
    site.hear(&alert("KeepalivedDown", &[("instance", "h1:9100")]));
    site.regroup();
    let places = site.places();
    let of = |name: &str| {
        let found = places.iter().find(|(key, _)| key.contains(name));
        found.unwrap().1.clone()
    };
    assert_eq!(
        of("VipMissing"),
        (domain_of("keepalived"), false),
        "LB-2 starts HAProxy itself"
    );
    assert_eq!(of("KeepalivedDown"), (domain_of("keepalived"), true));
}

/// Without a repair an alert stays with its cause whatever becomes of it; with one it is not held back by a cause that nobody mends.
#[test]
fn a_cause_that_is_left_alone_holds_no_repair_back() {
    let mut site = Site::new();
    site.hear(&alert("GaleraClusterDown", &[]));
    let id = site.incidents.keys().next().unwrap().clone();
    let unit = site.claim(&alert(
        "UnitFailed",
        &[("host", "h3"), ("name", "mariadb.service")],
    ));
    let told = site.claim(&alert("OpenStackNovaIsDown", &[]));
    assert!(unit.acts && !told.acts);
    let cause = |site: &Site, claim: &Claim| site.view().cause(claim).is_some();
    assert!(cause(&site, &unit) && cause(&site, &told));
    let refused = State::Refused {
        why: "w".into(),
        again: None,
        looks: 0,
    };
    site.incidents.get_mut(&id).unwrap().state = refused;
    assert!(!cause(&site, &unit) && cause(&site, &told));
}

#[test]
fn what_began_after_the_proof_or_goes_on_long_after_it_has_another_cause() {
    let mut site = Site::new();
    site.hear(&alert("GaleraClusterDown", &[]));
    let id = site.incidents.keys().next().unwrap().clone();
    let told = site.claim(&alert("OpenStackNovaIsDown", &[]));
    let at = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(20);
    site.incidents.get_mut(&id).unwrap().state = State::Healed {
        job: "j".into(),
        at,
    };
    site.now = at + SignedDuration::from_mins(4);
    assert!(site.view().cause(&told).is_some());
    let later = Claim {
        starts_at: at + SignedDuration::from_secs(1),
        ..told.clone()
    };
    assert!(site.view().cause(&later).is_none());
    site.now = at + SignedDuration::from_mins(5);
    assert!(site.view().cause(&told).is_none());
    site.hear(&alert("OpenStackNovaIsDown", &[]));
    assert_eq!(
        site.places()
            .values()
            .filter(|(_, explained)| *explained)
            .count(),
        0
    );
}

#[test]
fn hosts_of_one_rack_go_down_together() {
    let mut site = Site::new();
    for host in ["h2", "h3", "h1"] {
        site.hear(&alert("HostDown", &[("host", host)]));
    }
    site.hear(&alert("HostOutOfMemory", &[("instance", "h2:9100")]));
    site.regroup();
    let open: Vec<&Incident> = site
        .incidents
        .values()
        .filter(|one| one.is_open())
        .collect();
    let rack = open
        .iter()
        .find(|one| one.domain == Domain::Host("h1".parse().unwrap()))
        .unwrap();
    assert_eq!(
        rack.hosts_down(),
        ["h1", "h2"].map(|host| host.parse().unwrap()).into()
    );
    let far = site.claim(&alert("HostDown", &[("host", "h3")]));
    assert!(site.view().cause(&far).is_none(), "another rack");
    let mut late = site.claim(&alert("HostDown", &[("host", "h2")]));
    late.starts_at += SignedDuration::from_mins(11);
    assert!(site.view().cause(&late).is_none(), "much later");
}

/// Many probes of one service that come before the alert of its incident are no storm, and nobody is told of them at once.
#[test]
fn what_only_tells_of_a_service_may_be_its_symptom() {
    let topology = topology();
    for (name, labels, may_be) in [
        ("MysqlSlowQueries", [("instance", "h1:9104")], true),
        ("MemcachedDown", [("instance", "h3:9808")], false),
        ("GaleraNodeDown", [("instance", "h1:9104")], false),
        ("HostOutOfMemory", [("instance", "h1:9100")], false),
        ("SomethingElse", [("instance", "h1:1")], false),
    ] {
        let alert = alert(name, &labels);
        let matched = match_alert(library(), &topology, &alert);
        let claim = Claim::of(library(), &matched, &alert);
        assert_eq!(claim.may_be_symptom(&topology), may_be, "{claim:?}");
    }
}
