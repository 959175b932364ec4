//! The configuration's words about automation as the healer's settings.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use deploy_engine::model::{HostName, Model, ServiceName};
use runbooks::{format::RunbookId, healer::HealSettings, trust::Mode};

use crate::{
    command::Trust,
    config::{Automation, Config, StoreConfig},
    store::{TrustMode, postgres_host},
};

/// A mode in the words of the store.
pub(super) fn trust_of(mode: Mode) -> TrustMode {
    match mode {
        Mode::Shadow => TrustMode::Shadow,
        Mode::Ask => TrustMode::Ask,
        Mode::Auto => TrustMode::Auto,
    }
}

pub(super) fn mode_of(mode: TrustMode) -> Mode {
    match mode {
        TrustMode::Shadow => Mode::Shadow,
        TrustMode::Ask => Mode::Ask,
        TrustMode::Auto => Mode::Auto,
    }
}

/// A mode in the words of commands and of the configuration.
pub fn configured(trust: Trust) -> Mode {
    match trust {
        Trust::Shadow => Mode::Shadow,
        Trust::Ask => Mode::Ask,
        Trust::Auto => Mode::Auto,
    }
}

/// The section `automation`, and what the site itself tells of where the bot stands.
pub fn heal_settings_on(config: &Config, model: &Model) -> HealSettings {
    let mut settings = heal_settings(&config.automation);
    let homeserver = config.chat.matrix.as_ref().map(|matrix| &matrix.homeserver);
    let homeserver = homeserver.and_then(|url| host_of(url));
    let needed = homeserver.into_iter().chain(store_address(config));
    settings
        .bot_needs
        .extend(needed.flat_map(|address| behind(address, model)));
    settings.own_host = own_host(model);
    settings
}

/// The address of the store that bots share; none where it is named, or a socket, or the embedded one.
fn store_address(config: &Config) -> Option<IpAddr> {
    match &config.store {
        StoreConfig::Embedded => None,
        StoreConfig::Postgres(shared) => postgres_host(&shared.url)?.parse().ok(),
    }
}

/// Services whose virtual address this is: whoever is paged through it cannot be told that it is gone, and a bot whose store is
/// behind it writes nothing down while it is away (gate G13).
fn behind(address: IpAddr, model: &Model) -> BTreeSet<ServiceName> {
    let has_address = model
        .services
        .values()
        .any(|service| service.settings.values().any(|value| is(value, address)));
    let front = ["keepalived", "haproxy"];
    let names = model.services.keys();
    names
        .filter(|name| has_address && front.contains(&name.as_str()))
        .cloned()
        .collect()
}

/// `10.77.0.100` and `10.77.0.100/24` are the address.
fn is(value: &serde_json::Value, address: IpAddr) -> bool {
    let text = value.as_str().map(|text| text.split('/').next());
    text.flatten().and_then(|text| text.parse().ok()) == Some(address)
}

/// The address that a URL names; none where it names a host by name, or nothing.
fn host_of(url: &str) -> Option<IpAddr> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    let bare = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => authority.split(':').next()?,
    };
    bare.parse().ok()
}

/// The host of the site whose address is one of this machine: the way to one's own address begins there. Nothing is sent.
fn own_host(model: &Model) -> Option<HostName> {
    let is_own = |address: IpAddr| {
        let any: SocketAddr = match address {
            IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            IpAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect((address, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip() == address)
    };
    let hosts = model.site.hosts.iter();
    let mut own = hosts.filter(|(_, spec)| {
        let address = spec.address.parse().ok();
        address.and_then(is_own).unwrap_or(false)
    });
    own.next().map(|(name, _)| name.clone())
}

/// The section `automation` alone.
pub fn heal_settings(automation: &Automation) -> HealSettings {
    let id = |name: &String| RunbookId(name.clone());
    let settings = automation
        .settings
        .iter()
        .map(|(runbook, own)| (id(runbook), own.clone()));
    HealSettings {
        mode: configured(automation.default),
        modes: automation
            .runbooks
            .iter()
            .map(|(name, mode)| (id(name), configured(*mode)))
            .collect(),
        opt_in: automation.opt_in.iter().map(id).collect(),
        settings: settings.collect(),
        storm: automation.storm,
        bot_needs: automation.bot_needs.iter().cloned().collect(),
        unearned: automation.unearned,
        ..HealSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(address: &str) -> Model {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("site.yaml");
        let text = format!(
            "site: demo\nssh: {{}}\nhosts:\n  ctl1: {{address: {address}, groups: [control]}}\n  ctl2: {{address: 10.77.0.12, groups: [control]}}\n\
             services:\n  haproxy: {{on: control}}\n  keepalived: {{on: control, settings: {{vip: 10.77.0.100/24}}}}\n"
        );
        std::fs::write(&path, text).unwrap();
        Model::load(&path, &[]).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn the_bot_needs_what_its_homeserver_is_behind() {
        let model = model("10.77.0.11");
        let names = |url: &str| -> Vec<String> {
            let services = host_of(url).map(|address| behind(address, &model));
            let services = services.unwrap_or_default();
            services.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            names("https://10.77.0.100:8448/x"),
            ["haproxy", "keepalived"]
        );
        assert_eq!(names("https://10.77.0.11"), Vec::<String>::new());
        assert_eq!(names("https://matrix.example.org"), Vec::<String>::new());
        assert_eq!(
            host_of("http://[fd00::1]:80/"),
            Some("fd00::1".parse().unwrap())
        );
    }

    #[rstest::rstest]
    #[case("postgres://bot@10.77.0.100:5432/night", true)]
    #[case("postgres:///night?host=10.77.0.100", true)]
    #[case("postgres://bot@10.77.0.11/night", false)]
    #[case("postgres://bot@db.example.org/night", false)]
    #[case("postgres:///night?host=/run/postgresql", false)]
    fn the_bot_needs_what_its_store_is_behind(#[case] url: &str, #[case] behind: bool) {
        let text = format!("site: site.yaml\nstore: {{postgres: {{url: \"{url}\"}}}}");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nightshift.yaml");
        std::fs::write(&file, text).unwrap();
        let config = crate::config::read(&file).unwrap_or_else(|errors| panic!("{errors}"));
        let needs = heal_settings_on(&config, &model("10.77.0.11")).bot_needs;
        assert_eq!(needs.iter().any(|name| name.as_str() == "haproxy"), behind);
    }

    #[test]
    fn the_host_that_the_bot_runs_on() {
        assert_eq!(
            own_host(&model("127.0.0.1")).map(|host| host.to_string()),
            Some("ctl1".to_owned())
        );
        assert_eq!(own_host(&model("10.77.0.11")), None);
    }
}
