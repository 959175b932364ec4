//! The runner against scripted hosts in virtual time.

mod batches;
mod crash;
mod late;
mod walk;

use std::sync::Arc;

use jiff::Timestamp;

use super::{Clock, Context, NoObserver, OpenGate, RunError, Runner, StepGate};
use crate::{
    condition::ConditionCall,
    job::{
        Action, CheckMode, Effect, JobEvent, JobId, JobKind, JobResult, JobState, Journal,
        MemoryJournal, Step, StepId,
    },
    model::Secs,
    probe::Ask,
    simulation::{
        clock::VirtualClock,
        mortal::{Doom, Killer, Mortal},
        network::Network,
        world::World,
    },
    wire::{Command, Work},
};

/// One job, its journal and its hosts; runners come and go.
struct Stage {
    clock: Arc<VirtualClock>,
    world: Arc<World>,
    journal: Arc<MemoryJournal>,
    job: JobId,
    gate: Arc<dyn StepGate>,
}

impl Stage {
    fn new(kind: JobKind, steps: Vec<Step>) -> Self {
        Self::with_flags(kind, steps, Vec::new())
    }

    /// Conditions `flag:K` hold until the first of their times, and turn over at each.
    fn with_flags(kind: JobKind, steps: Vec<Step>, flags: Vec<Vec<Timestamp>>) -> Self {
        let clock = Arc::new(VirtualClock::default());
        let stage = Self {
            world: Arc::new(World::calm(clock.clone(), flags)),
            journal: Arc::default(),
            job: JobId("j1".into()),
            gate: Arc::new(OpenGate),
            clock,
        };
        stage.create(&stage.job, kind, steps);
        stage
    }

    fn create(&self, job: &JobId, kind: JobKind, steps: Vec<Step>) {
        let scope = match &kind {
            JobKind::Deploy { .. } => "site:demo",
            JobKind::Heal { .. } => "domain:mariadb",
            JobKind::Batch { .. } => "batch:demo:0",
        };
        let created = JobEvent::Created {
            kind,
            title: "test".into(),
            requested_by: "alice".into(),
            scope: scope.into(),
            steps,
        };
        let created = self.journal.create(job, self.clock.now(), &created);
        self.clock.block_on(created).unwrap();
    }

    /// One life of a bot. `None`: nobody kills it.
    fn killer(&self, kill_at: Option<u32>) -> Arc<Killer> {
        let doom = Doom {
            kill_at,
            ..Doom::default()
        };
        Killer::new("bot1", doom, self.clock.clone(), Arc::default())
    }

    fn network(&self) -> Arc<Network> {
        let world = self.world.clone();
        Arc::new(Network { world, bot: 0 })
    }

    fn immortal(&self) -> Runner {
        self.runner(&self.killer(None))
    }

    fn runner(&self, killer: &Arc<Killer>) -> Runner {
        let mortal = |inner| Mortal {
            killer: killer.clone(),
            inner,
        };
        Runner::new(Context {
            journal: Arc::new(Mortal {
                killer: killer.clone(),
                inner: self.journal.clone(),
            }),
            hosts: Arc::new(mortal(self.network())),
            evidence: Arc::new(mortal(self.network())),
            gate: self.gate.clone(),
            observer: Arc::new(NoObserver),
            clock: self.clock.clone(),
            holder: "bot1".into(),
        })
    }

    fn run(&self) -> Result<JobResult, RunError> {
        let runner = self.immortal();
        self.clock.block_on(runner.run(&self.job))
    }

    fn events(&self) -> Vec<(Timestamp, JobEvent)> {
        self.clock.block_on(self.journal.load(&self.job)).unwrap()
    }

    fn state(&self) -> JobState {
        JobState::fold(&self.events()).unwrap()
    }
}

fn deploy() -> JobKind {
    JobKind::Deploy {
        plan_digest: "d1".into(),
    }
}

fn heal() -> JobKind {
    JobKind::Heal {
        incident: "i1".into(),
        runbook: "GAL-1".into(),
    }
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

fn on(host: &str, line: &str) -> Action {
    Action::Host {
        host: host.parse().unwrap(),
        work: command(line),
    }
}

fn condition(name: &str) -> ConditionCall {
    ConditionCall {
        name: name.into(),
        service: "mariadb".parse().unwrap(),
        hosts: vec!["ctl1".parse().unwrap()],
        members: vec![],
        settings: [].into(),
    }
}

fn check(name: &str, mode: CheckMode) -> Action {
    Action::Check {
        condition: condition(name),
        mode,
    }
}

fn snapshot(host: &str) -> Action {
    Action::Snapshot {
        asks: vec![Ask {
            probe: "galera.status".into(),
            host: host.parse().unwrap(),
            service: None,
        }],
    }
}

fn wait(seconds: u32) -> Action {
    Action::Wait {
        seconds: Secs(seconds),
        why: "elections".into(),
    }
}

/// A converging step; change what differs.
fn step(id: u32, needs: &[u32], action: Action) -> Step {
    Step {
        id: StepId(id),
        title: format!("step {id}"),
        service: None,
        action,
        effect: Effect::Converge,
        needs: needs.iter().map(|&need| StepId(need)).collect(),
        timeout: Secs(120),
        guards: vec![],
        unless: None,
        undo: None,
    }
}
