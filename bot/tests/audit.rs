//! The audit log as people prove it: `audit verify` and `audit export`, before and after somebody with the file in hand.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Home, text};

/// Somebody who owns the file can do anything to it.
fn tamper(home: &Home, sql: &[&'static str]) {
    let path = home.path().join("state/nightshift.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        use sqlx::{ConnectOptions, Connection};
        let mut connection = options.connect().await.unwrap();
        for statement in sql {
            sqlx::query(*statement)
                .execute(&mut connection)
                .await
                .unwrap();
        }
        connection.close().await.unwrap();
    });
}

const NO_TRIGGERS: [&str; 2] = [
    "DROP TRIGGER audit_is_append_only_u",
    "DROP TRIGGER audit_is_append_only_d",
];

fn home_with_a_log() -> Home {
    let home = Home::new("");
    let output = home.script("!halt for a test\n!resume\n!whoami\n!halt once more\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    home
}

fn verified(home: &Home, more: &[&str]) -> (bool, String) {
    let output = home.run(&[&["audit", "verify"], more].concat());
    (
        output.status.success(),
        text(&output.stdout) + &text(&output.stderr),
    )
}

fn head(home: &Home) -> String {
    let output = home.run(&["audit", "verify", "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["ok"], true);
    answer["head"].as_str().unwrap().to_owned()
}

#[test]
fn a_whole_log_verifies_also_beside_a_running_bot_and_with_heads_that_were_kept() {
    let home = home_with_a_log();
    let first = head(&home);
    let served = home.serve();
    assert!(served.json(&["resume"]).0);
    let (ok, said) = verified(&home, &["--head", &first]);
    assert!(
        ok && said.contains("is whole") && said.contains("--head"),
        "{said}"
    );
    assert_ne!(head(&home), first);
    drop(served);
    assert!(verified(&home, &["--head", &first]).0);
    assert!(home.log().contains("the audit log goes on from here"));
}

#[test]
fn a_changed_entry_is_named_with_what_was_expected_and_found() {
    let home = home_with_a_log();
    assert!(verified(&home, &[]).0);
    tamper(&home, &NO_TRIGGERS);
    tamper(&home, &["UPDATE audit SET who = 'unix:eve' WHERE id = 3"]);
    let (ok, said) = verified(&home, &[]);
    assert!(
        !ok && said.contains("entry 3: expected the hash") && said.contains("found"),
        "{said}"
    );
    let export = home.run(&["audit", "export"]);
    assert!(
        !export.status.success(),
        "what is broken is not passed off as whole"
    );
}

#[test]
fn entries_that_were_removed_are_missed_in_the_middle_and_at_the_end() {
    let home = home_with_a_log();
    tamper(&home, &NO_TRIGGERS);
    let kept = head(&home);
    tamper(
        &home,
        &["DELETE FROM audit WHERE id >= (SELECT max(id) - 1 FROM audit)"],
    );
    let (ok, said) = verified(&home, &[]);
    assert!(
        !ok && said.contains("the last entries were removed"),
        "{said}"
    );
    // The head beside it was set back as well: one that was kept elsewhere still tells.
    tamper(
        &home,
        &[
            "UPDATE kv SET value = (SELECT id || ':' || hash FROM audit ORDER BY id DESC LIMIT 1) \
           WHERE space = 'audit'",
        ],
    );
    assert!(verified(&home, &[]).0);
    let (ok, said) = verified(&home, &["--head", &kept]);
    assert!(
        !ok && said.contains("the last entries were removed"),
        "{said}"
    );
    tamper(&home, &["DELETE FROM audit WHERE id = 2"]);
    let (ok, said) = verified(&home, &[]);
    assert!(
        !ok && said.contains("expected entry 2, found entry 3"),
        "{said}"
    );
}

#[test]
fn an_export_is_lines_of_json_from_which_anybody_can_compute_the_chain() {
    use sha2::{Digest, Sha256};
    let home = home_with_a_log();
    let output = home.run(&["audit", "export"]);
    assert!(output.status.success());
    let lines: Vec<serde_json::Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (end, entries) = lines.split_last().unwrap();
    let mut previous = String::new();
    for (entry, raw) in entries.iter().zip(text(&output.stdout).lines()) {
        let at: jiff::Timestamp = entry["at"].as_str().unwrap().parse().unwrap();
        // The body exactly as it stands in the line.
        let body = raw
            .split_once("\"body\":")
            .unwrap()
            .1
            .rsplit_once(",\"hash\"")
            .unwrap()
            .0;
        let content = serde_json::json!([
            previous,
            entry["number"],
            at.as_microsecond(),
            entry["who"],
            entry["action"],
            entry["target"],
            body
        ]);
        let digest = Sha256::digest(content.to_string().as_bytes());
        previous = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(entry["hash"], previous.as_str(), "{raw}");
    }
    let last = entries.last().unwrap();
    assert_eq!(end["head"], format!("{}:{previous}", last["number"]));
    let actions: Vec<&str> = entries
        .iter()
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "halt", "answered", "resume", "answered", "whoami", "halt", "answered"
        ]
    );
    assert_eq!(entries[0]["body"]["line"], "halt for a test");
    let none = home.run(&["audit", "export", "--since", "2100-01-01T00:00:00Z"]);
    assert_eq!(text(&none.stdout).lines().count(), 1, "only the head");
    assert_eq!(
        home.run(&["audit", "export", "--since", "soon"])
            .status
            .code(),
        Some(2)
    );
}
