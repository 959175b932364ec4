//! Time that stands still while there is work, and jumps to the next timer when there is none: hours in microseconds,
//! and the same order of events every time.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use crate::runner::Clock;

#[derive(Default)]
pub struct VirtualClock {
    inner: Mutex<Inner>,
}

struct Inner {
    now: Timestamp,
    timers: BTreeMap<(Timestamp, u64), Waker>,
    next_timer: u64,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            now: start(),
            timers: BTreeMap::new(),
            next_timer: 0,
        }
    }
}

/// When every test begins.
pub fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

impl VirtualClock {
    /// Goes to the next timer; false if nobody waits for anything.
    fn advance(&self) -> bool {
        let mut inner = self.inner.lock().unwrap();
        let Some(((at, _), waker)) = inner.timers.pop_first() else {
            return false;
        };
        inner.now = inner.now.max(at);
        drop(inner);
        waker.wake();
        true
    }

    pub fn skip(&self, seconds: i64) {
        let mut inner = self.inner.lock().unwrap();
        inner.now += SignedDuration::from_secs(seconds);
    }

    /// Runs a future to its end.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        struct Flag(AtomicBool);
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(flag.clone());
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return done;
            }
            while !flag.0.swap(false, Ordering::SeqCst) {
                assert!(self.advance(), "everybody waits, and no timer is set");
            }
        }
    }
}

struct Sleep<'c> {
    clock: &'c VirtualClock,
    until: Timestamp,
    timer: Option<u64>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.clock.inner.lock().unwrap();
        if inner.now >= self.until {
            return Poll::Ready(());
        }
        let timer = self.timer.unwrap_or_else(|| {
            inner.next_timer += 1;
            inner.next_timer
        });
        inner
            .timers
            .insert((self.until, timer), context.waker().clone());
        drop(inner);
        self.timer = Some(timer);
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.clock
                .inner
                .lock()
                .unwrap()
                .timers
                .remove(&(self.until, timer));
        }
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.inner.lock().unwrap().now
    }

    async fn sleep(&self, length: Duration) {
        let until = self.now() + SignedDuration::try_from(length).unwrap();
        Sleep {
            clock: self,
            until,
            timer: None,
        }
        .await;
    }
}
