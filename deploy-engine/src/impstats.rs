//! What rsyslog's own statistics (impstats) say, which it writes to a file every few seconds. The engine asks for them as a probe, the agent's
//! exporter shows them to Prometheus.

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub const STATISTICS: &str = "/var/log/nightshift-rsyslog-stats.json";
/// Prints their last lines: several writings of all, about 25 lines each. Nothing is shown of a file that was not written lately, as it says
/// nothing of now; the longest interval that a site would choose fits.
pub const SHOW: [&str; 10] = [
    "find",
    STATISTICS,
    "-newermt",
    "-90 seconds",
    "-exec",
    "tail",
    "-n",
    "150",
    "{}",
    "+",
];
/// Of lines on their way, and of lines that a server was too busy for; names in the configuration.
const QUEUES: [&str; 2] = ["elasticsearch", "again"];
/// Writes down what a server will never take.
const REFUSED: &str = "refused";

/// Numbers of lines. Those in the past tense count from rsyslog's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Waiting, in memory and on the disk.
    pub size: u64,
    /// Of those, on the disk.
    pub on_disk: u64,
    pub enqueued: u64,
    /// Times that a queue was full.
    pub full: u64,
    /// Lost, because a queue stayed full.
    pub discarded: u64,
    /// Taken by a server.
    pub delivered: u64,
    /// Of those, within the last few statistics.
    pub delivered_lately: u64,
    /// Written down, because a server will never take them.
    pub refused: u64,
}

/// What the last of several writings says.
#[derive(Default)]
struct Last {
    /// Of the queues in memory and on the disk: size, enqueued, full, discarded.
    queues: [[Option<[u64; 4]>; 2]; 2],
    /// The first and the last count.
    delivered: Option<(u64, u64)>,
    refused: u64,
}

impl Last {
    /// One statistic: of a queue, of what servers answered, or of an action. By hand, not derived: it is less code, and the
    /// agent is to be small.
    fn take(&mut self, line: &Value) -> Option<()> {
        let number = |field: &str| line.get(field)?.as_u64();
        if let Some(success) = number("response.success") {
            let first = self.delivered.map_or(success, |(first, _)| first);
            self.delivered = Some((first, success));
            return Some(());
        }
        let name = line.get("name")?.as_str()?;
        if name == REFUSED {
            self.refused = number("processed")?;
            return Some(());
        }
        let place = QUEUES.iter().position(|queue| name.starts_with(queue))?;
        let kind = match &name[QUEUES[place].len()..] {
            " queue" => 0,
            " queue[DA]" => 1,
            _ => return None,
        };
        let lost = number("discarded.full")?.saturating_add(number("discarded.nf")?);
        let numbers = [number("size")?, number("enqueued")?, number("full")?, lost];
        self.queues[place][kind] = Some(numbers);
        Some(())
    }
}

/// Lines are `Thu Nov 26 05:16:20 2026: {…}`; of the same name, the last one counts.
pub fn parse(text: &str) -> Result<Queue, String> {
    if text.trim().is_empty() {
        return Err(format!("{STATISTICS} was not written lately"));
    }
    let mut last = Last::default();
    text.lines()
        .filter_map(|line| line.find('{').map(|at| &line[at..]))
        .filter_map(|line| serde_json::from_str(line).ok())
        .for_each(|line: Value| {
            // What is none of these is not asked for.
            let _ = last.take(&line);
        });
    let ([Some(own), _], Some((first, delivered))) = (last.queues[0], last.delivered) else {
        return Err(format!(
            "expected statistics of the queue of {}; they are not in {STATISTICS}",
            QUEUES[0]
        ));
    };
    let all = || last.queues.iter().flatten().flatten();
    let on_disk = last.queues.iter().filter_map(|queue| queue[1]);
    Ok(Queue {
        size: all().map(|queue| queue[0]).sum(),
        on_disk: on_disk.map(|queue| queue[0]).sum(),
        enqueued: own[1],
        full: all().map(|queue| queue[2]).sum(),
        discarded: all().map(|queue| queue[3]).sum(),
        delivered,
        // It begins at zero again when rsyslog is started.
        delivered_lately: delivered.saturating_sub(first),
        refused: last.refused,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn a_queue_that_empties_and_one_that_waits_on_the_disk() {
        let text = include_str!("probe/captured/rsyslog-statistics.txt");
        let queue = parse(text).unwrap();
        assert_eq!((queue.size, queue.on_disk, queue.discarded), (0, 0, 0));
        assert_eq!((queue.enqueued, queue.delivered), (3_000, 5_700));
        let text = include_str!("probe/captured/rsyslog-statistics-no-server.txt");
        let queue = parse(text).unwrap();
        assert_eq!((queue.size, queue.on_disk), (3_000, 2_737));
        assert_eq!((queue.delivered, queue.delivered_lately), (2_899, 0));
    }

    #[test]
    fn what_is_delivered_between_two_writings() {
        let text = include_str!("probe/captured/rsyslog-statistics.txt");
        let before = text.replace(r#""response.success": 5700"#, r#""response.success": 5000"#);
        let queue = parse(&(before + text)).unwrap();
        assert_eq!(queue.delivered_lately, 700);
    }

    #[test]
    fn silence_is_unknown() {
        assert!(parse("").unwrap_err().contains("not written lately"));
        let other =
            r#"Thu Nov 26 05:44:05 2026: { "name": "main Q", "origin": "core.queue", "size": 0 }"#;
        assert!(parse(other).is_err());
    }
}
