//! A saved layer with the packages of all built-in services, so that a deploy in a test or a drill takes
//! seconds. A host on it is as after `apt-get install` with nothing enabled.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::workspace;
use crate::layer::Layer;
use crate::lock::Lock;
use crate::mirror::Mirror;
use crate::{Lab, LabOptions, Progress, Store, base, preflight};

/// What of a service file is needed here; `nightshift check` checks the rest.
#[derive(Deserialize)]
struct ServiceFile {
    #[serde(default)]
    packages: Vec<String>,
    #[serde(default)]
    packages_clustered: Vec<String>,
}

/// An installation of everything took 2 minutes with its packages at hand, and over 5 on a new machine that had to fetch them
/// while programs were built beside.
const INSTALL_LIMIT: Duration = Duration::from_secs(1500);
/// One other process may save the same layer, or two one after the other.
const WAIT_LIMIT: Duration = Duration::from_secs(3600);
/// Installs without starting anything, and leaves nothing enabled that a deploy has not asked for.
const INSTALL: &str = r#"
set -eu
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 0755 /usr/sbin/policy-rc.d
systemctl list-unit-files --no-legend --state=enabled --type=service,socket,timer | cut -d' ' -f1 | sort > /tmp/before
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@"
systemctl list-unit-files --no-legend --state=enabled --type=service,socket,timer | cut -d' ' -f1 | sort > /tmp/after
comm -13 /tmp/before /tmp/after | xargs -r systemctl disable --quiet
rm /usr/sbin/policy-rc.d
"#;

/// The lab on which layers are made.
const BUILDER: &str = "layerbuild";

/// The name of the layer, which is saved now if there is none that fits.
pub fn with_packages(progress: &Progress) -> anyhow::Result<String> {
    let packages = packages(&workspace().join("deploy-engine/services"))?;
    let mut hash = Sha256::new();
    packages.iter().for_each(|p| hash.update(format!("{p}\n")));
    hash.update(INSTALL);
    let digest: String = hash
        .finalize()
        .iter()
        .take(4)
        .map(|b| format!("{b:02x}"))
        .collect();
    let name = format!("services-{digest}");
    let store = Store::from_environment();
    let machine = preflight::prepare(progress)?;
    let base = base::recipe_key(&Mirror::of_this_machine(&machine.codename)?);
    let fits = || Layer::load(&store, &name).is_ok_and(|layer| layer.base == base);
    if fits() {
        return Ok(name);
    }
    // One lock for all that are made here, on the same hosts; saving takes that of the layers themselves.
    let _lock = Lock::take(&store.lock("layer-builder"), WAIT_LIMIT)?;
    if !fits() {
        save(&name, &packages, progress)?;
    }
    Ok(name)
}

fn save(name: &str, packages: &BTreeSet<String>, progress: &Progress) -> anyhow::Result<()> {
    let phase = progress.phase(&format!("save a layer with {} packages", packages.len()));
    // One at a time: the caller holds the lock.
    let lab = Lab::named(BUILDER.parse()?);
    lab.down()?;
    let options = LabOptions {
        name: lab.name().clone(),
        hosts: 1,
        layer: None,
    };
    let lab = Lab::up(&options, &Progress::quiet())?;
    let mut argv = vec!["sh", "-c", INSTALL, "install"];
    argv.extend(packages.iter().map(String::as_str));
    let saved = lab
        .ssh_ok_limited("ctl1", &argv, INSTALL_LIMIT)
        .and_then(|_| lab.save_layer(name, "ctl1"));
    lab.down()?;
    saved?;
    phase.done();
    Ok(())
}

/// All packages that any built-in service installs.
fn packages(services: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let entries = fs::read_dir(services).with_context(|| format!("read {}", services.display()))?;
    for entry in entries {
        let file = entry?.path().join("service.yaml");
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let service: ServiceFile =
            serde_saphyr::from_str(&text).with_context(|| file.display().to_string())?;
        // What depends on a setting is left to the deploy.
        let fixed = |name: &String| !name.contains('{');
        all.extend(service.packages.into_iter().filter(fixed));
        all.extend(service.packages_clustered.into_iter().filter(fixed));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collects_the_packages_of_all_services() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("a", "service: a\npackages: [x, y]\nports: [1]\n"),
            ("b", "service: b\npackages: [x]\npackages_clustered: [z]\n"),
            ("c", "service: c\n"),
        ] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("service.yaml"), text).unwrap();
        }
        let all = packages(folder.path()).unwrap();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), ["x", "y", "z"]);
    }
}
