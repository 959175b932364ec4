//! rsyslog's queue, as its own statistics tell it.

use super::table::{self, Entry, OUTPUT_LIMIT_BYTES};
pub use crate::impstats::Queue;
use crate::impstats::{SHOW, parse};

pub const QUEUE: &str = "rsyslog.queue";

const SECONDS: u32 = 10;

pub static PROBES: &[Entry] = &[Entry {
    name: QUEUE,
    service: Some("rsyslog"),
    request: |_| table::command(&SHOW, SECONDS, OUTPUT_LIMIT_BYTES),
    parse: |result| table::value(table::succeeded(result).and_then(parse)),
}];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::table::testing::{exited, failed};

    #[test]
    fn no_statistics_are_unknown() {
        let parse = PROBES[0].parse;
        let text = include_str!("captured/rsyslog-statistics.txt");
        assert!(parse(&exited(0, text, "")).is_ok());
        assert!(parse(&exited(0, "", "")).is_err());
        assert!(parse(&exited(1, "", "find: No such file or directory")).is_err());
        assert!(parse(&failed()).is_err());
    }
}
