//! Asks hosts their probes: one exchange a host, all hosts at once. Whatever goes wrong becomes [`Reading::Unknown`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::future::join_all;
use jiff::Timestamp;

use super::{Ask, NamedProbe, ProbeContext, Reading, Readings};
use crate::{
    model::{HostName, Model, ServiceName},
    transport::{Hosts, Observe},
    wire,
};

/// How long one host may take for all its probes. The usual commands take some seconds at most, on a loaded host too; a
/// host that needs longer must not keep back what the others said.
pub const GATHER_LIMIT: Duration = Duration::from_secs(20);

/// What a probe that has a longer limit of its own gets on top of it, for the way there and back.
const PROBE_GRACE: Duration = Duration::from_secs(5);

/// What of the site probes need to know.
pub trait ProbeSite: Send + Sync {
    /// What words a question about a service (or about none) to a host.
    ///
    /// # Errors
    /// Says which host or service the site does not have.
    fn context<'s>(
        &'s self,
        service: Option<&ServiceName>,
        host: &'s HostName,
    ) -> Result<ProbeContext<'s>, String>;
}

impl ProbeSite for Model {
    fn context<'s>(
        &'s self,
        service: Option<&ServiceName>,
        host: &'s HostName,
    ) -> Result<ProbeContext<'s>, String> {
        if !self.site.hosts.contains_key(host) {
            return Err(format!("{host} is no host of the site"));
        }
        self.probe_context(service, host).ok_or_else(|| {
            let service = service.map_or("?", ServiceName::as_str);
            format!("{service} is not deployed on this site")
        })
    }
}

/// Asks every host its share of `asks`. There is a reading for each of them.
pub async fn gather(
    hosts: &dyn Hosts,
    site: &dyn ProbeSite,
    asks: &[Ask],
    now: Timestamp,
) -> Readings {
    gather_with(super::find, hosts, site, asks, now).await
}

/// A question that is ready to be sent.
struct Worded {
    name: String,
    probe: &'static dyn NamedProbe,
    request: wire::Probe,
}

async fn gather_with(
    find: impl Fn(&str) -> Option<&'static dyn NamedProbe>,
    hosts: &dyn Hosts,
    site: &dyn ProbeSite,
    asks: &[Ask],
    now: Timestamp,
) -> Readings {
    let mut readings = Readings::default();
    let mut by_host: BTreeMap<&HostName, Vec<Worded>> = BTreeMap::new();
    for ask in asks.iter().collect::<BTreeSet<_>>() {
        match word(&find, site, ask) {
            Ok(worded) => by_host.entry(&ask.host).or_default().push(worded),
            Err(why) => {
                readings.insert(
                    &ask.probe,
                    ask.host.clone(),
                    Reading::Unknown { why, at: now },
                );
            }
        }
    }
    let exchanges = by_host
        .into_iter()
        .map(|(host, worded)| async move { (host, exchange(hosts, host, worded, now).await) });
    for (host, answers) in join_all(exchanges).await {
        for (probe, reading) in answers {
            readings.insert(&probe, host.clone(), reading);
        }
    }
    readings
}

fn word(
    find: impl Fn(&str) -> Option<&'static dyn NamedProbe>,
    site: &dyn ProbeSite,
    ask: &Ask,
) -> Result<Worded, String> {
    let probe = find(&ask.probe).ok_or_else(|| format!("there is no probe {}", ask.probe))?;
    // A question about a host itself needs no service, whoever asks it for which service's sake.
    let service = match (probe.service(), &ask.service) {
        (None, _) => None,
        (Some(_), Some(name)) => Some(name.clone()),
        (Some(name), None) => Some(name.parse()?),
    };
    let mut context = site.context(service.as_ref(), &ask.host)?;
    context.about = super::split(&ask.probe).1;
    let request = probe.request(&context);
    let name = ask.probe.clone();
    Ok(Worded {
        name,
        probe,
        request,
    })
}

/// No shorter than what any of the probes may take.
fn limit(worded: &[Worded]) -> Duration {
    let longest = worded.iter().filter_map(|asked| match &asked.request {
        wire::Probe::Command { command } => Some(u64::from(command.timeout_seconds)),
        _ => None,
    });
    let longest = longest.max().map(Duration::from_secs).unwrap_or_default();
    GATHER_LIMIT.max(longest + PROBE_GRACE)
}

async fn exchange(
    hosts: &dyn Hosts,
    host: &HostName,
    worded: Vec<Worded>,
    now: Timestamp,
) -> Vec<(String, Reading)> {
    let ask = Observe {
        probes: worded
            .iter()
            .map(|asked| (asked.name.clone(), asked.request.clone()))
            .collect(),
        ..Observe::default()
    };
    let limit = limit(&worded);
    let answer = tokio::time::timeout(limit, hosts.observe(host, ask)).await;
    let answer = match answer {
        Ok(Ok(observed)) => Ok(observed.probes),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!(
            "{host}: expected answers to its probes within {} s, found none",
            limit.as_secs()
        )),
    };
    worded
        .into_iter()
        .map(|Worded { name, probe, .. }| {
            let known = match &answer {
                Err(why) => Err(why.clone()),
                Ok(results) => match results.get(&name) {
                    None => Err(format!("{host} left out the answer to {name}")),
                    Some(result) => probe.parse(result),
                },
            };
            let reading = match known {
                Ok(value) => Reading::Known { value, at: now },
                Err(why) => Reading::Unknown { why, at: now },
            };
            (name, reading)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        job::JobId,
        model::Secs,
        probe::table::{Entry, command},
        transport::{HostError, Observed},
        wire::{Fence, Outcome, ProbeResult, Progress, StepKey, StepStatus, Work},
    };

    static PROBES: &[Entry] = &[
        Entry {
            name: "x.greeting",
            service: Some("mariadb"),
            request: |context| command(&["greet", context.address], 5, 100),
            parse: |result| match result {
                ProbeResult::Socket { answer } => Ok(json!(answer)),
                other => Err(format!("expected an answer, found {other:?}")),
            },
        },
        Entry {
            name: "x.heard",
            service: None,
            request: |_| command(&["greet"], 5, 100),
            parse: |result| match result {
                ProbeResult::Failed { why } => Ok(json!(format!("silent: {why}"))),
                other => Err(format!("expected silence, found {other:?}")),
            },
        },
        Entry {
            name: "x.slow",
            service: None,
            request: |_| command(&["slow"], 300, 100),
            parse: |_| Ok(json!("slow")),
        },
    ];

    fn find(name: &str) -> Option<&'static dyn NamedProbe> {
        let entry = PROBES.iter().find(|probe| probe.name == name)?;
        Some(entry as &'static dyn NamedProbe)
    }

    fn host(name: &str) -> HostName {
        name.parse().unwrap()
    }

    fn ask(probe: &str, on: &str) -> Ask {
        Ask {
            probe: probe.into(),
            host: host(on),
            service: None,
        }
    }

    /// Hosts ctl1 to ctl3 with mariadb.
    struct Site {
        settings: BTreeMap<String, serde_json::Value>,
    }

    impl ProbeSite for Site {
        fn context<'s>(
            &'s self,
            service: Option<&ServiceName>,
            host: &'s HostName,
        ) -> Result<ProbeContext<'s>, String> {
            match service.map(ServiceName::as_str) {
                None | Some("mariadb") => Ok(ProbeContext {
                    host,
                    address: "10.0.0.1",
                    members: &[],
                    settings: &self.settings,
                    about: None,
                }),
                Some(other) => Err(format!("{other} is not deployed on this site")),
            }
        }
    }

    /// ctl1 answers, ctl2 cannot be reached, ctl3 leaves everything out, ctl4 fails the probe itself.
    #[derive(Default)]
    struct Fakes {
        exchanges: Mutex<Vec<HostName>>,
    }

    #[async_trait]
    impl Hosts for Fakes {
        async fn observe(&self, host: &HostName, ask: Observe) -> Result<Observed, HostError> {
            self.exchanges.lock().unwrap().push(host.clone());
            let answer = |result: ProbeResult| Observed {
                probes: ask
                    .probes
                    .keys()
                    .map(|name| (name.clone(), result.clone()))
                    .collect(),
                ..Observed::default()
            };
            match host.as_str() {
                "ctl1" => Ok(answer(ProbeResult::Socket {
                    answer: "open".into(),
                })),
                "ctl2" => Err(HostError::Unreachable {
                    host: host.clone(),
                    address: "10.0.0.2".into(),
                    found: "no route".into(),
                }),
                "ctl3" => Ok(Observed::default()),
                _ => Ok(answer(ProbeResult::Failed {
                    why: "no such program".into(),
                })),
            }
        }

        async fn start(
            &self,
            _: &HostName,
            _: StepKey,
            _: Fence,
            _: Work,
            _: Secs,
            _: mpsc::Sender<Progress>,
        ) -> Result<Outcome, HostError> {
            unreachable!("evidence changes nothing")
        }

        async fn ask(&self, _: &HostName, _: &StepKey) -> Result<StepStatus, HostError> {
            unreachable!("evidence changes nothing")
        }

        async fn cancel(&self, _: &HostName, _: &StepKey, _: &Fence) -> Result<(), HostError> {
            unreachable!("evidence changes nothing")
        }

        async fn forget(&self, _: &HostName, _: &JobId, _: &Fence) -> Result<(), HostError> {
            unreachable!("evidence changes nothing")
        }
    }

    async fn gathered(asks: &[Ask]) -> (Readings, Fakes) {
        let hosts = Fakes::default();
        let site = Site {
            settings: BTreeMap::new(),
        };
        let readings = gather_with(find, &hosts, &site, asks, Timestamp::UNIX_EPOCH).await;
        (readings, hosts)
    }

    #[tokio::test]
    async fn each_host_is_asked_once_and_every_ask_has_a_reading() {
        let mut asks: Vec<Ask> = ["ctl1", "ctl2", "ctl3", "ctl4"]
            .map(|on| ask("x.greeting", on))
            .into();
        asks.push(ask("x.greeting", "ctl1"));
        asks.push(ask("x.slow", "ctl1"));
        asks.push(ask("x.none", "ctl1"));
        let (readings, hosts) = gathered(&asks).await;
        assert_eq!(hosts.exchanges.lock().unwrap().len(), 4);
        for ask in &asks {
            assert!(
                readings.by_probe[&ask.probe].contains_key(&ask.host),
                "{ask:?}"
            );
        }
        let get = |probe, on| readings.get::<String>(probe, &host(on));
        assert_eq!(get("x.greeting", "ctl1").unwrap(), "open");
        assert!(get("x.greeting", "ctl2").unwrap_err().contains("no route"));
        assert!(get("x.greeting", "ctl3").unwrap_err().contains("left out"));
        assert!(
            get("x.greeting", "ctl4")
                .unwrap_err()
                .contains("no such program")
        );
        assert!(
            get("x.none", "ctl1")
                .unwrap_err()
                .contains("there is no probe")
        );
    }

    /// A probe that could not be made is no answer, but where it asks a server of the host itself, which is silent.
    #[test]
    fn a_failed_probe_is_unknown_to_all_but_those_that_listen_for_silence() {
        let failed = ProbeResult::Failed {
            why: "connection refused".into(),
        };
        let judged = crate::probe::registry().filter(|probe| probe.parse(&failed).is_ok());
        let names: Vec<_> = judged.map(|probe| probe.name()).collect();
        assert_eq!(
            names,
            [
                "alertmanager.cluster",
                "node_exporter.answers",
                "mysqld_exporter.answers",
                "signs_exporter.answers"
            ]
        );
    }

    /// Whether a failure says something is the parser's to know: only it knows whether a daemon was asked.
    #[tokio::test]
    async fn a_host_that_says_that_nobody_answers_there_is_heard() {
        let asks = [ask("x.heard", "ctl4"), ask("x.heard", "ctl2")];
        let (readings, _) = gathered(&asks).await;
        let get = |on| readings.get::<String>("x.heard", &host(on));
        assert_eq!(get("ctl4").unwrap(), "silent: no such program");
        assert!(get("ctl2").unwrap_err().contains("no route"));
    }

    #[tokio::test]
    async fn a_service_that_is_not_deployed_is_unknown_and_nobody_is_asked() {
        let other = Ask {
            service: Some("rabbitmq".parse().unwrap()),
            ..ask("x.greeting", "ctl1")
        };
        let (readings, hosts) = gathered(&[other]).await;
        let reading = readings.get::<String>("x.greeting", &host("ctl1"));
        assert!(reading.unwrap_err().contains("not deployed"));
        assert!(hosts.exchanges.lock().unwrap().is_empty());
    }

    #[test]
    fn a_slow_probe_gets_its_own_time() {
        let worded = |name: &str| {
            let probe = find(name).unwrap();
            let settings = BTreeMap::new();
            let context = ProbeContext {
                host: &host("ctl1"),
                address: "10.0.0.1",
                members: &[],
                settings: &settings,
                about: None,
            };
            let request = probe.request(&context);
            let name = name.to_owned();
            Worded {
                name,
                probe,
                request,
            }
        };
        assert_eq!(limit(&[worded("x.greeting")]), GATHER_LIMIT);
        let slow = Duration::from_secs(300) + PROBE_GRACE;
        assert_eq!(limit(&[worded("x.greeting"), worded("x.slow")]), slow);
    }
}
