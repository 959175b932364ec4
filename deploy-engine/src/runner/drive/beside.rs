//! What goes on beside the driver's loop, also while the loop waits for its disk: a slow write must not hold up an order that is
//! about to be sent on the strength of its guards, nor a limit that is due.

use std::collections::VecDeque;

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};

use super::Landed;
use crate::job::StepId;

#[derive(Default)]
pub struct Beside {
    tasks: FuturesUnordered<BoxFuture<'static, (StepId, Landed)>>,
    /// Came back while the loop was busy. Bounded by the steps in flight.
    landed: VecDeque<(StepId, Landed)>,
}

impl Beside {
    pub fn push(&mut self, task: BoxFuture<'static, (StepId, Landed)>) {
        self.tasks.push(task);
    }

    /// What came back next; `None`: nothing is under way.
    pub async fn next(&mut self) -> Option<(StepId, Landed)> {
        match self.landed.pop_front() {
            Some(landed) => Some(landed),
            None => self.tasks.next().await,
        }
    }

    /// Does `work` while all else goes on.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                Some(landed) = self.tasks.next() => self.landed.push_back(landed),
            }
        }
    }
}
