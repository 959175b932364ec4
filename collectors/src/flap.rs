//! An alert that comes and goes says that something is unstable, not that it is broken now.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Changes are counted over this time: longer than the usual `for` plus group interval, so a slow repair is not flapping.
pub const WINDOW: SignedDuration = SignedDuration::from_mins(30);
/// From so many changes (firing or resolved) within the window it flaps: fire, end, fire, end.
pub const CHANGES: usize = 4;
/// Changes that need to be kept of one alert.
pub const HISTORY: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "flap", rename_all = "snake_case")]
pub enum Flap {
    Steady,
    /// It may be called steady again then, if nothing changes.
    Flapping {
        changes: usize,
        until: Timestamp,
    },
}

/// Pure. `changes`: when the alert started or ended, in any order; times in the future are counted (a skewed clock must not
/// hide flapping).
pub fn judge(changes: &[Timestamp], now: Timestamp) -> Flap {
    let mut recent: Vec<_> = changes
        .iter()
        .copied()
        .filter(|at| now.duration_since(*at) < WINDOW)
        .collect();
    recent.sort_unstable();
    if recent.len() < CHANGES {
        return Flap::Steady;
    }
    // Once the oldest of the last CHANGES leaves the window, fewer than CHANGES are in it.
    let oldest = recent[recent.len() - CHANGES];
    Flap::Flapping {
        changes: recent.len(),
        until: oldest.saturating_add(WINDOW).unwrap_or(Timestamp::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    #[test]
    fn four_changes_in_half_an_hour_flap_until_the_first_of_them_is_old() {
        assert_eq!(judge(&[at(1), at(2), at(3)], at(4)), Flap::Steady);
        let changes = [at(0), at(4), at(1), at(2), at(3)];
        let flapping = Flap::Flapping {
            changes: 5,
            until: at(31),
        };
        assert_eq!(judge(&changes, at(5)), flapping);
        assert_eq!(judge(&changes, at(31)), Flap::Steady);
    }
}
