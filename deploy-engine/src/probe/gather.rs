//! Asks hosts their probes: one exchange a host, all hosts at once. Whatever goes wrong becomes [`Reading::Unknown`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::future::join_all;
use jiff::Timestamp;
use serde_json::Value;

use super::{Ask, NamedProbe, ProbeContext, Reading, Readings};
use crate::{
    model::{HostName, ServiceName},
    transport::{Hosts, Observe},
    wire,
};

/// How long one host may take for all its probes. The slowest commands (`rabbitmqctl` on a loaded host) take some seconds;
/// a host that needs longer must not keep back what the others said.
pub const GATHER_LIMIT: Duration = Duration::from_secs(20);

/// A deployed service, as far as probes word their questions by it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProbeService {
    /// With the addresses that other hosts reach them under.
    pub members: Vec<(HostName, String)>,
    /// Defaults filled in.
    pub settings: BTreeMap<String, Value>,
}

/// What of the site probes need to know.
pub trait ProbeSite: Send + Sync {
    /// `None`: no host of the site.
    fn address(&self, host: &HostName) -> Option<String>;
    /// `None`: not deployed on this site.
    fn service(&self, service: &ServiceName) -> Option<ProbeService>;
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
    let mut services = BTreeMap::new();
    let mut by_host: BTreeMap<&HostName, Vec<Worded>> = BTreeMap::new();
    for ask in asks.iter().collect::<BTreeSet<_>>() {
        match word(&find, site, &mut services, ask) {
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
            readings.insert(probe, host.clone(), reading);
        }
    }
    readings
}

fn word(
    find: impl Fn(&str) -> Option<&'static dyn NamedProbe>,
    site: &dyn ProbeSite,
    services: &mut BTreeMap<ServiceName, Option<ProbeService>>,
    ask: &Ask,
) -> Result<Worded, String> {
    let probe = find(&ask.probe).ok_or_else(|| format!("there is no probe {}", ask.probe))?;
    let address = site
        .address(&ask.host)
        .ok_or_else(|| format!("{} is no host of the site", ask.host))?;
    let name = match (&ask.service, probe.service()) {
        (Some(name), _) => Some(name.clone()),
        (None, Some(name)) => Some(name.parse()?),
        (None, None) => None,
    };
    let nothing = ProbeService::default();
    let service = match name {
        None => &nothing,
        Some(name) => services
            .entry(name.clone())
            .or_insert_with(|| site.service(&name))
            .as_ref()
            .ok_or_else(|| format!("{name} is not deployed on this site"))?,
    };
    let request = probe.request(&ProbeContext {
        host: &ask.host,
        address: &address,
        members: &service.members,
        settings: &service.settings,
    });
    Ok(Worded { probe, request })
}

async fn exchange(
    hosts: &dyn Hosts,
    host: &HostName,
    worded: Vec<Worded>,
    now: Timestamp,
) -> Vec<(&'static str, Reading)> {
    let ask = Observe {
        probes: worded
            .iter()
            .map(|asked| (asked.probe.name().to_owned(), asked.request.clone()))
            .collect(),
        ..Observe::default()
    };
    let answer = tokio::time::timeout(GATHER_LIMIT, hosts.observe(host, ask)).await;
    let answer = match answer {
        Ok(Ok(observed)) => Ok(observed.probes),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!(
            "{host}: expected answers to its probes within {} s, found none",
            GATHER_LIMIT.as_secs()
        )),
    };
    worded
        .into_iter()
        .map(|Worded { probe, .. }| {
            let name = probe.name();
            let known = match &answer {
                Err(why) => Err(why.clone()),
                Ok(results) => match results.get(name) {
                    None => Err(format!("{host} left out the answer to {name}")),
                    Some(wire::ProbeResult::Failed { why }) => Err(why.clone()),
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
