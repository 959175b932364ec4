//! memcached: members know nothing of each other.

use super::table::{self, Entry, all, holds, unknown};
use crate::probe::memcached::{self, Stats};

pub static CONDITIONS: &[Entry] = &[Entry {
    name: "memcached.answers",
    doc: "the server answers its statistics",
    asks: |call| table::ask_hosts(call, memcached::STATS),
    judge: |call, readings| {
        all(call
            .hosts
            .iter()
            .map(|host| match readings.get::<Stats>(memcached::STATS, host) {
                Ok(stats) => holds(format!("{host} answers, up {} s", stats.uptime_seconds)),
                Err(why) => unknown(why),
            }))
    },
}];
