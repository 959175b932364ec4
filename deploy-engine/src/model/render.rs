//! A service's spec × a member × the site → what one host must be like.

use std::{collections::BTreeSet, net::IpAddr};

use minijinja::value::Serde;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Diagnostic, Diagnostics, HostName,
    catalogue::Folder,
    resource::{Only, RabbitmqApi, ResourceSpec, no_shell},
    service::{BalanceSpec, CheckSpec, DataSpec, MetricsSpec, PortText, RemoveSpec},
    setting::parse_prefix,
    site::OneOrMany,
    template::{Marks, Templates},
};
use crate::wire::{ARCHIVE_MARKER, Resource};

/// When a resource is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Repositories and packages: one transaction a host, no service started by it.
    Packages,
    /// Before the service's first unit.
    Configure,
    /// From the first unit on.
    Activate,
    /// Once per service, on its first member, when that is healthy.
    Provision,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    pub phase: Phase,
    pub resource: Resource,
}

/// A TCP port that a service listens on; without an address on all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortUse {
    pub address: Option<String>,
    pub port: u16,
}

impl PortUse {
    /// Can both not be held at once?
    pub fn clashes(&self, other: &Self) -> bool {
        self.port == other.port
            && match (&self.address, &other.address) {
                (Some(a), Some(b)) => a == b,
                _ => true,
            }
    }
}

/// Everything about one service on one host.
#[derive(Clone, Debug, Default)]
pub struct MemberModel {
    pub resources: Vec<Rendered>,
    /// Takes away what `resources` brought, in this order.
    pub removal: Vec<Resource>,
    pub ports: Vec<PortUse>,
    pub process: Vec<String>,
    pub data: Option<DataSpec>,
    pub virtual_address: Option<(IpAddr, u8)>,
}

/// Renders texts of one service for one member.
pub struct Renderer<'a> {
    pub folder: &'a Folder,
    pub templates: &'a Templates<'a>,
    context: minijinja::Value,
    host: &'a HostName,
    settings: Value,
    clustered: bool,
    first: bool,
}

impl<'a> Renderer<'a> {
    pub fn new(
        folder: &'a Folder,
        templates: &'a Templates<'a>,
        context: &Value,
        host: &'a HostName,
        members: &[HostName],
    ) -> Self {
        Self {
            folder,
            templates,
            context: minijinja::Value::from(Serde(context)),
            host,
            settings: context["settings"].clone(),
            clustered: members.len() > 1,
            first: members.first() == Some(host),
        }
    }

    fn applies(&self, only: Option<&Only>) -> bool {
        match only {
            None => true,
            Some(Only::Clustered) => self.clustered,
            Some(Only::Single) => !self.clustered,
            Some(Only::FirstMember) => self.first,
            Some(Only::ListedIn(setting)) => self.is_listed_in(setting),
        }
    }

    /// A setting that is no list names nobody.
    fn is_listed_in(&self, setting: &str) -> bool {
        let list = self.settings.get(setting).and_then(Value::as_array);
        list.is_some_and(|names| {
            names.is_empty() || names.iter().any(|name| name == self.host.as_str())
        })
    }

    fn error(&self, path: &[String], message: impl Into<String>) -> Diagnostic {
        self.folder.document.error_at(path, message)
    }

    /// Renders every text inside a part of the spec. `path` is its place in the file.
    fn part<T: serde::Serialize + DeserializeOwned>(
        &self,
        path: &[String],
        part: &T,
    ) -> Result<T, Diagnostics> {
        let fail = |error: serde_json::Error| {
            Diagnostics::from(self.error(path, format!("cannot be rendered: {error}")))
        };
        let mut value = serde_json::to_value(part).map_err(fail)?;
        let mut errors = Diagnostics::default();
        self.walk(&mut path.to_vec(), &mut value, &mut errors);
        errors.or(())?;
        serde_json::from_value(value).map_err(fail)
    }

    fn walk(&self, path: &mut Vec<String>, value: &mut Value, errors: &mut Diagnostics) {
        match value {
            Value::String(text) => {
                let at = || self.error(path, "");
                match self.templates.inline(text, &self.context, at) {
                    Ok(rendered) => *text = rendered,
                    Err(more) => errors.extend(more),
                }
            }
            Value::Array(entries) => {
                for (index, entry) in entries.iter_mut().enumerate() {
                    path.push(index.to_string());
                    self.walk(path, entry, errors);
                    path.pop();
                }
            }
            Value::Object(entries) => {
                for (key, entry) in entries {
                    path.push(key.clone());
                    self.walk(path, entry, errors);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    pub fn metrics(&self) -> Result<Vec<(MetricsSpec, u16)>, Diagnostics> {
        let path = vec!["metrics".to_owned()];
        let specs = self.part(&path, &self.folder.document.value.metrics)?;
        let mut errors = Diagnostics::default();
        let mut found = Vec::new();
        for (index, spec) in specs.into_iter().enumerate() {
            if !self.applies(spec.only.as_ref()) {
                continue;
            }
            let path = [path[0].clone(), index.to_string(), "port".to_owned()];
            match self.port(&spec.port, &path) {
                Ok(port) => found.push((spec, port)),
                Err(more) => errors.extend(more),
            }
        }
        errors.or(found)
    }

    /// The declared checks; without a declaration a TCP connection to each port that is not on loopback alone. `address` is the
    /// host's own.
    pub fn checks(&self, service: &str, address: &str) -> Result<Vec<CheckSpec>, Diagnostics> {
        let path = ["checks".to_owned()];
        match self.part(&path, &self.folder.document.value.checks)? {
            Some(checks) => self.quotable(checks),
            // A wrong port is told of with everything else that is wrong with the member.
            None => {
                let ports = self.ports().unwrap_or_default();
                Ok(default_checks(service, address, &ports))
            }
        }
    }

    /// Monitors quote these texts in configurations of their own.
    fn quotable(&self, checks: Vec<CheckSpec>) -> Result<Vec<CheckSpec>, Diagnostics> {
        let mut errors = Diagnostics::default();
        for (index, check) in checks.iter().enumerate() {
            let wrong = check.vars.iter().find(|(name, text)| {
                !name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
                    || text.contains(char::is_control)
            });
            if let Some((name, text)) = wrong {
                let path = ["checks".to_owned(), index.to_string(), "vars".to_owned()];
                errors.push(
                    self.error(&path, format!("`{name}` cannot be a check's parameter"))
                        .expected(
                            "a name of lower-case letters, digits and `_`, a value of one line",
                        )
                        .found(format!("`{text}`")),
                );
            }
        }
        errors.or(checks)
    }

    /// Each front end with its own port, its members' port and the port of their check.
    pub fn balance(&self) -> Result<Vec<(BalanceSpec, [u16; 3])>, Diagnostics> {
        let specs = self.part(&["balance".to_owned()], &self.folder.document.value.balance)?;
        let mut errors = Diagnostics::default();
        let mut found = Vec::new();
        for (index, spec) in specs.into_iter().enumerate() {
            let path = ["balance".to_owned(), index.to_string()];
            let member = spec.port.as_ref().unwrap_or(&spec.listen);
            let check = spec.check.as_ref().and_then(|check| check.port.as_ref());
            let ports =
                [&spec.listen, member, check.unwrap_or(member)].map(|port| self.port(port, &path));
            match ports {
                [Ok(listen), Ok(member), Ok(check)] => found.push((spec, [listen, member, check])),
                ports => ports
                    .into_iter()
                    .filter_map(Result::err)
                    .for_each(|more| errors.extend(more)),
            }
        }
        errors.or(found)
    }

    /// The alert rule groups, parsed.
    pub fn alerts(&self) -> Result<Vec<Value>, Diagnostics> {
        let Some(name) = &self.folder.document.value.alerts else {
            return Ok(Vec::new());
        };
        let at = self.error(&["alerts".to_owned()], "");
        let text = self
            .templates
            .file(name, Marks::Alerts, &self.context, at)?;
        let file = format!("{}/{name}", self.folder.origin);
        Ok(super::document::parse_document::<Vec<Value>>(&file, &text)?.value)
    }

    fn port(&self, port: &PortText, path: &[String]) -> Result<u16, Diagnostics> {
        let text = port.to_text();
        match text.trim().parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(self
                .error(path, "this is not a port")
                .expected("a whole number from 1 to 65535")
                .found(format!("`{text}`"))
                .into()),
        }
    }

    /// All of the member.
    pub fn member(&self) -> Result<MemberModel, Diagnostics> {
        let spec = &self.folder.document.value;
        let mut errors = Diagnostics::default();
        let mut model = MemberModel::default();
        let mut keep = |result: Result<(), Diagnostics>| {
            if let Err(more) = result {
                errors.extend(more);
            }
        };
        keep(self.packages().map(|list| model.resources.extend(list)));
        keep(self.resources().map(|list| model.resources.extend(list)));
        keep(self.ports().map(|ports| model.ports = ports));
        keep(
            self.part(&["process".to_owned()], &spec.process)
                .map(|p| model.process = p),
        );
        keep(
            self.part(&["data".to_owned()], &spec.data)
                .map(|d| model.data = d),
        );
        keep(
            self.virtual_address()
                .map(|address| model.virtual_address = address),
        );
        let remove = self.part(&["remove".to_owned()], &spec.remove);
        keep(remove.map(|remove| model.removal = removal(&model.resources, &remove)));
        errors.or(model)
    }

    fn packages(&self) -> Result<Vec<Rendered>, Diagnostics> {
        let spec = &self.folder.document.value;
        let mut names = self.part(&["packages".to_owned()], &spec.packages)?;
        if self.clustered {
            let path = ["packages_clustered".to_owned()];
            names.extend(self.part(&path, &spec.packages_clustered)?);
        }
        Ok(names
            .iter()
            .flat_map(|entry| entry.split_whitespace())
            .map(|name| Rendered {
                phase: Phase::Packages,
                resource: Resource::Package {
                    name: name.to_owned(),
                    version: None,
                    absent: false,
                },
            })
            .collect())
    }

    fn ports(&self) -> Result<Vec<PortUse>, Diagnostics> {
        let spec = &self.folder.document.value;
        let path = vec!["ports".to_owned()];
        let mut errors = Diagnostics::default();
        let mut ports = Vec::new();
        for (index, entry) in self.part(&path, &spec.ports)?.iter().enumerate() {
            let path = [path[0].clone(), index.to_string()];
            let text = entry.to_text();
            for word in text.split([' ', ',', '\n']).filter(|word| !word.is_empty()) {
                let (address, port) = match word.rsplit_once(':') {
                    Some((address, port)) => (Some(address.to_owned()), port),
                    None => (None, word),
                };
                match self.port(&PortText::Template(port.to_owned()), &path) {
                    Ok(port) => ports.push(PortUse { address, port }),
                    Err(more) => errors.extend(more),
                }
            }
        }
        errors.or(ports)
    }

    fn virtual_address(&self) -> Result<Option<(IpAddr, u8)>, Diagnostics> {
        let path = ["virtual_address".to_owned()];
        let Some(text) = self.part(&path, &self.folder.document.value.virtual_address)? else {
            return Ok(None);
        };
        match parse_prefix(&text) {
            Some(address) => Ok(Some(address)),
            None => Err(self
                .error(&path, "this is not an address with prefix length")
                .expected("for example 10.0.0.5/24")
                .found(format!("`{text}`"))
                .into()),
        }
    }

    /// Resources and provisioning, with units told which files they watch.
    fn resources(&self) -> Result<Vec<Rendered>, Diagnostics> {
        let spec = &self.folder.document.value;
        let mut errors = Diagnostics::default();
        let mut hooks = UnitHooks::default();
        let mut rendered = Vec::new();
        let mut phase = Phase::Configure;
        let lists = [
            ("resources", &spec.resources),
            ("provision", &spec.provision),
        ];
        for (list, specs) in lists {
            if list == "provision" {
                phase = Phase::Provision;
            }
            for (index, spec) in specs.iter().enumerate() {
                if !self.applies(spec.only()) {
                    hooks
                        .elsewhere
                        .extend(self.unit_elsewhere(list, index, spec));
                    continue;
                }
                if phase == Phase::Configure && matches!(spec, ResourceSpec::Unit(_)) {
                    phase = Phase::Activate;
                }
                let path = vec![list.to_owned(), index.to_string()];
                match self.resource(&path, spec, &mut hooks) {
                    Ok(resource) if is_nameless(&resource) => {}
                    Ok(resource) => rendered.push(Rendered {
                        phase: match resource {
                            Resource::AptRepository { .. } => Phase::Packages,
                            _ => phase,
                        },
                        resource,
                    }),
                    Err(more) => errors.extend(more),
                }
            }
        }
        for unknown in hooks.attach(&mut rendered) {
            errors.push(
                self.error(
                    &unknown.path,
                    format!("`{}` is not a unit of this service", unknown.unit),
                )
                .expected("the name of a `unit` among the resources"),
            );
        }
        errors.or(rendered)
    }

    /// The name of a unit that other members have.
    fn unit_elsewhere(&self, list: &str, index: usize, spec: &ResourceSpec) -> Option<String> {
        let ResourceSpec::Unit(unit) = spec else {
            return None;
        };
        let path = [list.to_owned(), index.to_string()];
        self.part(&path, unit).ok().map(|unit| unit.unit)
    }

    fn resource(
        &self,
        path: &[String],
        spec: &ResourceSpec,
        hooks: &mut UnitHooks,
    ) -> Result<Resource, Diagnostics> {
        let spec = self.part(path, spec)?;
        Ok(match spec {
            ResourceSpec::File(spec) => {
                hooks.collect(path, "restart", &spec.file, spec.restart.as_ref());
                hooks.collect(path, "reload", &spec.file, spec.reload.as_ref());
                let content = self.content(path, &spec)?;
                Resource::File {
                    path: spec.file,
                    content,
                    mode: spec.mode,
                    owner: spec.owner,
                    group: spec.group,
                    validate: spec.validate,
                    sensitive: spec.sensitive,
                    absent: false,
                }
            }
            ResourceSpec::Archive(spec) => {
                let marker = format!("{}/{}", spec.archive, ARCHIVE_MARKER);
                let named = !spec.archive.is_empty();
                let restart = spec.restart.as_ref().filter(|_| named);
                hooks.collect(path, "restart", &marker, restart);
                Resource::Archive {
                    path: spec.archive,
                    url: spec.url,
                    sha256: spec.sha256,
                    strip: spec.strip,
                }
            }
            ResourceSpec::AptRepository(spec) => {
                let key = match &spec.key {
                    Some(name) => {
                        let at = self.error(path, "");
                        Some(self.templates.raw(name, at)?.to_owned())
                    }
                    None => None,
                };
                Resource::AptRepository {
                    name: spec.apt_repository,
                    uris: spec.uris,
                    suites: spec.suites,
                    components: spec.components,
                    key,
                    absent: false,
                }
            }
            ResourceSpec::Command(spec) if spec.unless.is_none() && spec.creates.is_none() => {
                return Err(self
                    .error(path, format!("the command `{}` has no guard", spec.command))
                    .expected("`unless` or `creates`, so that it runs only when needed")
                    .into());
            }
            other => self.plain(path, other)?,
        })
    }

    fn content(
        &self,
        path: &[String],
        spec: &super::resource::FileSpec,
    ) -> Result<String, Diagnostics> {
        let at = || self.error(path, "");
        match (&spec.template, &spec.content, &spec.copy) {
            (Some(name), None, None) => {
                self.templates.file(name, Marks::Plain, &self.context, at())
            }
            (None, Some(content), None) => Ok(content.clone()),
            (None, None, Some(name)) => Ok(self.templates.raw(name, at())?.to_owned()),
            _ => Err(self
                .error(
                    path,
                    format!("where does the content of `{}` come from?", spec.file),
                )
                .expected("exactly one of `template`, `content` and `copy`")
                .into()),
        }
    }

    /// Specs that translate field by field.
    fn plain(&self, path: &[String], spec: ResourceSpec) -> Result<Resource, Diagnostics> {
        let api = |api: &RabbitmqApi| self.port(&api.port, path);
        Ok(match spec {
            ResourceSpec::Directory(s) => Resource::Directory {
                path: s.directory,
                mode: s.mode,
                owner: s.owner,
                group: s.group,
                absent: false,
            },
            ResourceSpec::Unit(s) => Resource::Unit {
                name: s.unit,
                enabled: s.enabled,
                running: s.running,
                restart_on: Vec::new(),
                reload_on: Vec::new(),
            },
            ResourceSpec::Sysctl(s) => Resource::Sysctl {
                key: s.sysctl,
                value: s.value,
                absent: false,
            },
            ResourceSpec::Command(s) => Resource::Command {
                name: s.command,
                argv: s.argv,
                unless: s.unless,
                creates: s.creates,
                stdin: s.stdin,
                timeout_seconds: s.timeout_seconds.0,
            },
            ResourceSpec::User(s) => Resource::User {
                name: s.user,
                group: s.group,
                groups: s.groups,
                home: s.home,
                shell: s.shell,
                system: s.system,
                absent: false,
            },
            ResourceSpec::Group(s) => Resource::Group {
                name: s.group,
                system: s.system,
                absent: false,
            },
            ResourceSpec::SqlDatabase(s) => Resource::SqlDatabase {
                name: s.sql_database,
                charset: s.charset,
                absent: false,
            },
            ResourceSpec::SqlUser(s) => Resource::SqlUser {
                name: s.sql_user,
                from: s.from,
                password: s.password,
                absent: false,
            },
            ResourceSpec::SqlGrant(s) => Resource::SqlGrant {
                user: s.sql_grant,
                from: s.from,
                privileges: s.privileges,
                on: s.on,
            },
            ResourceSpec::RabbitmqVhost(s) => Resource::RabbitmqVhost {
                api_port: api(&s.api)?,
                api_user: s.api.user,
                api_password: s.api.password,
                name: s.rabbitmq_vhost,
                absent: false,
            },
            ResourceSpec::RabbitmqUser(s) => Resource::RabbitmqUser {
                api_port: api(&s.api)?,
                api_user: s.api.user,
                api_password: s.api.password,
                name: s.rabbitmq_user,
                password: s.password,
                tags: s.tags,
                permissions: s.permissions,
                absent: false,
            },
            ResourceSpec::RabbitmqPolicy(s) => Resource::RabbitmqPolicy {
                api_port: api(&s.api)?,
                api_user: s.api.user,
                api_password: s.api.password,
                vhost: s.vhost,
                name: s.rabbitmq_policy,
                pattern: s.pattern,
                apply_to: s.apply_to,
                definition: Value::Object(s.definition.into_iter().collect()),
                priority: s.priority,
                absent: false,
            },
            ResourceSpec::File(_) | ResourceSpec::Archive(_) | ResourceSpec::AptRepository(_) => {
                return Err(self.error(path, "this kind is rendered elsewhere").into());
            }
        })
    }
}

struct Hook {
    unit: String,
    file: String,
    path: Vec<String>,
    restart: bool,
}

/// Which files ask which units to restart or reload.
#[derive(Default)]
struct UnitHooks {
    hooks: Vec<Hook>,
    /// Units of other members alone: nothing has to be restarted here.
    elsewhere: BTreeSet<String>,
}

impl UnitHooks {
    fn collect(
        &mut self,
        path: &[String],
        key: &str,
        file: &str,
        units: Option<&OneOrMany<String>>,
    ) {
        for unit in units.map(OneOrMany::as_slice).unwrap_or_default() {
            let mut path = path.to_vec();
            path.push(key.to_owned());
            self.hooks.push(Hook {
                unit: unit.clone(),
                file: file.to_owned(),
                path,
                restart: key == "restart",
            });
        }
    }

    /// Returns the hooks whose unit is not there.
    fn attach(self, rendered: &mut [Rendered]) -> Vec<Hook> {
        let mut unknown = Vec::new();
        for hook in self.hooks {
            let unit = rendered
                .iter_mut()
                .find_map(|entry| match &mut entry.resource {
                    Resource::Unit {
                        name,
                        restart_on,
                        reload_on,
                        ..
                    } if *name == hook.unit => Some((restart_on, reload_on)),
                    _ => None,
                });
            match unit {
                Some((restart_on, _)) if hook.restart => restart_on.push(hook.file),
                Some((_, reload_on)) => reload_on.push(hook.file),
                None if self.elsewhere.contains(&hook.unit) => {}
                None => unknown.push(hook),
            }
        }
        unknown
    }
}

/// A resource whose name is rendered to nothing is not wanted with these settings.
fn is_nameless(resource: &Resource) -> bool {
    resource.id().0.ends_with(':')
}

fn default_checks(service: &str, address: &str, ports: &[PortUse]) -> Vec<CheckSpec> {
    let reachable: Vec<u16> = ports
        .iter()
        .filter(|port| port.address.as_deref().is_none_or(|on| on == address))
        .map(|port| port.port)
        .collect();
    let name = |port: u16| match reachable.len() {
        1 => service.to_owned(),
        _ => format!("{service}-{port}"),
    };
    let checks = reachable.iter().map(|&port| {
        let vars = [("tcp_port".to_owned(), port.to_string())].into();
        let (check, command) = (name(port).parse().ok()?, "tcp".parse().ok()?);
        Some(CheckSpec {
            check,
            command,
            like: None,
            vars,
        })
    });
    checks.flatten().collect()
}

/// What takes the resources away again: units first, then files, packages, directories, users.
fn removal(resources: &[Rendered], remove: &RemoveSpec) -> Vec<Resource> {
    let mut units: Vec<&str> = remove.units.iter().map(String::as_str).collect();
    let mut after_packages = Vec::new();
    let (mut files, mut directories) = (BTreeSet::new(), remove.directories.clone());
    for entry in resources {
        match &entry.resource {
            Resource::Unit { name, .. } if !units.contains(&name.as_str()) => units.push(name),
            Resource::File { path, .. } => {
                files.insert(path.clone());
            }
            Resource::Archive { path, .. } => directories.push(path.clone()),
            Resource::Sysctl { key, value, .. } => after_packages.push(Resource::Sysctl {
                key: key.clone(),
                value: value.clone(),
                absent: true,
            }),
            Resource::AptRepository {
                name,
                uris,
                suites,
                components,
                ..
            } => after_packages.push(Resource::AptRepository {
                name: name.clone(),
                uris: uris.clone(),
                suites: suites.clone(),
                components: components.clone(),
                key: None,
                absent: true,
            }),
            _ => {}
        }
    }
    let stopped = units.into_iter().map(|name| Resource::Unit {
        name: name.to_owned(),
        enabled: Some(false),
        running: Some(false),
        restart_on: Vec::new(),
        reload_on: Vec::new(),
    });
    let packages = remove
        .packages
        .iter()
        .flat_map(|entry| entry.split_whitespace());
    let packages = packages.map(|name| Resource::Package {
        name: name.to_owned(),
        version: None,
        absent: true,
    });
    files.extend(remove.files.iter().cloned());
    let files = files.into_iter().map(|path| Resource::File {
        path,
        content: String::new(),
        mode: "0644".to_owned(),
        owner: "root".to_owned(),
        group: "root".to_owned(),
        validate: None,
        sensitive: false,
        absent: true,
    });
    let directories = directories.into_iter().map(|path| Resource::Directory {
        path,
        mode: "0755".to_owned(),
        owner: "root".to_owned(),
        group: "root".to_owned(),
        absent: true,
    });
    let users = remove.users.iter().map(|name| Resource::User {
        name: name.clone(),
        group: name.clone(),
        groups: Vec::new(),
        home: "/nonexistent".to_owned(),
        shell: no_shell(),
        system: true,
        absent: true,
    });
    let groups = remove.groups.iter().map(|name| Resource::Group {
        name: name.clone(),
        system: true,
        absent: true,
    });
    stopped
        .chain(packages)
        .chain(files)
        .chain(directories)
        .chain(users)
        .chain(groups)
        .chain(after_packages)
        .collect()
}
