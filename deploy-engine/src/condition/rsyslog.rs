//! rsyslog: runs, and gets rid of its lines.

use super::{
    Judgement,
    table::{self, Entry, all, holds, not_yet, unknown},
};
use crate::{
    model::HostName,
    probe::{
        Readings,
        rsyslog::{self, Queue},
    },
};

/// Two batches: what waits under load although all is well.
const FEW_LINES: u64 = 2_000;

pub static CONDITIONS: &[Entry] = &[
    Entry {
        name: "rsyslog.healthy",
        doc: "rsyslog writes its statistics; lines may wait on the disk meanwhile",
        asks: |call| table::ask_hosts(call, rsyslog::QUEUE),
        judge: |call, readings| all(call.hosts.iter().map(|host| healthy(host, readings))),
    },
    Entry {
        name: "rsyslog.delivering",
        doc: "no line waits, or few do and servers take them",
        asks: |call| table::ask_hosts(call, rsyslog::QUEUE),
        judge: |call, readings| all(call.hosts.iter().map(|host| delivering(host, readings))),
    },
];

fn healthy(host: &HostName, readings: &Readings) -> Judgement {
    match readings.get::<Queue>(rsyslog::QUEUE, host) {
        Ok(queue) => holds(words(host, &queue)),
        Err(why) => unknown(why),
    }
}

fn delivering(host: &HostName, readings: &Readings) -> Judgement {
    let queue = match readings.get::<Queue>(rsyslog::QUEUE, host) {
        Ok(queue) => queue,
        Err(why) => return unknown(why),
    };
    let gets_rid = queue.delivered_lately > 0 && queue.size <= FEW_LINES;
    if queue.size == 0 || gets_rid {
        holds(words(host, &queue))
    } else {
        not_yet(words(host, &queue))
    }
}

fn words(host: &HostName, queue: &Queue) -> String {
    format!(
        "{host}: {} lines wait ({} on the disk), {} were taken lately, {} were discarded",
        queue.size, queue.on_disk, queue.delivered_lately, queue.discarded
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::{self, table::testing};

    #[test]
    fn lines_may_wait_but_not_for_ever() {
        let judge = |name: &str, queue: Option<Queue>| {
            let mut readings = Readings::default();
            match &queue {
                Some(queue) => testing::known(&mut readings, rsyslog::QUEUE, "ctl1", queue),
                None => testing::unknown(&mut readings, rsyslog::QUEUE, "ctl1"),
            }
            let call = testing::call(name, "rsyslog", &["ctl1"], &["ctl1"]);
            condition::find(name).unwrap().judge(&call, &readings)
        };
        let waiting = |size, delivered_lately| Queue {
            size,
            delivered_lately,
            ..Queue::default()
        };
        assert!(judge("rsyslog.healthy", Some(waiting(9_000, 0))).holds());
        assert!(matches!(
            judge("rsyslog.healthy", None),
            Judgement::Unknown { .. }
        ));
        for (size, lately, delivers) in [
            (0, 0, true),
            (FEW_LINES, 1, true),
            (1, 0, false),
            (FEW_LINES + 1, 500, false),
        ] {
            let judgement = judge("rsyslog.delivering", Some(waiting(size, lately)));
            assert_eq!(judgement.holds(), delivers, "{size} {lately}");
            assert!(delivers || matches!(judgement, Judgement::NotYet { .. }));
        }
        assert!(matches!(
            judge("rsyslog.delivering", None),
            Judgement::Unknown { .. }
        ));
    }
}
