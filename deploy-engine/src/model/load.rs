//! Reading a site and its catalogue into a [`Model`].

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    Deployment, Diagnostics, Document, HostName, Model, ServiceName, catalogue,
    catalogue::Folder,
    document::load_document,
    link::{Linked, link},
    render::{MemberModel, Renderer},
    site::{Site, SiteFile},
    template::Templates,
};
use crate::{
    secrets::certificate,
    wire::{Resource, ResourceId, secret_reference},
};

impl Model {
    /// Reads a site file, the built-in services and those in `service_dirs`, and renders everything for every member, so
    /// that whatever is wrong is known before anything is done.
    ///
    /// # Errors
    /// Everything that is wrong with the files, at once.
    pub fn load(site: &Path, service_dirs: &[PathBuf]) -> Result<Self, Diagnostics> {
        let mut errors = Diagnostics::default();
        let mut keep = |more: Diagnostics| errors.extend(more);
        let document = load_document::<SiteFile>(site).map_err(&mut keep).ok();
        let folders = catalogue::load(service_dirs).map_err(&mut keep).ok();
        errors.or(())?;
        match (document, folders) {
            (Some(document), Some(folders)) => {
                let folder = site.parent().unwrap_or_else(|| Path::new(""));
                Self::build(document, &folders, folder)
            }
            _ => Err(Diagnostics::default()),
        }
    }

    /// The same from values. `folder` is what the site's paths are relative to.
    ///
    /// # Errors
    /// Everything that does not fit together.
    pub fn build(
        document: Document<SiteFile>,
        folders: &BTreeMap<ServiceName, Folder>,
        folder: &Path,
    ) -> Result<Self, Diagnostics> {
        let linked = link(&document, folders)?;
        let members = render(&document, &linked)?;
        let services = linked
            .into_iter()
            .map(|(name, linked)| {
                let hosts = &document.value.hosts;
                let addressed = linked
                    .members
                    .iter()
                    .filter_map(|host| Some((host.clone(), hosts.get(host)?.address.clone())));
                let deployment = Deployment {
                    spec: linked.folder.document.value.clone(),
                    addressed: addressed.collect(),
                    members: linked.members,
                    settings: linked.settings,
                };
                (name, deployment)
            })
            .collect();
        let SiteFile {
            site, ssh, hosts, ..
        } = document.value;
        Ok(Self {
            site: Site {
                name: site.to_string(),
                ssh: ssh.under(folder),
                hosts,
                file: document.source.name().to_owned(),
            },
            services,
            members,
        })
    }
}

type Members = BTreeMap<(ServiceName, HostName), MemberModel>;

fn render(
    site: &Document<SiteFile>,
    linked: &BTreeMap<ServiceName, Linked<'_>>,
) -> Result<Members, Diagnostics> {
    let mut errors = Diagnostics::default();
    let mut templates = BTreeMap::new();
    for (name, service) in linked {
        match Templates::new(service.folder) {
            Ok(found) => {
                templates.insert(name, found);
            }
            Err(more) => errors.extend(more),
        }
    }
    errors.or(())?;
    let mut stage = Stage {
        site,
        linked,
        templates,
        shared: json!({}),
    };
    stage.shared = stage.offers()?;
    let members = stage.members()?;
    let mut errors = Diagnostics::default();
    clashes(site, &members, &mut errors);
    errors.or(members)
}

/// Two passes: first what services offer each other (scrape jobs, front ends, checks, rules), then every member with all of it.
struct Stage<'a> {
    site: &'a Document<SiteFile>,
    linked: &'a BTreeMap<ServiceName, Linked<'a>>,
    templates: BTreeMap<&'a ServiceName, Templates<'a>>,
    shared: Value,
}

impl Stage<'_> {
    fn each(
        &self,
        mut act: impl FnMut(&ServiceName, &HostName, &Renderer<'_>) -> Result<(), Diagnostics>,
    ) -> Result<(), Diagnostics> {
        let mut errors = Diagnostics::default();
        for (name, service) in self.linked {
            let Some(templates) = self.templates.get(name) else {
                continue;
            };
            for host in &service.members {
                let context = self.context(name, service, host);
                let renderer =
                    Renderer::new(service.folder, templates, &context, host, &service.members);
                if let Err(more) = act(name, host, &renderer) {
                    errors.extend(more);
                }
            }
        }
        errors.or(())
    }

    fn member(&self, host: &HostName) -> Value {
        let address = self.site.value.hosts.get(host).map(|spec| &spec.address);
        json!({"name": host, "address": address})
    }

    fn context(&self, name: &ServiceName, service: &Linked<'_>, host: &HostName) -> Value {
        let hosts = &self.site.value.hosts;
        let services: BTreeMap<&ServiceName, Value> = self
            .linked
            .iter()
            .map(|(name, service)| (name, self.service(name, service)))
            .collect();
        let mut own = self.service(name, service);
        let spec = hosts.get(host);
        let rest = json!({
            "site": self.site.value.site,
            "host": {
                "name": host,
                "address": spec.map(|spec| &spec.address),
                "groups": spec.map(|spec| &spec.groups),
                "rack": spec.and_then(|spec| spec.rack.as_ref()),
                "services": self.services_on(host),
            },
            "hosts": hosts.keys().map(|host| self.member(host)).collect::<Vec<_>>(),
            "first": service.members.first() == Some(host),
            "services": services,
        });
        let tls = match service.folder.document.value.certificates {
            true => json!({"tls": certificate::references(name, host)}),
            false => json!({}),
        };
        for more in [rest, tls, self.shared.clone()] {
            if let (Value::Object(own), Value::Object(more)) = (&mut own, more) {
                own.extend(more);
            }
        }
        own
    }

    fn services_on(&self, host: &HostName) -> Vec<&ServiceName> {
        let here = self
            .linked
            .iter()
            .filter(|(_, service)| service.members.contains(host));
        here.map(|(name, _)| name).collect()
    }

    fn service(&self, name: &ServiceName, service: &Linked<'_>) -> Value {
        let secrets = &service.folder.document.value.secrets;
        let secrets: BTreeMap<_, _> = secrets
            .iter()
            .map(|secret| (secret, secret_reference(&format!("{name}.{secret}"))))
            .collect();
        let members: Vec<Value> = service
            .members
            .iter()
            .map(|host| self.member(host))
            .collect();
        json!({
            "title": service.folder.document.value.title,
            "members": members,
            "clustered": service.members.len() > 1,
            "settings": service.settings,
            "secret": secrets,
        })
    }

    fn offers(&self) -> Result<Value, Diagnostics> {
        let mut scrapes: Vec<Value> = Vec::new();
        let mut backends: Vec<Value> = Vec::new();
        let mut checks: Vec<Value> = Vec::new();
        let mut rules: Vec<Value> = Vec::new();
        let mut errors = Diagnostics::default();
        let result = self.each(|name, host, renderer| {
            let first = self.linked[name].members.first() == Some(host);
            let target = self.member(host);
            for (index, (spec, port)) in renderer.metrics()?.into_iter().enumerate() {
                let target = with(&target, "port", port.into());
                let id = format!("{name}#{index}");
                let fresh = json!({"id": id, "service": name, "job": spec.job, "path": spec.path});
                add(&mut scrapes, fresh, "targets", target);
            }
            for (index, (spec, [listen, member, check])) in
                renderer.balance()?.into_iter().enumerate()
            {
                let target = with(&target, "port", member.into());
                let target = with(&target, "check_port", check.into());
                let fresh = json!({
                    "id": format!("{name}#{index}"),
                    "service": name,
                    "name": spec.name.as_deref().unwrap_or(name.as_str()),
                    "listen": listen,
                    "mode": spec.mode,
                    "policy": spec.policy,
                    "check": spec.check.map(|check| check.http),
                    "idle_timeout": spec.idle_timeout,
                });
                add(&mut backends, fresh, "servers", target);
            }
            let address = target["address"].as_str().unwrap_or_default();
            for spec in renderer.checks(name.as_str(), address)? {
                checks.push(json!({
                    "service": name,
                    "host": host,
                    "check": spec.check,
                    "command": spec.command,
                    "like": spec.like,
                    "vars": spec.vars,
                }));
            }
            if first {
                match renderer.alerts() {
                    Ok(groups) => rules.extend(groups),
                    Err(more) => errors.extend(more),
                }
            }
            Ok(())
        });
        if let Err(more) = result {
            errors.extend(more);
        }
        errors
            .or(json!({"scrapes": scrapes, "backends": backends, "checks": checks, "rules": rules}))
    }

    fn members(&self) -> Result<Members, Diagnostics> {
        let mut members = Members::new();
        self.each(|name, host, renderer| {
            members.insert((name.clone(), host.clone()), renderer.member()?);
            Ok(())
        })?;
        Ok(members)
    }
}

fn with(object: &Value, key: &str, value: Value) -> Value {
    let mut object = object.clone();
    object[key] = value;
    object
}

/// Puts `target` into the `list` of the entry with the id of `fresh`, which is added when it is not there yet.
fn add(entries: &mut Vec<Value>, fresh: Value, list: &str, target: Value) {
    let at = entries.iter().position(|entry| entry["id"] == fresh["id"]);
    let at = at.unwrap_or_else(|| {
        entries.push(with(&fresh, list, json!([])));
        entries.len() - 1
    });
    if let Some(targets) = entries[at][list].as_array_mut() {
        targets.push(target);
    }
}

/// Two services of one host that want the same port, or the same thing differently.
fn clashes(site: &Document<SiteFile>, members: &Members, errors: &mut Diagnostics) {
    for host in site.value.hosts.keys() {
        let here: Vec<(&ServiceName, &MemberModel)> = members
            .iter()
            .filter(|((_, member), _)| member == host)
            .map(|((name, _), model)| (name, model))
            .collect();
        for (index, (name, model)) in here.iter().enumerate() {
            for (other, other_model) in &here[index + 1..] {
                let path = ["services", other.as_str()];
                for port in &model.ports {
                    if other_model.ports.iter().any(|other| port.clashes(other)) {
                        let what = format!("`{other}` and `{name}` want the same port on `{host}`");
                        errors.push(
                            site.error_at_key(&path, what)
                                .expected("a port of its own for each service of a host")
                                .found(format!("port {} twice", port.port))
                                .suggestion("give one of them another port in its settings"),
                        );
                    }
                }
                for id in differing(model, other_model) {
                    let what =
                        format!("`{other}` and `{name}` want `{id}` differently on `{host}`");
                    errors.push(site.error_at_key(&path, what));
                }
            }
        }
    }
}

fn differing(one: &MemberModel, other: &MemberModel) -> BTreeSet<ResourceId> {
    let by_id = |model: &MemberModel| -> BTreeMap<ResourceId, Resource> {
        model
            .resources
            .iter()
            .map(|entry| (entry.resource.id(), entry.resource.clone()))
            .collect()
    };
    let others = by_id(other);
    by_id(one)
        .into_iter()
        .filter(|(id, resource)| others.get(id).is_some_and(|other| other != resource))
        .map(|(id, _)| id)
        .collect()
}
