//! RabbitMQ virtual hosts, users and policies, through the management API on loopback.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Judged, Pending};
use crate::{
    agent::{
        collect,
        http::{self, HttpError},
    },
    wire::Resource,
};

/// The API answers lists of a small broker in milliseconds; longer means that the node is stuck.
const API_TIMEOUT: Duration = Duration::from_secs(10);
/// Definitions of a large site are a few megabytes.
const API_LIMIT_BYTES: usize = 8 * 1024 * 1024;
/// RabbitMQ's only strong hash that every version since 3.6 has.
const HASHING: &str = "rabbit_password_hashing_sha256";

/// Where the API is and as whom it is asked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Api<'a> {
    port: u16,
    user: &'a str,
    password: &'a str,
}

impl<'a> Api<'a> {
    pub fn of(resource: &'a Resource) -> Option<Self> {
        match resource {
            Resource::RabbitmqVhost {
                api_port,
                api_user,
                api_password,
                ..
            }
            | Resource::RabbitmqUser {
                api_port,
                api_user,
                api_password,
                ..
            }
            | Resource::RabbitmqPolicy {
                api_port,
                api_user,
                api_password,
                ..
            } => Some(Self {
                port: *api_port,
                user: api_user,
                password: api_password,
            }),
            _ => None,
        }
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Vec<u8>, ApiError> {
        let answer = http::send(&http::Request {
            method,
            address: IpAddr::from([127, 0, 0, 1]),
            port: self.port,
            path,
            login: Some((self.user, self.password)),
            body: body.map(Value::to_string),
            timeout: API_TIMEOUT,
            limit_bytes: API_LIMIT_BYTES,
        });
        match answer {
            Err(HttpError::Refused) => Err(ApiError::NoServer),
            Err(HttpError::Other(why)) => Err(ApiError::Other(why)),
            Ok(response) if (200..300).contains(&response.status) => Ok(response.body),
            Ok(response) => Err(ApiError::Other(format!(
                "expected 2xx of RabbitMQ's {method} {path} as {}, found {}: {}",
                self.user,
                response.status,
                String::from_utf8_lossy(&response.body).trim()
            ))),
        }
    }

    fn list(&self, path: &str) -> Result<Vec<Value>, ApiError> {
        let body = self.call("GET", path, None)?;
        serde_json::from_slice(&body).map_err(|error| {
            ApiError::Other(format!(
                "expected a list of RabbitMQ's {path}, found: {error}"
            ))
        })
    }
}

#[derive(Clone, Debug)]
pub enum ApiError {
    NoServer,
    Other(String),
}

/// What a broker holds.
#[derive(Clone, Debug, Default)]
pub struct Broker {
    vhosts: Vec<Value>,
    users: Vec<Value>,
    permissions: Vec<Value>,
    policies: Vec<Value>,
}

/// Everything that the resources of one API may be about, in four requests.
pub fn read(api: &Api<'_>) -> Result<Broker, ApiError> {
    Ok(Broker {
        vhosts: api.list("/api/vhosts")?,
        users: api.list("/api/users")?,
        permissions: api.list("/api/permissions")?,
        policies: api.list("/api/policies")?,
    })
}

pub fn look(
    resource: &Resource,
    broker: Option<&Result<Broker, ApiError>>,
    pending: &Pending,
) -> Judged {
    match broker {
        Some(Ok(broker)) => judge(resource, broker),
        Some(Err(ApiError::NoServer)) if pending.packages || pending.units => Judged::by_diff(
            "no server",
            vec![format!("{} after the server runs", resource.id())],
        ),
        Some(Err(ApiError::NoServer)) => {
            Judged::unknown("RabbitMQ's management API does not listen on this host")
        }
        Some(Err(ApiError::Other(why))) => Judged::unknown(why.clone()),
        None => Judged::unknown("RabbitMQ was not asked"),
    }
}

fn named<'a>(list: &'a [Value], pairs: &[(&str, &str)]) -> Option<&'a Value> {
    list.iter()
        .find(|item| pairs.iter().all(|(key, value)| item[*key] == *value))
}

fn judge(resource: &Resource, broker: &Broker) -> Judged {
    match resource {
        Resource::RabbitmqVhost { name, absent, .. } => {
            let found = named(&broker.vhosts, &[("name", name)]).is_some();
            presence(found, *absent, &format!("virtual host {name}"))
                .unwrap_or_else(|| Judged::by_diff("present", vec![]))
        }
        Resource::RabbitmqUser {
            name,
            password,
            tags,
            permissions,
            absent,
            ..
        } => {
            let found = named(&broker.users, &[("name", name)]);
            presence(found.is_some(), *absent, &format!("RabbitMQ user {name}")).unwrap_or_else(
                || {
                    judge_user(
                        broker,
                        found.unwrap_or(&Value::Null),
                        (name, password),
                        tags,
                        permissions,
                    )
                },
            )
        }
        Resource::RabbitmqPolicy {
            vhost,
            name,
            pattern,
            apply_to,
            definition,
            priority,
            absent,
            ..
        } => {
            let found = named(&broker.policies, &[("vhost", vhost), ("name", name)]);
            presence(found.is_some(), *absent, &format!("policy {name} of {vhost}")).unwrap_or_else(|| {
                let wanted = json!({"pattern": pattern, "apply-to": apply_to, "definition": definition, "priority": priority});
                judge_fields(&wanted, found.unwrap_or(&Value::Null))
            })
        }
        _ => Judged::unknown("not a resource of RabbitMQ's"),
    }
}

/// The judgement, if whether it is there decides already.
fn presence(found: bool, absent: bool, what: &str) -> Option<Judged> {
    match (found, absent) {
        (true, true) => Some(Judged::by_diff("present", vec![format!("- {what}")])),
        (false, false) => Some(Judged::by_diff("absent", vec![format!("+ {what}")])),
        (false, true) => Some(Judged::by_diff("absent", vec![])),
        (true, false) => None,
    }
}

fn judge_fields(wanted: &Value, found: &Value) -> Judged {
    let fields = wanted.as_object().into_iter().flatten();
    let seen: Vec<&Value> = fields.clone().map(|(key, _)| &found[key]).collect();
    let diff = fields
        .filter(|(key, value)| found[key.as_str()] != **value)
        .map(|(key, value)| format!("{key}: {} -> {value}", found[key.as_str()]))
        .collect();
    Judged::by_diff(&format!("{seen:?}"), diff)
}

fn judge_user(
    broker: &Broker,
    found: &Value,
    (name, password): (&str, &str),
    tags: &[String],
    permissions: &BTreeMap<String, (String, String, String)>,
) -> Judged {
    let join = |tags: &BTreeSet<&str>| tags.iter().copied().collect::<Vec<_>>().join(",");
    let mut diff = Vec::new();
    if !password_matches(found, password) {
        diff.push(format!("password of {name} changes"));
    }
    let (found_tags, wanted_tags) = (
        tags_of(found),
        collect::set(tags.iter().map(String::as_str)),
    );
    if found_tags != wanted_tags {
        diff.push(format!(
            "tags of {name}: {} -> {}",
            join(&found_tags),
            join(&wanted_tags)
        ));
    }
    let mut seen = format!("{} {found_tags:?}", found["password_hash"]);
    for (vhost, (configure, write, read)) in permissions {
        let wanted = json!({"configure": configure, "write": write, "read": read});
        let found =
            named(&broker.permissions, &[("user", name), ("vhost", vhost)]).unwrap_or(&Value::Null);
        let judged = judge_fields(&wanted, found);
        seen += &judged.digest;
        if judged.changes() {
            diff.push(format!("permissions of {name} on {vhost}: configure {configure}, write {write}, read {read}"));
        }
    }
    Judged::by_diff(&seen, diff)
}

/// A list since 3.9, words with commas before.
fn tags_of(user: &Value) -> BTreeSet<&str> {
    match &user["tags"] {
        Value::Array(list) => collect::set(list.iter().filter_map(Value::as_str)),
        Value::String(text) => collect::set(text.split(',').filter(|t| !t.is_empty())),
        _ => BTreeSet::new(),
    }
}

/// The stored hash is base64 of four bytes of salt and SHA-256 over salt and password.
fn password_matches(user: &Value, password: &str) -> bool {
    let hash = user["password_hash"]
        .as_str()
        .and_then(|text| STANDARD.decode(text).ok());
    let (true, Some((salt, stored))) = (
        user["hashing_algorithm"] == HASHING,
        hash.as_deref()
            .and_then(|bytes| bytes.split_first_chunk::<4>()),
    ) else {
        return false;
    };
    let mut hasher = Sha256::new();
    hasher.update(salt);
    hasher.update(password.as_bytes());
    hasher.finalize().as_slice() == stored
}

/// A name as one part of a path.
fn part(name: &str) -> String {
    name.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

pub fn apply(resource: &Resource) -> Result<(), String> {
    let api = Api::of(resource).ok_or("not a resource of RabbitMQ's")?;
    let call = |method: &str, path: String, body: Option<Value>| {
        api.call(method, &path, body.as_ref())
            .map(drop)
            .map_err(|error| match error {
                ApiError::NoServer => {
                    "RabbitMQ's management API does not listen on this host".to_owned()
                }
                ApiError::Other(why) => why,
            })
    };
    match resource {
        Resource::RabbitmqVhost { name, absent, .. } => {
            let path = format!("/api/vhosts/{}", part(name));
            if *absent {
                call("DELETE", path, None)
            } else {
                call("PUT", path, Some(json!({})))
            }
        }
        Resource::RabbitmqUser {
            name, absent: true, ..
        } => call("DELETE", format!("/api/users/{}", part(name)), None),
        Resource::RabbitmqUser {
            name,
            password,
            tags,
            permissions,
            ..
        } => {
            let body =
                json!({"password": password, "tags": tags.join(","), "hashing_algorithm": HASHING});
            call("PUT", format!("/api/users/{}", part(name)), Some(body))?;
            permissions
                .iter()
                .try_for_each(|(vhost, (configure, write, read))| {
                    let path = format!("/api/permissions/{}/{}", part(vhost), part(name));
                    call(
                        "PUT",
                        path,
                        Some(json!({"configure": configure, "write": write, "read": read})),
                    )
                })
        }
        Resource::RabbitmqPolicy {
            vhost,
            name,
            pattern,
            apply_to,
            definition,
            priority,
            absent,
            ..
        } => {
            let path = format!("/api/policies/{}/{}", part(vhost), part(name));
            let body = json!({"pattern": pattern, "apply-to": apply_to, "definition": definition, "priority": priority});
            if *absent {
                call("DELETE", path, None)
            } else {
                call("PUT", path, Some(body))
            }
        }
        _ => Err("not a resource of RabbitMQ's".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::State;

    fn broker() -> Broker {
        let mut salted = vec![1, 2, 3, 4];
        let mut hasher = Sha256::new();
        hasher.update([1, 2, 3, 4]);
        hasher.update(b"correct horse");
        salted.extend_from_slice(&hasher.finalize());
        Broker {
            vhosts: vec![json!({"name": "/"})],
            users: vec![
                json!({"name": "app", "password_hash": STANDARD.encode(salted), "hashing_algorithm": HASHING, "tags": ["monitoring"]}),
            ],
            permissions: vec![
                json!({"user": "app", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}),
            ],
            policies: vec![
                json!({"vhost": "/", "name": "p", "pattern": "^q", "apply-to": "queues", "definition": {"max-length": 5}, "priority": 0}),
            ],
        }
    }

    fn user(password: &str, tags: &[&str], read: &str) -> Resource {
        Resource::RabbitmqUser {
            api_port: 15672,
            api_user: "admin".into(),
            api_password: "x".into(),
            name: "app".into(),
            password: password.into(),
            tags: tags.iter().map(|&t| t.to_owned()).collect(),
            permissions: [(
                "/".to_owned(),
                (".*".to_owned(), ".*".to_owned(), read.to_owned()),
            )]
            .into(),
            absent: false,
        }
    }

    #[test]
    fn users_are_compared_with_their_password_and_rights() {
        for (resource, changes) in [
            (user("correct horse", &["monitoring"], ".*"), 0),
            (user("wrong", &["monitoring"], ".*"), 1),
            (user("correct horse", &[], ".*"), 1),
            (user("wrong", &["monitoring"], "^$"), 2),
        ] {
            let found = match judge(&resource, &broker()).state {
                State::WillChange { diff } => diff.len(),
                _ => 0,
            };
            assert_eq!(found, changes, "{resource:?}");
        }
    }

    #[test]
    fn policies_and_hosts() {
        let policy = |definition: Value| Resource::RabbitmqPolicy {
            api_port: 1,
            api_user: String::new(),
            api_password: String::new(),
            vhost: "/".into(),
            name: "p".into(),
            pattern: "^q".into(),
            apply_to: "queues".into(),
            definition,
            priority: 0,
            absent: false,
        };
        assert_eq!(
            judge(&policy(json!({"max-length": 5})), &broker()).state,
            State::Same
        );
        assert!(judge(&policy(json!({"max-length": 6})), &broker()).changes());
        let no_server = Some(Err(ApiError::NoServer));
        let unknown = look(&policy(json!({})), no_server.as_ref(), &Pending::default());
        assert!(matches!(unknown.state, State::Unknown { .. }));
        assert_eq!(part("/a b"), "%2Fa%20b");
    }
}
