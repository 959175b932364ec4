//! HOST-5: a host has started again and nobody here did it. What it left behind is collected while it is still there.

use deploy_engine::probe::host::{BOOT, CRASH_FILES, LAST_WORDS};
use jiff::{SignedDuration, Timestamp};

use super::{
    Act, Facts, Input, Verdict,
    table::{Entry, elsewhere, page, refuse},
};

pub static DECISION: Entry = Entry {
    name: "host.rebooted",
    doc: "the host that the alert names has started within `recent`: says when, and what its last boot left behind",
    roles: &[],
    parameters: &[],
    evidence: &[BOOT, CRASH_FILES, LAST_WORDS],
    settings: &["recent"],
    facts: |_| Facts::new(),
    decide,
};

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let [host] = input.subjects else {
        let found = input.subjects.len();
        return Err(refuse(format!(
            "expected one host that the alerts name; found {found}"
        )));
    };
    let since: i64 = input.known(BOOT, host)?;
    let since = Timestamp::from_second(since).map_err(|_| {
        refuse(format!(
            "{host}: expected a time of its start; found {since}"
        ))
    })?;
    let up: SignedDuration = input.now.duration_since(since);
    if up > input.seconds("recent")? {
        return Err(elsewhere(format!("{host} has run since {since}")));
    }
    let mut evidence = Vec::new();
    match input.known::<Vec<String>>(CRASH_FILES, host) {
        Ok(files) if files.is_empty() => evidence.push("its kernel left no crash file".to_owned()),
        Ok(files) => evidence.extend(files.into_iter().map(|file| format!("crash file {file}"))),
        Err(unknown) => evidence.push(format!("crash files: {}", unknown.why())),
    }
    match input.known::<Vec<String>>(LAST_WORDS, host) {
        Ok(lines) => evidence.extend(lines.into_iter().map(|line| format!("before: {line}"))),
        Err(unknown) => evidence.push(format!("journal of the boot before: {}", unknown.why())),
    }
    Err(page(
        format!(
            "{host} started again {} s ago; nobody here did it",
            up.as_secs()
        ),
        evidence,
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decision::testing::{self, Case, expect};

    fn rebooted() -> Case {
        let mut case = Case::new("host.rebooted", "host", 3).setting("recent", json!(3_600));
        case.subjects = vec![testing::host("h2")];
        case.set(BOOT, "h2", &(case.now.as_second() - 300));
        case.set(CRASH_FILES, "h2", &["/sys/fs/pstore/dmesg-efi-1"]);
        case.set(LAST_WORDS, "h2", &["kernel: BUG: soft lockup"]);
        case
    }

    #[test]
    fn what_it_left_is_told() {
        let Verdict::Page { why, evidence } = rebooted().verdict() else {
            panic!("a person is called");
        };
        assert!(why.contains("h2 started again 300 s ago"), "{why}");
        assert_eq!(
            evidence,
            [
                "crash file /sys/fs/pstore/dmesg-efi-1",
                "before: kernel: BUG: soft lockup"
            ]
        );
    }

    #[rstest::rstest]
    #[case(|c: &mut Case| c.set(BOOT, "h2", &0), "elsewhere", "has run since")]
    #[case(|c: &mut Case| c.lose(BOOT, "h2"), "refuse", "unknown is not down")]
    #[case(|c: &mut Case| c.lose(CRASH_FILES, "h2"), "page", "started again")]
    #[case(|c: &mut Case| c.subjects.clear(), "refuse", "expected one host")]
    fn situations(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
        let mut case = rebooted();
        change(&mut case);
        expect(&case, kind, part);
    }
}
