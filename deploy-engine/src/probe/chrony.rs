//! chrony, as its own client tells of it: no service of the catalogue, but most hosts have it.

use serde::{Deserialize, Serialize};

use super::{
    Heard,
    table::{self, Entry, OUTPUT_LIMIT_BYTES},
};
use crate::wire::ProbeResult;

pub const TRACKING: &str = "chrony.tracking";
pub const SOURCES: &str = "chrony.sources";

/// The client waits a second for each of a few tries.
const TIMEOUT_SECONDS: u32 = 10;

pub static PROBES: &[Entry] = &[
    Entry {
        name: TRACKING,
        service: None,
        request: |_| ask("tracking"),
        parse: |result| table::value(heard(result, tracking)),
    },
    Entry {
        name: SOURCES,
        service: None,
        request: |_| ask("sources"),
        parse: |result| table::value(heard(result, sources)),
    },
];

/// `-c`: columns with commas; `-n`: no names are resolved.
fn ask(report: &str) -> crate::wire::Probe {
    table::command(
        &["chronyc", "-c", "-n", report],
        TIMEOUT_SECONDS,
        OUTPUT_LIMIT_BYTES,
    )
}

/// What the client prints when no daemon answers it.
const SILENT: &str = "506 Cannot talk to daemon";

fn heard<T>(result: &ProbeResult, read: fn(&str) -> Result<T, String>) -> Result<Heard<T>, String> {
    match table::ended(result)? {
        (0, output) => read(&output.stdout).map(Heard::Answers),
        (_, output) if output.stdout.contains(SILENT) => Ok(Heard::Silent {
            why: SILENT.to_owned(),
        }),
        (code, output) => Err(format!(
            "chronyc ended with {code}: {}",
            table::last_line(&output.stdout)
        )),
    }
}

/// [`TRACKING`]: how the host's clock is, as its own chronyd says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tracking {
    pub synchronised: bool,
    /// Seconds that the clock is ahead of its sources; below zero: behind.
    pub ahead_seconds: f64,
}

/// Columns of chrony 4: the fifth is the offset (above zero: slow), the last the leap status.
fn tracking(text: &str) -> Result<Tracking, String> {
    let columns: Vec<&str> = text.trim().split(',').collect();
    let (Some(offset), Some(leap), 14) = (columns.get(4), columns.last(), columns.len()) else {
        return Err(format!(
            "expected 14 columns; found {}: {:?}",
            columns.len(),
            table::last_line(text)
        ));
    };
    let slow: f64 = offset
        .parse()
        .map_err(|_| format!("expected an offset in seconds; found {offset:?}"))?;
    Ok(Tracking {
        synchronised: *leap != "Not synchronised",
        ahead_seconds: -slow,
    })
}

/// [`SOURCES`]: those that it was told to ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    pub sources: Vec<Source>,
}

impl Sources {
    pub fn reachable(&self) -> usize {
        self.sources.iter().filter(|one| one.reachable).count()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub address: String,
    /// It answered one of the last eight questions.
    pub reachable: bool,
    /// The clock follows it.
    pub selected: bool,
}

/// Columns: mode, state, address, stratum, poll, reach (octal, the last eight answers), …
fn sources(text: &str) -> Result<Sources, String> {
    let one = |line: &str| {
        let columns: Vec<&str> = line.split(',').collect();
        let [_, state, address, _, _, reach, ..] = columns[..] else {
            return Err(format!("expected columns of a source; found {line:?}"));
        };
        let reach = u16::from_str_radix(reach, 8)
            .map_err(|_| format!("expected a reach in octal digits; found {reach:?}"))?;
        Ok(Source {
            address: address.to_owned(),
            reachable: reach > 0,
            selected: state == "*",
        })
    };
    let lines = text.lines().filter(|line| !line.is_empty());
    let sources = lines.map(one).collect::<Result<_, String>>()?;
    Ok(Sources { sources })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::table::testing::{exited, failed};

    /// As chrony 4.3 prints them, two seconds after its start and 14 seconds later.
    const EARLY: &str = "00000000,,0,0.000000000,0.000000000,0.000000000,0.000000000,0.000,0.000,0.000,1.000000000,1.000000000,0.0,Not synchronised\n";
    const LATER: &str = "7F000001,127.0.0.1,9,1795696136.193159590,-0.000000929,0.000000297,0.000000297,-0.045,0.000,2.386,0.000005890,0.000034775,2.0,Normal\n";
    const TWO: &str = "^,*,127.0.0.1,8,6,17,10,0.000000035,0.000000332,0.000002986\n^,?,127.0.0.2,0,7,0,4294967295,0.000000000,0.000000000,0.000000000\n";

    fn read_tracking(result: &ProbeResult) -> Result<Heard<Tracking>, String> {
        heard(result, tracking)
    }

    #[test]
    fn a_clock_that_is_kept_and_one_that_is_not_yet() {
        let said = read_tracking(&exited(0, LATER, "")).unwrap();
        let Heard::Answers(later) = said else {
            panic!("it answers")
        };
        assert!(later.synchronised);
        // "0.000000929 seconds fast of NTP time", says the same client in words.
        assert!((later.ahead_seconds - 0.000_000_929).abs() < 1e-12);
        let Ok(Heard::Answers(early)) = read_tracking(&exited(0, EARLY, "")) else {
            panic!("it answers")
        };
        assert!(!early.synchronised);
    }

    #[test]
    fn sources_that_answer_and_that_do_not() {
        let all = sources(TWO).unwrap();
        assert_eq!(all.reachable(), 1);
        let found = all.sources;
        assert_eq!((found[0].reachable, found[0].selected), (true, true));
        assert_eq!((found[1].reachable, found[1].selected), (false, false));
        assert_eq!(found[1].address, "127.0.0.2");
        assert_eq!(sources("").unwrap().reachable(), 0);
        let said = exited(0, TWO, "");
        assert!((PROBES[1].parse)(&said).is_ok());
        assert!(sources("^,*,127.0.0.1\n").is_err());
        assert!(sources("^,*,127.0.0.1,8,6,9x,10\n").is_err());
    }

    #[test]
    fn a_daemon_that_is_down_is_silent_and_anything_else_unknown() {
        let down = read_tracking(&exited(1, "506 Cannot talk to daemon\n", ""));
        assert!(matches!(down, Ok(Heard::Silent { .. })));
        assert!(read_tracking(&exited(1, "501 Not authorised\n", "")).is_err());
        assert!(read_tracking(&exited(0, "", "")).is_err());
        assert!(read_tracking(&failed()).is_err());
        let odd = LATER.replace("-0.000000929", "soon");
        assert!(read_tracking(&exited(0, &odd, "")).is_err());
    }
}
