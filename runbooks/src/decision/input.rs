//! What a decision may look at, and the small questions that most of them ask.

use std::collections::BTreeMap;

use deploy_engine::{
    model::{HostName, ServiceName},
    probe::{
        Ask, Readings,
        host::{self, Filesystem, Unit},
    },
};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Steady, Verdict, table::refuse};
use crate::topology::Topology;

/// Settings of a runbook on this site: the library's, overridden by the site's configuration.
pub type Settings = BTreeMap<String, Value>;

/// When to look again at something that may change any moment, in seconds: shorter than [`super::steady::LOOK_GAP`].
pub const LOOK_AGAIN_SECONDS: i64 = 15;

/// Everything that a decision may look at.
pub struct Input<'a> {
    pub now: Timestamp,
    pub topology: &'a Topology,
    pub service: &'a ServiceName,
    /// All members of the service on this site.
    pub members: &'a [HostName],
    /// Hosts that the alerts name, proven to be hosts of this site; may be empty.
    pub subjects: &'a [HostName],
    pub settings: &'a Settings,
    pub readings: &'a Readings,
    pub steady: &'a Steady,
}

impl Input<'_> {
    /// A reading that must be known.
    pub fn known<T: DeserializeOwned>(&self, probe: &str, host: &HostName) -> Result<T, Verdict> {
        self.readings
            .get(probe, host)
            .map_err(|why| refuse(format!("unknown is not down: {why}")))
    }

    /// The same reading of every member.
    pub fn of_all<T: DeserializeOwned>(
        &self,
        probe: &str,
    ) -> Result<BTreeMap<HostName, T>, Verdict> {
        self.members
            .iter()
            .map(|host| Ok((host.clone(), self.known(probe, host)?)))
            .collect()
    }

    pub fn seconds(&self, setting: &str) -> Result<SignedDuration, Verdict> {
        let value = self.settings.get(setting).and_then(Value::as_u64);
        let seconds = value.and_then(|seconds| i64::try_from(seconds).ok());
        seconds.map(SignedDuration::from_secs).ok_or_else(|| {
            refuse(format!(
                "expected the setting {setting} in seconds; found {:?}",
                self.settings.get(setting)
            ))
        })
    }

    pub fn number(&self, setting: &str) -> Result<f64, Verdict> {
        self.settings
            .get(setting)
            .and_then(Value::as_f64)
            .ok_or_else(|| {
                refuse(format!(
                    "expected the setting {setting} as a number; found {:?}",
                    self.settings.get(setting)
                ))
            })
    }

    pub fn text(&self, setting: &str) -> Result<&str, Verdict> {
        let text = self.settings.get(setting).and_then(Value::as_str);
        text.ok_or_else(|| {
            refuse(format!(
                "expected the setting {setting} as a text; found {:?}",
                self.settings.get(setting)
            ))
        })
    }

    pub fn texts(&self, setting: &str) -> Result<Vec<&str>, Verdict> {
        let list = self.settings.get(setting).and_then(Value::as_array);
        let texts =
            list.and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        texts.ok_or_else(|| {
            refuse(format!(
                "expected the setting {setting} as a list; found {:?}",
                self.settings.get(setting)
            ))
        })
    }

    /// Holds until the fact has been as it is for as long as `setting` says; refuses when it flaps.
    pub fn steadily(&self, fact: &str, setting: &str) -> Result<(), Verdict> {
        let wanted = self.seconds(setting)?;
        if self.steady.flaps(fact, self.now) {
            return Err(refuse(format!(
                "{fact} keeps changing: it is unstable, not broken in one way"
            )));
        }
        let since = self.steady.since(fact).unwrap_or(self.now);
        let until = since.saturating_add(wanted).unwrap_or(Timestamp::MAX);
        if self.now >= until {
            return Ok(());
        }
        let next = self.soon().min(until);
        let why = format!(
            "{fact} must stay as it is for {} s, so far {} s",
            wanted.as_secs(),
            self.now.duration_since(since).as_secs()
        );
        Err(Verdict::Hold { until: next, why })
    }

    /// When to look again at something that changes by itself.
    pub fn soon(&self) -> Timestamp {
        let pause = SignedDuration::from_secs(LOOK_AGAIN_SECONDS);
        self.now.saturating_add(pause).unwrap_or(Timestamp::MAX)
    }

    pub fn hold(&self, why: impl Into<String>) -> Verdict {
        Verdict::Hold {
            until: self.soon(),
            why: why.into(),
        }
    }

    pub fn ask(&self, probe: &str, host: &HostName) -> Ask {
        Ask {
            probe: probe.to_owned(),
            host: host.clone(),
            service: Some(self.service.clone()),
        }
    }

    /// A unit of a host. One that systemd does not know is unknown.
    pub fn unit(&self, host: &HostName, name: &str) -> Result<Unit, Verdict> {
        host::unit_in(self.readings, host, name)
            .map_err(|why| refuse(format!("unknown is not down: {why}")))
    }

    /// The unit is down, for good, and nobody wants it to be.
    pub fn is_startable(&self, host: &HostName, name: &str) -> Result<(), Verdict> {
        let unit = self.unit(host, name)?;
        if unit.load != "loaded" || matches!(unit.enabled.as_str(), "disabled" | "masked") {
            return Err(refuse(format!(
                "{name} on {host} is {} and {}: somebody does not want it to run",
                unit.load, unit.enabled
            )));
        }
        if unit.is_changing() {
            return Err(self.hold(format!(
                "{name} on {host} is {} ({})",
                unit.active, unit.sub
            )));
        }
        match unit.active.as_str() {
            "failed" | "inactive" => Ok(()),
            other => Err(refuse(format!(
                "{name} on {host} is {other}, but the service does not answer as it should"
            ))),
        }
    }

    /// The unit is wanted, and either down for good or running: one that runs and does not answer hangs.
    pub fn is_restartable(&self, host: &HostName, name: &str) -> Result<(), Verdict> {
        let unit = self.unit(host, name)?;
        let wanted =
            unit.load == "loaded" && !matches!(unit.enabled.as_str(), "disabled" | "masked");
        match unit.is_active() && wanted {
            true => Ok(()),
            false => self.is_startable(host, name),
        }
    }

    /// Members on which the unit does not run: proven by systemd, not by silence.
    pub fn inactive(&self, name: &str) -> Result<Vec<HostName>, Verdict> {
        let mut inactive = Vec::new();
        for host in self.members {
            if !self.unit(host, name)?.is_active() {
                inactive.push(host.clone());
            }
        }
        Ok(inactive)
    }

    /// Something that is only asked of hosts when the decision hangs on it: wants it of those that were not asked yet.
    pub fn was_asked<'h>(
        &self,
        probe: &str,
        hosts: impl IntoIterator<Item = &'h HostName>,
        why: &str,
    ) -> Result<(), Verdict> {
        let asks = hosts.into_iter().map(|host| self.ask(probe, host));
        self.were_asked(asks, why)
    }

    /// The same of any questions, also those about other services.
    pub fn were_asked(
        &self,
        asks: impl IntoIterator<Item = Ask>,
        why: &str,
    ) -> Result<(), Verdict> {
        let is_new = |ask: &Ask| {
            let known = self.readings.by_probe.get(&ask.probe);
            known.is_none_or(|of| !of.contains_key(&ask.host))
        };
        let asks: Vec<Ask> = asks.into_iter().filter(is_new).collect();
        match asks.is_empty() {
            true => Ok(()),
            false => Err(Verdict::More {
                asks,
                why: why.to_owned(),
            }),
        }
    }

    /// The filesystem that holds a path.
    pub fn filesystem(&self, host: &HostName, path: &str) -> Result<Filesystem, Verdict> {
        let mounted: BTreeMap<String, Filesystem> = self.known(host::FILESYSTEM, host)?;
        host::filesystem_of(&mounted, path)
            .map(|(_, filesystem)| filesystem.clone())
            .ok_or_else(|| refuse(format!("{host}: no filesystem is known to hold {path}")))
    }
}

/// `a, b and c` for reasons.
pub fn names<'a>(hosts: impl IntoIterator<Item = &'a HostName>) -> String {
    hosts
        .into_iter()
        .map(HostName::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// More than half.
pub fn majority(members: usize) -> usize {
    members / 2 + 1
}
