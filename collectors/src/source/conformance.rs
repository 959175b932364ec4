//! What every source is held to (rules of [`super`]), against a server that has bad days.
//!
//! A source joins by a [`Rig`] and one line: `conformance!(MyRig::start);`

use std::sync::{Arc, atomic::Ordering::SeqCst};

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    Source,
    testing::{Fault, Kept, Memory, Server},
};
use crate::Change;

/// A monitoring system for a test, and the source that follows it.
#[async_trait]
pub(crate) trait Rig: Send + Sync {
    fn server(&self) -> &Server;

    /// A new one, as after a start of the bot.
    fn source(&self) -> Arc<dyn Source>;

    /// Something happens there: an alert fires, a line is written.
    async fn begins(&self, thing: &str);

    /// It is over. False: in this source nothing is ever over.
    async fn ends(&self, thing: &str) -> bool;

    /// How often the beginning and the end of a thing were heard.
    fn heard(&self, kept: &Kept, thing: &str) -> (u64, u64) {
        let of_it = || kept.changes.iter().filter(|(alert, _)| alert.name == thing);
        let begun = of_it().filter(|(_, change)| matches!(change, Change::New | Change::Refiring));
        let ended = of_it().filter(|(_, change)| *change == Change::Resolved);
        (begun.count() as u64, ended.count() as u64)
    }

    /// Is what happened and was over while nobody listened still heard of?
    fn remembers_what_is_over(&self) -> bool {
        false
    }
}

/// A source that runs.
pub(crate) struct Life {
    stop: CancellationToken,
    runs: JoinHandle<()>,
}

impl Life {
    pub fn of(source: Arc<dyn Source>, ear: &Arc<Memory>) -> Self {
        let stop = CancellationToken::new();
        let (ear, token) = (ear.clone(), stop.clone());
        let runs = tokio::spawn(async move { source.follow(ear, token).await });
        Self { stop, runs }
    }

    /// As if the bot had been killed.
    pub async fn kill(self) {
        self.runs.abort();
        let _ = self.runs.await;
    }

    /// Told to stop, it ends, and has not ended before.
    pub async fn end(self) {
        assert!(!self.runs.is_finished(), "it ended by itself");
        self.stop.cancel();
        let ended = tokio::time::timeout(std::time::Duration::from_secs(5), self.runs);
        ended.await.expect("it ends when told to").unwrap();
    }
}

async fn until(rig: &dyn Rig, ear: &Memory, thing: &str, expected: (u64, u64)) {
    let what = format!("beginning and end of {thing} are heard {expected:?} times");
    ear.until(&what, |kept| rig.heard(kept, thing) == expected)
        .await;
}

pub(crate) async fn told_once_and_silence_is_no_news(rig: &dyn Rig) {
    let ear = Arc::new(Memory::default());
    rig.begins("a").await;
    let life = Life::of(rig.source(), &ear);
    until(rig, &ear, "a", (1, 0)).await;
    rig.begins("b").await;
    until(rig, &ear, "b", (1, 0)).await;
    for _ in 0..3 {
        ear.until_it_worked_again().await;
    }
    let kept = ear.kept();
    assert_eq!(rig.heard(&kept, "a"), (1, 0));
    assert_eq!(rig.heard(&kept, "b"), (1, 0));
    // The machine that tests run on may be slow.
    let odd = kept.fails.iter().find(|why| !Fault::Slow.is_named(why));
    assert_eq!(odd, None);
    life.end().await;
}

pub(crate) async fn ends_and_begins_again_in_order(rig: &dyn Rig) {
    let ear = Arc::new(Memory::default());
    let life = Life::of(rig.source(), &ear);
    rig.begins("a").await;
    until(rig, &ear, "a", (1, 0)).await;
    let ends = u64::from(rig.ends("a").await);
    until(rig, &ear, "a", (1, ends)).await;
    rig.begins("a").await;
    until(rig, &ear, "a", (2, ends)).await;
    life.end().await;
}

/// The bot is down, and meanwhile much happens.
pub(crate) async fn catches_up_after_a_restart(rig: &dyn Rig) {
    let ear = Arc::new(Memory::default());
    let life = Life::of(rig.source(), &ear);
    rig.begins("stays").await;
    rig.begins("goes").await;
    until(rig, &ear, "stays", (1, 0)).await;
    until(rig, &ear, "goes", (1, 0)).await;
    life.kill().await;
    rig.begins("comes").await;
    let ends = u64::from(rig.ends("goes").await);
    rig.begins("was").await;
    rig.ends("was").await;
    let life = Life::of(rig.source(), &ear);
    until(rig, &ear, "comes", (1, 0)).await;
    until(rig, &ear, "goes", (1, ends)).await;
    let was = u64::from(rig.remembers_what_is_over());
    until(rig, &ear, "was", (was, 0)).await;
    ear.until_it_worked_again().await;
    assert_eq!(rig.heard(&ear.kept(), "stays"), (1, 0));
    life.end().await;
}

/// The server is away, and meanwhile much happens there.
pub(crate) async fn catches_up_after_a_reconnect(rig: &dyn Rig) {
    let ear = Arc::new(Memory::default());
    let life = Life::of(rig.source(), &ear);
    rig.begins("stays").await;
    rig.begins("goes").await;
    until(rig, &ear, "stays", (1, 0)).await;
    until(rig, &ear, "goes", (1, 0)).await;
    rig.server().fault(Some(Fault::Down));
    ear.until("it fails", |kept| kept.fails.len() > 1).await;
    rig.begins("comes").await;
    let ends = u64::from(rig.ends("goes").await);
    rig.server().fault(None);
    until(rig, &ear, "comes", (1, 0)).await;
    until(rig, &ear, "goes", (1, ends)).await;
    ear.until_it_worked_again().await;
    assert_eq!(rig.heard(&ear.kept(), "stays"), (1, 0));
    life.end().await;
}

pub(crate) async fn a_bad_answer_is_named_and_never_good_news(rig: &dyn Rig) {
    let ear = Arc::new(Memory::default());
    let life = Life::of(rig.source(), &ear);
    rig.begins("a").await;
    until(rig, &ear, "a", (1, 0)).await;
    for fault in Fault::ALL {
        rig.server().fault(Some(fault));
        let what = format!("{fault:?} is named: {:?}", fault.words());
        let before = ear.kept().fails.len();
        ear.until(&what, |kept| {
            let since = kept.fails.iter().skip(before);
            since.filter(|why| fault.is_named(why)).count() > 1
        })
        .await;
        rig.server().fault(None);
        ear.until_it_worked_again().await;
        assert_eq!(rig.heard(&ear.kept(), "a"), (1, 0), "after {fault:?}");
    }
    let ends = u64::from(rig.ends("a").await);
    until(rig, &ear, "a", (1, ends)).await;
    life.end().await;
}

/// An answer that never came right: nothing is known, and nothing is told.
pub(crate) async fn a_source_that_begins_badly_says_nothing(rig: &dyn Rig) {
    let ear = Arc::new(Memory::default());
    rig.begins("a").await;
    rig.server().fault(Some(Fault::Empty));
    let life = Life::of(rig.source(), &ear);
    ear.until("it fails", |kept| kept.fails.len() > 2).await;
    let kept = ear.kept();
    assert_eq!((kept.works, rig.heard(&kept, "a")), (0, (0, 0)));
    rig.server().fault(None);
    until(rig, &ear, "a", (1, 0)).await;
    life.end().await;
}

pub(crate) async fn what_is_not_kept_is_told_again(rig: &dyn Rig) {
    let ear = Arc::new(Memory::default());
    let life = Life::of(rig.source(), &ear);
    ear.until_it_worked_again().await;
    ear.refuses.store(true, SeqCst);
    rig.begins("a").await;
    ear.until("it is refused", |_| ear.refused.load(SeqCst) > 1)
        .await;
    ear.refuses.store(false, SeqCst);
    until(rig, &ear, "a", (1, 0)).await;
    life.end().await;
}

/// It was kept, but the source does not know: as after a crash at the worst moment.
pub(crate) async fn what_was_kept_is_not_doubled(rig: &dyn Rig) {
    let ear = Arc::new(Memory::default());
    let life = Life::of(rig.source(), &ear);
    ear.until_it_worked_again().await;
    ear.loses_answers.store(true, SeqCst);
    rig.begins("a").await;
    until(rig, &ear, "a", (1, 0)).await;
    life.kill().await;
    let life = Life::of(rig.source(), &ear);
    rig.begins("b").await;
    until(rig, &ear, "b", (1, 0)).await;
    ear.loses_answers.store(false, SeqCst);
    ear.until_it_worked_again().await;
    let kept = ear.kept();
    assert_eq!(rig.heard(&kept, "a"), (1, 0));
    assert_eq!(rig.heard(&kept, "b"), (1, 0));
    life.end().await;
}

/// A failure is a few questions and then a pause, not a loop.
pub(crate) async fn a_failure_is_not_asked_about_at_once(rig: &dyn Rig) {
    let ear = Arc::new(Memory::default());
    rig.server().fault(Some(Fault::Overloaded));
    let before = rig.server().asked();
    let life = Life::of(rig.source(), &ear);
    ear.until("it fails", |kept| kept.fails.len() >= 8).await;
    let (failures, asked) = (ear.kept().fails.len(), rig.server().asked() - before);
    assert!(
        asked as usize <= failures * 6 + 6,
        "{asked} requests for {failures} failures"
    );
    life.end().await;
}

/// Each case as a test of its own. `$rig`: an async function that makes a [`Rig`].
macro_rules! conformance {
    ($rig:path) => {
        $crate::source::conformance::conformance!($rig:
            told_once_and_silence_is_no_news, ends_and_begins_again_in_order, catches_up_after_a_restart,
            catches_up_after_a_reconnect, a_bad_answer_is_named_and_never_good_news,
            a_source_that_begins_badly_says_nothing, what_is_not_kept_is_told_again, what_was_kept_is_not_doubled,
            a_failure_is_not_asked_about_at_once);
    };
    ($rig:path: $($case:ident),*) => {
        $(#[tokio::test]
        async fn $case() {
            let rig = $rig().await;
            $crate::source::conformance::$case(&rig).await;
        })*
    };
}
pub(crate) use conformance;
