//! One bot of several: which one leads, and what the others may do meanwhile.
//!
//! Any bot takes alerts and answers questions. One leads: it decides, drives jobs, and speaks in the chats. Batches of large jobs
//! are driven by any bot that lives (`hands`). A bot says that it
//! lives by counting up in the store; whoever sees a leader's count stand still for long enough *by its own clock* takes the lead
//! with a compare-and-swap. No two clocks are compared. A leader that cannot say so for [`LEAD_LIMIT`] begins nothing any more,
//! and does so before anybody else may think it dead. What it began goes on on its hosts; there and in the journal its lease's
//! older token and its journal's length are refused once another bot has taken the job up.

mod gate;
mod hands;
mod identity;
mod keeper;
mod member;
mod watch;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::watch::{Receiver, Sender};

pub use gate::DutyGate;
pub use hands::BATCHES_AT_ONCE;
use hands::Hands;
pub use identity::{Identified, host_name, identify, model_digest, same_secrets};
use keeper::Keeper;
pub use member::Member;

/// How often a bot says that it lives, and looks at the others.
pub const BEAT: Duration = Duration::from_secs(1);
/// A leader that could not say for so long that it leads begins nothing any more: three beats.
pub const LEAD_LIMIT: Duration = Duration::from_secs(3);
/// A bot whose count stands still for so long is taken for dead. Longer than [`LEAD_LIMIT`] by what a statement may take, short
/// enough for a take-over within ten seconds.
pub const DEAD_AFTER: Duration = Duration::from_secs(5);

/// What this bot is now.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// The only bot of an embedded store.
    Alone,
    /// Another bot leads, or none yet.
    StandBy { leader: Option<String> },
    Leads {
        token: i64,
        /// When the store last agreed, measured before it was asked.
        confirmed: Instant,
        /// The bot that led before, if it was not this one.
        from: Option<String>,
    },
    /// It led, and must begin anew as after a crash.
    Over { why: String },
}

/// What is known about this bot among the others.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub standing: Standing,
    /// Since when the store does not answer.
    pub away: Option<Timestamp>,
    /// When the store last heard that this bot lives, measured before it was told.
    pub beaten: Option<Instant>,
}

impl State {
    /// May a step be begun? Pure.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn may_act(&self, now: Instant) -> Result<(), String> {
        match &self.standing {
            Standing::Alone => Ok(()),
            Standing::Leads { confirmed, .. } => {
                let since = now.saturating_duration_since(*confirmed);
                match since < LEAD_LIMIT {
                    true => Ok(()),
                    false => Err(format!(
                        "the store has not confirmed for {} s that this bot leads",
                        since.as_secs()
                    )),
                }
            }
            Standing::StandBy { leader } => Err(match leader {
                Some(leader) => format!("this bot stands by; {leader} leads"),
                None => "this bot stands by, and none leads yet".to_owned(),
            }),
            Standing::Over { why } => Err(format!("this bot begins anew: {why}")),
        }
    }

    /// May a step of a batch be begun, which a bot also does that stands by? Pure. What it drives is given to another when
    /// nobody has heard of it for [`DEAD_AFTER`].
    ///
    /// # Errors
    /// Why not, for people.
    pub fn may_help(&self, now: Instant) -> Result<(), String> {
        match (&self.standing, self.beaten) {
            (Standing::Alone, _) => Ok(()),
            (Standing::Over { why }, _) => Err(format!("this bot begins anew: {why}")),
            (_, Some(at)) if now.saturating_duration_since(at) < LEAD_LIMIT => Ok(()),
            (_, _) => Err(format!(
                "the store has not heard of this bot for {} s",
                LEAD_LIMIT.as_secs()
            )),
        }
    }
}

/// What this bot is, for all its parts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lead(Arc<Sender<State>>);

impl Lead {
    /// The only bot of its store: it always leads.
    pub fn alone() -> Self {
        Self::new(Standing::Alone)
    }

    pub fn stand_by() -> Self {
        Self::new(Standing::StandBy { leader: None })
    }

    fn new(standing: Standing) -> Self {
        let state = State {
            standing,
            away: None,
            beaten: None,
        };
        Self(Arc::new(Sender::new(state)))
    }

    pub fn state(&self) -> State {
        self.0.borrow().clone()
    }

    /// May a step be begun now?
    ///
    /// # Errors
    /// Why not, for people.
    pub fn may_act(&self) -> Result<(), String> {
        self.0.borrow().may_act(Instant::now())
    }

    /// May a step of a batch be begun now?
    ///
    /// # Errors
    /// Why not, for people.
    pub fn may_help(&self) -> Result<(), String> {
        self.0.borrow().may_help(Instant::now())
    }

    /// Is it this bot that speaks and decides?
    pub fn leads(&self) -> bool {
        matches!(
            self.0.borrow().standing,
            Standing::Alone | Standing::Leads { .. }
        )
    }

    pub fn watch(&self) -> Receiver<State> {
        self.0.subscribe()
    }

    /// Waits until this bot leads.
    pub async fn until_leading(&self) -> Standing {
        let leads =
            |state: &State| matches!(state.standing, Standing::Alone | Standing::Leads { .. });
        wait(&mut self.watch(), leads).await
    }

    /// Waits until it must begin anew; says why.
    pub async fn until_over(&self) -> String {
        let over = |state: &State| matches!(state.standing, Standing::Over { .. });
        match wait(&mut self.watch(), over).await {
            Standing::Over { why } => why,
            _ => std::future::pending().await,
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.0.send_modify(change);
    }
}

async fn wait(changes: &mut Receiver<State>, is: impl FnMut(&State) -> bool) -> Standing {
    let found = changes.wait_for(is).await;
    let standing = found.map(|state| state.standing.clone()).ok();
    match standing {
        Some(standing) => standing,
        // The lead lives as long as its bot.
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(standing: Standing) -> State {
        State {
            standing,
            away: None,
            beaten: None,
        }
    }

    #[test]
    fn a_bot_helps_as_long_as_it_is_heard_of_before_others_think_it_dead() {
        let beaten = Instant::now();
        let stands_by = State {
            beaten: Some(beaten),
            ..state(Standing::StandBy { leader: None })
        };
        let after = |limit: Duration| stands_by.may_help(beaten + limit);
        assert_eq!(after(LEAD_LIMIT - Duration::from_millis(1)), Ok(()));
        let why = after(LEAD_LIMIT).unwrap_err();
        assert!(why.contains("has not heard of this bot for 3 s"), "{why}");
        // Never heard of, or to begin anew: no.
        assert!(
            state(Standing::StandBy { leader: None })
                .may_help(beaten)
                .is_err()
        );
        let over = State {
            standing: Standing::Over { why: "x".into() },
            ..stands_by
        };
        assert!(over.may_help(beaten).is_err());
        assert_eq!(state(Standing::Alone).may_help(beaten), Ok(()));
    }

    #[test]
    fn a_leader_that_is_not_confirmed_begins_nothing_before_others_think_it_dead() {
        let confirmed = Instant::now();
        let leads = state(Standing::Leads {
            token: 1,
            confirmed,
            from: None,
        });
        let after = |limit: Duration| leads.may_act(confirmed + limit);
        assert_eq!(after(LEAD_LIMIT - Duration::from_millis(1)), Ok(()));
        let why = after(LEAD_LIMIT).unwrap_err();
        assert!(why.contains("has not confirmed for 3 s"), "{why}");
        assert!(LEAD_LIMIT < DEAD_AFTER);
    }

    #[test]
    fn whoever_does_not_lead_begins_nothing_and_says_who_does() {
        let now = Instant::now();
        assert_eq!(state(Standing::Alone).may_act(now), Ok(()));
        let stands_by = state(Standing::StandBy {
            leader: Some("ctl2:7".into()),
        });
        assert_eq!(
            stands_by.may_act(now),
            Err("this bot stands by; ctl2:7 leads".to_owned())
        );
        let over = state(Standing::Over {
            why: "another bot leads".into(),
        });
        assert!(over.may_act(now).is_err());
        assert!(!Lead::stand_by().leads());
        assert!(Lead::alone().leads());
    }
}
