//! What a seed decides before anything happens: a job, the weather, and the lives of the bots.

use std::time::Duration;

use jiff::Timestamp;

use super::{clock::after, dice::Dice, mortal::Doom, weather::Weather};
use crate::{
    condition::ConditionCall,
    job::{Action, CheckMode, Effect, JobKind, Step, StepId},
    model::{HostName, Secs},
    probe::Ask,
    wire::{Command, Work},
};

const HOSTS_MAX: u64 = 3;
const STEPS_MAX: u64 = 6;
const FLAGS: usize = 2;

/// Times that one job's bots are killed at most: a fifth death teaches nothing that four did not.
const DEATHS_MAX: u64 = 4;

/// Points that a life passes at most before its end comes; most lives pass fewer and end by themselves.
const POINTS_MAX: u64 = 100;

#[derive(Clone, Debug)]
pub struct Scenario {
    pub kind: JobKind,
    pub steps: Vec<Step>,
    pub weather: Weather,
    /// Conditions `flag:K` turn over at these times.
    pub flags: Vec<Vec<Timestamp>>,
    /// One life after the other, of whichever bot; those that come later meet no end.
    pub dooms: Vec<Doom>,
    /// Seconds between a death and the next life.
    pub downtime: u64,
    /// A second bot takes the job over, while the first one lives or not.
    pub takeover_at: Option<Timestamp>,
    pub cancel_at: Option<Timestamp>,
    /// Another job wants a scope that this one excludes.
    pub rival_at: Option<Timestamp>,
    /// The gate holds in these times.
    pub holds: Vec<(Timestamp, Timestamp)>,
    /// From then on the gate refuses.
    pub refuses_from: Option<Timestamp>,
    /// Then the gate does not answer at all, for a while.
    pub gate_hangs_at: Option<Timestamp>,
}

impl Scenario {
    pub fn draw(dice: &mut Dice) -> Self {
        let hosts = dice.between(1, HOSTS_MAX);
        let count = dice.between(1, STEPS_MAX);
        let mut steps: Vec<Step> = Vec::new();
        for id in 0..count {
            let step = step(dice, u32::try_from(id).unwrap_or(0), hosts, &steps);
            steps.push(step);
        }
        let kind = match dice.chance(0.5) {
            true => JobKind::Heal {
                incident: "i1".into(),
                runbook: "GAL-1".into(),
            },
            false => JobKind::Deploy {
                plan_digest: "d1".into(),
            },
        };
        let weather = Weather::draw(dice, usize::try_from(hosts).unwrap_or(1));
        let sometime = |dice: &mut Dice, chance: f64| {
            dice.chance(chance).then(|| {
                let latest = dice.pick(&[20, 120, 600]);
                after(dice.between(0, latest))
            })
        };
        Self {
            kind,
            steps,
            weather,
            flags: (0..FLAGS).map(|_| flag(dice)).collect(),
            dooms: dooms(dice),
            downtime: dice.pick(&[0, 1, 7, 60, 600]),
            takeover_at: sometime(dice, 0.3),
            cancel_at: sometime(dice, 0.25),
            rival_at: sometime(dice, 0.2),
            holds: (0..dice.pick(&[0, 0, 0, 1, 2]))
                .map(|_| {
                    let from = dice.between(0, 100);
                    (after(from), after(from + dice.between(1, 200)))
                })
                .collect(),
            refuses_from: sometime(dice, 0.05),
            gate_hangs_at: sometime(dice, 0.05),
        }
    }
}

/// The one step of a job that gets in the way.
pub fn rival_step() -> Step {
    Step {
        id: StepId(0),
        title: "rival".into(),
        service: None,
        action: Action::Host {
            host: "ctl1".parse().expect("a host's name"),
            work: command("do rival"),
        },
        effect: Effect::Converge,
        needs: vec![],
        timeout: Secs(20),
        guards: vec![],
        unless: None,
        undo: None,
    }
}

fn flag(dice: &mut Dice) -> Vec<Timestamp> {
    let mut at = 0;
    let mut turns = Vec::new();
    for _ in 0..dice.pick(&[0, 0, 1, 2, 4]) {
        at += dice.between(1, 90);
        turns.push(after(at));
    }
    turns
}

fn dooms(dice: &mut Dice) -> Vec<Doom> {
    let deaths = dice.between(0, DEATHS_MAX);
    (0..deaths)
        .map(|_| {
            // Small numbers are likelier: the first points of a recovery matter most.
            let most = dice.pick(&[12, 40, POINTS_MAX]);
            let at = |dice: &mut Dice| u32::try_from(dice.between(1, most)).unwrap_or(1);
            let freeze = dice.chance(0.25).then(|| {
                let length = dice.pick(&[2, 20, 45, 200]);
                (at(dice), Duration::from_secs(length))
            });
            Doom {
                kill_at: dice.chance(0.85).then(|| at(dice)),
                power_cut: dice.chance(0.3),
                freeze,
            }
        })
        .collect()
}

fn step(dice: &mut Dice, id: u32, hosts: u64, earlier: &[Step]) -> Step {
    let name = format!("s{id}");
    let host = host(dice, hosts);
    let mut step = Step {
        id: StepId(id),
        title: format!("step {id}"),
        service: None,
        action: Action::Wait {
            seconds: Secs(u32::try_from(dice.between(1, 60)).unwrap_or(1)),
            why: "elections".into(),
        },
        effect: Effect::Observe,
        needs: earlier
            .iter()
            .filter(|_| dice.chance(0.35))
            .map(|step| step.id)
            .collect(),
        timeout: Secs(dice.pick(&[5, 20, 60, 120])),
        guards: vec![],
        unless: None,
        undo: None,
    };
    match dice.between(0, 99) {
        0..=75 => work(dice, &mut step, host, &name, hosts),
        76..=87 => {
            step.action = Action::Check {
                condition: condition(dice, &step.needs, hosts),
                mode: mode(dice),
            }
        }
        88..=93 => {
            step.action = Action::Snapshot {
                asks: vec![Ask {
                    probe: "galera.status".into(),
                    host,
                    service: None,
                }],
            }
        }
        _ => {}
    }
    step
}

fn work(dice: &mut Dice, step: &mut Step, on: HostName, name: &str, hosts: u64) {
    step.effect = dice.pick(&[
        Effect::Converge,
        Effect::Converge,
        Effect::Once,
        Effect::Once,
        Effect::Observe,
    ]);
    let verb = match step.effect {
        Effect::Observe => "look",
        _ => "do",
    };
    let fetch = step.effect == Effect::Converge && dice.chance(0.1);
    step.action = Action::Host {
        host: on.clone(),
        work: match fetch {
            true => Work::Fetch {
                packages: vec![name.to_owned()],
            },
            false => command(&format!("{verb} {name}")),
        },
    };
    if step.effect != Effect::Observe && dice.chance(0.6) {
        let host = match dice.chance(0.85) {
            true => on,
            false => host(dice, hosts),
        };
        step.undo = Some(Action::Host {
            host,
            work: command(&format!("undo {name}")),
        });
    }
    for _ in 0..dice.pick(&[0, 0, 0, 1, 2]) {
        let guard = condition(dice, &step.needs, hosts);
        step.guards.push(guard);
    }
    if step.effect != Effect::Observe && dice.chance(0.3) {
        step.unless = Some(call(dice, format!("done:{name}"), hosts));
    }
}

fn condition(dice: &mut Dice, needs: &[StepId], hosts: u64) -> ConditionCall {
    let name = match (dice.between(0, 99), needs) {
        (0..=55, _) => format!("flag:{}", dice.index(FLAGS)),
        (56..=75, [need, ..]) => format!("done:s{need}"),
        (76..=78, _) => "unknown".to_owned(),
        _ => format!("after:{}", dice.between(0, 60)),
    };
    call(dice, name, hosts)
}

fn call(dice: &mut Dice, name: String, hosts: u64) -> ConditionCall {
    ConditionCall {
        name,
        service: dice
            .pick(&["mariadb", "rabbitmq"])
            .parse()
            .expect("a service's name"),
        hosts: vec![host(dice, hosts)],
        members: vec![],
        settings: [].into(),
    }
}

fn mode(dice: &mut Dice) -> CheckMode {
    let mut seconds = |most| Secs(u32::try_from(dice.between(5, most)).unwrap_or(5));
    let (settle, deadline) = (seconds(60), seconds(200));
    dice.pick(&[
        CheckMode::Now,
        CheckMode::Within { deadline },
        CheckMode::Settled { settle, deadline },
    ])
}

fn host(dice: &mut Dice, hosts: u64) -> HostName {
    let name = format!("ctl{}", dice.between(1, hosts));
    name.parse().expect("a host's name")
}

fn command(line: &str) -> Work {
    Work::Run {
        command: Command {
            argv: line.split(' ').map(str::to_owned).collect(),
            env: [].into(),
            stdin: None,
            user: None,
            timeout_seconds: 60,
            output_limit_bytes: 1000,
        },
    }
}
