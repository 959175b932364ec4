//! A person at Icinga's and Alertmanager's APIs, asked on the hosts themselves: no cut between them and the bot is in the way.

use std::time::Duration;

use lab::{Lab, wait};
use serde_json::{Value, json};

use crate::stage::LIMIT;

/// The masters: the last two hosts.
pub const MASTERS: [&str; 2] = ["ctl2", "ctl3"];
/// Where Alertmanager runs.
const ALERTMANAGER: &str = "ctl1";
/// A person who may do everything, with objects of their own.
pub const BOB: &str = "bob";
const PASSWORD: &str = "bobs own";
/// Of one exchange with an API on the host itself.
const ASKED: Duration = Duration::from_secs(30);

/// What people write into files of their own, on every master; taken in by a reload.
pub fn written_by_people(lab: &Lab, objects: &str) {
    let bob = format!(
        "object ApiUser \"{BOB}\" {{ password = \"{PASSWORD}\"; permissions = [ \"*\" ] }}\n"
    );
    let text = format!("{bob}{objects}");
    for master in MASTERS {
        let put = ["sh", "-c", "cat > /etc/icinga2/local.d/people.conf"];
        let written = lab.ssh_limited(master, &put, text.as_bytes(), ASKED);
        assert!(written.unwrap().status.success());
        lab.ssh_ok(master, &["systemctl", "reload", "icinga2.service"])
            .unwrap();
    }
    wait::until("an Icinga that knows its people", LIMIT, || {
        MASTERS
            .iter()
            .try_for_each(|master| at(lab, master, "status/CIB", &json!({}), true).map(drop))
    })
    .unwrap();
}

/// One question (`get`) or order to the API of one master.
fn at(lab: &Lab, master: &str, path: &str, body: &Value, get: bool) -> Result<Value, String> {
    let user = format!("{BOB}:{PASSWORD}");
    let url = format!("https://{master}:5665/v1/{path}");
    let method = match get {
        true => "X-HTTP-Method-Override: GET",
        false => "X-HTTP-Method-Override: POST",
    };
    let mut argv = vec!["curl", "--silent", "--show-error", "--fail-with-body"];
    argv.extend(["--cacert", "/var/lib/icinga2/certs/ca.crt", "--user", &user]);
    argv.extend(["--header", "Accept: application/json", "--header", method]);
    argv.extend(["--data", "@-", &url]);
    asked(lab, master, &argv, body)
}

fn asked(lab: &Lab, host: &str, argv: &[&str], body: &Value) -> Result<Value, String> {
    let output = lab
        .ssh_limited(host, argv, body.to_string().as_bytes(), ASKED)
        .map_err(|error| error.to_string())?;
    let said = format!("{}{}", output.stdout, output.stderr);
    if !output.status.success() {
        return Err(format!("{}: {said}", argv.last().unwrap_or(&"")));
    }
    match output.stdout.is_empty() {
        true => Ok(Value::Null),
        false => serde_json::from_str(&output.stdout).map_err(|error| format!("{error}: {said}")),
    }
}

/// Bob orders something about one check of one host.
pub fn order(lab: &Lab, action: &str, (host, check): (&str, &str), with: Value) {
    let mut body = json!({
        "type": "Service", "filter": "service.__name == name",
        "filter_vars": {"name": format!("{host}!{check}")}, "author": BOB,
    });
    for (name, value) in with.as_object().unwrap() {
        body[name] = value.clone();
    }
    let done = at(lab, MASTERS[0], &format!("actions/{action}"), &body, false).unwrap();
    let code = done["results"][0]["code"].as_f64();
    assert_eq!(code, Some(200.0), "{action}: {done}");
}

/// A check as the first master sees it.
pub fn check(lab: &Lab, (host, check): (&str, &str)) -> Value {
    let body = json!({"filter": "service.__name == name", "filter_vars": {"name": format!("{host}!{check}")}});
    let found = at(lab, MASTERS[0], "objects/services", &body, true).unwrap();
    found["results"][0]["attrs"].clone()
}

/// Waits until a check is hard in this state (0: OK, 2: critical); when it became so, in seconds since 1970.
pub fn until_hard(lab: &Lab, what: (&str, &str), state: f64) -> f64 {
    let waited = format!("{}!{} to be hard in state {state}", what.0, what.1);
    let since = wait::until(&waited, LIMIT, || {
        let seen = check(lab, what);
        let hard = seen["state_type"] == 1.0 && seen["state"] == state;
        let since = seen["last_hard_state_change"].as_f64();
        let is_checked = seen["last_check_result"].is_object();
        since
            .filter(|_| hard && is_checked)
            .ok_or_else(|| format!("state {} type {}", seen["state"], seen["state_type"]))
    });
    since.unwrap()
}

/// Who acknowledged a check: authors and words.
pub fn acknowledgements(lab: &Lab, (host, check): (&str, &str)) -> Vec<(String, String)> {
    let body = json!({
        "filter": "comment.entry_type == 4 && comment.host_name == of_host && comment.service_name == of_check",
        "filter_vars": {"of_host": host, "of_check": check},
    });
    let found = at(lab, MASTERS[0], "objects/comments", &body, true).unwrap();
    let all = found["results"].as_array().unwrap().iter();
    let text = |one: &Value, name: &str| one["attrs"][name].as_str().unwrap().to_owned();
    all.map(|one| (text(one, "author"), text(one, "text")))
        .collect()
}

/// Silences of Alertmanager that are in force.
pub fn silences(lab: &Lab) -> Vec<Value> {
    let url = "http://10.77.0.11:9093/api/v2/silences";
    let argv = ["curl", "--silent", "--show-error", "--fail", url];
    let all = asked(lab, ALERTMANAGER, &argv, &Value::Null).unwrap();
    let mut all = all.as_array().unwrap().clone();
    all.retain(|one| one["status"]["state"] == "active");
    all
}

/// Makes a silence, or changes the one whose `id` is in it; its id.
pub fn silence(lab: &Lab, silence: &Value) -> String {
    let mut argv = vec!["curl", "--silent", "--show-error", "--fail-with-body"];
    argv.extend(["--header", "Content-Type: application/json", "--data", "@-"]);
    argv.push("http://10.77.0.11:9093/api/v2/silences");
    let made = asked(lab, ALERTMANAGER, &argv, silence).unwrap();
    made["silenceID"].as_str().unwrap().to_owned()
}

pub fn end_silence(lab: &Lab, id: &str) {
    let url = format!("http://10.77.0.11:9093/api/v2/silence/{id}");
    let mut argv = vec!["curl", "--silent", "--show-error", "--fail"];
    argv.extend(["--request", "DELETE", &url]);
    asked(lab, ALERTMANAGER, &argv, &Value::Null).unwrap();
}
