//! Bugs that the simulation plants in the engine, to show that it finds them.
//!
//! Without the feature `simulation`, which no program of the house has, [`is_planted`] is the constant `false` and the compiler
//! drops what hangs on it.

/// One bug, as somebody could make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Guards are taken as they were when the job was made, and not judged again at the moment of the act.
    NoRecheck,
    /// A step that was left half-done is not undone.
    UndoSkipped,
    /// A host starts steps for a holder of the lease that a newer one has replaced. The simulated host's bug, not the engine's.
    #[cfg(any(test, feature = "simulation"))]
    OldFenceAccepted,
    /// The journal says that an intent is on the disk while its sync is under way. The simulated disk's bug, not the engine's.
    #[cfg(any(test, feature = "simulation"))]
    SyncNotAwaited,
}

#[cfg(any(test, feature = "simulation"))]
impl Bug {
    pub const ALL: [Self; 4] = [
        Self::NoRecheck,
        Self::UndoSkipped,
        Self::OldFenceAccepted,
        Self::SyncNotAwaited,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::NoRecheck => "no-recheck",
            Self::UndoSkipped => "undo-skipped",
            Self::OldFenceAccepted => "old-fence-accepted",
            Self::SyncNotAwaited => "sync-not-awaited",
        }
    }
}

#[cfg(not(any(test, feature = "simulation")))]
pub(crate) const fn is_planted(_: Bug) -> bool {
    false
}

#[cfg(any(test, feature = "simulation"))]
mod plant {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub(crate) fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Has this thread work with a bug until the result is dropped.
    pub(crate) struct Plant;

    impl Plant {
        pub(crate) fn new(bug: Option<Bug>) -> Self {
            PLANTED.set(bug);
            Self
        }
    }

    impl Drop for Plant {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
}

#[cfg(any(test, feature = "simulation"))]
pub(crate) use plant::{Plant, is_planted};
