//! Counts of what runs met: a simulation in which something never happens says nothing about it.

use std::{collections::BTreeMap, fmt};

use super::{clock::start, facts::What, play::Played};
use crate::job::{JobEvent, JobResult, StepEnd};

#[derive(Clone, Debug, Default)]
pub struct Tally {
    counts: BTreeMap<&'static str, u64>,
    /// The longest run, in virtual seconds.
    pub longest_seconds: u64,
}

impl Tally {
    pub(super) fn of(played: &Played) -> Self {
        let mut tally = Self {
            longest_seconds: played
                .ended_at
                .duration_since(start())
                .as_secs()
                .unsigned_abs(),
            ..Self::default()
        };
        tally.count("bots killed", played.deaths);
        tally.count("bots frozen", played.frozen.len());
        tally.count("power cuts of the bots' host", played.losses.len());
        let lost = played.losses.iter().map(|loss| loss.lost).sum();
        tally.count("unsynced writes lost", lost);
        let survived = played.losses.iter().map(|loss| loss.unsynced - loss.lost);
        tally.count("unsynced writes that survived", survived.sum());
        tally.count("drivers that gave up", played.errors.len());
        let starts = |fact: &&super::facts::Fact| matches!(fact.what, What::Started { .. });
        tally.count(
            "executions on hosts",
            played.facts.iter().filter(starts).count(),
        );
        let fenced = |fact: &&super::facts::Fact| matches!(fact.what, What::Fenced);
        tally.count("orders fenced", played.facts.iter().filter(fenced).count());
        tally.count("rival jobs", usize::from(!played.rival.is_empty()));
        let refused = |result: &JobResult| matches!(result, JobResult::Refused { .. });
        let rival = played.rival.last().map(|kept| &kept.event);
        let refused = matches!(rival, Some(JobEvent::Finished { result }) if refused(result));
        tally.count("rival jobs refused", usize::from(refused));
        tally.count("journal events", played.journal.len());
        let leased = |(_, event): &&(_, JobEvent)| matches!(event, JobEvent::Leased { .. });
        let leases = played.journal.iter().filter(leased).count();
        tally.count("jobs taken over", leases.saturating_sub(1));
        for (_, event) in &played.journal {
            if let Some(what) = met(event) {
                tally.count(what, 1);
            }
        }
        tally
    }

    fn count(&mut self, what: &'static str, times: usize) {
        *self.counts.entry(what).or_default() += times as u64;
    }

    pub fn get(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Self) {
        for (what, times) in &other.counts {
            *self.counts.entry(what).or_default() += times;
        }
        self.longest_seconds = self.longest_seconds.max(other.longest_seconds);
    }
}

fn met(event: &JobEvent) -> Option<&'static str> {
    Some(match event {
        JobEvent::StepEnded { end, .. } => match end {
            StepEnd::Done { changed: true, .. } => "steps done",
            StepEnd::Done { changed: false, .. } => "steps with nothing to do",
            StepEnd::Refused { .. } => "steps refused",
            StepEnd::Failed { .. } => "steps failed",
            StepEnd::Drifted { .. } => "steps drifted",
            StepEnd::Lost { .. } => "steps lost",
            StepEnd::Cancelled => "steps cancelled",
        },
        JobEvent::UndoEnded { end, .. } => match end {
            StepEnd::Done { .. } => "undos done",
            StepEnd::Lost { .. } => "undos lost",
            _ => "undos failed",
        },
        JobEvent::Held { .. } => "holds",
        JobEvent::Evidence { .. } => "evidence kept",
        JobEvent::CancelRequested { .. } => "cancels",
        JobEvent::Finished { result } => match result {
            JobResult::Succeeded => "jobs succeeded",
            JobResult::Failed { .. } => "jobs failed",
            JobResult::Cancelled { .. } => "jobs cancelled",
            JobResult::Refused { .. } => "jobs refused",
        },
        _ => return None,
    })
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, times) in &self.counts {
            writeln!(f, "{times:>12}  {what}")?;
        }
        write!(
            f,
            "{:>12}  virtual seconds of the longest run",
            self.longest_seconds
        )
    }
}
