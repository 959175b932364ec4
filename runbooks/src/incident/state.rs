//! The life of an incident: one total function from state and event to the next state, or a typed refusal.
//!
//! `Asking` and `Holding` are states that are stored, not tasks that sleep: a restart loses no approval and no timer.

use deploy_engine::job::JobResult;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::decide::Decision;

/// After a proof the alerts may go on for a while (rules look back, some keep firing on purpose). Longer, and the proof did not
/// prove what the alerts are about.
pub const SETTLED_ALERTS: SignedDuration = SignedDuration::from_mins(15);
/// A refusal is looked at again after this time, for what was unknown to a host with much to do may be known now; each time that it
/// is refused again, after twice the time before. New alerts look at once.
pub const REFUSED_AGAIN: SignedDuration = SignedDuration::from_secs(30);
/// A refusal that stays is looked at so often: what was missing may have come back.
pub const REFUSED_LONG: SignedDuration = SignedDuration::from_mins(5);
/// How long a person is asked.
pub const ASK_FOR: SignedDuration = SignedDuration::from_mins(10);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// To be looked at now.
    Open,
    Holding {
        until: Timestamp,
        why: String,
    },
    /// A person is asked to approve exactly this digest.
    Asking {
        digest: String,
        expires: Timestamp,
        why: String,
    },
    /// A repair was approved and is being decided anew, with fresh evidence.
    Approved {
        digest: String,
        by: String,
    },
    Acting {
        job: String,
    },
    /// Everything is done, the proof is being held.
    Proving {
        job: String,
    },
    /// The proof held; the alerts may still go on for a while.
    Healed {
        job: String,
        at: Timestamp,
    },
    /// It would have acted.
    Shadow {
        would: String,
        again: Timestamp,
    },
    /// `again`: when it is looked at again by itself; none: a person said no. `looks`: how often that was in vain already.
    Refused {
        why: String,
        again: Option<Timestamp>,
        #[serde(default)]
        looks: u32,
    },
    TellOnly {
        why: String,
    },
    /// A repair did not prove itself. Nothing more is done by itself; a person is paged.
    Unproven {
        job: String,
        why: String,
    },
    /// Nothing fires any more.
    Resolved {
        how: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An alert of it is new, fires again, or ended.
    AlertsChanged,
    /// All its alerts turned out to be symptoms of another incident.
    Joined {
        cause: super::IncidentId,
    },
    /// Time passed.
    Tick,
    Decided {
        decision: Decision,
    },
    Approved {
        by: String,
        digest: String,
    },
    Denied {
        by: String,
    },
    JobStarted {
        job: String,
    },
    ProofStarted {
        job: String,
    },
    /// A person looked at a repair that was not proven and takes it on themselves.
    Cleared {
        job: String,
        by: String,
    },
    /// `acted`: something may have been changed.
    JobEnded {
        job: String,
        result: JobResult,
        acted: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an incident that is {state} cannot take {event}: {why}")]
pub struct IllegalTransition {
    pub state: &'static str,
    pub event: &'static str,
    pub why: String,
}

impl State {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Holding { .. } => "holding",
            Self::Asking { .. } => "asking",
            Self::Approved { .. } => "approved",
            Self::Acting { .. } => "acting",
            Self::Proving { .. } => "proving",
            Self::Healed { .. } => "healed",
            Self::Shadow { .. } => "shadow",
            Self::Refused { .. } => "refused",
            Self::TellOnly { .. } => "tell_only",
            Self::Unproven { .. } => "unproven",
            Self::Resolved { .. } => "resolved",
        }
    }

    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Resolved { .. })
    }

    /// The job that works on it now.
    pub fn job(&self) -> Option<&str> {
        match self {
            Self::Acting { job } | Self::Proving { job } => Some(job),
            _ => None,
        }
    }

    /// Is it to be decided now?
    pub fn is_due(&self, now: Timestamp) -> bool {
        match self {
            Self::Open | Self::Approved { .. } => true,
            Self::Holding { until, .. } => *until <= now,
            Self::Refused { again, .. } => again.is_some_and(|again| again <= now),
            Self::Shadow { again, .. } => *again <= now,
            _ => false,
        }
    }

    /// Total. `firing`: does any alert of it fire?
    pub(crate) fn next(
        self,
        event: &Event,
        firing: bool,
        now: Timestamp,
    ) -> Result<Self, IllegalTransition> {
        match event {
            Event::AlertsChanged => Ok(self.alerts_changed(firing)),
            Event::Joined { cause } => match self {
                Self::Open
                | Self::Holding { .. }
                | Self::Refused { .. }
                | Self::Shadow { .. }
                | Self::TellOnly { .. }
                    if !firing =>
                {
                    Ok(Self::Resolved {
                        how: format!("it was a symptom of incident {cause}"),
                    })
                }
                other => Err(other.illegal("a cause", "it is more than a symptom")),
            },
            Event::Tick => Ok(self.tick(firing, now)),
            Event::Decided { decision } => self.decided(decision, now),
            Event::Approved { by, digest } => self.approved(by, digest, now),
            Event::Denied { by } => match self {
                Self::Asking { .. } => Ok(Self::Refused {
                    why: format!("denied by {by}"),
                    again: None,
                    looks: 0,
                }),
                other => Err(other.illegal("a denial", "nothing is asked")),
            },
            Event::JobStarted { job } => match self {
                Self::Open | Self::Approved { .. } | Self::Holding { .. } => {
                    Ok(Self::Acting { job: job.clone() })
                }
                other => Err(other.illegal("a started job", "nothing was decided")),
            },
            Event::ProofStarted { job } => match self {
                Self::Acting { job: own } if own == *job => Ok(Self::Proving { job: own }),
                Self::Proving { job: own } if own == *job => Ok(Self::Proving { job: own }),
                other => Err(other.illegal("a proof", &format!("job {job} does not work on it"))),
            },
            Event::Cleared { job, .. } => match self {
                Self::Unproven { job: own, .. } if own == *job => Ok(Self::Open),
                // It has gone on since; only its memory of the job is at stake.
                Self::Acting { .. } | Self::Proving { .. } | Self::Healed { .. } => Ok(self),
                Self::Resolved { .. } => Err(self.illegal("a clearing", "it is over")),
                other => Ok(other),
            },
            Event::JobEnded { job, result, acted } => self.job_ended(job, result, *acted, now),
        }
    }

    fn alerts_changed(self, firing: bool) -> Self {
        match self {
            // A job goes on to its proof whatever the alerts say, and a failed one is a person's.
            Self::Acting { .. } | Self::Proving { .. } | Self::Unproven { .. } if firing => self,
            Self::Acting { .. } | Self::Proving { .. } | Self::Resolved { .. } => self,
            Self::Healed { .. } if firing => self,
            Self::Healed { job, .. } => Self::Resolved {
                how: format!("repaired by job {job}, proven"),
            },
            Self::Unproven { .. } => Self::Resolved {
                how: "the alerts ended; the repair before was not proven".to_owned(),
            },
            // What a person denied or was asked is not asked again because an alert repeats itself.
            Self::Refused { again: None, .. } | Self::Asking { .. } | Self::Approved { .. }
                if firing =>
            {
                self
            }
            _ if firing => Self::Open,
            _ => Self::Resolved {
                how: "the alerts ended by themselves".to_owned(),
            },
        }
    }

    fn tick(self, firing: bool, now: Timestamp) -> Self {
        match self {
            Self::Asking { expires, .. } if expires <= now => Self::Refused {
                why: "nobody answered in time".to_owned(),
                again: None,
                looks: 0,
            },
            Self::Healed { job, at } if now.duration_since(at) >= SETTLED_ALERTS => {
                if firing {
                    let why = "the proof held, but the alerts go on: it did not prove what they are about".to_owned();
                    Self::Unproven { job, why }
                } else {
                    Self::Resolved {
                        how: format!("repaired by job {job}, proven"),
                    }
                }
            }
            other => other,
        }
    }

    fn decided(self, decision: &Decision, now: Timestamp) -> Result<Self, IllegalTransition> {
        let looks = match self {
            Self::Refused { looks, .. } => looks.saturating_add(1),
            _ => 0,
        };
        match self {
            Self::Open
            | Self::Holding { .. }
            | Self::Refused { .. }
            | Self::Shadow { .. }
            | Self::Approved { .. } => {}
            other => return Err(other.illegal("a decision", "it is not waiting for one")),
        }
        Ok(match decision {
            // The job is made next; until it is, the incident is open, so a crash in between decides anew.
            Decision::Act { .. } => match self {
                approved @ Self::Approved { .. } => approved,
                _ => Self::Open,
            },
            Decision::Ask { plan, why } => Self::Asking {
                digest: plan.digest.clone(),
                expires: now.saturating_add(ASK_FOR).unwrap_or(Timestamp::MAX),
                why: why.clone(),
            },
            Decision::Shadow { plan, .. } => Self::Shadow {
                would: plan.title.clone(),
                again: now.saturating_add(REFUSED_LONG).unwrap_or(Timestamp::MAX),
            },
            Decision::Hold { until, why } => Self::Holding {
                until: *until,
                why: why.clone(),
            },
            Decision::Refuse { why, .. } => Self::refused(why, looks, now),
            Decision::TellOnly { why } => Self::TellOnly { why: why.clone() },
        })
    }

    fn approved(self, by: &str, digest: &str, now: Timestamp) -> Result<Self, IllegalTransition> {
        match self {
            Self::Asking { expires, .. } if expires <= now => {
                Err(self.illegal("an approval", "it has expired"))
            }
            Self::Asking { digest: asked, .. } if asked == digest => Ok(Self::Approved {
                digest: asked,
                by: by.to_owned(),
            }),
            Self::Asking { .. } => Err(self.illegal("an approval", "it is of another plan")),
            other => Err(other.illegal("an approval", "nothing is asked")),
        }
    }

    fn job_ended(
        self,
        job: &str,
        result: &JobResult,
        acted: bool,
        now: Timestamp,
    ) -> Result<Self, IllegalTransition> {
        let own = match &self {
            Self::Acting { job } | Self::Proving { job } => job.clone(),
            _ => return Err(self.illegal("the end of a job", "no job works on it")),
        };
        if own != job {
            let why = format!("job {own} works on it, not {job}");
            return Err(self.illegal("the end of a job", &why));
        }
        Ok(match result {
            JobResult::Succeeded => Self::Healed { job: own, at: now },
            JobResult::Refused { why } | JobResult::Failed { why } if !acted => {
                Self::refused(why, 0, now)
            }
            // Half a repair is not a repair, whatever stopped it.
            JobResult::Refused { why } | JobResult::Failed { why } => Self::Unproven {
                job: own,
                why: why.clone(),
            },
            JobResult::Cancelled { by } => Self::Refused {
                why: format!("cancelled by {by}"),
                again: None,
                looks: 0,
            },
        })
    }

    fn refused(why: &str, looks: u32, now: Timestamp) -> Self {
        let doubled = REFUSED_AGAIN * (1 << looks.min(8));
        let again = now.saturating_add(doubled.min(REFUSED_LONG));
        Self::Refused {
            why: why.to_owned(),
            again: Some(again.unwrap_or(Timestamp::MAX)),
            looks,
        }
    }

    fn illegal(&self, event: &'static str, why: &str) -> IllegalTransition {
        IllegalTransition {
            state: self.name(),
            event,
            why: why.to_owned(),
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
