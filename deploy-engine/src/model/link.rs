//! Site × catalogue: who is a member of what, with which settings. Reports everything that does not fit together.

use std::collections::BTreeMap;

use petgraph::{algo::tarjan_scc, graphmap::DiGraphMap};
use serde_json::Value;

use super::{
    Diagnostics, Document, HostName, ServiceName,
    catalogue::Folder,
    document::short,
    service::{ServiceSpec, Topology},
    site::{Placement, SiteFile},
    template::suggest,
};

/// A service on this site, before anything is rendered.
pub struct Linked<'a> {
    pub folder: &'a Folder,
    /// Sorted by name, each once.
    pub members: Vec<HostName>,
    /// Defaults filled in.
    pub settings: BTreeMap<String, Value>,
}

/// # Errors
/// Everything about the site that does not fit together or to the catalogue.
pub fn link<'a>(
    site: &Document<SiteFile>,
    catalogue: &'a BTreeMap<ServiceName, Folder>,
) -> Result<BTreeMap<ServiceName, Linked<'a>>, Diagnostics> {
    let mut linker = Linker {
        site,
        errors: Diagnostics::default(),
    };
    linker.addresses();
    linker.group_names();
    let mut linked = BTreeMap::new();
    let mut failed = false;
    for (name, placement) in &site.value.services {
        let Some(folder) = catalogue.get(name) else {
            let known: Vec<&str> = catalogue.keys().map(ServiceName::as_str).collect();
            let error = site.error_at_key(
                &["services", name.as_str()],
                format!("there is no service `{name}` in the catalogue"),
            );
            linker
                .errors
                .push(suggest(error, name.as_str(), &known, "service"));
            failed = true;
            continue;
        };
        let spec = &folder.document.value;
        let members = linker.members(name, placement, spec);
        let settings = linker.settings(name, placement, spec);
        linked.insert(
            name.clone(),
            Linked {
                folder,
                members,
                settings,
            },
        );
    }
    // A need that failed to link would be reported twice.
    if !failed {
        linker.needs(&linked);
        linker.cycles(&linked);
    }
    linker.errors.or(linked)
}

struct Linker<'a> {
    site: &'a Document<SiteFile>,
    errors: Diagnostics,
}

impl Linker<'_> {
    fn addresses(&mut self) {
        let mut seen: BTreeMap<std::net::IpAddr, &HostName> = BTreeMap::new();
        for (host, spec) in &self.site.value.hosts {
            let path = ["hosts", host.as_str(), "address"];
            match spec.address.parse() {
                Err(_) => self.errors.push(
                    self.site
                        .error_at(&path, format!("the address of `{host}` is wrong"))
                        .expected("an IP address")
                        .found(format!("`{}`", spec.address)),
                ),
                Ok(address) => {
                    if let Some(first) = seen.insert(address, host) {
                        self.errors.push(
                            self.site
                                .error_at(&path, format!("`{host}` has the address of `{first}`"))
                                .expected("an address of its own for each host")
                                .found(format!("`{}`", spec.address)),
                        );
                    }
                }
            }
        }
    }

    fn group_names(&mut self) {
        let hosts = &self.site.value.hosts;
        for (host, spec) in hosts {
            for (index, group) in spec.groups.iter().enumerate() {
                if hosts.contains_key(group) {
                    let path = ["hosts", host.as_str(), "groups", &index.to_string()];
                    self.errors.push(
                        self.site
                            .error_at(&path, format!("the group `{group}` is called like a host"))
                            .expected("a name that no host has"),
                    );
                }
            }
        }
    }

    fn members(
        &mut self,
        name: &ServiceName,
        placement: &Placement,
        spec: &ServiceSpec,
    ) -> Vec<HostName> {
        let hosts = &self.site.value.hosts;
        let mut members = Vec::new();
        let list = matches!(placement.on, super::site::OneOrMany::Many(_));
        for (index, word) in placement.on.as_slice().iter().enumerate() {
            let selected: Vec<&HostName> = hosts
                .iter()
                .filter(|(host, spec)| *host == word || spec.groups.contains(word))
                .map(|(host, _)| host)
                .collect();
            if selected.is_empty() {
                let index = index.to_string();
                let mut path = vec!["services", name.as_str(), "on"];
                if list {
                    path.push(&index);
                }
                let error = self
                    .site
                    .error_at(&path, format!("there is no host or group `{word}`"));
                let mut known: Vec<&str> = hosts
                    .values()
                    .flat_map(|spec| spec.groups.iter().map(HostName::as_str))
                    .chain(hosts.keys().map(HostName::as_str))
                    .collect();
                known.sort_unstable();
                known.dedup();
                self.errors
                    .push(suggest(error, word.as_str(), &known, "host or group"));
            }
            members.extend(selected.into_iter().cloned());
        }
        members.sort();
        members.dedup();
        let path = ["services", name.as_str(), "on"];
        if placement.on.as_slice().is_empty() {
            self.errors.push(
                self.site
                    .error_at(&path, format!("`{name}` is on no host"))
                    .expected("at least one host or group"),
            );
        }
        if spec.topology == Topology::Single && members.len() > 1 {
            let names: Vec<&str> = members.iter().map(HostName::as_str).collect();
            self.errors.push(
                self.site
                    .error_at(&path, format!("`{name}` runs on one host only"))
                    .expected("one host")
                    .found(names.join(", ")),
            );
        }
        members
    }

    fn settings(
        &mut self,
        name: &ServiceName,
        placement: &Placement,
        spec: &ServiceSpec,
    ) -> BTreeMap<String, Value> {
        for (key, value) in &placement.settings {
            let path = ["services", name.as_str(), "settings", key];
            match spec.settings.get(key) {
                None => {
                    let known: Vec<&str> = spec.settings.keys().map(String::as_str).collect();
                    let error = self
                        .site
                        .error_at_key(&path, format!("`{name}` has no setting `{key}`"));
                    self.errors.push(suggest(error, key, &known, "setting"));
                }
                Some(setting) if !setting.accepts(value) => self.errors.push(
                    self.site
                        .error_at(
                            &path,
                            format!("the setting `{key}` does not fit: {}", setting.doc),
                        )
                        .expected(setting.wanted())
                        .found(short(value)),
                ),
                Some(_) => {}
            }
        }
        let mut settings = BTreeMap::new();
        for (key, setting) in &spec.settings {
            match placement.settings.get(key).or(setting.default.as_ref()) {
                Some(value) => {
                    settings.insert(key.clone(), value.clone());
                }
                None => self.errors.push(
                    self.site
                        .error_at_key(
                            &["services", name.as_str()],
                            format!("`{name}` needs the setting `{key}`: {}", setting.doc),
                        )
                        .expected(setting.wanted()),
                ),
            }
        }
        settings
    }

    fn needs(&mut self, linked: &BTreeMap<ServiceName, Linked<'_>>) {
        for (name, service) in linked {
            for need in &service.folder.document.value.needs {
                if !linked.contains_key(need) {
                    self.errors.push(
                        self.site
                            .error_at_key(
                                &["services", name.as_str()],
                                format!("`{name}` needs `{need}`, which this site does not deploy"),
                            )
                            .expected(format!("`{need}` among the services"))
                            .suggestion(format!("add `{need}: {{on: …}}`, or remove `{name}`")),
                    );
                }
            }
        }
    }

    fn cycles(&mut self, linked: &BTreeMap<ServiceName, Linked<'_>>) {
        let mut graph: DiGraphMap<&str, ()> = DiGraphMap::new();
        for (name, service) in linked {
            for need in before(&service.folder.document.value, linked) {
                graph.add_edge(name.as_str(), need.as_str(), ());
            }
        }
        for circle in tarjan_scc(&graph) {
            let first = circle[0];
            if circle.len() == 1 && !graph.contains_edge(first, first) {
                continue;
            }
            let chain = walk(&graph, &circle);
            let start = chain[0];
            let Some((_, service)) = linked.iter().find(|(name, _)| name.as_str() == start) else {
                continue;
            };
            let document = &service.folder.document;
            let spec = &document.value;
            let key = if spec.needs.iter().any(|need| need.as_str() == chain[1]) {
                "needs"
            } else {
                "after"
            };
            self.errors.push(
                document
                    .error_at(&[key], "these services wait for each other")
                    .expected("an order in which they can be activated")
                    .found(chain.join(" → ")),
            );
        }
    }
}

/// The deployed services that must be healthy before this one is activated.
pub fn before<'a, T>(
    spec: &'a ServiceSpec,
    deployed: &BTreeMap<ServiceName, T>,
) -> Vec<&'a ServiceName> {
    spec.needs
        .iter()
        .chain(&spec.after)
        .filter(|name| deployed.contains_key(name))
        .collect()
}

/// A closed walk through a circle, starting at its alphabetically first name.
fn walk<'g>(graph: &DiGraphMap<&'g str, ()>, circle: &[&'g str]) -> Vec<&'g str> {
    let start = circle.iter().min().copied().unwrap_or_default();
    let mut chain = vec![start];
    let mut here = start;
    loop {
        let next = graph
            .neighbors(here)
            .filter(|next| circle.contains(next))
            .find(|next| !chain.contains(next));
        match next {
            Some(next) => {
                chain.push(next);
                here = next;
            }
            None => {
                chain.push(start);
                return chain;
            }
        }
    }
}
