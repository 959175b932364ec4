//! A small Icinga for tests: hosts, services, comments, downtimes, events. The real one has tests of its own in the lab.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::{Icinga2, Icinga2Client};
use crate::{
    SourceName,
    api::{Connection, Credentials},
    source::{
        Source,
        conformance::Rig,
        testing::{ANSWER_WITHIN, Asked, PACE, Reply, Server},
    },
};

/// `HOST` or `HOST!SERVICE` → its attributes.
#[derive(Default)]
pub(super) struct World {
    pub objects: BTreeMap<String, Value>,
    pub comments: Vec<Value>,
    pub downtimes: Vec<Value>,
    /// Problems that are counted and not shown: the API user may not see them.
    pub hidden: u32,
    pub no_hosts: bool,
    /// In seconds.
    pub clock_ahead: i64,
}

pub(super) struct Icinga {
    pub world: Arc<Mutex<World>>,
    pub server: Server,
    events: broadcast::Sender<String>,
    /// Nothing is said on the stream.
    pub mute: std::sync::atomic::AtomicBool,
}

impl Icinga {
    pub async fn start() -> Self {
        let world: Arc<Mutex<World>> = Arc::default();
        let events = broadcast::channel(10_000).0;
        let (of, stream) = (world.clone(), events.clone());
        let server = Server::start(move |asked| {
            let basic = asked.headers.get("authorization").map(String::as_str);
            if basic != Some("Basic Ym90OnNlY3JldA==") {
                return Reply::Status(401, json!({"error": 401, "status": "Unauthorized"}));
            }
            match asked.path.as_str() {
                "/v1/events" => Reply::Lines(stream.subscribe()),
                _ => of.lock().unwrap().answer(asked),
            }
        });
        Self {
            world,
            server: server.await,
            events,
            mute: false.into(),
        }
    }

    pub fn connection(&self) -> Connection {
        Connection {
            credentials: Some(Credentials::Basic {
                user: "bot".to_owned(),
                password: "secret".to_owned(),
            }),
            answer_within: ANSWER_WITHIN,
            ..Connection::plain(self.server.url())
        }
    }

    pub fn client(&self) -> Icinga2Client {
        Icinga2Client::new(SourceName("icinga2".into()), &[self.connection()]).unwrap()
    }

    pub fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.lock().unwrap());
    }

    /// A check has this state now.
    pub fn problem(&self, host: &str, service: Option<&str>, state: u32, hard: bool) {
        let name = service.map_or(host.to_owned(), |service| format!("{host}!{service}"));
        let object = object(host, service, state, hard);
        self.change(|world| drop(world.objects.insert(name, object)));
        self.event(json!({
            "type": "StateChange", "host": host, "service": service.unwrap_or_default(), "state": state,
        }));
    }

    pub fn event(&self, event: Value) {
        if !self.mute.load(std::sync::atomic::Ordering::SeqCst) {
            let _ = self.events.send(format!("{event}\n"));
        }
    }
}

fn now() -> f64 {
    Timestamp::now().as_microsecond() as f64 / 1e6
}

fn object(host: &str, service: Option<&str>, state: u32, hard: bool) -> Value {
    let mut object = json!({
        "name": service.unwrap_or(host), "address": "", "check_command": "tcp", "display_name": service.unwrap_or(host),
        "flapping": false, "last_check_result": {"output": "it is so", "command": ["x"]},
        "last_hard_state_change": now(), "last_reachable": true, "state": f64::from(state),
        "state_type": if hard { 1.0 } else { 0.0 }, "acknowledgement": 0.0, "acknowledgement_expiry": 0,
        "downtime_depth": 0, "vars": null, "last_check": now(), "check_interval": 60,
    });
    if service.is_some() {
        object["host_name"] = json!(host);
    }
    object
}

impl World {
    fn answer(&mut self, asked: &Asked) -> Reply {
        let body = asked.json();
        let results = match asked.path.as_str() {
            "/v1/objects/hosts" => self.asked_for(&body, false),
            "/v1/objects/services" => self.asked_for(&body, true),
            "/v1/objects/comments" => self.comments.clone(),
            "/v1/objects/downtimes" => self.downtimes.clone(),
            "/v1/status/CIB" => return Reply::Json(self.counts()),
            "/v1/status/IcingaApplication" => {
                let ahead = SignedDuration::from_secs(self.clock_ahead);
                let started = now() - 1_000.0 + ahead.as_secs_f64();
                let app = json!({"app": {"program_start": started}});
                return Reply::Json(json!({"results": [{"status": {"icingaapplication": app}}]}));
            }
            path if path.starts_with("/v1/actions/") => return self.act(path, &body),
            _ => return Reply::Status(404, json!({"error": 404, "status": "no such path"})),
        };
        let wrapped: Vec<_> = results.iter().map(|one| json!({"attrs": one})).collect();
        Reply::Json(json!({ "results": wrapped }))
    }

    fn asked_for(&self, body: &Value, services: bool) -> Vec<Value> {
        let names = body["filter_vars"]["names"].as_array();
        let wanted = |name: &str, object: &Value| match names {
            Some(names) => names.iter().any(|one| one == name),
            None => object["state"] != json!(0.0),
        };
        let of_kind = |object: &Value| object.get("host_name").is_some() == services;
        let objects = self.objects.iter();
        objects
            .filter(|(name, object)| of_kind(object) && wanted(name, object))
            .map(|(_, object)| object.clone())
            .collect()
    }

    fn counts(&self) -> Value {
        let problems = self
            .objects
            .values()
            .filter(|one| one["state"] != json!(0.0));
        let problems = problems.count() as u32 + self.hidden;
        json!({"results": [{"status": {
            "num_hosts_up": if self.no_hosts { 0 } else { 3 }, "num_hosts_down": 0, "num_hosts_pending": 0,
            "num_services_warning": 0, "num_services_critical": problems, "num_services_unknown": 0, "uptime": 1_000.0,
        }}]})
    }

    fn act(&mut self, path: &str, body: &Value) -> Reply {
        let vars = &body["filter_vars"];
        if path.ends_with("remove-downtime") {
            let is_named = |one: &Value| {
                one["host_name"] == vars["of_host"] && one["service_name"] == vars["of_service"]
            };
            self.downtimes
                .retain(|one| !is_named(one) || one["author"] != vars["by"]);
            return Reply::Json(json!({"results": []}));
        }
        let name = vars["name"].as_str().unwrap_or_default().to_owned();
        let Some(object) = self.objects.get_mut(&name) else {
            return Reply::Status(404, json!({"error": 404, "status": "No objects found."}));
        };
        let (host, service) = name.split_once('!').unwrap_or((&name, ""));
        let made = json!({
            "name": format!("{name}!made"), "host_name": host, "service_name": service, "author": body["author"],
            "text": body["comment"], "comment": body["comment"], "entry_type": 4, "entry_time": now(), "expire_time": 0,
            "start_time": now() - 1.0, "end_time": body["end_time"], "fixed": true, "duration": 0, "trigger_time": 0,
        });
        match path {
            "/v1/actions/acknowledge-problem" => {
                object["acknowledgement"] = json!(2);
                self.comments.push(made);
            }
            "/v1/actions/remove-acknowledgement" => {
                object["acknowledgement"] = json!(0);
                self.comments
                    .retain(|one| one["host_name"] != host || one["service_name"] != service);
            }
            "/v1/actions/schedule-downtime" => {
                object["downtime_depth"] = json!(1);
                self.downtimes.push(made);
            }
            _ => return Reply::Status(400, json!({"error": 400, "status": "no such action"})),
        }
        Reply::Json(json!({"results": [{"code": 200.0, "status": "Successfully done"}]}))
    }
}

#[async_trait]
impl Rig for Icinga {
    fn server(&self) -> &Server {
        &self.server
    }

    fn source(&self) -> Arc<dyn Source> {
        Arc::new(Icinga2::new(self.client(), PACE))
    }

    async fn begins(&self, thing: &str) {
        self.problem("ctl1", Some(thing), 2, true);
    }

    async fn ends(&self, thing: &str) -> bool {
        self.problem("ctl1", Some(thing), 0, true);
        true
    }
}
