//! How one execution on a host goes.

use super::{dice::Dice, weather};

/// Milliseconds from the order to the worker's mark in the spool.
const SPAWN_MS: (u64, u64) = (2, 40);

#[derive(Clone, Debug, PartialEq)]
pub struct Deed {
    pub spawn_ms: u64,
    /// From the worker's mark to its outcome.
    pub millis: u64,
    pub way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Succeeds,
    /// It does the first half of what it should.
    FailsHalfWay,
    Drifts,
    /// Until its time is up; the first half is done.
    Hangs,
    /// The host loses its power at this moment.
    Cut(Moment),
    /// The worker and its program are killed.
    Killed(Moment),
    /// The worker alone is killed; the program goes on, and its lock with it.
    Orphaned(Moment),
}

/// The moments of an execution between which things can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    BeforeTheMark,
    BeforeTheAct,
    InTheAct,
    /// Between act and record.
    BeforeTheRecord,
    /// Between record and answer.
    AfterTheRecord,
}

impl Deed {
    pub fn done(seconds: u64) -> Self {
        Self {
            spawn_ms: 0,
            millis: seconds * 1_000,
            way: Way::Succeeds,
        }
    }

    pub fn failed_half_way() -> Self {
        Self {
            way: Way::FailsHalfWay,
            ..Self::done(2)
        }
    }

    /// Its worker dies without an outcome, after it had its effect or before.
    pub fn lost(effective: bool) -> Self {
        Self {
            way: Way::Killed(match effective {
                true => Moment::BeforeTheRecord,
                false => Moment::BeforeTheAct,
            }),
            ..Self::done(2)
        }
    }

    pub fn draw(dice: &mut Dice, chances: &weather::Hosts) -> Self {
        let moment = dice.pick(&[
            Moment::BeforeTheMark,
            Moment::BeforeTheAct,
            Moment::InTheAct,
            Moment::BeforeTheRecord,
            Moment::AfterTheRecord,
        ]);
        let way = if dice.chance(chances.power_cut) {
            Way::Cut(moment)
        } else if dice.chance(chances.worker_killed) {
            match dice.chance(0.5) {
                true => Way::Killed(moment),
                false => Way::Orphaned(moment),
            }
        } else if dice.chance(chances.fails) {
            Way::FailsHalfWay
        } else if dice.chance(chances.hangs) {
            Way::Hangs
        } else if dice.chance(chances.drifts) {
            Way::Drifts
        } else {
            Way::Succeeds
        };
        let (least, most) = dice.pick(&[(10, 500), (500, 5_000), (5_000, 50_000)]);
        Self {
            spawn_ms: dice.between(SPAWN_MS.0, SPAWN_MS.1),
            millis: dice.between(least, most),
            way,
        }
    }

    /// When a moment comes, in milliseconds from the order.
    pub fn comes_after(&self, moment: Moment) -> u64 {
        let part = |tenths: u64| self.spawn_ms + self.millis * tenths / 10;
        match moment {
            Moment::BeforeTheMark => self.spawn_ms / 2,
            Moment::BeforeTheAct => part(1),
            Moment::InTheAct => part(5),
            Moment::BeforeTheRecord => part(9),
            Moment::AfterTheRecord => part(10) + 1,
        }
    }

    /// When the first half of the act is done, and when all of it.
    pub fn touches_after(&self) -> u64 {
        self.spawn_ms + self.millis * 3 / 10
    }

    pub fn completes_after(&self) -> u64 {
        self.spawn_ms + self.millis * 8 / 10
    }

    pub fn ends_after(&self) -> u64 {
        self.spawn_ms + self.millis
    }
}
