//! Everything the bot says. Sentences are made by pure constructors; how they look is the business of [`render`].

mod explained;
mod message;
pub mod render;

pub use explained::explained;
pub use message::{Block, Cell, Message, Progress, Severity, Table, Tone};

use jiff::{SignedDuration, Timestamp};

/// For example `850 ms`, `3.2 s`, `4 min 10 s`, `2 h 5 min`, `3 d 4 h`.
pub fn duration(length: SignedDuration) -> String {
    let (seconds, millis) = (
        length.as_secs().unsigned_abs(),
        length.subsec_millis().unsigned_abs(),
    );
    let pair = |big: u64, big_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big} {big_unit}"),
        small => format!("{big} {big_unit} {small} {small_unit}"),
    };
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds}.{} s", millis / 100),
        60..3_600 => pair(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => pair(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// How long ago, or `just now`.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let length = now.duration_since(at);
    if length < SignedDuration::from_secs(1) {
        return "just now".to_owned();
    }
    format!(
        "{} ago",
        duration(SignedDuration::from_secs(length.as_secs()))
    )
    .replace(".0 s", " s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case(850, "850 ms")]
    #[case(3_249, "3.2 s")]
    #[case(250_000, "4 min 10 s")]
    #[case(7_500_000, "2 h 5 min")]
    #[case(86_400_000, "1 d")]
    fn durations_read_well(#[case] millis: i64, #[case] expected: &str) {
        assert_eq!(duration(SignedDuration::from_millis(millis)), expected);
    }
}
