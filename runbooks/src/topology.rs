//! The site as runbooks need it: which hosts there are, which services are on them.

use std::collections::{BTreeMap, BTreeSet};

use deploy_engine::{
    model::{
        Deployment, HostName, HostSpec, MemberModel, Model, ServiceName, ServiceSpec,
        service::PortText,
    },
    wire::Resource,
};
use serde::{Deserialize, Serialize};

/// The name under which runbooks about a host itself (not about a service of the catalogue) go. Every host is a member.
pub const HOST_SERVICE: &str = "host";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    pub site: String,
    /// Host → the address others reach it under.
    pub hosts: BTreeMap<HostName, String>,
    pub services: BTreeMap<ServiceName, Deployed>,
    /// Host → the failure domain that it shares with others; a host that is not here shares none that is known.
    #[serde(default)]
    pub racks: BTreeMap<HostName, String>,
    /// Host → the groups it is in: the classes of targets that trust may tell apart.
    #[serde(default)]
    pub groups: BTreeMap<HostName, BTreeSet<String>>,
    /// Service → those that it cannot do without (`needs`, and `after` where they are deployed).
    #[serde(default)]
    pub needs: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    /// Port → services whose members listen on it.
    #[serde(default)]
    pub ports: BTreeMap<u16, BTreeSet<ServiceName>>,
    /// What a load balancer calls a front end → what is behind it.
    #[serde(default)]
    pub front_ends: BTreeMap<String, FrontEnd>,
    /// Addresses that move between hosts.
    #[serde(default)]
    pub virtual_addresses: BTreeSet<String>,
    /// Unit of systemd → the one service that it belongs to.
    #[serde(default)]
    pub units: BTreeMap<String, ServiceName>,
    /// Scrape job → the service that is scraped.
    #[serde(default)]
    pub scrape_jobs: BTreeMap<String, ServiceName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontEnd {
    pub service: ServiceName,
    /// None: not to be told from the model alone.
    pub port: Option<u16>,
}

/// A service of the catalogue on this site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Deployed {
    /// In the site's order, never empty.
    pub members: Vec<HostName>,
    /// Defaults filled in.
    pub settings: BTreeMap<String, serde_json::Value>,
}

impl From<&Model> for Topology {
    fn from(model: &Model) -> Self {
        let host = |(name, spec): (&HostName, &HostSpec)| (name.clone(), spec.address.clone());
        let service = |(name, deployment): (&ServiceName, &Deployment)| {
            let deployed = Deployed {
                members: deployment.members.clone(),
                settings: deployment.settings.clone(),
            };
            (name.clone(), deployed)
        };
        let rack = |(name, spec): (&HostName, &HostSpec)| Some((name.clone(), spec.rack.clone()?));
        let groups = |(name, spec): (&HostName, &HostSpec)| {
            let groups = spec.groups.iter().map(ToString::to_string);
            (name.clone(), groups.collect())
        };
        Self {
            site: model.site.name.clone(),
            hosts: model.site.hosts.iter().map(host).collect(),
            services: model.services.iter().map(service).collect(),
            racks: model.site.hosts.iter().filter_map(rack).collect(),
            groups: model.site.hosts.iter().map(groups).collect(),
            ..connections(model)
        }
    }
}

/// How services hang together, and under which ports, units and jobs they are known.
fn connections(model: &Model) -> Topology {
    let mut all = Topology::default();
    let mut units: BTreeMap<String, BTreeSet<&ServiceName>> = BTreeMap::new();
    for (name, deployment) in &model.services {
        let spec = &deployment.spec;
        let after = spec.after.iter();
        let after = after.filter(|one| model.services.contains_key(*one));
        let needs = spec.needs.iter().chain(after).cloned().collect();
        all.needs.insert(name.clone(), needs);
        for job in &spec.metrics {
            all.scrape_jobs.insert(job.job.clone(), name.clone());
        }
        all.front_ends.extend(front_ends(name, spec, deployment));
        let members = deployment.members.iter();
        for member in members.filter_map(|host| model.member(name, host)) {
            for port in &member.ports {
                all.ports.entry(port.port).or_default().insert(name.clone());
            }
            let address = member
                .virtual_address
                .map(|(address, _)| address.to_string());
            all.virtual_addresses.extend(address);
            for unit in units_of(member) {
                units.entry(unit.to_owned()).or_default().insert(name);
            }
        }
    }
    let only = |(unit, of): (String, BTreeSet<&ServiceName>)| match of.len() {
        1 => Some((unit, (*of.first()?).clone())),
        _ => None,
    };
    all.units = units.into_iter().filter_map(only).collect();
    all
}

fn front_ends<'a>(
    name: &'a ServiceName,
    spec: &'a ServiceSpec,
    deployment: &'a Deployment,
) -> impl Iterator<Item = (String, FrontEnd)> + 'a {
    spec.balance.iter().map(move |balance| {
        let called = balance.name.clone().unwrap_or_else(|| name.to_string());
        let port = match &balance.listen {
            PortText::Number(port) => Some(*port),
            PortText::Template(text) => setting_named(text).and_then(|setting| {
                let value = deployment.settings.get(setting)?.as_u64()?;
                u16::try_from(value).ok()
            }),
        };
        let service = name.clone();
        (called, FrontEnd { service, port })
    })
}

/// `{{ settings.port }}` → `port`; a template that says more is left alone.
fn setting_named(template: &str) -> Option<&str> {
    let inner = template.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let name = inner.trim().strip_prefix("settings.")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(plain).then_some(name)
}

fn units_of(member: &MemberModel) -> impl Iterator<Item = &str> {
    member
        .resources
        .iter()
        .filter_map(|one| match &one.resource {
            Resource::Unit { name, .. } => Some(name.as_str()),
            _ => None,
        })
}

impl Topology {
    /// Members of a service; of [`HOST_SERVICE`] all hosts; none when it is not deployed.
    pub fn members(&self, service: &ServiceName) -> Option<Vec<HostName>> {
        if service.as_str() == HOST_SERVICE {
            return Some(self.hosts.keys().cloned().collect());
        }
        self.services
            .get(service)
            .map(|deployed| deployed.members.clone())
    }

    pub fn setting(&self, service: &ServiceName, name: &str) -> Option<&serde_json::Value> {
        self.services.get(service)?.settings.get(name)
    }

    pub fn is_deployed(&self, service: &str) -> bool {
        self.services.keys().any(|name| name.as_str() == service)
    }

    /// The host that is meant by a label's value: exactly its name, its address, or one of them with a port. Anything else is
    /// nobody: a label is compared, never interpreted.
    pub fn host_named(&self, value: &str) -> Option<&HostName> {
        let (bare, _) = host_and_port(value);
        self.hosts
            .iter()
            .find(|(name, address)| name.as_str() == bare || address.as_str() == bare)
            .map(|(name, _)| name)
    }

    /// The one service that listens on this port of a host of the site, or behind a virtual address of it.
    pub fn service_at(&self, host: &str, port: u16) -> Option<&ServiceName> {
        if self.virtual_addresses.contains(host) {
            let behind = self
                .front_ends
                .values()
                .filter(|one| one.port == Some(port));
            return only(behind.map(|one| &one.service));
        }
        let host = self.host_named(host)?;
        let listens = |service: &&ServiceName| {
            let members = self.services.get(*service).map(|of| &of.members);
            members.is_some_and(|members| members.contains(host))
        };
        only(self.ports.get(&port)?.iter().filter(listens))
    }

    /// What a load balancer's label means; a service's own name means it, too.
    pub fn front_end(&self, called: &str) -> Option<&ServiceName> {
        let known = self.front_ends.get(called).map(|one| &one.service);
        let name = self.services.keys().find(|name| name.as_str() == called);
        known.or(name)
    }

    /// Everything that a service cannot do without, directly or not, without itself.
    pub fn depends_on(&self, service: &ServiceName) -> BTreeSet<&ServiceName> {
        let (mut found, mut open) = (BTreeSet::new(), vec![service]);
        while let Some(one) = open.pop() {
            for needed in self.needs.get(one).into_iter().flatten() {
                if needed != service && found.insert(needed) {
                    open.push(needed);
                }
            }
        }
        found
    }
}

fn only<'t>(mut found: impl Iterator<Item = &'t ServiceName>) -> Option<&'t ServiceName> {
    let first = found.next();
    first.filter(|first| found.all(|other| other == *first))
}

/// `host:port`, `[address]:port`, or a host alone.
pub fn host_and_port(value: &str) -> (&str, Option<u16>) {
    let (host, port) = match value.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (host, port.parse().ok())
        }
        _ => (value, None),
    };
    let unbracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    (unbracketed.unwrap_or(host), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_exact_name_or_address_is_a_host() {
        let topology = Topology {
            site: "demo".into(),
            hosts: [
                ("ctl1".parse().unwrap(), "10.77.0.11".to_owned()),
                ("ctl2".parse().unwrap(), "fd00::12".to_owned()),
            ]
            .into(),
            ..Topology::default()
        };
        let named = |value: &str| {
            topology
                .host_named(value)
                .map(|host| host.as_str().to_owned())
        };
        for value in ["ctl1", "ctl1:9100", "10.77.0.11", "10.77.0.11:9104"] {
            assert_eq!(named(value).as_deref(), Some("ctl1"), "{value}");
        }
        assert_eq!(named("[fd00::12]:9100").as_deref(), Some("ctl2"));
        for value in [
            "",
            "ctl",
            "ctl11",
            "10.77.0.1",
            "ctl1.example.org",
            "ctl1:x",
            "ctl1;reboot",
            ":9100",
        ] {
            assert_eq!(named(value), None, "{value}");
        }
    }
}
