//! How samples spread: what most people wait, and what the unlucky ones wait.

use std::time::Duration;

use serde::Serialize;

/// In milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

impl Spread {
    /// No samples have no number, which meets no aim.
    pub(super) fn of(samples: &[Duration]) -> Spread {
        let mut sorted: Vec<f64> = samples.iter().map(|s| s.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share: usize| {
            let place = (sorted.len() * share / 100).min(sorted.len().saturating_sub(1));
            sorted.get(place).copied().unwrap_or(f64::NAN)
        };
        Spread {
            p50_ms: at(50),
            p99_ms: at(99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_and_nearly_all() {
        let samples: Vec<Duration> = (0..100).rev().map(Duration::from_millis).collect();
        let spread = Spread::of(&samples);
        assert_eq!((spread.p50_ms, spread.p99_ms), (50.0, 99.0));
        assert!(Spread::of(&[]).p50_ms.is_nan());
        assert_eq!(Spread::of(&samples[..1]).p99_ms, 99.0);
    }
}
