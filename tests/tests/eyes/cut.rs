//! Nothing between the bot and Icinga passes for a while; checks change meanwhile, and people speak. Afterwards all is known, once.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use lab::{Lab, wait};
use serde_json::{Value, json};

use crate::{
    icinga::{self, BOB},
    stage::Stage,
};

/// How long the cut is unless `NIGHTSHIFT_CUT` says otherwise, in seconds: longer than it takes to see that the stream is dead (25 s).
const USUAL_CUT: u64 = 60;
/// After so long without an answer a source is told as blind (200 s), and a little more.
const BLIND: Duration = Duration::from_secs(210);
/// From the end of the cut to what all of it became: the longest pause between two attempts is a minute.
const CAUGHT_UP: Duration = Duration::from_secs(120);
/// What the doors stand on, and their first port.
const DOORS_AT: (&str, &str) = ("ctl1", "10.77.0.11");
const PORT: u16 = 2100;
/// Masters' addresses as the bot asks them.
const ADDRESSES: [&str; 2] = ["10.77.0.12:5665", "10.77.0.13:5665"];

/// A check of something that nobody repairs, so that each is an incident of its own.
#[derive(Clone, Copy)]
struct Door(u16);

/// It opens, it closes, somebody takes it, it closes and opens again, it opens and closes again.
const OPENS: Door = Door(1);
const CLOSES: Door = Door(2);
const IS_TAKEN: Door = Door(3);
const IS_OPEN_AGAIN: Door = Door(4);
const WAS_OPEN: Door = Door(5);
const ALL: [Door; 5] = [OPENS, CLOSES, IS_TAKEN, IS_OPEN_AGAIN, WAS_OPEN];

impl Door {
    fn name(self) -> String {
        format!("door-{}", self.0)
    }

    fn domain(self) -> String {
        format!("icinga2/{}", self.name())
    }

    /// A real daemon listens.
    fn close(self, lab: &Lab) {
        let unit = format!("--unit={}", self.name());
        let port = (PORT + self.0).to_string();
        let mut argv = vec!["systemd-run", "--quiet", "--collect", &unit];
        argv.extend(["memcached", "-u", "memcache", "-l", DOORS_AT.1, "-p", &port]);
        lab.ssh_ok(DOORS_AT.0, &argv).unwrap();
    }

    /// Nothing listens.
    fn open(self, lab: &Lab) {
        let unit = format!("{}.service", self.name());
        lab.ssh_ok(DOORS_AT.0, &["systemctl", "stop", &unit])
            .unwrap();
    }

    fn until_hard(self, lab: &Lab, state: f64) {
        icinga::until_hard(lab, (DOORS_AT.0, &self.name()), state);
    }

    fn until_closed(self, lab: &Lab) {
        self.until_hard(lab, 0.0);
    }

    fn until_open(self, lab: &Lab) {
        self.until_hard(lab, 2.0);
    }
}

/// As a person writes them into a file of Icinga.
fn objects() -> String {
    let mut text = "object CheckCommand \"door\" { import \"tcp\" }\n".to_owned();
    for door in ALL {
        let (name, port) = (door.name(), PORT + door.0);
        text.push_str(&format!(
            "object Service \"{name}\" {{\n  host_name = \"{}\"\n  check_command = \"door\"\n  vars.tcp_port = {port}\n  \
             check_interval = 2s\n  retry_interval = 1s\n  max_check_attempts = 2\n}}\n",
            DOORS_AT.0
        ));
    }
    text
}

pub fn play(stage: &Stage<'_>) {
    let lab = stage.lab();
    ALL.iter().for_each(|door| door.close(lab));
    icinga::written_by_people(lab, &objects());
    ALL.iter().for_each(|door| door.until_closed(lab));
    let before = [CLOSES, IS_TAKEN, IS_OPEN_AGAIN];
    before.iter().for_each(|door| door.open(lab));
    let known = before.map(|door| stage.open_incident(&door.domain(), &[&door.name()]));
    let began = start_of(stage, &known[2]);

    let cut = Cut::make(lab);
    let start = Instant::now();
    changes_while_cut(lab);
    assert!(
        start.elapsed() < length(),
        "the changes took longer than the cut"
    );
    let left = length().saturating_sub(start.elapsed());
    let was_blind = stays_deaf(stage, left);
    assert!(was_blind || length() < BLIND, "not told as blind");
    assert_eq!(stage.incidents_about(&OPENS.domain()), Vec::<Value>::new());
    assert_eq!(start_of(stage, &known[2]), began);
    let took = start.elapsed();
    cut.end();

    let ended = Instant::now();
    let opened = stage.open_incident(&OPENS.domain(), &[&OPENS.name()]);
    let seen = ended.elapsed();
    stage.until_over(&CLOSES.domain(), CAUGHT_UP);
    stage.until_told(&known[1], "bob's word", |words| {
        words.contains("acknowledged in icinga2 by bob") && words.contains("I hold it")
    });
    wait::until("the second opening", CAUGHT_UP, || {
        let now = start_of(stage, &known[2]);
        (now > began).then_some(()).ok_or(now)
    })
    .unwrap();
    let all = ended.elapsed();
    assert!(all < CAUGHT_UP, "caught up after {all:?}");
    told_once(stage, &known, &opened);
    println!(
        "Icinga cut off for {:.0} s: the first change known {:.1} s after, all {:.1} s after",
        took.as_secs_f64(),
        seen.as_secs_f64(),
        all.as_secs_f64()
    );
    // What is read again in the next minute changes nothing; `main` asks once more at its end.
    mended(stage, &known, &opened);
}

fn length() -> Duration {
    let seconds = std::env::var("NIGHTSHIFT_CUT").ok();
    let seconds = seconds.map(|text| text.parse().expect("NIGHTSHIFT_CUT: a number of seconds"));
    Duration::from_secs(seconds.unwrap_or(USUAL_CUT))
}

/// Each change is hard in Icinga when it returns.
fn changes_while_cut(lab: &Lab) {
    [OPENS, WAS_OPEN].iter().for_each(|door| door.open(lab));
    let word = json!({"comment": "I hold it", "sticky": true, "notify": false});
    let taken = (DOORS_AT.0, &*IS_TAKEN.name());
    icinga::order(lab, "acknowledge-problem", taken, word);
    [CLOSES, IS_OPEN_AGAIN]
        .iter()
        .for_each(|door| door.close(lab));
    [OPENS, WAS_OPEN]
        .iter()
        .for_each(|door| door.until_open(lab));
    [CLOSES, IS_OPEN_AGAIN]
        .iter()
        .for_each(|door| door.until_closed(lab));
    IS_OPEN_AGAIN.open(lab);
    WAS_OPEN.close(lab);
    IS_OPEN_AGAIN.until_open(lab);
    WAS_OPEN.until_closed(lab);
    let held = icinga::acknowledgements(lab, taken);
    assert_eq!(held, [(BOB.to_owned(), "I hold it".to_owned())]);
}

/// Waits for the rest of the cut; whether the bot said meanwhile that it is blind.
fn stays_deaf(stage: &Stage<'_>, left: Duration) -> bool {
    let (start, mut blind) = (Instant::now(), false);
    while start.elapsed() < left {
        let spots = stage.data(&["alerts"])["blind"].take();
        let spots = spots.as_array().into_iter().flatten();
        blind |= spots.into_iter().any(|one| one["source"] == "icinga2");
        std::thread::sleep(Duration::from_secs(1).min(left.saturating_sub(start.elapsed())));
    }
    blind
}

/// When the only alert of an incident began.
fn start_of(stage: &Stage<'_>, incident: &str) -> String {
    let why = stage.data(&["why", incident]);
    let alerts: Vec<&Value> = why["incident"]["alerts"]
        .as_object()
        .unwrap()
        .values()
        .collect();
    assert_eq!(alerts.len(), 1, "{why}");
    alerts[0]["starts_at"].as_str().unwrap().to_owned()
}

/// One incident a door, and none of what came and went.
fn told_once(stage: &Stage<'_>, known: &[String; 3], opened: &str) {
    let [closes, taken, again] = known;
    for (door, expected) in [
        (OPENS, vec![opened]),
        (CLOSES, vec![closes]),
        (IS_TAKEN, vec![taken]),
        (IS_OPEN_AGAIN, vec![again]),
        (WAS_OPEN, vec![]),
    ] {
        let all = stage.incidents_about(&door.domain());
        let ids: Vec<&str> = all.iter().filter_map(|one| one["id"].as_str()).collect();
        assert_eq!(ids, expected, "incidents about {}", door.name());
    }
}

/// All doors closed: everything is over, and still each was told once.
fn mended(stage: &Stage<'_>, known: &[String; 3], opened: &str) {
    let lab = stage.lab();
    let open = [OPENS, IS_TAKEN, IS_OPEN_AGAIN];
    open.iter().for_each(|door| door.close(lab));
    open.iter()
        .for_each(|door| stage.until_over(&door.domain(), CAUGHT_UP));
    told_once(stage, known, opened);
}

/// A packet filter on the bot's side of the lab; nothing of Icinga's API passes until it ends, also by a failing test.
struct Cut<'a>(&'a Lab);

impl Cut<'_> {
    fn make(lab: &Lab) -> Cut<'_> {
        let cut = Cut(lab);
        nft(
            lab,
            "add table inet eyes; \
             add chain inet eyes out { type filter hook output priority 0; }; \
             add chain inet eyes in { type filter hook input priority 0; }; \
             add rule inet eyes out tcp dport 5665 drop; \
             add rule inet eyes in tcp sport 5665 drop",
        );
        for address in ADDRESSES {
            assert!(!passes(address), "{address} is reached in the cut");
        }
        cut
    }

    fn end(self) {
        drop(self);
        for address in ADDRESSES {
            assert!(passes(address), "{address} is not reached after the cut");
        }
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        nft(self.0, "delete table inet eyes");
    }
}

fn passes(address: &str) -> bool {
    let address: SocketAddr = address.parse().unwrap();
    TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
}

fn nft(lab: &Lab, rules: &str) {
    let status = lab.command("nft").unwrap().arg(rules).status();
    assert!(status.unwrap().success(), "nft {rules}");
}
