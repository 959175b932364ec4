//! The site of the demo and of the drills, on the hosts of a lab.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Installation, Program, workspace};
use crate::{Host, Lab, maven};

const SERVICES: &str = include_str!("../../demo/services.yaml");
const MORE: &str = include_str!("../../demo/more.yaml");
const CONFIG: &str = include_str!("../../demo/nightshift.yaml");
/// The service, and the source that stands for it.
const ICINGA: &str = "icinga2";

/// What of the demo's site a scenario changes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Changes {
    /// Only these services; empty: all of the demo. One that the demo does not deploy is as in `tests/demo/more.yaml`.
    pub services: Vec<String>,
    /// Service → its hosts or groups, where they differ from the demo's.
    pub on: BTreeMap<String, Vec<String>>,
    /// Service → setting → value.
    pub settings: BTreeMap<String, BTreeMap<String, Value>>,
    /// Top-level entries of `nightshift.yaml` that are replaced.
    pub config: BTreeMap<String, Value>,
}

/// Writes the demo's site and configuration for the hosts of `lab` into `folder`.
pub fn install(
    lab: &Lab,
    program: Program,
    folder: &Path,
    changes: &Changes,
) -> anyhow::Result<Installation> {
    let site = site(lab, &lab.hosts()?, changes)?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let config = config(changes)?;
    let installation = Installation::write(lab, program, folder, &site, &config)?;
    write_runbooks(
        &workspace().join("runbooks/library"),
        &folder.join("runbooks"),
    )?;
    Ok(installation)
}

/// Copies of the built-in runbooks with a budget that lets the same thing be broken and repaired again and again.
/// Nothing else differs: gates, evidence, steps and proofs are those of the library.
fn write_runbooks(library: &Path, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let entries = fs::read_dir(library).with_context(|| format!("read {}", library.display()))?;
    for entry in entries {
        let path = entry?.path();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut runbook: Map<String, Value> =
            serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
        let often = json!([{"count": 1000, "window": "1d"}]);
        let budget = json!({"per_target": often, "per_site": often, "at_once": 2});
        runbook.insert("budget".to_owned(), budget);
        let file = folder.join(path.file_name().unwrap_or_default());
        let text = serde_json::to_string_pretty(&runbook)?;
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// Writes the site file again, with other changes; whoever reads it next sees them.
pub fn rewrite_site(installation: &Installation, changes: &Changes) -> anyhow::Result<()> {
    let lab = installation.lab();
    installation.write_site(&site(lab, &lab.hosts()?, changes)?)
}

/// `site.yaml`: the lab's hosts, and the services as they stand in `tests/demo/services.yaml`, comments included
/// unless something is changed.
fn site(lab: &Lab, hosts: &[Host], changes: &Changes) -> anyhow::Result<String> {
    let mut text = format!(
        "site: demo\nssh: {{user: root, identity: {}, known_hosts: {}}}\nhosts:\n",
        lab.identity().display(),
        lab.known_hosts().display()
    );
    for (number, host) in hosts.iter().enumerate() {
        let address = host.address();
        // The last two, for what has no more than two members.
        let pair = if number + 2 >= hosts.len() {
            ", pair"
        } else {
            ""
        };
        text.push_str(&format!(
            "  {host}: {{address: {address}, groups: [control{pair}], rack: r{}}}\n",
            number + 1
        ));
    }
    text += "services:\n";
    if changes.services.is_empty() && changes.settings.is_empty() && changes.on.is_empty() {
        text.extend(SERVICES.lines().map(|line| format!("  {line}\n")));
    } else {
        for (name, placement) in changed_services(changes)? {
            // JSON is YAML.
            text.push_str(&format!("  {name}: {placement}\n"));
        }
    }
    Ok(text)
}

fn changed_services(changes: &Changes) -> anyhow::Result<Map<String, Value>> {
    let mut services: Map<String, Value> = serde_saphyr::from_str(SERVICES)?;
    let mut more: Map<String, Value> = serde_saphyr::from_str(MORE)?;
    more.retain(|name, _| changes.services.contains(name));
    services.extend(more);
    let named = changes.services.iter().chain(changes.settings.keys());
    for name in named.chain(changes.on.keys()) {
        ensure!(
            services.contains_key(name),
            "service `{name}`: expected one of the demo's services"
        );
    }
    if !changes.services.is_empty() {
        services.retain(|name, _| changes.services.contains(name));
    }
    if let Some(elasticsearch) = services.get_mut("elasticsearch") {
        elasticsearch["settings"]["repository"] = maven::repository_for_hosts().into();
    }
    for (name, hosts) in &changes.on {
        if let Some(placement) = services.get_mut(name) {
            placement["on"] = json!(hosts);
        }
    }
    for (name, settings) in &changes.settings {
        let Some(placement) = services.get_mut(name).and_then(Value::as_object_mut) else {
            continue;
        };
        let all = placement.entry("settings").or_insert_with(|| json!({}));
        for (setting, value) in settings {
            all[setting] = value.clone();
        }
    }
    Ok(services)
}

/// A site that deploys Icinga is told to follow it: gate G4 asks it for downtimes, and without an answer nothing is repaired.
fn config(changes: &Changes) -> anyhow::Result<String> {
    let has_icinga = changes.services.iter().any(|name| name == ICINGA);
    if changes.config.is_empty() && !has_icinga {
        return Ok(CONFIG.to_owned());
    }
    let mut config: Map<String, Value> = serde_saphyr::from_str(CONFIG)?;
    config.extend(changes.config.clone());
    if has_icinga && let Some(sources) = config.get_mut("sources").and_then(Value::as_object_mut) {
        sources
            .entry(ICINGA)
            .or_insert_with(|| json!([{"name": ICINGA}]));
    }
    Ok(serde_json::to_string_pretty(&config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(changes: &Changes) -> Value {
        let lab = Lab::named("unit".parse().unwrap());
        let hosts: Vec<Host> = Host::all().take(2).collect();
        serde_saphyr::from_str(&site(&lab, &hosts, changes).unwrap()).unwrap()
    }

    #[test]
    fn the_whole_site_on_all_hosts() {
        let site = written(&Changes::default());
        assert_eq!(site["hosts"]["ctl2"]["address"], "10.77.0.12");
        assert_eq!(
            site["services"]["keepalived"]["settings"]["vip"],
            "10.77.0.100/24"
        );
        assert_eq!(site["services"].as_object().unwrap().len(), 10);
    }

    #[test]
    fn a_part_of_it_with_other_settings() {
        let site = written(&Changes {
            services: vec!["memcached".to_owned(), "rabbitmq".to_owned()],
            settings: [
                ("memcached", "port", json!(11311)),
                ("rabbitmq", "net_ticktime", json!(9)),
            ]
            .map(|(s, k, v)| (s.to_owned(), [(k.to_owned(), v)].into()))
            .into(),
            ..Changes::default()
        });
        assert_eq!(site["services"].as_object().unwrap().len(), 2);
        assert_eq!(site["services"]["memcached"]["settings"]["port"], 11311);
        assert_eq!(site["services"]["memcached"]["on"], "control");
        assert_eq!(
            site["services"]["rabbitmq"]["settings"]["partition_handling"],
            "ignore"
        );
    }

    #[test]
    fn what_the_demo_does_not_deploy_is_there_by_name() {
        let changes = Changes {
            services: vec!["ceph".to_owned(), "prometheus".to_owned()],
            ..Changes::default()
        };
        let site = written(&changes);
        assert_eq!(site["services"].as_object().unwrap().len(), 2);
        assert_eq!(site["services"]["ceph"]["on"], "control");
    }

    #[test]
    fn runbooks_get_another_budget_and_nothing_else() {
        let (library, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let text = "runbook: A-1\nbudget: {at_once: 1}\nsteps: [{run: [a, 'b c']}]\n";
        fs::write(library.path().join("A-1.yaml"), text).unwrap();
        write_runbooks(library.path(), folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join("A-1.yaml")).unwrap();
        let mut copy: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(copy["budget"]["per_target"][0]["count"], 1000);
        copy["budget"] = json!({"at_once": 1});
        assert_eq!(
            copy,
            json!({"runbook": "A-1", "budget": {"at_once": 1}, "steps": [{"run": ["a", "b c"]}]})
        );
    }

    #[test]
    fn a_service_may_be_on_other_hosts() {
        let changes = Changes {
            on: [("alertmanager".to_owned(), vec!["ctl1".to_owned()])].into(),
            ..Changes::default()
        };
        let services = changed_services(&changes).unwrap();
        assert_eq!(services["alertmanager"]["on"], json!(["ctl1"]));
        assert_eq!(services["memcached"]["on"], "control");
    }

    #[test]
    fn other_services_are_refused() {
        let changes = Changes {
            services: vec!["mysql".to_owned()],
            ..Changes::default()
        };
        assert!(
            changed_services(&changes)
                .unwrap_err()
                .to_string()
                .contains("`mysql`")
        );
    }

    #[test]
    fn the_configuration_takes_changes_of_whole_entries() {
        let config_of = |changes: Changes| -> Value {
            serde_saphyr::from_str(&config(&changes).unwrap()).unwrap()
        };
        assert_eq!(
            config_of(Changes::default())["automation"]["default"],
            "auto"
        );
        let automation = [("automation".to_owned(), json!({"default": "ask"}))].into();
        let changed = config_of(Changes {
            config: automation,
            ..Changes::default()
        });
        assert_eq!(changed["automation"], json!({"default": "ask"}));
        assert_eq!(changed["site"], "site.yaml");
    }

    #[test]
    fn icinga_is_followed_where_it_is_deployed() {
        let sources = |changes: Changes| -> Value {
            let config: Value = serde_saphyr::from_str(&config(&changes).unwrap()).unwrap();
            config["sources"].clone()
        };
        assert_eq!(sources(Changes::default())["icinga2"], Value::Null);
        let deployed = Changes {
            services: vec!["icinga2".to_owned(), "prometheus".to_owned()],
            ..Changes::default()
        };
        let followed = sources(deployed.clone());
        assert_eq!(followed["icinga2"], json!([{"name": "icinga2"}]));
        assert_eq!(followed["alertmanager"][0]["name"], "alertmanager");
        let own = json!({"icinga2": [{"name": "other"}]});
        let said = sources(Changes {
            config: [("sources".to_owned(), own.clone())].into(),
            ..deployed
        });
        assert_eq!(said, own);
    }
}
