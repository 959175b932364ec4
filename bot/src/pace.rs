//! How fast anybody may come: one bucket a sender, and one for the crowd when there are too many senders to remember.

use std::{hash::Hash, num::NonZeroU32, time::Duration};

use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use crate::rights::Identity;

/// Commands of one person in a chat: at once, and a minute. A person types one in seconds; a stuck client or a script sends more,
/// and each may ask every host.
const COMMANDS_AT_ONCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(19);
const COMMANDS_PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);
/// Of these, answers that say "too fast" to one person a minute: more would be the nuisance itself.
const TOLD_PER_MINUTE: NonZeroU32 = NonZeroU32::MIN;
/// Senders remembered at once; those beyond it share one bucket.
const SENDERS_MAX: usize = 10_000;

/// A limiter for senders whose number is bounded here, not by them.
pub struct Senders<K: Clone + Hash + Eq> {
    each: DefaultKeyedRateLimiter<K>,
    crowd: DefaultDirectRateLimiter,
    max: usize,
    clock: DefaultClock,
}

impl<K: Clone + Hash + Eq> Senders<K> {
    pub fn new(quota: Quota) -> Self {
        Self::remembering(quota, SENDERS_MAX)
    }

    fn remembering(quota: Quota, max: usize) -> Self {
        let clock = DefaultClock::default();
        Self {
            each: RateLimiter::keyed(quota),
            crowd: RateLimiter::direct(quota),
            max,
            clock,
        }
    }

    /// # Errors
    /// How long this sender has to wait.
    pub fn check(&self, sender: &K) -> Result<(), Duration> {
        if self.each.len() >= self.max {
            // Whoever was quiet long enough to have a full bucket need not be remembered.
            self.each.retain_recent();
            self.each.shrink_to_fit();
        }
        let checked = if self.each.len() >= self.max {
            self.crowd.check()
        } else {
            self.each.check_key(sender)
        };
        checked.map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

/// What a person in a chat is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paced {
    Go,
    /// Too fast; say so.
    Tell {
        wait: Duration,
    },
    /// Too fast, and it was said a moment ago.
    Silent,
}

/// The pace of commands in chats.
pub struct CommandPace {
    commands: Senders<Identity>,
    told: Senders<Identity>,
}

impl Default for CommandPace {
    fn default() -> Self {
        Self {
            commands: Senders::new(
                Quota::per_minute(COMMANDS_PER_MINUTE).allow_burst(COMMANDS_AT_ONCE),
            ),
            told: Senders::new(Quota::per_minute(TOLD_PER_MINUTE)),
        }
    }
}

impl CommandPace {
    pub fn check(&self, who: &Identity) -> Paced {
        match self.commands.check(who) {
            Ok(()) => Paced::Go,
            Err(wait) if self.told.check(who).is_ok() => Paced::Tell { wait },
            Err(_) => Paced::Silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slow enough that no bucket refills while a test runs.
    fn quota(burst: u32) -> Quota {
        Quota::with_period(Duration::from_secs(3600))
            .unwrap()
            .allow_burst(NonZeroU32::new(burst).unwrap())
    }

    #[test]
    fn one_senders_flood_is_not_anothers() {
        let senders = Senders::new(quota(3));
        let through = |who: u32| (0..10).filter(|_| senders.check(&who).is_ok()).count();
        assert_eq!((through(1), through(2)), (3, 3));
        let wait = senders.check(&1).unwrap_err();
        assert!(wait > Duration::from_secs(3000), "{wait:?}");
    }

    #[test]
    fn a_crowd_shares_one_bucket_and_is_not_remembered() {
        let senders = Senders::remembering(quota(2), 5);
        let through = (0..1_000_u32)
            .filter(|who| senders.check(who).is_ok())
            .count();
        assert_eq!(
            through,
            5 + 2,
            "five that are remembered, and two of the crowd"
        );
        assert_eq!(senders.each.len(), 5);
    }

    #[test]
    fn a_person_who_is_too_fast_is_told_once() {
        let pace = CommandPace::default();
        let who = Identity::unix("ann");
        let said: Vec<Paced> = (0..COMMANDS_AT_ONCE.get() + 10)
            .map(|_| pace.check(&who))
            .collect();
        assert!(said.iter().take(20).all(|one| *one == Paced::Go));
        assert_eq!(
            said.iter()
                .filter(|one| matches!(one, Paced::Tell { .. }))
                .count(),
            1
        );
        assert_eq!(pace.check(&Identity::unix("bob")), Paced::Go);
    }
}
