//! Webhooks that are wrong, or say what nobody knows.

use std::fs;
use std::time::Duration;

use lab::scenario::Bot;
use lab::{Lab, wait};
use serde_json::json;

use super::{TOKEN, in_small_lab, small};

/// Posts to the bot's webhook from inside the lab; gives the status.
fn post(lab: &Lab, token: &str, body: &[u8]) -> String {
    let file = lab.folder().join("body");
    fs::write(&file, body).unwrap();
    let mut curl = lab.command("curl").unwrap();
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}"])
        .args(["-H", &format!("Authorization: Bearer {token}")])
        .arg("--data-binary")
        .arg(format!("@{}", file.display()))
        .arg("http://10.77.0.1:9480/v1/alertmanager");
    String::from_utf8(curl.output().unwrap().stdout).unwrap()
}

fn webhook(name: &str) -> Vec<u8> {
    let alert = json!({
        "status": "firing",
        "labels": {"alertname": name, "instance": "$(reboot);10.77.0.11"},
        "annotations": {"summary": "`reboot`"},
        "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "", "fingerprint": "0123456789abcdef",
    });
    let body = json!({
        "version": "4", "groupKey": "{}", "truncatedAlerts": 0, "status": "firing", "receiver": "r",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "", "alerts": [alert],
    });
    body.to_string().into_bytes()
}

#[test]
fn webhooks_that_are_wrong() {
    in_small_lab("badhooks", 1, |lab| {
        let installation = small(lab);
        let bot = Bot::start(&installation).unwrap();
        let data = |words: &str| installation.ask(&[words]).unwrap()["data"].take();
        assert_eq!(post(lab, "wrong", &webhook("X")), "401");
        assert_eq!(post(lab, TOKEN, b"{\"version\": \"4\", "), "400");
        assert_eq!(post(lab, TOKEN, b"{\"version\": \"9\"}"), "400");
        assert_eq!(post(lab, TOKEN, &vec![b' '; 32 << 20]), "413");
        assert_eq!(data("alerts")["firing"], json!([]));
        assert_eq!(post(lab, TOKEN, &webhook("NobodyKnowsThis")), "200");
        let alerts = data("alerts");
        assert_eq!(alerts["firing"][0]["name"], "NobodyKnowsThis", "{alerts}");
        let told = wait::until("the incident", Duration::from_secs(30), || {
            let incidents = data("incidents");
            let first = &incidents["incidents"][0];
            let is_told = first["state"]["state"] == "tell_only";
            is_told.then(|| first.clone()).ok_or(incidents.to_string())
        });
        assert_eq!(told.unwrap()["runbooks"], json!([]));
        assert_eq!(data("jobs"), json!([]));
        bot.stop().unwrap();
    });
}
