//! MON-2, MON-3, MON-7: Prometheus runs, but not as it was told to. A rule that cannot be evaluated, and a configuration that was not
//! taken, are evidence that is missing without anybody noticing.

use deploy_engine::probe::{
    host::FILESYSTEM,
    monitoring::{BrokenRule, PROMETHEUS_RULES, PROMETHEUS_RUNTIME, Runtime},
};

use super::{
    Act, Facts, Input, Verdict,
    table::{Entry, elsewhere, page},
};

pub static RULES: Entry = Entry {
    name: "prometheus.misconfigured",
    doc: "a member of Prometheus could not take its configuration or cannot evaluate a rule: says which alerts are void",
    roles: &[],
    parameters: &[],
    evidence: &[PROMETHEUS_RULES, PROMETHEUS_RUNTIME],
    settings: &[],
    facts: |_| Facts::new(),
    decide: misconfigured,
};

pub static STORE: Entry = Entry {
    name: "prometheus.corrupted",
    doc: "a member of Prometheus has found damaged places in its write-ahead log",
    roles: &[],
    parameters: &[],
    evidence: &[PROMETHEUS_RUNTIME],
    settings: &[],
    facts: |_| Facts::new(),
    decide: corrupted,
};

/// Where its samples are.
const STORE_PATH: &str = "/var/lib/prometheus";

pub static DISK: Entry = Entry {
    name: "prometheus.disk",
    doc: "the disk that holds the samples of a member of Prometheus has little room left",
    roles: &[],
    parameters: &[],
    evidence: &[FILESYSTEM],
    settings: &["min_free_percent"],
    facts: |_| Facts::new(),
    decide: disk,
};

fn disk(input: &Input<'_>) -> Result<Act, Verdict> {
    let wanted = input.number("min_free_percent")?;
    let (mut short, mut room) = (Vec::new(), Vec::new());
    for host in input.members {
        let filesystem = input.filesystem(host, STORE_PATH)?;
        let (free, inodes) = (filesystem.free_percent(), filesystem.inodes_free);
        let line = format!(
            "{host}: {free} % of {} MB are free for {STORE_PATH}",
            filesystem.size_bytes / 1_000_000
        );
        let no_inodes = filesystem.inodes > 0 && inodes == 0;
        match (free as f64) < wanted || no_inodes {
            true => short.push(match no_inodes {
                true => format!("{line}, and no inode is"),
                false => line,
            }),
            false => room.push(line),
        }
    }
    if short.is_empty() {
        return Err(elsewhere(format!(
            "every member has room: {}",
            room.join("; ")
        )));
    }
    room.push("a person may keep samples for a shorter time (`retention`) or give it a larger disk; HOST-1 removes only what no service owns".to_owned());
    room.push(
        "never: removing files below it, which are samples that nobody has looked at yet"
            .to_owned(),
    );
    Err(page(short.join("; "), room))
}

fn misconfigured(input: &Input<'_>) -> Result<Act, Verdict> {
    let (mut wrong, mut void) = (Vec::new(), Vec::new());
    for host in input.members {
        let runtime: Runtime = input.known(PROMETHEUS_RUNTIME, host)?;
        if !runtime.reload_config_success {
            wrong.push(format!(
                "{host} runs with an older configuration: the new one was refused"
            ));
        }
        let broken: Vec<BrokenRule> = input.known(PROMETHEUS_RULES, host)?;
        if !broken.is_empty() {
            wrong.push(format!("{host} cannot evaluate {} rules", broken.len()));
        }
        let line = |rule: BrokenRule| {
            format!(
                "{host}: {}/{} is void: {}",
                rule.group, rule.name, rule.error
            )
        };
        void.extend(broken.into_iter().map(line));
    }
    Err(match wrong.is_empty() {
        true => elsewhere("every member runs as it was configured"),
        false => page(wrong.join("; "), void),
    })
}

fn corrupted(input: &Input<'_>) -> Result<Act, Verdict> {
    let mut found = Vec::new();
    for host in input.members {
        let runtime: Runtime = input.known(PROMETHEUS_RUNTIME, host)?;
        if runtime.corruption_count > 0 {
            found.push(format!(
                "{host}: {} damaged places in its write-ahead log",
                runtime.corruption_count
            ));
        }
    }
    Err(match found.is_empty() {
        true => elsewhere("no member has found damage in its store"),
        false => page(
            found.join("; "),
            vec![
                "nothing of the store is moved or removed: copy it first, a person decides"
                    .to_owned(),
            ],
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::testing::{Case, expect};

    fn case(name: &str, runtime: Runtime, broken: &[BrokenRule]) -> Case {
        let mut case = Case::new(name, "prometheus", 2);
        let well = Runtime {
            reload_config_success: true,
            corruption_count: 0,
        };
        for (host, runtime, broken) in [("h1", well, &[][..]), ("h2", runtime, broken)] {
            case.set(PROMETHEUS_RUNTIME, host, &runtime);
            case.set(PROMETHEUS_RULES, host, &broken);
        }
        case
    }

    #[test]
    fn what_is_void_is_told() {
        let old = Runtime {
            reload_config_success: false,
            corruption_count: 0,
        };
        let rule = BrokenRule {
            group: "g".into(),
            name: "Bad".into(),
            error: "many-to-many".into(),
        };
        let flawed = case("prometheus.misconfigured", old.clone(), &[rule]);
        let Verdict::Page { why, evidence } = flawed.verdict() else {
            panic!("a person is called");
        };
        assert_eq!(
            why,
            "h2 runs with an older configuration: the new one was refused; h2 cannot evaluate 1 rules"
        );
        assert_eq!(evidence, ["h2: g/Bad is void: many-to-many"]);
        let well = Runtime {
            reload_config_success: true,
            ..old
        };
        let mut well = case("prometheus.misconfigured", well, &[]);
        expect(&well, "elsewhere", "as it was configured");
        well.lose(PROMETHEUS_RULES, "h1");
        expect(&well, "refuse", "unknown");
    }

    #[test]
    fn a_full_disk_is_told() {
        use serde_json::json;

        use crate::decision::testing::filesystems;

        let mut case =
            Case::new("prometheus.disk", "prometheus", 2).setting("min_free_percent", json!(15));
        case.set(FILESYSTEM, "h1", &filesystems(40));
        case.set(FILESYSTEM, "h2", &filesystems(9));
        expect(&case, "page", "h2: 9 % of 100000 MB are free");
        case.set(FILESYSTEM, "h2", &filesystems(15));
        expect(&case, "elsewhere", "every member has room");
        let mut none = filesystems(40);
        none.get_mut("/").unwrap().inodes_free = 0;
        case.set(FILESYSTEM, "h2", &none);
        expect(&case, "page", "no inode is");
        case.lose(FILESYSTEM, "h2");
        expect(&case, "refuse", "unknown");
    }

    #[test]
    fn damage_is_told_and_never_mended() {
        let damaged = Runtime {
            reload_config_success: true,
            corruption_count: 2,
        };
        expect(
            &case("prometheus.corrupted", damaged.clone(), &[]),
            "page",
            "h2: 2 damaged places",
        );
        let well = Runtime {
            corruption_count: 0,
            ..damaged
        };
        let mut well = case("prometheus.corrupted", well, &[]);
        expect(&well, "elsewhere", "no member");
        well.lose(PROMETHEUS_RUNTIME, "h2");
        expect(&well, "refuse", "unknown");
    }
}
