use serde_json::json;

use super::*;
use crate::decision::testing::{self, Case, expect, obeys_the_laws};

const GB: u64 = 1_000_000_000;

fn filesystem(size: u64, free: u64) -> Filesystem {
    Filesystem {
        kind: "ext4".into(),
        size_bytes: size,
        free_bytes: free,
        inodes: 1_000,
        inodes_free: 900,
    }
}

fn dispensable(case: &mut Case, packages: u64, journal: u64) {
    let sizes: BTreeMap<&str, u64> = DISPENSABLE_PATHS
        .into_iter()
        .zip([packages, journal])
        .collect();
    case.set(DISPENSABLE, "h2", &sizes);
}

/// Ten GB, half a GB free; three GB may go.
fn nearly_full() -> Case {
    let mut case = Case::new("disk.full", "host", 3)
        .setting("confirm", json!(30))
        .setting("percent", json!(20));
    case.subjects = vec![testing::host("h2")];
    let mounted: BTreeMap<String, Filesystem> =
        [("/".to_owned(), filesystem(10 * GB, GB / 2))].into();
    case.set(FILESYSTEM, "h2", &mounted);
    dispensable(&mut case, 2 * GB, GB);
    case.set(
        LARGEST,
        "h2",
        &BTreeMap::from([("/var/lib/mysql".to_owned(), 6 * GB)]),
    );
    case
}

#[test]
fn laws() {
    assert_eq!(nearly_full().roles()["target"], ["h2"]);
    obeys_the_laws(&nearly_full(), &[(LARGEST, "h2")]);
}

#[rstest::rstest]
#[case::room(|c: &mut Case| c.edit(FILESYSTEM, "h2", "/~1/free_bytes", json!(3 * GB)), "elsewhere", "at least 20 % free")]
#[case::not_enough(|c: &mut Case| dispensable(c, 1_000, GB), "refuse", "would give 800 MB of the 1500 MB")]
#[case::the_kept_journal_does_not_count(|c: &mut Case| dispensable(c, 2 * GB, 100_000_000), "act", "give 2000 MB")]
#[case::inodes(|c: &mut Case| c.edit(FILESYSTEM, "h2", "/~1/inodes_free", json!(10)), "refuse", "few inodes")]
#[case::no_host(|c: &mut Case| c.subjects.clear(), "refuse", "expected one host")]
#[case::two_hosts(|c: &mut Case| c.subjects.push(testing::host("h1")), "refuse", "expected one host")]
fn situations(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = nearly_full();
    change(&mut case);
    expect(&case, kind, part);
}

#[test]
fn what_takes_the_room_is_asked_only_when_a_person_is_called() {
    let mut case = nearly_full();
    dispensable(&mut case, 1_000, GB);
    let Verdict::Refuse { evidence, .. } = case.verdict() else {
        panic!("it is refused");
    };
    assert_eq!(evidence, ["6000 MB /var/lib/mysql"]);
    case.readings.by_probe.remove(LARGEST);
    expect(&case, "more", "what takes the room");
}

#[test]
fn what_is_on_another_filesystem_does_not_count() {
    let mut case = nearly_full();
    let mounted: BTreeMap<String, Filesystem> = [
        ("/".to_owned(), filesystem(10 * GB, GB / 2)),
        ("/var/cache".to_owned(), filesystem(10 * GB, 5 * GB)),
    ]
    .into();
    case.set(FILESYSTEM, "h2", &mounted);
    expect(&case, "refuse", "would give 800 MB");
    let data: BTreeMap<String, Filesystem> = [
        ("/".to_owned(), filesystem(10 * GB, 5 * GB)),
        ("/var/lib/mysql".to_owned(), filesystem(10 * GB, GB / 2)),
    ]
    .into();
    case.set(FILESYSTEM, "h2", &data);
    expect(&case, "refuse", "nothing on it may be removed");
}
