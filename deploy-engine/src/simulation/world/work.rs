//! What orders do on a host: workers, their stages, and what ends them.

use jiff::Timestamp;

use super::{Answer, Extent, Happening, Inner, millis};
use crate::{
    model::HostName,
    simulation::{
        deed::{Deed, Moment, Way},
        facts::What,
        host::{Admission, Entry, Order, Worker},
    },
    wire::{Fence, Outcome, ResourceId, StepKey, StepStatus},
};

/// A worker looks so often whether it was asked to stop (`agent::worker`).
const CANCEL_POLL_MS: u64 = 100;

/// From a power cut to an agent that answers again, in seconds.
const REBOOT_SECONDS: (u64, u64) = (5, 90);

/// The stages of one execution.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    Mark,
    Touch,
    Complete,
    End,
    Killed,
    Orphaned,
    StopAsked,
}

impl Inner {
    pub fn start(&mut self, at: Timestamp, host: &HostName, key: StepKey, order: Order) -> Answer {
        if self.host(host).status(&key, at) != StepStatus::NeverStarted {
            return Answer::Known;
        }
        if let Admission::Fenced { seen } = self.host(host).admit(&order.fence) {
            self.fact(at, host, What::Fenced);
            return Answer::Fenced { seen };
        }
        let (scope, token) = (order.fence.scope.clone(), order.fence.token);
        self.fact(at, host, What::Admitted { scope, token });
        let deed = self.deed(at, &order.line);
        self.next += 1;
        let (id, limit) = (self.next, u64::from(order.timeout_seconds) * 1_000);
        let in_time = deed.way != Way::Hangs && deed.millis <= limit;
        let ends = match in_time {
            true => deed.ends_after(),
            false => deed.spawn_ms + limit,
        };
        let worker = Worker {
            id,
            ends_at: at + millis(ends),
            deed: deed.clone(),
            orphaned: false,
        };
        self.host(host).claim(key.clone(), order, worker);
        self.plan_worker(at, host, &key, id, &deed, ends);
        Answer::Known
    }

    fn plan_worker(
        &mut self,
        at: Timestamp,
        host: &HostName,
        key: &StepKey,
        worker: u64,
        deed: &Deed,
        ends: u64,
    ) {
        let mut stages = vec![
            (deed.spawn_ms, Stage::Mark),
            (deed.touches_after(), Stage::Touch),
            (ends, Stage::End),
        ];
        if deed.way != Way::FailsHalfWay && deed.way != Way::Drifts && deed.way != Way::Hangs {
            stages.push((deed.completes_after(), Stage::Complete));
        }
        match deed.way {
            Way::Killed(moment) => stages.push((deed.comes_after(moment), Stage::Killed)),
            Way::Orphaned(moment) if moment != Moment::BeforeTheMark => {
                stages.push((deed.comes_after(moment), Stage::Orphaned));
            }
            Way::Cut(moment) => {
                let cut = at + millis(deed.comes_after(moment));
                self.plan(cut, Happening::PowerCut { host: host.clone() });
            }
            _ => {}
        }
        for (after, stage) in stages.into_iter().filter(|(after, _)| *after <= ends + 1) {
            let happening = Happening::Work {
                host: host.clone(),
                key: key.clone(),
                worker,
                stage,
            };
            self.plan(at + millis(after), happening);
        }
    }

    fn deed(&mut self, at: Timestamp, line: &str) -> Deed {
        let executed = self.executed.entry(line.to_owned()).or_default();
        *executed += 1;
        let nth = *executed as usize - 1;
        if let Some(deed) = self.scripts.get(line).and_then(|deeds| deeds.get(nth)) {
            return deed.clone();
        }
        match self.weather.is_calm(at) {
            true => Deed::done(3),
            false => Deed::draw(&mut self.dice, &self.weather.hosts),
        }
    }

    pub fn work(
        &mut self,
        at: Timestamp,
        host: &HostName,
        key: &StepKey,
        worker: u64,
        stage: Stage,
    ) {
        let Some(entry) = self.hosts.get_mut(host).and_then(|h| h.spool.get_mut(key)) else {
            return;
        };
        let running = entry.worker.as_mut().filter(|running| running.id == worker);
        let (Some(running), Some(order)) = (running, &entry.order) else {
            return;
        };
        self.trace
            .say(at, || format!("{host} {key} `{}`: {stage:?}", order.line));
        let (line, limit) = (order.line.clone(), order.timeout_seconds);
        match stage {
            Stage::Mark => self.mark(at, host, key),
            Stage::Touch if running.deed.way == Way::Drifts => {}
            Stage::Touch => self.touch(at, host, key, &line),
            Stage::Complete => self.complete(&line),
            Stage::Orphaned => running.orphaned = true,
            Stage::Killed => {
                entry.worker = None;
                self.fact(at, host, What::Stopped { key: key.clone() });
            }
            Stage::StopAsked if running.orphaned => {}
            Stage::StopAsked => self.end(at, host, key, Outcome::Cancelled),
            Stage::End => {
                let outcome = outcome(running, limit);
                self.end(at, host, key, outcome);
            }
        }
    }

    fn mark(&mut self, at: Timestamp, host: &HostName, key: &StepKey) {
        let Some(entry) = self.hosts.get_mut(host).and_then(|h| h.spool.get_mut(key)) else {
            return;
        };
        entry.started_at = Some(at);
        let Some(order) = entry.order.clone() else {
            return;
        };
        if let Some(worker) = entry.worker.as_ref().filter(|_| entry.cancel) {
            let happening = Happening::Work {
                host: host.clone(),
                key: key.clone(),
                worker: worker.id,
                stage: Stage::StopAsked,
            };
            self.plan(at + millis(CANCEL_POLL_MS), happening);
        }
        let what = What::Started {
            key: key.clone(),
            scope: order.fence.scope,
            token: order.fence.token,
            bot: order.bot,
            sent_at: order.sent_at,
        };
        self.fact(at, host, what);
    }

    fn touch(&mut self, at: Timestamp, host: &HostName, key: &StepKey, line: &str) {
        match line.split_once(' ') {
            Some(("do" | "undo", name)) => {
                self.effects.insert(name.to_owned(), Extent::Half);
            }
            Some(("look", _)) => return,
            _ => panic!("expected a verb and a name, found {line}"),
        }
        self.fact(at, host, What::Touched { key: key.clone() });
    }

    fn complete(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("do", name)) => {
                self.effects.insert(name.to_owned(), Extent::Whole);
            }
            Some(("undo", name)) => {
                self.effects.remove(name);
            }
            _ => {}
        }
    }

    fn end(&mut self, at: Timestamp, host: &HostName, key: &StepKey, outcome: Outcome) {
        let Some(entry) = self.hosts.get_mut(host).and_then(|h| h.spool.get_mut(key)) else {
            return;
        };
        let orphaned = entry.worker.take().is_some_and(|worker| worker.orphaned);
        // Nobody is left who would write it down.
        entry.outcome = (!orphaned).then_some(outcome);
        self.fact(at, host, What::Stopped { key: key.clone() });
    }

    pub fn cancel(
        &mut self,
        at: Timestamp,
        host: &HostName,
        key: &StepKey,
        fence: &Fence,
    ) -> Answer {
        if let Admission::Fenced { seen } = self.host(host).admit(fence) {
            return Answer::Refused(format!("a holder with the number {seen} has been here"));
        }
        self.host(host).cancel(key, at);
        let entry = self.host(host).spool.get(key);
        let running = entry.filter(|entry: &&Entry| entry.started_at.is_some());
        if let Some(worker) = running.and_then(|entry| entry.worker.as_ref()) {
            let happening = Happening::Work {
                host: host.clone(),
                key: key.clone(),
                worker: worker.id,
                stage: Stage::StopAsked,
            };
            self.plan(at + millis(CANCEL_POLL_MS), happening);
        }
        Answer::Ok
    }

    pub fn power_cut(&mut self, at: Timestamp, host: &HostName) {
        let reboot = self.dice.between(REBOOT_SECONDS.0, REBOOT_SECONDS.1);
        self.trace
            .say(at, || format!("{host} LOSES ITS POWER for {reboot} s"));
        let machine = self.host(host);
        machine.down_until = Some(at + millis(reboot * 1_000));
        let running = machine.spool.iter_mut();
        let died: Vec<StepKey> = running
            .filter_map(|(key, entry)| entry.worker.take().map(|_| key.clone()))
            .collect();
        for key in died {
            self.fact(at, host, What::Stopped { key });
        }
    }
}

fn outcome(worker: &Worker, timeout_seconds: u32) -> Outcome {
    let failed = |what: String| Outcome::Failed {
        at: None,
        what,
        output: None,
    };
    match worker.deed.way {
        Way::FailsHalfWay => failed("exit code 1".into()),
        Way::Drifts => Outcome::Drifted {
            at: ResourceId("file:/etc/x".into()),
            expected: "d1".into(),
            found: "d2".into(),
        },
        Way::Hangs => failed("the step's time was up".into()),
        _ if worker.deed.millis > u64::from(timeout_seconds) * 1_000 => {
            failed("the step's time was up".into())
        }
        _ => Outcome::Done {
            changed: vec![],
            output: None,
        },
    }
}
