//! When very much breaks at once, the monitoring or the network is the likely cause, and repairing every symptom makes it
//! worse (gate G8).

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// New alerts are counted over this time.
pub const WINDOW: SignedDuration = SignedDuration::from_mins(5);
/// From so many new alerts within the window it is a storm.
pub const ALERTS: usize = 20;
/// From so many services with an open incident it is a storm.
pub const CLUSTERS: usize = 3;
/// All thresholds must be kept for so long before it is over.
pub const COOL_DOWN: SignedDuration = SignedDuration::from_mins(15);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "storm", rename_all = "snake_case")]
pub enum Storm {
    #[default]
    Calm,
    Raging {
        since: Timestamp,
    },
    /// Below all thresholds since `quiet_since`.
    CoolingDown {
        since: Timestamp,
        quiet_since: Timestamp,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Weather {
    /// Alerts that started within [`WINDOW`].
    pub new_alerts: usize,
    /// Services with an incident that is not mended.
    pub unhealthy_services: usize,
    /// Gate G3 does not pass.
    pub monitoring_lost: bool,
}

impl Weather {
    fn stormy(&self, limits: &StormLimits) -> bool {
        self.new_alerts >= limits.alerts
            || self.unhealthy_services >= limits.clusters
            || self.monitoring_lost
    }
}

/// What counts as a storm here.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StormLimits {
    /// New alerts within five minutes.
    #[schemars(range(min = 1))]
    pub alerts: usize,
    /// Services with an open incident.
    #[schemars(range(min = 2))]
    pub clusters: usize,
    /// How long all must be quiet before it is over.
    #[schemars(range(min = 1, max = 86_400))]
    pub cool_down_seconds: i64,
}

impl Default for StormLimits {
    fn default() -> Self {
        Self {
            alerts: ALERTS,
            clusters: CLUSTERS,
            cool_down_seconds: COOL_DOWN.as_secs(),
        }
    }
}

/// Pure: the storm as it is at `now`, given how it was. A storm never ends at once.
pub fn judge(storm: Storm, weather: &Weather, limits: &StormLimits, now: Timestamp) -> Storm {
    match (storm, weather.stormy(limits)) {
        (Storm::Calm, false) => Storm::Calm,
        (Storm::Calm, true) => Storm::Raging { since: now },
        (Storm::Raging { since } | Storm::CoolingDown { since, .. }, true) => {
            Storm::Raging { since }
        }
        (Storm::Raging { since }, false) => Storm::CoolingDown {
            since,
            quiet_since: now,
        },
        (Storm::CoolingDown { quiet_since, .. }, false)
            if now.duration_since(quiet_since).as_secs() >= limits.cool_down_seconds =>
        {
            Storm::Calm
        }
        (cooling @ Storm::CoolingDown { .. }, false) => cooling,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_ends_only_after_the_whole_cool_down() {
        let at = |minute: i64| Timestamp::from_second(minute * 60).unwrap();
        let calm = Weather {
            new_alerts: 19,
            unhealthy_services: 2,
            monitoring_lost: false,
        };
        let stormy = [
            Weather {
                new_alerts: 20,
                ..calm.clone()
            },
            Weather {
                unhealthy_services: 3,
                ..calm.clone()
            },
            Weather {
                monitoring_lost: true,
                ..calm.clone()
            },
        ];
        let next = |storm, weather: &Weather, minute| {
            judge(storm, weather, &StormLimits::default(), at(minute))
        };
        assert_eq!(next(Storm::Calm, &calm, 0), Storm::Calm);
        for weather in &stormy {
            let storm = next(Storm::Calm, weather, 0);
            assert_eq!(storm, Storm::Raging { since: at(0) });
            let cooling = next(storm, &calm, 5);
            assert_eq!(next(cooling, &calm, 19), cooling);
            assert_eq!(next(cooling, weather, 19), Storm::Raging { since: at(0) });
            assert_eq!(next(cooling, &calm, 20), Storm::Calm);
        }
    }
}
