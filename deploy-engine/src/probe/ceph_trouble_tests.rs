use super::*;
use crate::probe::{
    ceph::NO_MANAGER,
    table::testing::{exited, failed},
};

/// As the program prints it: one damaged object on three copies, one of which could not be read.
const DAMAGED: &str = r#"{"count": 1, "groups": [{"group": "2.3", "state": "active+clean+inconsistent", "objects": [{"name": "rotten", "head": true,
"errors": [], "authority": true, "copies": [{"osd": 0, "errors": [], "size": 262144, "data_digest": "0xd8c9b2d4"}, {"osd": 1, "errors": ["read_error"], "size": 262144},
{"osd": 2, "errors": [], "size": 262144, "data_digest": "0xd8c9b2d4"}]}], "count": 1}], "osds": {"0": {"store": "bluestore", "repaired": 0},
"1": {"store": "bluestore", "repaired": 0}, "2": {"store": "bluestore", "repaired": null}}}"#;

fn damage(text: &str) -> Result<Damage, String> {
    manager(&exited(0, text, "")).and_then(table::json::<Damage>)
}

#[test]
fn damaged_copies() {
    let damage = damage(DAMAGED).unwrap();
    let copies = &damage.groups[0].objects[0].copies;
    assert_eq!(copies[1].errors, ["read_error".to_owned()].into());
    assert_eq!(copies[1].data_digest, None);
    assert_eq!(copies[0].data_digest, copies[2].data_digest);
    assert_eq!(damage.osds[&2].repaired, None);
    // As it is kept, it is read again.
    let kept = serde_json::to_value(&damage).unwrap();
    assert_eq!(serde_json::from_value::<Damage>(kept).unwrap(), damage);
}

#[test]
fn what_is_not_understood_is_an_error() {
    for (from, to) in [
        ("\"errors\"", "\"erors\""),
        ("\"head\"", "\"hed\""),
        ("\"state\"", "\"sate\""),
    ] {
        assert!(damage(&DAMAGED.replace(from, to)).is_err(), "{from}");
    }
    assert!(damage(&DAMAGED[..DAMAGED.len() / 2]).is_err());
    let silent = exited(110, "", "Error ETIMEDOUT: pg ls");
    assert_eq!(manager(&silent), Err(NO_MANAGER.to_owned()));
    assert!(parse_blocked(&failed()).is_err());
    assert!(parse_blocked(&exited(0, "{\"osd\": 1}", "")).is_err());
}

#[test]
fn requests_that_wait() {
    let two = r#"{"osd": 0, "answers": true, "blocked": 3, "oldest_seconds": 31.5, "waits": [{"on": [1, 2], "silent": 1}], "more": false}
{"osd": 1, "answers": false, "blocked": 0, "oldest_seconds": 0, "waits": [], "more": false}"#;
    let osds = parse_blocked(&exited(0, two, "")).unwrap();
    assert_eq!((osds[0].blocked, osds[1].answers), (3, false));
    assert_eq!(osds[0].waits_for(), [1, 2].into());
    assert_eq!(osds[0].waits[0].silent, 1);
    assert_eq!(parse_blocked(&exited(0, "", "")), Ok(vec![]));
}
