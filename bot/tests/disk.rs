//! A disk that fails under a running bot.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::Home;

#[test]
fn a_bot_whose_log_cannot_be_synced_ends_and_says_why() {
    let home = Home::new("");
    let mut served = home.serve();
    assert!(served.json(&["halt", "before"]).0);
    // The sync goes by the name; SQLite itself writes on into the file that it has open.
    std::fs::remove_file(home.path().join("state/nightshift.db-wal")).unwrap();
    let answered = home.run(&["resume"]);
    assert!(!answered.status.success());
    let status = served.ended();
    assert_eq!(status.code(), Some(1));
    let log = home.log();
    assert!(log.contains("the bot ends: expected to sync"), "{log}");
    // Started again, it reads what there is and goes on.
    assert!(home.serve().json(&["halt", "after"]).0);
}
