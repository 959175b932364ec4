//! The alert that always fires: while it arrives, the way from Prometheus to the bot works. While it does not, nobody can
//! say what else did not arrive, so automation stands still (gate G3).

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Its `alertname`, as Prometheus operators name it.
pub const ALERT_NAME: &str = "Watchdog";
/// Older than this is missing (`RECOVERY` gate G3: seen at most two minutes ago). Its route must repeat faster.
pub const FRESH: SignedDuration = SignedDuration::from_mins(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "watchdog", rename_all = "snake_case")]
pub enum Watchdog {
    Fresh {
        last_seen: Timestamp,
    },
    /// `since`: when it was last seen; none: never.
    Missing {
        since: Option<Timestamp>,
    },
}

/// Pure. A time in the future by more than `fresh` is a broken clock, and counts as missing.
pub fn judge(last_seen: Option<Timestamp>, now: Timestamp, fresh: SignedDuration) -> Watchdog {
    match last_seen {
        Some(seen) if now.duration_since(seen).abs() <= fresh => {
            Watchdog::Fresh { last_seen: seen }
        }
        since => Watchdog::Missing { since },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_recent_one_is_fresh() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let seen = Some(at(1_000));
        assert_eq!(
            judge(seen, at(1_120), FRESH),
            Watchdog::Fresh {
                last_seen: at(1_000)
            }
        );
        assert_eq!(
            judge(seen, at(1_121), FRESH),
            Watchdog::Missing { since: seen }
        );
        assert_eq!(
            judge(seen, at(800), FRESH),
            Watchdog::Missing { since: seen }
        );
        assert_eq!(judge(None, at(0), FRESH), Watchdog::Missing { since: None });
    }
}
