//! One cause and its symptoms, through the whole healer.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use collectors::{Alert, Change, SourceName, Status};
use deploy_engine::model::ServiceName;
use jiff::Timestamp;

use super::{
    News,
    testing::{Stage, World, WorldNow, alert, settings, start_on, three_caches},
};
use crate::{
    decision::testing::host,
    incident::{Domain, Incident, State},
    library::Library,
    topology::{Deployed, FrontEnd, Topology},
    trust::Mode,
};

const APIS: [(&str, u16); 8] = [
    ("keystone", 5000),
    ("glance", 9292),
    ("nova", 8774),
    ("neutron", 9696),
    ("cinder", 8776),
    ("placement", 8778),
    ("heat", 8004),
    ("swift", 8080),
];

/// Three caches, and eight services that cannot do without them.
fn site() -> Arc<Topology> {
    let mut site = Topology::clone(&three_caches());
    let cache: ServiceName = "memcached".parse().unwrap();
    for (name, port) in APIS {
        let members = vec![host("h1"), host("h2"), host("h3")];
        let service: ServiceName = name.parse().unwrap();
        let settings = Default::default();
        site.services
            .insert(service.clone(), Deployed { members, settings });
        site.needs.insert(service.clone(), [cache.clone()].into());
        site.ports.insert(port, [service.clone()].into());
        let front = FrontEnd {
            service,
            port: Some(port),
        };
        site.front_ends.insert(name.to_owned(), front);
    }
    site.virtual_addresses.insert("10.0.0.10".to_owned());
    Arc::new(site)
}

fn stage(settles: u32) -> Stage {
    let mut settings = settings(Mode::Auto);
    settings.gathers_seconds = Some(2);
    settings.settles_seconds = Some(settles);
    let library = Library::embedded().unwrap();
    start_on(
        site(),
        Arc::new(World::default()),
        Arc::default(),
        settings,
        library,
    )
}

fn from(source: &str, alert: Alert) -> Alert {
    Alert {
        source: SourceName(source.to_owned()),
        ..alert
    }
}

/// 200 alerts of one cache that is down: of Prometheus, of probes and of Icinga.
fn flood() -> [Vec<Alert>; 3] {
    let firing = |name: &str, labels: &[(&str, &str)]| alert(name, labels, Status::Firing);
    let mut prometheus = vec![firing(
        "MemcachedDown",
        &[("alertname", "MemcachedDown"), ("instance", "h3:9808")],
    )];
    for n in 0..119 {
        let (service, _) = APIS[n % APIS.len()];
        let name = match service {
            "keystone" => "OpenStackIdentityIsDown",
            "glance" => "OpenStackGlanceIsDown",
            "nova" => "OpenStackNovaIsDown",
            "neutron" => "OpenStackNeutronIsDown",
            "cinder" => "OpenStackCinderIsDown",
            "placement" => "OpenStackPlacementIsDown",
            "heat" => "OpenStackHeatIsDown",
            _ => "os_swift_api_availability",
        };
        let number = n.to_string();
        prometheus.push(firing(
            name,
            &[
                ("alertname", name),
                ("instance", "h1:9198"),
                ("region", &number),
            ],
        ));
    }
    let probes = (0..60).map(|n| {
        let (_, port) = APIS[n % APIS.len()];
        let url = format!("http://10.0.0.10:{port}/{n}");
        firing(
            "BlackboxProbeFailed",
            &[("alertname", "BlackboxProbeFailed"), ("instance", &url)],
        )
    });
    let icinga = (0..20).map(|n| {
        let service = format!("proxy {n}");
        let labels = [
            ("host", "h3"),
            ("service", &service),
            ("check_command", "memcached"),
        ];
        from("icinga", firing(&service, &labels))
    });
    [
        probes.map(|one| from("probes", one)).collect(),
        icinga.collect(),
        prometheus,
    ]
}

async fn hear(stage: &Stage, alerts: &[Alert], change: Change) {
    stage.world.now(|now| {
        let keys: BTreeSet<_> = alerts.iter().map(Alert::key).collect();
        now.alerts.retain(|known| !keys.contains(&known.key()));
        now.alerts.extend(alerts.iter().cloned());
    });
    let alerts = alerts.iter().map(|alert| (alert.clone(), change)).collect();
    stage.handle.heard(alerts).await.unwrap();
}

fn ended(alert: &Alert) -> Alert {
    Alert {
        status: Status::Resolved,
        ends_at: Some(Timestamp::now()),
        ..alert.clone()
    }
}

/// Incidents that anybody was told of, and how often somebody was paged.
fn told(now: &WorldNow) -> (BTreeSet<String>, usize, usize) {
    let mut incidents = BTreeSet::new();
    let (mut pages, mut others) = (0, 0);
    for news in &now.news {
        match news {
            News::Incident { incident, page } => {
                incidents.insert(incident.id.to_string());
                pages += usize::from(*page);
            }
            _ => others += 1,
        }
    }
    (incidents, pages, others)
}

async fn wait(stage: &Stage, what: &str, is: impl Fn(&[Incident], &WorldNow) -> bool) {
    for _ in 0..600 {
        let open = stage.handle.incidents().await.unwrap();
        if stage.world.now(|now| is(&open, now)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let open = stage.handle.incidents().await.unwrap();
    let open: Vec<_> = open
        .iter()
        .map(|one| {
            (
                &one.domain,
                &one.state,
                one.alerts.len(),
                one.explained.len(),
            )
        })
        .collect();
    panic!("expected {what}; found {open:?}");
}

/// One cause, 200 alerts of three sources, symptoms first: one incident, one repair, at most ten messages.
#[tokio::test]
async fn one_cause_of_two_hundred_alerts_is_one_incident_and_one_repair() {
    let stage = stage(300);
    stage.watchdog().await;
    stage.world.now(|now| {
        now.down.insert(host("h3"));
        now.firing = true;
    });
    let flood = flood();
    assert_eq!(flood.iter().map(Vec::len).sum::<usize>(), 200);
    for group in &flood {
        for part in group.chunks(25) {
            hear(&stage, part, Change::New).await;
        }
    }
    let is_cache = |one: &Incident| one.domain == Domain::Service("memcached".parse().unwrap());
    wait(&stage, "one incident of 200 alerts", |open, _| {
        matches!(open, [one] if is_cache(one) && one.firing_count() + one.explained.len() == 200)
    })
    .await;
    wait(
        &stage,
        "a proven repair",
        |open, _| matches!(open, [one] if matches!(one.state, State::Healed { .. })),
    )
    .await;
    for group in &flood {
        hear(
            &stage,
            &group.iter().map(ended).collect::<Vec<_>>(),
            Change::Resolved,
        )
        .await;
    }
    wait(&stage, "nothing open", |open, _| open.is_empty()).await;
    assert_eq!(stage.ran(), ["h3: systemctl start memcached.service"]);
    stage.world.now(|now| {
        let (incidents, pages, others) = told(now);
        println!(
            "{} messages, {} edits, {pages} pages, {others} of other kinds",
            incidents.len() + others,
            now.news.len()
        );
        assert!(
            incidents.len() + others <= 10 && pages == 0,
            "{incidents:?}, {pages} pages"
        );
        assert_eq!(now.ledger.len(), 1, "one repair");
        assert!(
            !now.news
                .iter()
                .any(|one| matches!(one, News::Storm { .. } | News::Trouble { .. }))
        );
        let acted: Vec<_> = now
            .incidents
            .values()
            .filter(|one| !one.jobs.is_empty())
            .collect();
        assert_eq!(acted.len(), 1);
        assert!(now.incidents.values().all(|one| !one.is_open()));
    });
}

/// The cause is mended and proven; what goes on has another one, and people hear of it.
#[tokio::test]
async fn what_outlives_its_cause_gets_an_incident_of_its_own() {
    let stage = stage(1);
    stage.watchdog().await;
    let [_, _, prometheus] = flood();
    stage.world.now(|now| {
        now.down.insert(host("h3"));
        now.firing = true;
    });
    let (cause, rest) = (&prometheus[..1], &prometheus[1..9]);
    hear(&stage, rest, Change::New).await;
    hear(&stage, cause, Change::New).await;
    wait(
        &stage,
        "one incident",
        |open, _| matches!(open, [one] if one.explained.len() == 8),
    )
    .await;
    wait(&stage, "a proven repair", |_, now| {
        now.incidents
            .values()
            .any(|one| matches!(one.state, State::Healed { .. }))
    })
    .await;
    hear(&stage, &[ended(&cause[0])], Change::Resolved).await;
    let ending: Vec<Alert> = rest[..7].iter().map(ended).collect();
    hear(&stage, &ending, Change::Resolved).await;
    let last = &rest[7].name;
    wait(&stage, "an incident of what goes on", |open, _| {
        matches!(open, [one] if matches!(one.state, State::TellOnly { .. }) && one.firing().contains(last.as_str()))
    })
    .await;
    assert_eq!(stage.ran().len(), 1);
}

/// Late symptoms join while the cause is worked on; a restart keeps where they are.
#[tokio::test]
async fn late_ones_join_and_a_restart_loses_none() {
    let stage = stage(300);
    stage.watchdog().await;
    let [_, _, prometheus] = flood();
    stage.world.now(|now| {
        now.down.insert(host("h3"));
        now.firing = true;
        now.stuck = true;
    });
    hear(&stage, &prometheus[..1], Change::New).await;
    wait(
        &stage,
        "a repair that fails",
        |open, _| matches!(open, [one] if matches!(one.state, State::Unproven { .. })),
    )
    .await;
    hear(&stage, &prometheus[1..40], Change::New).await;
    wait(
        &stage,
        "late ones joined",
        |open, _| matches!(open, [one] if one.explained.len() == 39),
    )
    .await;
    let (world, journal) = stage.stop().await;
    world.now(|now| now.alerts.retain(|one| one.key() != prometheus[5].key()));
    let mut again = settings(Mode::Auto);
    again.gathers_seconds = Some(2);
    let stage = start_on(site(), world, journal, again, Library::embedded().unwrap());
    wait(
        &stage,
        "the same without the one that ended",
        |open, _| matches!(open, [one] if one.explained.len() == 38),
    )
    .await;
}

/// Fire, end, fire, end: one incident and no message for every time; its end counts when it has been quiet.
#[tokio::test]
async fn an_alert_that_comes_and_goes_is_one_incident() {
    let stage = stage(1);
    stage.watchdog().await;
    let odd = alert(
        "SomethingElse",
        &[("alertname", "SomethingElse")],
        Status::Firing,
    );
    for round in 0..4 {
        let change = if round == 0 {
            Change::New
        } else {
            Change::Refiring
        };
        hear(&stage, std::slice::from_ref(&odd), change).await;
        wait(&stage, "an incident", |open, _| matches!(open, [_])).await;
        hear(&stage, &[ended(&odd)], Change::Resolved).await;
    }
    wait(
        &stage,
        "one that is open",
        |open, _| matches!(open, [one] if one.comes_and_goes.contains("SomethingElse")),
    )
    .await;
    stage.world.now(|now| {
        let (incidents, ..) = told(now);
        assert_eq!(
            incidents.len(),
            2,
            "the first end was believed, the others were not"
        );
    });
}
