//! Nothing that comes out of a bot holds a secret that it knows: planted values, a run in which people and senders repeat them, and
//! a scan over everything that was written.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use deploy_engine::{secrets::SecretStore, transport::Secrets};
use support::{Home, text};

const TOKEN: &str = "planted-webhook-token-1";
const KEY: &str = "planted \"signing\" key 2";
const PASSWORD: &str = "planted-matrix-password-3";

fn planted(home: &Home) {
    for (name, value) in [("token", TOKEN), ("key", KEY), ("password", PASSWORD)] {
        home.write(name, value);
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(home.path().join(name), private).unwrap();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn home(port: u16) -> Home {
    let home = Home::new(
        "sources:\n  alertmanager:\n    - {name: am, token: {file: token}}\n    \
         - {name: relay, signature: {secret: {file: key}}}\n\
         chat: {matrix: {homeserver: 'http://127.0.0.1:1', user: '@bot:x.org', password: {file: password}, rooms: [{room: '!a:x.org'}]}}\n",
    );
    let config = std::fs::read_to_string(home.path().join("nightshift.yaml")).unwrap();
    home.write(
        "nightshift.yaml",
        &config.replace("127.0.0.1:0", &format!("127.0.0.1:{port}")),
    );
    home.write(
        "site.yaml",
        "site: demo\nssh: {port: 1}\nhosts:\n  ctl1: {address: 127.0.0.1, groups: [control]}\n\
         services:\n  rabbitmq: {on: control}\n  haproxy: {on: control}\n",
    );
    planted(&home);
    home
}

/// The values that the bot generated for the site, too.
fn all_values(home: &Home) -> Vec<String> {
    let store = SecretStore::open(&home.path().join("state/secrets")).unwrap();
    let site = store
        .all_values()
        .into_iter()
        .map(|(_, value)| value.to_string());
    let values: Vec<String> = site
        .chain([TOKEN, KEY, PASSWORD].map(str::to_owned))
        .collect();
    assert!(values.len() > 5, "the site has secrets of its own");
    values
}

/// Posts a webhook and returns all of the answer.
fn post(port: u16, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!(
        "POST /v1/alertmanager HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn webhook(words: &str) -> String {
    serde_json::json!({
        "version": "4", "groupKey": "g", "truncatedAlerts": 0, "status": "firing", "receiver": "r",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://x",
        "alerts": [{
            "status": "firing", "labels": {"alertname": "MysqlDown", "instance": "ctl1:9104", "severity": "critical"},
            "annotations": {"summary": words}, "startsAt": "2026-11-25T18:00:00Z", "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://x", "fingerprint": "00000000000000aa",
        }],
    })
    .to_string()
}

/// Forms in which a value may stand in a text: as it is, in JSON, in JSON in JSON.
fn forms(value: &str) -> Vec<String> {
    let escaped = |text: &str| {
        let json = serde_json::Value::from(text).to_string();
        json[1..json.len() - 1].to_owned()
    };
    let once = escaped(value);
    let twice = escaped(&once);
    let mut all = vec![value.to_owned(), once, twice];
    all.dedup();
    all
}

fn scan(name: &str, bytes: &[u8], values: &[String]) {
    for value in values {
        for form in forms(value) {
            if bytes
                .windows(form.len())
                .any(|window| window == form.as_bytes())
            {
                let text = String::from_utf8_lossy(bytes);
                let line = text.lines().find(|line| line.contains(&form));
                let line = line.unwrap_or_default().replace(&form, "(the secret)");
                panic!("{name} holds a secret: {line}");
            }
        }
    }
}

/// Every file below `dir`, but those that are the secrets.
fn scan_files(dir: &Path, values: &[String]) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            count += scan_files(&path, values);
        } else if entry.file_type().unwrap().is_file() {
            scan(
                &path.display().to_string(),
                &std::fs::read(&path).unwrap(),
                values,
            );
            count += 1;
        }
    }
    count
}

#[test]
fn nothing_that_a_bot_writes_holds_a_secret() {
    let port = free_port();
    let home = home(port);
    let served = home.serve();
    let values = all_values(&home);
    let site_secret = values[0].clone();
    let mut outputs: Vec<(String, Vec<u8>)> = Vec::new();

    // People paste what they must not: in commands that are recorded, told and answered, and in ones that are wrong.
    for value in &values {
        for words in [
            vec!["halt", value],
            vec!["resume"],
            vec!["status", value],
            vec!["job", value],
            vec!["why", value],
            vec!["approve", value],
        ] {
            let mut words = words;
            for json in [false, true] {
                if json {
                    words.push("--json");
                }
                let output = home.run(&words);
                outputs.push((words[0].to_owned(), [output.stdout, output.stderr].concat()));
            }
        }
    }
    // Senders repeat them: in alerts that are kept, in wrong tokens, in what is no webhook at all.
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let words = format!("cannot log in with {site_secret} nor {PASSWORD}");
    for (headers, body) in [
        (bearer(TOKEN), webhook(&words)),
        (bearer(TOKEN), format!("{{\"version\": \"{site_secret}\"}}")),
        (bearer("a guess"), webhook(&words)),
        (
            format!(
                "X-Nightshift-Source: relay\r\nX-Nightshift-Timestamp: {KEY}\r\nX-Nightshift-Signature: v1=00\r\n"
            ),
            String::new(),
        ),
    ] {
        outputs.push((
            "webhook".to_owned(),
            post(port, &headers, &body).into_bytes(),
        ));
    }
    until(|| {
        served.json(&["alerts"]).1["data"]["firing"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    });
    for words in [
        &["alerts"][..],
        &["alerts", "--json"],
        &["incidents", "--json"],
        &["jobs", "--json"],
        &["plan", "site"],
        &["deploy", "site", "--json"],
        &["help"],
        &["audit", "verify"],
        &["audit", "export"],
        &["check"],
        &["schema", "config"],
    ] {
        let output = home.run(words);
        outputs.push((words.join(" "), [output.stdout, output.stderr].concat()));
    }
    let exported = home.run(&["audit", "export"]);
    assert!(
        text(&exported.stdout).contains("⟦secret:"),
        "the lines were recorded, with references: {}",
        text(&exported.stdout)
    );
    drop(served);
    // A console, whose words are shown and logged beside each other.
    let said = home.script(&format!(
        "!halt {PASSWORD}\n!resume\n!status {site_secret}\n"
    ));
    // What was typed is shown to whoever typed it; what is answered holds no secret.
    let console = text(&said.stdout);
    let answered = console.lines().filter(|line| !line.starts_with("> !"));
    let answered = answered.collect::<Vec<_>>().join("\n");
    outputs.push((
        "console".to_owned(),
        [answered.into_bytes(), said.stderr].concat(),
    ));
    assert!(console.contains("⟦secret:matrix password⟧"), "{console}");

    outputs.push(("log".to_owned(), home.log().into_bytes()));
    assert!(outputs.len() > 30);
    for (name, bytes) in &outputs {
        scan(name, bytes, &values);
    }
    for secret in ["token", "key", "password"] {
        std::fs::remove_file(home.path().join(secret)).unwrap();
    }
    std::fs::remove_dir_all(home.path().join("state/secrets")).unwrap();
    assert!(
        scan_files(home.path(), &values) > 3,
        "the store, the configuration and the log were read"
    );
}

fn until(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "it did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}
