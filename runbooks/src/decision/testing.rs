//! A site of constructed readings, and the laws that hold for every decision.

use std::collections::BTreeMap;

use deploy_engine::{
    model::{HostName, ServiceName},
    probe::{
        Reading, Readings,
        host::{Filesystem, Interface, Unit},
    },
};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Act, Entry, Input, Steady, Verdict};
use crate::topology::{Deployed, Topology};

pub(crate) fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

#[derive(Clone)]
pub(crate) struct Case {
    pub entry: &'static Entry,
    pub topology: Topology,
    pub service: ServiceName,
    pub members: Vec<HostName>,
    pub subjects: Vec<HostName>,
    pub settings: BTreeMap<String, Value>,
    pub readings: Readings,
    pub now: Timestamp,
}

impl Case {
    /// `count` hosts `h1`, `h2`, … that are all members of `service`.
    pub fn new(name: &str, service: &str, count: usize) -> Self {
        let members: Vec<HostName> = (1..=count).map(|n| host(&format!("h{n}"))).collect();
        let service: ServiceName = service.parse().unwrap();
        let hosts = members
            .iter()
            .enumerate()
            .map(|(n, host)| (host.clone(), format!("10.0.0.{}", n + 1)));
        let deployed = Deployed {
            members: members.clone(),
            settings: BTreeMap::new(),
        };
        Self {
            entry: super::find(name).unwrap(),
            topology: Topology {
                site: "test".into(),
                hosts: hosts.collect(),
                services: [(service.clone(), deployed)].into(),
                ..Topology::default()
            },
            service,
            members,
            subjects: Vec::new(),
            settings: BTreeMap::new(),
            readings: Readings::default(),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
        }
    }

    pub fn setting(mut self, name: &str, value: Value) -> Self {
        self.settings.insert(name.to_owned(), value);
        self
    }

    pub fn site_setting(mut self, name: &str, value: Value) -> Self {
        let deployed = self.topology.services.get_mut(&self.service).unwrap();
        deployed.settings.insert(name.to_owned(), value);
        self
    }

    pub fn set(&mut self, probe: &str, name: &str, value: &impl Serialize) {
        let value = serde_json::to_value(value).unwrap();
        self.readings.insert(
            probe,
            host(name),
            Reading::Known {
                value,
                at: self.now,
            },
        );
    }

    pub fn lose(&mut self, probe: &str, name: &str) {
        let reading = Reading::Unknown {
            why: "no answer".into(),
            at: self.now,
        };
        self.readings.insert(probe, host(name), reading);
    }

    /// Changes a part of a reading: `path` in JSON pointer syntax.
    pub fn edit(&mut self, probe: &str, name: &str, path: &str, new: Value) {
        let reading = self
            .readings
            .by_probe
            .get_mut(probe)
            .unwrap()
            .get_mut(&host(name))
            .unwrap();
        let Reading::Known { value, .. } = reading else {
            panic!("{probe} on {name} is unknown")
        };
        let (parent, key) = path.rsplit_once('/').unwrap();
        value.pointer_mut(parent).unwrap()[key] = new;
    }

    pub fn input<'a>(&'a self, steady: &'a Steady) -> Input<'a> {
        Input {
            now: self.now,
            topology: &self.topology,
            service: &self.service,
            members: &self.members,
            subjects: &self.subjects,
            settings: &self.settings,
            readings: &self.readings,
            steady,
        }
    }

    /// Everything has been so for an hour, looked at every minute.
    pub fn verdict(&self) -> Verdict {
        let facts = (self.entry.facts)(&self.input(&Steady::default()));
        let look = |steady: Steady, minute: i64| {
            steady.look(&facts, self.now - SignedDuration::from_mins(60 - minute))
        };
        let steady = (0..=60).fold(Steady::default(), look);
        self.entry.decide(&self.input(&steady))
    }

    /// It is seen for the first time.
    pub fn verdict_at_first_sight(&self) -> Verdict {
        let facts = (self.entry.facts)(&self.input(&Steady::default()));
        let steady = Steady::default().look(&facts, self.now);
        self.entry.decide(&self.input(&steady))
    }

    pub fn act(&self) -> Act {
        match self.verdict() {
            Verdict::Act(act) => act,
            other => panic!("expected to act; found {other:?}"),
        }
    }

    pub fn roles(&self) -> BTreeMap<String, Vec<String>> {
        let text = |hosts: Vec<HostName>| hosts.into_iter().map(String::from).collect();
        self.act()
            .roles
            .into_iter()
            .map(|(name, hosts)| (name, text(hosts)))
            .collect()
    }
}

/// What a case must come to: the kind of the verdict and a part of its reason.
pub(crate) fn expect(case: &Case, kind: &str, part: &str) {
    let verdict = case.verdict();
    let found = match &verdict {
        Verdict::Act(_) => "act",
        Verdict::More { .. } => "more",
        Verdict::Hold { .. } => "hold",
        Verdict::Refuse { .. } => "refuse",
        Verdict::Page { .. } => "page",
        Verdict::Elsewhere { .. } => "elsewhere",
    };
    assert_eq!(found, kind, "{verdict:?}");
    assert!(
        verdict.why().contains(part),
        "expected {part:?} in {:?}",
        verdict.why()
    );
}

/// The laws: an action names members only and never an empty role; whatever single reading is lost, nothing is done (but for
/// `spare` ones, which this situation does not need); nothing is done at first sight; a settings list that is gone is no
/// permission.
pub(crate) fn obeys_the_laws(case: &Case, spare: &[(&str, &str)]) {
    let act = case.act();
    assert!(!act.roles.is_empty());
    for hosts in act.roles.values() {
        assert!(!hosts.is_empty());
        assert!(hosts.iter().all(|host| case.members.contains(host)));
    }
    for (probe, of) in &case.readings.by_probe {
        for name in of.keys() {
            let mut blind = case.clone();
            blind.lose(probe, name.as_str());
            let verdict = blind.verdict();
            let acts = matches!(verdict, Verdict::Act(_));
            let is_spare = spare.contains(&(probe.as_str(), name.as_str()));
            assert_eq!(acts, is_spare, "{probe} of {name} unknown: {verdict:?}");
        }
    }
    let first = case.verdict_at_first_sight();
    assert!(
        matches!(first, Verdict::Hold { .. }),
        "at first sight: {first:?}"
    );
    for setting in case.settings.keys() {
        let mut without = case.clone();
        without.settings.remove(setting);
        let verdict = without.verdict();
        assert!(
            !matches!(verdict, Verdict::Act(_)) || NEEDED_SOMETIMES.contains(&setting.as_str()),
            "without {setting}"
        );
    }
}

/// Settings that only some situations of a decision read.
const NEEDED_SOMETIMES: [&str; 2] = ["wait_pause_minority", "wait_autoheal"];

pub(crate) fn unit(active: &str) -> Unit {
    Unit {
        load: "loaded".into(),
        active: active.into(),
        sub: if active == "active" {
            "running".into()
        } else {
            "dead".into()
        },
        result: if active == "failed" {
            "exit-code".into()
        } else {
            "success".into()
        },
        restarts: 0,
        enabled: "enabled".into(),
        active_since_monotonic_us: 1,
        inactive_since_monotonic_us: 0,
    }
}

pub(crate) fn units(of: &[(&str, &str)]) -> BTreeMap<String, Unit> {
    of.iter()
        .map(|(name, active)| ((*name).to_owned(), unit(active)))
        .collect()
}

/// 100 GB of which so much is free.
pub(crate) fn filesystems(free_gb: u64) -> BTreeMap<String, Filesystem> {
    let filesystem = Filesystem {
        kind: "ext4".into(),
        size_bytes: 100_000_000_000,
        free_bytes: free_gb * 1_000_000_000,
        inodes: 1_000_000,
        inodes_free: 900_000,
    };
    [("/".to_owned(), filesystem)].into()
}

pub(crate) fn interfaces(address: &str, state: &str) -> BTreeMap<String, Interface> {
    let own = Interface {
        state: state.into(),
        addresses: vec![format!("{address}/24")],
    };
    [("eth0".to_owned(), own)].into()
}

#[test]
fn every_decision_is_found_by_its_name_and_reads_known_probes() {
    for entry in super::registry() {
        assert!(
            std::ptr::eq(super::find(entry.name).unwrap(), entry),
            "{} is there twice",
            entry.name
        );
        assert!(entry.roles.iter().all(|role| !role.name.is_empty()));
        for probe in entry.evidence {
            assert!(
                deploy_engine::probe::find(probe).is_some(),
                "{}: no probe {probe}",
                entry.name
            );
        }
    }
}

/// Whatever a decision function returns, the checks after it refuse hosts that must not be touched.
#[rstest::rstest]
#[case(json!({"target": []}), "an empty list")]
#[case(json!({"target": ["h9"]}), "not a member")]
#[case(json!({"target": ["h1", "h1"]}), "twice")]
#[case(json!({"other": ["h1"]}), "expected hosts for target")]
#[case(json!({"target": ["h1"], "extra": ["h2"]}), "not declared")]
#[case(json!({}), "expected hosts for target")]
fn flawed_actions_are_refused(#[case] roles: Value, #[case] part: &str) {
    use super::{Facts, table::Role};
    static FLAWED: Entry = Entry {
        name: "flawed",
        doc: "",
        roles: &[Role::always("target")],
        parameters: &[],
        evidence: &[],
        settings: &[],
        facts: |_| Facts::new(),
        decide: |input| {
            let roles = serde_json::from_value(input.settings["roles"].clone()).unwrap();
            Ok(Act {
                roles,
                parameters: BTreeMap::new(),
                why: String::new(),
            })
        },
    };
    let mut case = Case::new("unit.failed", "memcached", 2).setting("roles", roles);
    case.entry = &FLAWED;
    expect(&case, "refuse", part);
    case.members.clear();
    expect(&case, "refuse", "at least one member");
}
