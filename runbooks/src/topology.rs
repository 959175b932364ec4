//! The site as runbooks need it: which hosts there are, which services are on them.

use std::collections::{BTreeMap, BTreeSet};

use deploy_engine::model::{Deployment, HostName, HostSpec, Model, ServiceName};
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
        }
    }
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
        let bare = match value.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
                host
            }
            _ => value,
        };
        let bare = bare
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(bare);
        self.hosts
            .iter()
            .find(|(name, address)| name.as_str() == bare || address.as_str() == bare)
            .map(|(name, _)| name)
    }
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
