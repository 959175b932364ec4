//! Time that stands still while there is work, and jumps to the next timer when there is none: hours in microseconds,
//! and the same order of events every time.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use crate::runner::Clock;

/// Timers that may fire in one run. The longest run of 100,000 seeds needs a few thousand; more is a loop that does not end.
const TIMERS_MAX: u64 = 1_000_000;

#[derive(Default)]
pub struct VirtualClock {
    inner: Mutex<Inner>,
}

struct Inner {
    now: Timestamp,
    timers: BTreeMap<(Timestamp, u64), Waker>,
    next_timer: u64,
    fired: u64,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            now: start(),
            timers: BTreeMap::new(),
            next_timer: 0,
            fired: 0,
        }
    }
}

/// When every run begins.
pub fn start() -> Timestamp {
    Timestamp::constant(1_800_000_000, 0)
}

/// `seconds` after the begin.
pub fn after(seconds: u64) -> Timestamp {
    start() + SignedDuration::from_secs(seconds.cast_signed())
}

impl VirtualClock {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes to the next timer; false if nobody waits for anything.
    fn advance(&self) -> bool {
        let mut inner = self.lock();
        let Some(((at, _), waker)) = inner.timers.pop_first() else {
            return false;
        };
        inner.now = inner.now.max(at);
        inner.fired += 1;
        let (fired, now) = (inner.fired, inner.now);
        drop(inner);
        assert!(
            fired <= TIMERS_MAX,
            "{fired} timers fired until {now}: something turns in a circle"
        );
        waker.wake();
        true
    }

    pub fn skip(&self, seconds: i64) {
        self.lock().now += SignedDuration::from_secs(seconds);
    }

    pub fn until(&self, until: Timestamp) -> Sleep<'_> {
        Sleep {
            clock: self,
            until,
            timer: None,
        }
    }

    pub fn pause(&self, length: Duration) -> Sleep<'_> {
        let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
        self.until(self.now() + length)
    }

    /// Runs a future to its end.
    ///
    /// # Panics
    /// When everybody waits and no timer is set, or when timers fire without end.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        struct Flag(AtomicBool);
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(flag.clone());
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return done;
            }
            while !flag.0.swap(false, Ordering::Relaxed) {
                assert!(self.advance(), "everybody waits, and no timer is set");
            }
        }
    }
}

pub struct Sleep<'c> {
    clock: &'c VirtualClock,
    until: Timestamp,
    timer: Option<u64>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.clock.lock();
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
            self.clock.lock().timers.remove(&(self.until, timer));
        }
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.lock().now
    }

    async fn sleep(&self, length: Duration) {
        self.pause(length).await;
    }
}
