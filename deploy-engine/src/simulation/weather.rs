//! How bad a run is to the network, the hosts and the disk. Each seed turns most kinds of trouble off and the others up, so
//! that every kind is seen alone, together with others, rarely and often.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    clock::{after, start},
    dice::Dice,
};

/// Trouble ends this long after the begin: from then on every job must come to its end.
const CALM_AFTER_SECONDS: (u64, u64) = (60, 1_800);

/// Chances are of one exchange, one execution, one write.
#[derive(Clone, Debug)]
pub struct Weather {
    pub calm_at: Timestamp,
    pub network: Network,
    pub hosts: Hosts,
    pub disk: Disk,
}

#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Milliseconds each way.
    pub latency: (u64, u64),
    pub lost_before_it_arrives: f64,
    pub answer_lost: f64,
    /// It arrives after whoever sent it has given up.
    pub late: f64,
    /// It arrives a second time, later.
    pub doubled: f64,
    pub late_by_seconds: u64,
    /// Times in which one bot (or all) does not reach one host.
    pub partitions: Vec<Partition>,
}

#[derive(Clone, Debug)]
pub struct Partition {
    pub bot: Option<usize>,
    pub host: usize,
    pub from: Timestamp,
    pub to: Timestamp,
}

#[derive(Clone, Debug, Default)]
pub struct Hosts {
    pub fails: f64,
    pub hangs: f64,
    pub drifts: f64,
    /// The power is cut at a moment of an execution: before the mark, between mark and act, in the act, between act and
    /// record, between record and answer.
    pub power_cut: f64,
    pub worker_killed: f64,
    /// It refuses a request without a look at it.
    pub busy: f64,
}

#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub full: f64,
    /// Written, but whoever wrote is told that it failed.
    pub in_doubt: f64,
    pub slow: f64,
}

impl Weather {
    /// Nothing happens, at once.
    pub fn calm() -> Self {
        Self {
            calm_at: start(),
            network: Network::default(),
            hosts: Hosts::default(),
            disk: Disk::default(),
        }
    }

    pub fn draw(dice: &mut Dice, hosts: usize) -> Self {
        let calm_after = dice.between(CALM_AFTER_SECONDS.0, CALM_AFTER_SECONDS.1);
        let latency = dice.pick(&[(0, 1), (1, 30), (5, 400), (100, 3_000)]);
        Self {
            calm_at: after(calm_after),
            network: Network {
                latency,
                lost_before_it_arrives: rate(dice),
                answer_lost: rate(dice),
                late: rate(dice),
                doubled: rate(dice),
                late_by_seconds: dice.pick(&[5, 60, 400]),
                partitions: partitions(dice, hosts, calm_after),
            },
            hosts: Hosts {
                fails: rate(dice),
                hangs: rate(dice) / 3.0,
                drifts: rate(dice) / 3.0,
                power_cut: rate(dice),
                worker_killed: rate(dice),
                busy: rate(dice) / 3.0,
            },
            disk: Disk {
                full: rate(dice) / 3.0,
                in_doubt: rate(dice) / 3.0,
                slow: rate(dice) / 2.0,
            },
        }
    }

    pub fn is_calm(&self, now: Timestamp) -> bool {
        now >= self.calm_at
    }

    /// Until when this bot cannot reach this host, if so.
    pub fn parted(&self, bot: usize, host: usize, now: Timestamp) -> Option<Timestamp> {
        let parting = |p: &&Partition| {
            p.host == host && p.bot.is_none_or(|other| other == bot) && p.from <= now && now < p.to
        };
        self.network.partitions.iter().find(parting).map(|p| p.to)
    }

    pub fn latency(&self, dice: &mut Dice) -> Duration {
        match self.network.latency {
            (0, 0) => Duration::ZERO,
            (least, most) => dice.millis(least, most),
        }
    }
}

fn rate(dice: &mut Dice) -> f64 {
    dice.pick(&[0.0, 0.0, 0.0, 0.0, 0.02, 0.08, 0.25])
}

fn partitions(dice: &mut Dice, hosts: usize, calm_after: u64) -> Vec<Partition> {
    let count = dice.pick(&[0, 0, 0, 1, 1, 3]);
    let mut drawn = Vec::new();
    for _ in 0..count {
        let from = dice.between(0, calm_after.min(200));
        let length = dice.pick(&[3, 20, 45, 100, 300]);
        drawn.push(Partition {
            bot: dice.pick(&[None, None, Some(0), Some(1)]),
            host: dice.index(hosts),
            from: after(from),
            to: after((from + length).min(calm_after)),
        });
    }
    drawn
}

pub fn signed(length: Duration) -> SignedDuration {
    SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX)
}
