//! Turns at the one writer of the embedded store, which jobs share: what comes while others are being written is written with
//! all else that came meanwhile, in one transaction. So many jobs cost the log the pages that they change once a turn and not once
//! an event, and a job that is alone waits for nobody.
//!
//! Nothing else changes: each answer is given after the commit, what is acted on is synced after that ([`super::wal`]), and an event at
//! another length than the job's is a conflict for this job and nobody else. A turn is kept whole or not at all.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use deploy_engine::job::{JobId, JournalError, Lease, LeaseError};
use jiff::Timestamp;
use tokio::{runtime::Handle, sync::oneshot};

use super::{
    Store, StoreError,
    audit::Chain,
    db::{Lock, Tx},
    journal::Recorded,
    leases::give_back,
    sqlite::TURN_LIMIT,
};

/// Writes of one turn: some milliseconds, which is how long whoever writes something else waits for it.
const TURN_WRITES: usize = 64;

const WRITING: &str = "writing for several jobs";

/// Who waits for a turn.
#[derive(Default)]
pub(super) struct Turns(Mutex<Line>);

#[derive(Default)]
struct Line {
    /// Bounded by the jobs that are driven, each of which waits for its one write.
    waiting: VecDeque<Write>,
    /// Somebody writes, and will see to those who come meanwhile.
    busy: bool,
}

enum Write {
    /// Of one job, one after the other.
    Append {
        events: Vec<Recorded>,
        reply: oneshot::Sender<Result<(), JournalError>>,
    },
    Acquire {
        wanted: Wanted,
        reply: oneshot::Sender<Result<Lease, LeaseError>>,
    },
    Release {
        lease: Lease,
        reply: oneshot::Sender<Result<(), LeaseError>>,
    },
}

/// A lease that is asked for.
pub(super) struct Wanted {
    pub scope: String,
    pub holder: String,
    pub job: JobId,
    pub now: Timestamp,
}

impl Store {
    pub(super) async fn append_in_turn(&self, events: Vec<Recorded>) -> Result<(), JournalError> {
        match self.turn() {
            Some(turn) => turn.store.append_alone(&events).await,
            None => self
                .in_line(|reply| Write::Append { events, reply })
                .await
                .unwrap_or_else(|found| Err(JournalError::Storage(found))),
        }
    }

    pub(super) async fn acquire_in_turn(&self, wanted: Wanted) -> Result<Lease, LeaseError> {
        match self.turn() {
            Some(turn) => turn.store.acquire_alone(&wanted).await,
            None => self
                .in_line(|reply| Write::Acquire { wanted, reply })
                .await
                .unwrap_or_else(|found| Err(LeaseError::Storage(found))),
        }
    }

    pub(super) async fn release_in_turn(&self, lease: Lease) -> Result<(), LeaseError> {
        match self.turn() {
            Some(turn) => turn.store.release_alone(&lease).await,
            None => self
                .in_line(|reply| Write::Release { lease, reply })
                .await
                .unwrap_or_else(|found| Err(LeaseError::Storage(found))),
        }
    }

    /// The turn, if nobody has it.
    fn turn(&self) -> Option<Turn> {
        let mut line = self.turns.lock();
        let free = !std::mem::replace(&mut line.busy, true);
        free.then(|| Turn {
            store: self.clone(),
        })
    }

    /// Waits for its turn. Whoever stops waiting before that is not written for.
    async fn in_line<T>(
        &self,
        write: impl FnOnce(oneshot::Sender<T>) -> Write,
    ) -> Result<T, String> {
        let (reply, answer) = oneshot::channel();
        self.turns.lock().waiting.push_back(write(reply));
        // The turn may have ended in between; then the next one begins here.
        drop(self.turn());
        match tokio::time::timeout(TURN_LIMIT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err("the writer of the store ended".to_owned()),
            Err(_) => Err(format!(
                "expected a turn at the writer of the store within {} s: its disk hangs",
                TURN_LIMIT.as_secs()
            )),
        }
    }
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those whose turn it is; nobody: the turn is free.
    fn next(&self) -> Vec<Write> {
        let mut line = self.lock();
        let count = line.waiting.len().min(TURN_WRITES);
        let next: Vec<Write> = line.waiting.drain(..count).collect();
        line.busy = !next.is_empty();
        next
    }
}

/// The right to write. When it is given back, all who came meanwhile are written for, by a task that nobody can give up.
struct Turn {
    store: Store,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = self.store.turns.next();
        if next.is_empty() {
            return;
        }
        let turn = Self {
            store: self.store.clone(),
        };
        // Without a runtime, as when the bot ends, this turn ends at once, and those who wait hear that the writer ended.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { write_all(&turn.store, next).await });
        }
    }
}

async fn write_all(store: &Store, mut writes: Vec<Write>) {
    writes.retain(|write| !write.is_given_up());
    match together(store, &writes).await {
        Ok(answers) => {
            for (write, answer) in writes.into_iter().zip(answers) {
                write.answer(answer);
            }
        }
        // What failed for one must not fail for all.
        Err(_) => {
            for write in writes {
                write.alone(store).await;
            }
        }
    }
}

enum Answer {
    Append(Result<(), JournalError>),
    Acquire(Result<Lease, LeaseError>),
    Release,
}

/// One transaction for all of them, in their order; or none was written.
async fn together(store: &Store, writes: &[Write]) -> Result<Vec<Answer>, StoreError> {
    let mut tx = store.db.begin(WRITING, Lock::Leases).await?;
    let mut chain = None;
    let mut answers = Vec::with_capacity(writes.len());
    for write in writes {
        answers.push(match write {
            Write::Append { events, .. } => {
                Answer::Append(append(&mut tx, &mut chain, events).await?)
            }
            Write::Acquire { wanted, .. } => {
                Answer::Acquire(store.take_lease(&mut tx, wanted).await?)
            }
            Write::Release { lease, .. } => {
                give_back(&mut tx, lease).await?;
                Answer::Release
            }
        });
    }
    if let Some(chain) = chain {
        Chain::end(chain, &mut tx).await?;
    }
    tx.commit_in_order(WRITING).await?;
    Ok(answers)
}

/// Of a job that has another length nothing is written: that shows with the first event.
async fn append(
    tx: &mut Tx,
    chain: &mut Option<Chain>,
    events: &[Recorded],
) -> Result<Result<(), JournalError>, StoreError> {
    for event in events {
        if let Err(why) = event.append(tx).await? {
            return Ok(Err(why));
        }
        let chain = match chain {
            Some(chain) => chain,
            None => chain.insert(Chain::held(tx).await?),
        };
        chain.add(tx, event.entry()).await?;
    }
    Ok(Ok(()))
}

impl Write {
    fn is_given_up(&self) -> bool {
        match self {
            Self::Append { reply, .. } => reply.is_closed(),
            Self::Acquire { reply, .. } => reply.is_closed(),
            Self::Release { reply, .. } => reply.is_closed(),
        }
    }

    /// Nobody may be there any more.
    fn answer(self, answer: Answer) {
        match (self, answer) {
            (Self::Append { reply, .. }, Answer::Append(answer)) => drop(reply.send(answer)),
            (Self::Acquire { reply, .. }, Answer::Acquire(answer)) => drop(reply.send(answer)),
            (Self::Release { reply, .. }, Answer::Release) => drop(reply.send(Ok(()))),
            _ => {} // whoever waits hears that the writer ended
        }
    }

    async fn alone(self, store: &Store) {
        match self {
            Self::Append { events, reply } => drop(reply.send(store.append_alone(&events).await)),
            Self::Acquire { wanted, reply } => drop(reply.send(store.acquire_alone(&wanted).await)),
            Self::Release { lease, reply } => drop(reply.send(store.release_alone(&lease).await)),
        }
    }
}

#[cfg(test)]
mod tests {
    use deploy_engine::job::{JobEvent, JobKind, Journal};
    use futures::{FutureExt, future::join_all};

    use super::*;
    use crate::store::{conformance::at, db::values};

    const JOBS: usize = 20;

    fn job(number: usize) -> JobId {
        JobId(format!("j{number}"))
    }

    fn leased() -> JobEvent {
        JobEvent::Leased {
            holder: "h".into(),
            token: 7,
        }
    }

    async fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        for number in 0..JOBS {
            let created = JobEvent::Created {
                kind: JobKind::Deploy {
                    plan_digest: "d".into(),
                },
                title: "t".into(),
                requested_by: "ann".into(),
                scope: format!("domain:host.h{number}"),
                steps: vec![],
            };
            store.create(&job(number), at(0), &created).await.unwrap();
        }
        (dir, store)
    }

    /// All write in one turn, as the turn is taken until all of them wait.
    async fn at_once<T>(
        store: &Store,
        writes: impl IntoIterator<Item = impl Future<Output = T>>,
    ) -> Vec<T> {
        let turn = store.turn().unwrap();
        let writes: Vec<_> = writes.into_iter().collect();
        let count = writes.len();
        let begin = async {
            while store.turns.lock().waiting.len() < count {
                tokio::task::yield_now().await;
            }
            drop(turn);
        };
        futures::join!(join_all(writes), begin).0
    }

    async fn length(store: &Store, number: usize) -> usize {
        store.load(&job(number)).await.unwrap().len()
    }

    #[tokio::test]
    async fn each_is_told_how_its_own_event_fared() {
        let (_dir, store) = store().await;
        let length_of = |number: usize| if number == 3 { 9 } else { 1 };
        let append = |number: usize| {
            let store = &store;
            async move {
                store
                    .append(&job(number), length_of(number), at(1), &leased())
                    .await
            }
        };
        for (number, appended) in at_once(&store, (0..JOBS).map(append))
            .await
            .into_iter()
            .enumerate()
        {
            match number {
                3 => assert!(matches!(
                    appended,
                    Err(JournalError::Conflict { found: 1, .. })
                )),
                _ => appended.unwrap(),
            }
        }
        assert_eq!(length(&store, 3).await, 1);
        assert_eq!(length(&store, 4).await, 2);
        let mut checker = crate::audit::Checker::default();
        let kept = store.audit_kept(0, 1_000).await.unwrap();
        assert_eq!(kept.len(), JOBS + JOBS - 1);
        for entry in &kept {
            checker.next(entry).unwrap();
        }
        let head = store.audit_head().await.unwrap();
        assert_eq!(head.as_ref(), Some(checker.end()));
    }

    #[tokio::test]
    async fn what_cannot_be_written_fails_alone() {
        let (_dir, store) = store().await;
        // Its place in the table is taken.
        let sql = "INSERT INTO job_events (job, position, at, event) VALUES ('j3', 1, 0, '{}')";
        store.db.write("testing", sql, values![]).await.unwrap();
        let append = |number: usize| {
            let store = &store;
            async move { store.append(&job(number), 1, at(1), &leased()).await }
        };
        for (number, appended) in at_once(&store, (0..JOBS).map(append))
            .await
            .into_iter()
            .enumerate()
        {
            match number {
                3 => assert!(matches!(appended, Err(JournalError::Storage(_)))),
                _ => appended.unwrap(),
            }
        }
        assert_eq!(length(&store, 4).await, 2);
    }

    #[tokio::test]
    async fn whoever_gave_up_is_not_written_for() {
        let (_dir, store) = store().await;
        let turn = store.turn().unwrap();
        let (job, event) = (job(0), leased());
        let given_up = store.append(&job, 1, at(1), &event).now_or_never();
        assert!(given_up.is_none());
        drop(turn);
        store.append(&job, 1, at(2), &event).await.unwrap();
        assert_eq!(store.load(&job).await.unwrap()[1].0, at(2));
    }

    #[tokio::test]
    async fn of_two_that_want_one_scope_in_a_turn_one_has_it() {
        let (_dir, store) = store().await;
        let acquire = |number: usize| {
            let store = &store;
            let scope = if number < 2 {
                "domain:a".to_owned()
            } else {
                format!("domain:b{number}")
            };
            async move { store.acquire(&scope, "h", &job(number), at(1)).await }
        };
        let taken = at_once(&store, (0..4).map(acquire)).await;
        let had: Vec<bool> = taken.iter().map(Result::is_ok).collect();
        assert_eq!(had, [true, false, true, true]);
        let lease = taken.into_iter().next().unwrap().unwrap();
        let release = std::iter::once(store.release(&lease));
        at_once(&store, release).await.remove(0).unwrap();
        assert_eq!(store.leases().await.unwrap().len(), 2);
    }
}
