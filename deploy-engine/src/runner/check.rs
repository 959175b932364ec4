//! Conditions that are judged now, until they hold, or until they have held long enough.
//!
//! Deadlines count from the journal's `StepStarted`, so a restart of the bot does not extend them. A settle window starts
//! again after a restart: nobody watched in between.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::ports::{Clock, Evidence, sleep_until};
use crate::{
    condition::{ConditionCall, Judgement},
    job::{CheckMode, StepEnd},
    model::Secs,
    probe::Readings,
};

/// The first pause between two judgements; most services are healthy within a second.
const POLL_FIRST: Duration = Duration::from_millis(250);

/// The longest pause: a service that takes minutes is noticed at most this late.
const POLL_LAST: Duration = Duration::from_secs(5);

/// By how much each pause is longer than the one before.
const POLL_GROWTH: f64 = 1.5;

/// What a check came to, and the readings of its last judgement.
pub struct Checked {
    pub end: StepEnd,
    pub readings: Readings,
}

pub async fn check(
    evidence: &dyn Evidence,
    clock: &dyn Clock,
    call: &ConditionCall,
    mode: CheckMode,
    since: Timestamp,
) -> Checked {
    let mut watch = Watch::new(mode, since);
    let mut pause = POLL_FIRST;
    loop {
        let asked_at = clock.now();
        let (judgement, readings) = evidence.judge(call, asked_at).await;
        let now = clock.now();
        match watch.judged(call, &judgement, asked_at, now) {
            Verdict::End(end) => return Checked { end, readings },
            Verdict::Again { by } => {
                let pause_over = now + signed(pause);
                sleep_until(clock, by.map_or(pause_over, |by| pause_over.min(by))).await;
                pause = pause.mul_f64(POLL_GROWTH).min(POLL_LAST);
            }
        }
    }
}

/// What follows from a judgement.
#[derive(Debug, PartialEq)]
enum Verdict {
    End(StepEnd),
    /// Judge again after the pause, or already then.
    Again {
        by: Option<Timestamp>,
    },
}

/// The pure part: how long it has held, and when it is too late.
struct Watch {
    mode: CheckMode,
    since: Timestamp,
    held_since: Option<Timestamp>,
    judged: u32,
}

impl Watch {
    fn new(mode: CheckMode, since: Timestamp) -> Self {
        Self {
            mode,
            since,
            held_since: None,
            judged: 0,
        }
    }

    fn judged(
        &mut self,
        call: &ConditionCall,
        judgement: &Judgement,
        asked_at: Timestamp,
        now: Timestamp,
    ) -> Verdict {
        self.judged += 1;
        match self.mode {
            CheckMode::Now if judgement.holds() => Verdict::End(held(judgement)),
            CheckMode::Now => Verdict::End(StepEnd::Refused {
                why: describe(call, judgement),
            }),
            CheckMode::Within { .. } if judgement.holds() => Verdict::End(held(judgement)),
            CheckMode::Within { deadline } => self.not_held(call, judgement, deadline, now),
            CheckMode::Settled { settle, .. } if judgement.holds() => {
                // A window is as old as the question that opened it, not as its answer.
                let held_since = *self.held_since.get_or_insert(asked_at);
                if asked_at >= held_since + seconds(settle) {
                    Verdict::End(settled(judgement, settle))
                } else {
                    Verdict::Again {
                        by: Some(held_since + seconds(settle)),
                    }
                }
            }
            CheckMode::Settled { deadline, .. } => {
                self.held_since = None;
                self.not_held(call, judgement, deadline, now)
            }
        }
    }

    fn not_held(
        &self,
        call: &ConditionCall,
        judgement: &Judgement,
        deadline: Secs,
        now: Timestamp,
    ) -> Verdict {
        let late = self.since + seconds(deadline);
        let said = describe(call, judgement);
        if let Judgement::Refuted { .. } = judgement {
            return Verdict::End(StepEnd::Failed {
                what: format!("{said}; waiting cannot help"),
            });
        }
        if now >= late {
            return Verdict::End(StepEnd::Failed {
                what: format!(
                    "{said}; expected it within {deadline}, asked {} times",
                    self.judged
                ),
            });
        }
        Verdict::Again { by: Some(late) }
    }
}

fn held(judgement: &Judgement) -> StepEnd {
    StepEnd::Done {
        changed: false,
        detail: judgement.why().to_owned(),
    }
}

fn settled(judgement: &Judgement, settle: Secs) -> StepEnd {
    StepEnd::Done {
        changed: false,
        detail: format!("{}; held for {settle}", judgement.why()),
    }
}

/// The condition, whom it is about, and what was found.
pub fn describe(call: &ConditionCall, judgement: &Judgement) -> String {
    let hosts: Vec<_> = call.hosts.iter().map(|host| host.as_str()).collect();
    let word = match judgement {
        Judgement::Holds { .. } => "holds",
        Judgement::NotYet { .. } => "does not hold",
        Judgement::Refuted { .. } => "is refuted",
        Judgement::Unknown { .. } => "is unknown",
    };
    format!(
        "{} on {} {word}: {}",
        call.name,
        hosts.join(", "),
        judgement.why()
    )
}

fn seconds(length: Secs) -> SignedDuration {
    SignedDuration::from_secs(i64::from(length.0))
}

fn signed(length: Duration) -> SignedDuration {
    SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000 + second).unwrap()
    }

    fn call() -> ConditionCall {
        ConditionCall {
            name: "galera.synced".into(),
            service: "mariadb".parse().unwrap(),
            hosts: vec!["ctl1".parse().unwrap()],
            members: vec![],
            settings: [].into(),
        }
    }

    fn judgement(word: &str) -> Judgement {
        let why = word.to_owned();
        match word {
            "holds" => Judgement::Holds { why },
            "not yet" => Judgement::NotYet { why },
            "refuted" => Judgement::Refuted { why },
            _ => Judgement::Unknown { why },
        }
    }

    /// Judgements at their seconds, and how the check stands after the last of them.
    fn after(mode: CheckMode, judgements: &[(i64, &str)]) -> Verdict {
        let mut watch = Watch::new(mode, at(0));
        let mut last = Verdict::Again { by: None };
        for &(second, word) in judgements {
            assert!(
                matches!(last, Verdict::Again { .. }),
                "ended before {second}: {last:?}"
            );
            last = watch.judged(&call(), &judgement(word), at(second), at(second));
        }
        last
    }

    fn word(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::End(StepEnd::Done { .. }) => "done",
            Verdict::End(StepEnd::Failed { .. }) => "failed",
            Verdict::End(StepEnd::Refused { .. }) => "refused",
            Verdict::End(_) => "other",
            Verdict::Again { .. } => "again",
        }
    }

    #[rstest::rstest]
    #[case(&[(0, "holds")], "done")]
    #[case(&[(0, "not yet")], "refused")]
    #[case(&[(0, "unknown")], "refused")]
    #[case(&[(0, "refuted")], "refused")]
    fn now_holds_or_refuses(#[case] judgements: &[(i64, &str)], #[case] expected: &str) {
        assert_eq!(word(&after(CheckMode::Now, judgements)), expected);
    }

    #[rstest::rstest]
    #[case(&[(0, "not yet"), (4, "unknown"), (9, "holds")], "done")]
    #[case(&[(0, "not yet"), (9, "unknown")], "again")]
    #[case(&[(0, "not yet"), (10, "not yet")], "failed")]
    #[case(&[(0, "refuted")], "failed")]
    // After a restart past the deadline it is asked once more: holding is what counts.
    #[case(&[(99, "holds")], "done")]
    #[case(&[(99, "unknown")], "failed")]
    fn within_its_deadline(#[case] judgements: &[(i64, &str)], #[case] expected: &str) {
        let mode = CheckMode::Within { deadline: Secs(10) };
        assert_eq!(word(&after(mode, judgements)), expected);
    }

    #[rstest::rstest]
    #[case(&[(0, "holds"), (29, "holds")], "again")]
    #[case(&[(0, "holds"), (30, "holds")], "done")]
    // The window may end after the deadline, but must begin before it.
    #[case(&[(0, "not yet"), (9, "holds"), (39, "holds")], "done")]
    #[case(&[(0, "holds"), (5, "not yet"), (30, "holds"), (35, "holds")], "again")]
    #[case(&[(0, "holds"), (5, "unknown"), (9, "holds"), (38, "holds")], "again")]
    #[case(&[(0, "holds"), (20, "unknown")], "failed")]
    #[case(&[(0, "holds"), (5, "refuted")], "failed")]
    fn settled_for_its_window(#[case] judgements: &[(i64, &str)], #[case] expected: &str) {
        let mode = CheckMode::Settled {
            settle: Secs(30),
            deadline: Secs(10),
        };
        assert_eq!(word(&after(mode, judgements)), expected);
    }

    #[test]
    fn a_failure_says_who_what_and_how_often() {
        let mode = CheckMode::Within { deadline: Secs(10) };
        let verdict = after(mode, &[(0, "not yet"), (10, "not yet")]);
        let Verdict::End(StepEnd::Failed { what }) = verdict else {
            panic!("expected a failure, found {verdict:?}")
        };
        assert_eq!(
            what,
            "galera.synced on ctl1 does not hold: not yet; expected it within 10 s, asked 2 times"
        );
    }
}
