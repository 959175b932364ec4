//! Whatever happens to an incident, in whatever order: nothing acts without leave, no repair at work is forgotten, and a restart
//! changes nothing.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::decide::{Decision, HealPlan};
use deploy_engine::job::JobResult;

/// What happens, and how many minutes after what happened before.
#[derive(Clone, Debug)]
enum Deed {
    /// The alerts begin or end.
    Alerts {
        firing: bool,
    },
    Event(Event),
}

fn alert(firing: bool) -> Alert {
    Alert {
        source: collectors::SourceName("am".into()),
        fingerprint: "f1".into(),
        name: "RabbitmqPartition".into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        status: if firing {
            Status::Firing
        } else {
            Status::Resolved
        },
        starts_at: Timestamp::UNIX_EPOCH,
        ends_at: None,
        generator_url: String::new(),
        received_at: Timestamp::UNIX_EPOCH,
    }
}

fn opened() -> Incident {
    let domain = Domain::Service("rabbitmq".parse().unwrap());
    let mut incident = Incident {
        runbooks: vec![RunbookId("RMQ-1".into())],
        ..Incident::opened(IncidentId("i1".into()), domain, Timestamp::UNIX_EPOCH)
    };
    incident.hear(&alert(true));
    incident
}

fn plan(digest: &str) -> Box<HealPlan> {
    Box::new(HealPlan {
        runbook: RunbookId("RMQ-1".into()),
        title: "RMQ-1".into(),
        why: "w".into(),
        scope: "domain:rabbitmq".into(),
        roles: BTreeMap::new(),
        parameters: BTreeMap::new(),
        targets: vec![],
        steps: vec![],
        digest: digest.into(),
        version: "v1".into(),
        decided_at: Timestamp::UNIX_EPOCH,
    })
}

fn decision() -> impl Strategy<Value = Decision> {
    let why = || "w".to_owned();
    let digest = prop_oneof![Just("d1"), Just("d2")];
    (0..6_u8, digest).prop_map(move |(kind, digest)| {
        let (plan, why) = (plan(digest), why());
        match kind {
            0 => Decision::Act { plan, why },
            1 => Decision::Ask { plan, why },
            2 => Decision::Shadow { plan, why },
            3 => Decision::Hold {
                until: Timestamp::UNIX_EPOCH,
                why,
            },
            4 => Decision::Refuse {
                why,
                evidence: vec![],
            },
            _ => Decision::TellOnly { why },
        }
    })
}

fn result() -> impl Strategy<Value = JobResult> {
    let why = || "w".to_owned();
    prop_oneof![
        Just(JobResult::Succeeded),
        Just(JobResult::Failed { why: why() }),
        Just(JobResult::Refused { why: why() }),
        Just(JobResult::Cancelled { by: "ann".into() }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let job = || prop_oneof![4 => Just("j1".to_owned()), 1 => Just("j2".to_owned())];
    let by = || "ann".to_owned();
    let digest = prop_oneof![Just("d1".to_owned()), Just("d2".to_owned())];
    prop_oneof![
        2 => Just(Event::Tick),
        1 => Just(Event::AlertsChanged),
        4 => decision().prop_map(|decision| Event::Decided { decision }),
        3 => digest.prop_map(move |digest| Event::Approved { by: by(), digest }),
        1 => Just(Event::Denied { by: "ann".into() }),
        3 => job().prop_map(|job| Event::JobStarted { job }),
        2 => job().prop_map(|job| Event::ProofStarted { job }),
        1 => job().prop_map(|job| Event::Cleared { job, by: "ann".into() }),
        3 => (job(), result(), any::<bool>()).prop_map(|(job, result, acted)| Event::JobEnded { job, result, acted }),
    ]
}

fn deeds() -> impl Strategy<Value = Vec<(i64, Deed)>> {
    let deed = prop_oneof![
        1 => any::<bool>().prop_map(|firing| Deed::Alerts { firing }),
        9 => event().prop_map(Deed::Event),
    ];
    proptest::collection::vec((0..20_i64, deed), 0..60)
}

/// The job that is at work, if any.
fn at_work(state: &State) -> Option<&str> {
    match state {
        State::Acting { job } | State::Proving { job } => Some(job),
        _ => None,
    }
}

/// What every legal move keeps.
fn check(before: &Incident, event: &Event, after: &Incident, now: Timestamp) {
    if at_work(&before.state) != at_work(&after.state) {
        match (at_work(&before.state), event) {
            (None, Event::JobStarted { job }) => {
                let ready = matches!(
                    before.state,
                    State::Open | State::Approved { .. } | State::Holding { .. }
                );
                assert!(ready, "a job began without leave");
                assert_eq!(
                    (at_work(&after.state), after.jobs.last()),
                    (Some(job.as_str()), Some(job))
                );
            }
            (Some(own), Event::JobEnded { job, .. }) => {
                assert_eq!(own, job, "the end of another job")
            }
            _ => panic!("a repair at work was begun or forgotten"),
        }
    }
    if let (State::Approved { digest, .. }, false) = (&after.state, before.state == after.state) {
        let asked = matches!(&before.state, State::Asking { digest: asked, expires, .. } if asked == digest && now < *expires);
        assert!(
            asked && matches!(event, Event::Approved { .. }),
            "approved, though not asked"
        );
    }
    if let (State::Unproven { job, .. }, false) = (&before.state, before.state == after.state) {
        let cleared = matches!(event, Event::Cleared { job: own, .. } if own == job);
        let over = *event == Event::AlertsChanged && !before.is_firing();
        assert!(
            cleared || over,
            "a repair that was not proven was passed over"
        );
    }
    if let (Event::JobEnded { job, .. }, State::Unproven { .. }) = (event, &after.state) {
        assert!(after.unproven.contains(job));
    }
    assert_eq!(after.is_open(), !after.state.is_closed());
    if !before.is_open() {
        assert_eq!(
            (&after.state, after.closed_at),
            (&before.state, before.closed_at),
            "it was over"
        );
    }
    assert!(after.since <= now);
}

proptest! {
    #[test]
    fn nothing_acts_without_leave_and_nothing_is_forgotten(deeds in deeds()) {
        let mut incident = opened();
        let mut now = Timestamp::UNIX_EPOCH;
        for (minutes, deed) in deeds {
            now += SignedDuration::from_mins(minutes);
            let event = match deed {
                Deed::Event(event) => event,
                Deed::Alerts { firing } => {
                    incident.hear(&alert(firing));
                    Event::AlertsChanged
                }
            };
            let before = incident.clone();
            match incident.apply(&event, now) {
                Ok(()) => check(&before, &event, &incident, now),
                Err(illegal) => {
                    prop_assert_eq!(&incident, &before, "a refused event left a trace");
                    prop_assert!(!illegal.to_string().is_empty());
                }
            }
            // A restart between any two events.
            let stored = serde_json::to_string(&incident).unwrap();
            incident = serde_json::from_str(&stored).unwrap();
        }
    }

    /// Whatever came before: when the alerts end and no job is at work, the incident is over.
    #[test]
    fn it_ends_with_its_alerts(deeds in deeds()) {
        let mut incident = opened();
        let mut now = Timestamp::UNIX_EPOCH;
        for (minutes, deed) in deeds {
            now += SignedDuration::from_mins(minutes);
            if let Deed::Event(event) = deed {
                let _ = incident.apply(&event, now);
            }
        }
        if let Some(job) = at_work(&incident.state).map(str::to_owned) {
            let result = JobResult::Succeeded;
            incident.apply(&Event::JobEnded { job, result, acted: true }, now).unwrap();
        }
        incident.hear(&alert(false));
        incident.apply(&Event::AlertsChanged, now).unwrap();
        prop_assert!(!incident.is_open(), "{:?}", incident.state);
        prop_assert_eq!(incident.closed_at, Some(now));
    }
}
