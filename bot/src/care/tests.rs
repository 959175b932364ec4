//! Acknowledgements both ways, with a small Icinga and a small Alertmanager. The real ones have tests in the lab.

use std::sync::Mutex;

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::StatusCode,
    middleware::{Next as Onward, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use collectors::SourceName;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::{
    bot::Place as Spot,
    config::Secret,
    replicas::Lead,
    rights::{Identity, Role},
    serve::assemble::{Assembled, Ground, assemble, ground},
    sources::Icinga2Settings,
    store::IncidentRow,
    wording::render::plain,
};

/// What both know.
#[derive(Default)]
struct World {
    comments: Vec<Value>,
    silences: Vec<Value>,
    down: bool,
    writes: u32,
}

type Shared = Arc<Mutex<World>>;

async fn up(State(world): State<Shared>, request: Request, onward: Onward) -> Response {
    if world.lock().unwrap().down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    onward.run(request).await
}

async fn comments(State(world): State<Shared>) -> Json<Value> {
    let comments = world.lock().unwrap().comments.clone();
    let results: Vec<_> = comments.iter().map(|one| json!({"attrs": one})).collect();
    Json(json!({ "results": results }))
}

async fn acknowledge(State(world): State<Shared>, Json(order): Json<Value>) -> Json<Value> {
    let mut world = world.lock().unwrap();
    world.writes += 1;
    let name = order["filter_vars"]["name"].as_str().unwrap();
    let (host, service) = name.split_once('!').unwrap();
    world.comments.push(json!({
        "name": "c", "host_name": host, "service_name": service, "author": order["author"], "text": order["comment"],
        "entry_type": 4, "entry_time": 1, "expire_time": 0,
    }));
    Json(json!({"results": [{"code": 200, "status": "done"}]}))
}

async fn take_back(State(world): State<Shared>) -> Json<Value> {
    let mut world = world.lock().unwrap();
    world.writes += 1;
    world.comments.clear();
    Json(json!({"results": [{"code": 200, "status": "done"}]}))
}

async fn silences(State(world): State<Shared>) -> Json<Value> {
    Json(json!(world.lock().unwrap().silences))
}

async fn silence(State(world): State<Shared>, Json(mut made): Json<Value>) -> Json<Value> {
    let mut world = world.lock().unwrap();
    world.writes += 1;
    let known = made["id"].as_str().map(str::to_owned);
    let id = known.unwrap_or_else(|| format!("ab-{}", world.writes));
    made["id"] = json!(id);
    made["status"] = json!({"state": "active"});
    world.silences.retain(|one| one["id"] != json!(id));
    world.silences.push(made);
    Json(json!({ "silenceID": id }))
}

async fn expire(State(world): State<Shared>, Path(id): Path<String>) {
    let mut world = world.lock().unwrap();
    world.writes += 1;
    world.silences.retain(|one| one["id"] != json!(id));
}

struct Desk {
    bot: Arc<Bot>,
    world: Shared,
    _ground: Ground,
    _dir: tempfile::TempDir,
}

const SITE: &str = "site: demo\nssh: {port: 1}\nhosts:\n  ctl1: {address: 127.0.0.1}\n\
    services:\n  memcached: {on: ctl1}\n";

async fn serve(world: Shared) -> String {
    let none = || async { Json(json!({"results": []})) };
    let app = Router::new()
        .route("/v1/objects/comments", post(comments))
        .route("/v1/objects/downtimes", get(none))
        .route("/v1/actions/acknowledge-problem", post(acknowledge))
        .route("/v1/actions/remove-acknowledgement", post(take_back))
        .route("/api/v2/silences", get(silences).post(silence))
        .route("/api/v2/silence/{id}", delete(expire))
        .layer(from_fn_with_state(world.clone(), up))
        .with_state(world);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

impl Desk {
    async fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let (dir, world) = (tempfile::tempdir().unwrap(), Shared::default());
        let url = serve(world.clone()).await;
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("site.yaml"), SITE).unwrap();
        std::fs::write(path("token"), "a-token").unwrap();
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path("token"), private).unwrap();
        let config = format!(
            "site: site.yaml\nstate_dir: state\npeople: {{\"unix:ann\": operator, \"unix:bob\": operator}}\n\
             sources: {{alertmanager: [{{name: am, url: \"{url}\", token: {{file: token}}}}]}}\n"
        );
        std::fs::write(path("nightshift.yaml"), config).unwrap();
        let mut ground = ground(&path("nightshift.yaml")).await.unwrap();
        let authority = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap();
        ground.icinga2 = vec![Icinga2Settings {
            name: "icinga2".to_owned(),
            masters: vec![(url, None)],
            user: "bot".to_owned(),
            password: Secret::new("secret"),
            authority: Secret::new(authority.cert.pem()),
            identity: None,
        }];
        let (lead, stop) = (Lead::alone(), CancellationToken::new());
        let assembled = assemble(&ground, vec![], Default::default(), lead, stop).await;
        let Assembled { bot, .. } = assembled.unwrap();
        let desk = Self {
            bot,
            world,
            _ground: ground,
            _dir: dir,
        };
        desk.incident(Status::Firing).await;
        desk
    }

    /// One that both know of.
    async fn incident(&self, status: Status) {
        let mut incident: Incident = serde_json::from_value(json!({
            "id": "i1", "domain": {"domain": "service", "name": "memcached"}, "opened_at": Timestamp::UNIX_EPOCH, "closed_at": null,
            "state": {"state": "open"}, "since": Timestamp::UNIX_EPOCH, "alerts": {}, "subjects": [], "runbooks": [],
            "steady": {}, "unproven": [], "under": null, "tell_only": null,
        }))
        .unwrap();
        for (source, labels) in [
            ("am", json!({"alertname": "MemcachedDown", "host": "ctl1"})),
            (
                "icinga2",
                json!({"alertname": "memcached", "host": "ctl1", "icinga_service": "memcached"}),
            ),
        ] {
            incident.hear(&Alert {
                source: SourceName(source.into()),
                fingerprint: source.into(),
                name: "MemcachedDown".into(),
                labels: serde_json::from_value(labels).unwrap(),
                annotations: BTreeMap::new(),
                status,
                starts_at: Timestamp::UNIX_EPOCH,
                ends_at: None,
                generator_url: String::new(),
                received_at: Timestamp::now(),
            });
        }
        let row = IncidentRow {
            id: "i1".to_owned(),
            state: "open".to_owned(),
            service: None,
            runbook: None,
            opened_at: Timestamp::UNIX_EPOCH,
            closed_at: None,
            body: serde_json::to_string(&incident).unwrap(),
            rest: None,
        };
        self.bot.store.put_incident(&row).await.unwrap();
    }

    async fn says(&self, who: &str, line: &str) -> String {
        let place = Spot {
            rooms: vec![],
            ceiling: Role::Admin,
            prefix: "!".to_owned(),
            name: "control".to_owned(),
        };
        let who = Identity::try_from(who.to_owned()).unwrap();
        plain(&self.bot.handle(&who, place, line).await.message)
    }

    /// Until nothing is left to be written.
    async fn tended(&self) -> Vec<String> {
        for _ in 0..4 {
            round(&self.bot).await.unwrap();
        }
        let writes = self.now(|world| world.writes);
        round(&self.bot).await.unwrap();
        assert_eq!(self.now(|world| world.writes), writes, "it settles");
        lines_of(&self.bot.store, "i1").await.unwrap()
    }

    fn now<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.world.lock().unwrap())
    }

    /// Who has it in Icinga, and in Alertmanager.
    fn held(&self) -> (Vec<String>, Vec<String>) {
        let by = |all: &[Value], name: &str| {
            let by = all.iter().map(|one| one[name].as_str().unwrap().to_owned());
            by.collect()
        };
        self.now(|world| {
            (
                by(&world.comments, "author"),
                by(&world.silences, "createdBy"),
            )
        })
    }
}

fn both(who: &str) -> (Vec<String>, Vec<String>) {
    (vec![who.to_owned()], vec![who.to_owned()])
}

#[tokio::test]
async fn a_word_in_the_chat_is_said_in_both_and_taken_back() {
    let desk = Desk::new().await;
    assert!(desk.says("unix:ann", "ack i1").await.contains("is yours"));
    let lines = desk.tended().await;
    assert_eq!(
        lines,
        [
            "acknowledged in am for unix:ann",
            "acknowledged in icinga2 for unix:ann"
        ]
    );
    assert_eq!(desk.held(), both("unix:ann"));
    let labels = desk.now(|world| world.silences[0]["matchers"].as_array().unwrap().len());
    assert_eq!(labels, 2, "exactly this alert is silenced");
    assert_eq!(desk.now(|world| world.writes), 2);

    assert!(
        desk.says("unix:ann", "unack i1")
            .await
            .contains("is nobody's")
    );
    assert_eq!(desk.tended().await, Vec::<String>::new());
    assert_eq!(desk.held(), (vec![], vec![]));
    assert!(
        desk.says("unix:ann", "unack i1")
            .await
            .contains("Nobody has incident i1")
    );
}

#[tokio::test]
async fn who_takes_it_over_is_told_and_named_there() {
    let desk = Desk::new().await;
    desk.says("unix:ann", "ack i1").await;
    desk.tended().await;
    let told = desk.says("unix:bob", "ack i1").await;
    assert!(told.contains("unix:ann had it until now"), "{told}");
    desk.tended().await;
    assert_eq!(desk.held(), both("unix:bob"));
}

#[tokio::test]
async fn what_somebody_removed_there_stays_removed_until_it_is_said_anew() {
    let desk = Desk::new().await;
    desk.says("unix:ann", "ack i1").await;
    desk.tended().await;
    desk.now(|world| world.comments.clear());
    let lines = desk.tended().await;
    assert!(
        lines[1].starts_with("the acknowledgement of unix:ann was removed in icinga2"),
        "{lines:?}"
    );
    assert_eq!(desk.held().0, Vec::<String>::new());
    desk.says("unix:ann", "ack i1").await;
    desk.tended().await;
    assert_eq!(desk.held(), both("unix:ann"));
}

#[tokio::test]
async fn two_people_at_once_are_both_shown() {
    let desk = Desk::new().await;
    desk.now(|world| {
        world.comments.push(json!({
            "name": "c", "host_name": "ctl1", "service_name": "memcached", "author": "web-bob", "text": "mine",
            "entry_type": 4, "entry_time": 1, "expire_time": 0,
        }));
    });
    desk.says("unix:ann", "ack i1").await;
    let lines = desk.tended().await;
    assert!(
        lines.contains(&"two have it: unix:ann here, web-bob in icinga2: mine".to_owned()),
        "{lines:?}"
    );
    assert_eq!(desk.held().0, ["web-bob"], "theirs is left alone");
    desk.says("unix:ann", "unack i1").await;
    desk.tended().await;
    assert_eq!(desk.held().0, ["web-bob"], "and not taken back");
}

#[tokio::test]
async fn a_monitoring_that_is_down_delays_a_word_and_loses_none() {
    let desk = Desk::new().await;
    desk.now(|world| world.down = true);
    desk.says("unix:ann", "ack i1").await;
    let lines = desk.tended().await;
    assert_eq!(lines.len(), 2);
    assert!(
        lines[1].starts_with("not yet said in icinga2: ") && lines[1].contains("503"),
        "{lines:?}"
    );
    desk.now(|world| world.down = false);
    desk.tended().await;
    assert_eq!(desk.held(), both("unix:ann"));
}

#[tokio::test]
async fn a_silence_lasts_as_long_as_its_alert() {
    let desk = Desk::new().await;
    desk.says("unix:ann", "ack i1").await;
    desk.tended().await;
    let soon = Timestamp::now() + SignedDuration::from_mins(20);
    desk.now(|world| world.silences[0]["endsAt"] = json!(soon));
    desk.tended().await;
    let ends: Timestamp = desk.now(|world| {
        assert_eq!(world.silences.len(), 1);
        serde_json::from_value(world.silences[0]["endsAt"].clone()).unwrap()
    });
    assert!(
        ends > soon + SignedDuration::from_mins(30),
        "it was extended"
    );
    desk.incident(Status::Resolved).await;
    desk.tended().await;
    assert_eq!(desk.held().1, Vec::<String>::new(), "and ends with it");
}
