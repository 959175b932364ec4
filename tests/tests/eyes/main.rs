//! The real Icinga 2, Prometheus and Alertmanager as the bot's eyes, and people who speak in all of them and in an encrypted room.
//! One deploy for all parts, in an order in which none waits for another's times. Needs root on Debian and fails without it.
//!
//! `NIGHTSHIFT_CUT=300` cuts Icinga off for so many seconds.
#![allow(clippy::unwrap_used)] // a test program: a panic is its way to fail
#![recursion_limit = "256"]

mod care;
mod cut;
mod heals;
mod icinga;
mod stage;
#[path = "../support/mod.rs"]
mod support;

use lab::{
    Lab, Progress, drill, in_layered_lab,
    scenario::{Changes, Program, with_packages},
    synapse::{Limits, Synapse},
};
use serde_json::{Value, json};
use stage::{LIMIT, Stage};
use support::room;

/// The demo's own configuration.
const DEMO: &str = include_str!("../../demo/nightshift.yaml");

#[test]
fn icinga_and_alertmanager_are_heard_once_and_spoken_to() {
    let progress = Progress::to_stderr();
    let layer = with_packages(&progress).unwrap();
    let program = Program::build(false).unwrap();
    // From its registry, which is not reached from inside a lab.
    Synapse::prepare().unwrap();
    in_layered_lab("eyes", 3, Some(&layer), |lab| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let synapse = Synapse::start(Limits::NONE).unwrap();
        let (human, room) = runtime.block_on(room::room(&synapse));
        let changes = changes(lab, &synapse, &room);
        let (installation, bot) = drill::deployed(lab, program, &changes, &progress).unwrap();
        assert!(runtime.block_on(human.until_joined(&room, &room::bot(), LIMIT)));
        drill::wait_for_green(&installation).unwrap();
        let stage = Stage {
            installation: &installation,
            human: &human,
            room: &room,
            runtime: &runtime,
        };
        for (what, part) in [
            ("a check goes critical and is healed", heals::play as Part),
            ("Icinga is cut off while checks change", cut::play),
            ("acknowledgements go both ways", care::play),
        ] {
            let phase = progress.phase(what);
            part(&stage);
            phase.done();
        }
        stage.each_incident_was_told_once();
        bot.stop().unwrap();
    });
}

type Part = fn(&Stage<'_>);

/// Two masters of Icinga, one of everything else that is needed, and a repair that waits until both sources have told.
fn changes(lab: &Lab, synapse: &Synapse, room: &str) -> Changes {
    let chat = room::chat(&lab.folder(), synapse, room, Limits::NONE);
    let demo: Value = serde_saphyr::from_str(DEMO).unwrap();
    let mut automation = demo["automation"].clone();
    automation["settings"]["MEM-1"]["confirm"] = json!("15s");
    let people = json!({ (stage::ANN): "operator" });
    let services = [
        "memcached",
        "icinga2",
        "prometheus",
        "alertmanager",
        "node_exporter",
        "signs_exporter",
    ];
    Changes {
        services: services.map(str::to_owned).into(),
        config: [
            ("chat", chat),
            ("automation", automation),
            ("people", people),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        ..Changes::default()
    }
}
