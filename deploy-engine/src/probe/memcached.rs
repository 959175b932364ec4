//! memcached, asked with its own protocol.

use serde::{Deserialize, Serialize};

use super::table::{self, Entry, LOCAL_TIMEOUT_MS, OUTPUT_LIMIT_BYTES};
use crate::wire::{self, ProbeResult, SocketAddress};

pub const STATS: &str = "memcached.stats";

const PORT: u16 = 11211;

pub static PROBES: &[Entry] = &[Entry {
    name: STATS,
    service: Some("memcached"),
    request: |context| wire::Probe::Socket {
        to: SocketAddress::Tcp {
            address: context.address.to_owned(),
            port: context.port("port", PORT),
        },
        send: "stats\r\nquit\r\n".to_owned(),
        timeout_ms: LOCAL_TIMEOUT_MS,
        limit_bytes: OUTPUT_LIMIT_BYTES,
    },
    parse: |result| table::value(parse_stats(result)),
}];

/// [`STATS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub version: String,
    pub uptime_seconds: u64,
    pub curr_connections: u64,
    pub max_connections: u64,
    pub bytes: u64,
    pub limit_maxbytes: u64,
    pub evictions: u64,
}

pub fn parse_stats(result: &ProbeResult) -> Result<Stats, String> {
    let answer = table::spoken(result)?;
    let text = |name: &str| {
        answer
            .lines()
            .filter_map(|line| line.strip_prefix("STAT "))
            .filter_map(|line| line.split_once(' '))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim())
            .ok_or_else(|| format!("expected STAT {name}; it is not in the answer"))
    };
    let number = |name: &str| {
        let value = text(name)?;
        value
            .parse()
            .map_err(|_| format!("{name}: expected a number; found {value:?}"))
    };
    Ok(Stats {
        version: text("version")?.to_owned(),
        uptime_seconds: number("uptime")?,
        curr_connections: number("curr_connections")?,
        max_connections: number("max_connections")?,
        bytes: number("bytes")?,
        limit_maxbytes: number("limit_maxbytes")?,
        evictions: number("evictions")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics() {
        let answer = include_str!("captured/memcached-stats.txt").to_owned();
        let stats = parse_stats(&ProbeResult::Socket { answer }).unwrap();
        assert_eq!(
            (stats.version.as_str(), stats.max_connections),
            ("1.6.18", 1024)
        );
        let cut = ProbeResult::Socket {
            answer: "STAT uptime 5\r\n".to_owned(),
        };
        assert!(parse_stats(&cut).is_err());
    }
}
