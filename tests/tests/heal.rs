//! The drills that must heal and those that must refuse, through Prometheus, Alertmanager and the webhook.
//! Needs root on Debian and fails without it. All drills: `nightshift-lab drill --all --fresh`.

use lab::drill::{Drill, load_all, on_fresh_hosts};
use lab::testing::test_name;
use lab::{Lab, Progress};

fn run(name: &str, wanted: impl Fn(&Drill) -> bool, least: usize) {
    let drills: Vec<Drill> = load_all().unwrap().into_iter().filter(wanted).collect();
    assert!(drills.len() >= least, "{} drills", drills.len());
    let lab = Lab::named(test_name(name).unwrap());
    let outcomes = on_fresh_hosts(&drills, &lab, &Progress::to_stderr()).unwrap();
    assert_eq!(outcomes.len(), drills.len());
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn heals() {
    let named = ["rmq-partition", "gal-cluster-crash", "vip-missing"];
    run("heal", |drill| named.contains(&drill.drill.as_str()), 3);
}

#[test]
fn refuses() {
    run("refuse", Drill::is_counter, 6);
}
