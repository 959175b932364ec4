//! What is to be done about one alert's acknowledgement, here and in the monitoring system. One total function.
//!
//! Nothing is queued: what is wanted follows from who has the incident, what is so is read each time. So a monitoring system that is
//! down delays a word and loses none, a crash repeats none, and there is never more to do than alerts of open incidents.
//!
//! Where people disagree nobody wins by guess: what somebody else said there is left alone, what somebody took back there is not
//! said again, and both are shown.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long a silence that stands for an acknowledgement is: the most that the alert stays silent after the bot has died.
pub const SILENCE: SignedDuration = SignedDuration::from_hours(1);
/// It is made longer from when on less than this is left: twice as long as an outage that nobody is paged for.
pub const EXTEND: SignedDuration = SignedDuration::from_mins(30);

/// What is remembered of an alert between two looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "care", rename_all = "snake_case")]
pub enum Record {
    /// The bot acknowledged it there for them.
    Written { by: String },
    /// Somebody else had acknowledged it there.
    Theirs { by: String, comment: String },
    /// What the bot had written there for them, somebody removed.
    Removed { by: String },
}

/// What is said there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum There {
    Nobody,
    /// What the bot wrote for them.
    Ours {
        by: String,
        id: String,
        until: Option<Timestamp>,
    },
    Others {
        by: String,
        comment: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Nothing,
    /// Acknowledge it there for them.
    Write {
        by: String,
    },
    /// A silence of ours ends soon.
    Extend {
        id: String,
    },
    /// Take back what the bot wrote.
    Withdraw {
        id: String,
    },
    Remember(Record),
    Forget,
}

/// `want`: who has the incident, while the alert fires.
pub fn next(want: Option<&str>, known: Option<&Record>, there: &There, now: Timestamp) -> Next {
    match there {
        There::Ours { by, id, until } => match want {
            // It ended, or was given back here; or somebody else has it now.
            None => Next::Withdraw { id: id.clone() },
            Some(want) if want != by => Next::Withdraw { id: id.clone() },
            Some(_) if until.is_some_and(|until| until.duration_since(now) < EXTEND) => {
                Next::Extend { id: id.clone() }
            }
            Some(_) => remember(known, Record::Written { by: by.clone() }),
        },
        There::Others { by, comment } => match want {
            None => forget(known),
            Some(_) => {
                let (by, comment) = (by.clone(), comment.clone());
                remember(known, Record::Theirs { by, comment })
            }
        },
        There::Nobody => match (want, known) {
            (None, known) => forget(known),
            (Some(want), Some(Record::Written { by })) if by == want => {
                Next::Remember(Record::Removed { by: by.clone() })
            }
            (Some(want), Some(Record::Removed { by })) if by == want => Next::Nothing,
            (Some(want), _) => Next::Write {
                by: want.to_owned(),
            },
        },
    }
}

fn remember(known: Option<&Record>, now: Record) -> Next {
    match known == Some(&now) {
        true => Next::Nothing,
        false => Next::Remember(now),
    }
}

fn forget(known: Option<&Record>) -> Next {
    match known {
        None => Next::Nothing,
        Some(_) => Next::Forget,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn ours(by: &str, minutes: Option<i64>) -> There {
        There::Ours {
            by: by.into(),
            id: "1".into(),
            until: minutes.map(|minutes| NOW + SignedDuration::from_mins(minutes)),
        }
    }

    fn others() -> There {
        There::Others {
            by: "bob".into(),
            comment: "mine".into(),
        }
    }

    fn written() -> Option<Record> {
        Some(Record::Written { by: "ann".into() })
    }

    fn theirs() -> Option<Record> {
        Some(Record::Theirs {
            by: "bob".into(),
            comment: "mine".into(),
        })
    }

    fn removed() -> Option<Record> {
        Some(Record::Removed { by: "ann".into() })
    }

    fn write(by: &str) -> Next {
        Next::Write { by: by.into() }
    }

    fn withdraw() -> Next {
        Next::Withdraw { id: "1".into() }
    }

    #[rstest::rstest]
    #[case::taken(Some("ann"), None, There::Nobody, write("ann"))]
    #[case::written(Some("ann"), None, ours("ann", None), Next::Remember(written().unwrap()))]
    #[case::stands(Some("ann"), written(), ours("ann", None), Next::Nothing)]
    #[case::silence_stands(Some("ann"), written(), ours("ann", Some(30)), Next::Nothing)]
    #[case::silence_ends_soon(Some("ann"), written(), ours("ann", Some(29)), Next::Extend { id: "1".into() })]
    #[case::over(None, written(), ours("ann", None), withdraw())]
    #[case::over_after_a_crash(None, None, ours("ann", None), withdraw())]
    #[case::over_and_gone(None, written(), There::Nobody, Next::Forget)]
    #[case::handed_over_here(Some("cat"), written(), ours("ann", None), withdraw())]
    #[case::then_written_anew(Some("cat"), written(), There::Nobody, write("cat"))]
    #[case::removed_there(Some("ann"), written(), There::Nobody, Next::Remember(removed().unwrap()))]
    #[case::not_said_again(Some("ann"), removed(), There::Nobody, Next::Nothing)]
    #[case::taken_by_another_after_that(Some("cat"), removed(), There::Nobody, write("cat"))]
    #[case::both_at_once(Some("ann"), None, others(), Next::Remember(theirs().unwrap()))]
    #[case::replaced_there(Some("ann"), written(), others(), Next::Remember(theirs().unwrap()))]
    #[case::theirs_stands(Some("ann"), theirs(), others(), Next::Nothing)]
    #[case::theirs_ended(Some("ann"), theirs(), There::Nobody, write("ann"))]
    #[case::theirs_is_left_alone(None, theirs(), others(), Next::Forget)]
    #[case::nobody_here(None, None, others(), Next::Nothing)]
    #[case::nobody_at_all(None, None, There::Nobody, Next::Nothing)]
    fn what_is_next(
        #[case] want: Option<&str>,
        #[case] known: Option<Record>,
        #[case] there: There,
        #[case] expected: Next,
    ) {
        assert_eq!(next(want, known.as_ref(), &there, NOW), expected);
    }
}
