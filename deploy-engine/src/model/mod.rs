//! Site, catalogue and what follows from both: which service runs where, with which settings, and what each host must be
//! like. Everything is rendered when it is loaded; nothing that comes later can fail because of a file.

pub mod catalogue;
pub mod diagnostic;
pub mod document;
mod link;
mod load;
mod name;
mod render;
pub mod resource;
pub mod service;
pub mod setting;
pub mod site;
mod template;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use document::{Document, Partly, load_document, load_partly, parse_document, schema};
pub use link::before;
pub use name::{HostName, Secs, ServiceName};
pub use render::{MemberModel, Phase, PortUse, Rendered};
pub use service::{Pace, ServiceSpec, Topology};
pub use site::{HostSpec, Site, SiteFile, SshSettings};

use crate::{
    condition::ConditionCall, probe::ProbeContext, secrets::certificate, wire::STEP_SECRET,
};

/// A site with all that its services ask of its hosts.
#[derive(Clone, Debug)]
pub struct Model {
    pub site: Site,
    pub services: BTreeMap<ServiceName, Deployment>,
    members: BTreeMap<(ServiceName, HostName), MemberModel>,
}

/// A service of this site.
#[derive(Clone, Debug)]
pub struct Deployment {
    pub spec: ServiceSpec,
    /// Sorted by name. Comes from the site file alone: a host that is down stays a member.
    pub members: Vec<HostName>,
    /// Defaults filled in.
    pub settings: BTreeMap<String, Value>,
    addressed: Vec<(HostName, String)>,
}

impl Deployment {
    /// Members with their addresses.
    pub fn addressed(&self) -> &[(HostName, String)] {
        &self.addressed
    }

    pub fn clustered(&self) -> bool {
        self.members.len() > 1
    }
}

impl Model {
    /// The address of a host of the site; empty for another.
    pub fn address(&self, host: &HostName) -> &str {
        self.site
            .hosts
            .get(host)
            .map_or("", |spec| spec.address.as_str())
    }

    /// The members of a service; none when it is not deployed.
    pub fn members(&self, service: &ServiceName) -> &[HostName] {
        self.services
            .get(service)
            .map_or(&[], |deployment| deployment.members.as_slice())
    }

    /// The services of a host.
    pub fn services_on<'m>(&'m self, host: &'m HostName) -> impl Iterator<Item = &'m ServiceName> {
        self.services
            .iter()
            .filter(move |(_, deployment)| deployment.members.contains(host))
            .map(|(name, _)| name)
    }

    /// Everything about a service on one of its members.
    pub fn member(&self, service: &ServiceName, host: &HostName) -> Option<&MemberModel> {
        self.members.get(&(service.clone(), host.clone()))
    }

    /// What a service asks of a host; nothing when the host is no member.
    pub fn rendered(&self, service: &ServiceName, host: &HostName) -> &[Rendered] {
        self.member(service, host)
            .map_or(&[], |member| member.resources.as_slice())
    }

    /// What a probe needs to word its question to `host`. `None`: the site has no such service.
    pub fn probe_context<'m>(
        &'m self,
        service: Option<&ServiceName>,
        host: &'m HostName,
    ) -> Option<ProbeContext<'m>> {
        static NO_SETTINGS: BTreeMap<String, Value> = BTreeMap::new();
        let deployment = match service {
            Some(name) => Some(self.services.get(name)?),
            None => None,
        };
        Some(ProbeContext {
            host,
            address: self.address(host),
            members: deployment.map_or(&[], Deployment::addressed),
            settings: deployment.map_or(&NO_SETTINGS, |deployment| &deployment.settings),
            about: None,
        })
    }

    /// The call of a named condition about some members of a service. `None`: the site has no such service.
    pub fn condition(
        &self,
        name: &str,
        service: &ServiceName,
        hosts: &[HostName],
    ) -> Option<ConditionCall> {
        let deployment = self.services.get(service)?;
        Some(ConditionCall {
            name: name.to_owned(),
            service: service.clone(),
            hosts: hosts.to_vec(),
            members: deployment.members.clone(),
            settings: deployment.settings.clone(),
        })
    }

    /// The health condition of a service about some of its members. `None`: it declares none.
    pub fn health(&self, service: &ServiceName, hosts: &[HostName]) -> Option<ConditionCall> {
        let name = self.services.get(service)?.spec.health.as_deref()?;
        self.condition(name, service, hosts)
    }

    /// The names of all secrets that the site's services use, for example `mariadb.root`.
    pub fn secret_names(&self) -> BTreeSet<String> {
        let of_services = self.services.iter().flat_map(|(service, deployment)| {
            let secrets = deployment.spec.secrets.iter();
            secrets.map(move |secret| format!("{service}.{secret}"))
        });
        let certified = self
            .services
            .iter()
            .filter(|(_, deployment)| deployment.spec.certificates);
        let certificates = certified
            .flat_map(|(service, deployment)| certificate::names(service, &deployment.members));
        of_services
            .chain(certificates)
            .chain([STEP_SECRET.to_owned()])
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
