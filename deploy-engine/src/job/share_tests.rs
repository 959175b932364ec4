use super::*;
use crate::{condition::ConditionCall, job::graph::order, wire::Work};

fn host(number: usize) -> HostName {
    format!("h{number:03}").parse().unwrap()
}

fn step(id: usize, on: usize, needs: &[usize]) -> Step {
    Step {
        id: super::id(id),
        title: format!("step {id}"),
        service: None,
        action: Action::Host {
            host: host(on),
            work: Work::Fetch { packages: vec![] },
        },
        effect: Effect::Converge,
        needs: needs.iter().map(|need| super::id(*need)).collect(),
        timeout: Secs(60),
        guards: vec![],
        unless: None,
        undo: None,
    }
}

/// Two steps on each host, the second after the first: 2·h and 2·h + 1.
fn chains(hosts: usize) -> Vec<Step> {
    let chain = |at: usize| [step(2 * at, at, &[]), step(2 * at + 1, at, &[2 * at])];
    (0..hosts).flat_map(chain).collect()
}

fn parts(steps: &[Step]) -> Vec<&[Step]> {
    let parts = steps.iter().filter_map(|step| match &step.action {
        Action::Batch { steps, .. } => Some(&steps[..]),
        _ => None,
    });
    parts.collect()
}

#[test]
fn three_hundred_hosts_make_nineteen_batches_with_every_step_once() {
    let shared = share_out(chains(300), "m");
    let parts = parts(&shared);
    assert_eq!((shared.len(), parts.len()), (19, 19));
    let sizes: BTreeSet<usize> = parts.iter().map(|part| part.len()).collect();
    assert_eq!(sizes, [30, 32].into(), "15 or 16 hosts each");
    let titles: BTreeSet<&str> = parts
        .iter()
        .copied()
        .flatten()
        .map(|s| &s.title[..])
        .collect();
    assert_eq!(titles.len(), 600);
    for part in parts {
        order(part).unwrap();
        assert!(
            part.iter()
                .all(|one| one.needs.len() == (one.id.0 % 2) as usize)
        );
    }
    order(&shared).unwrap();
    assert_eq!(shared[0].title, "16 hosts, h000 to h015: 32 steps");
    assert_eq!(shared[0].timeout, Secs(32 * 60 + 24 * 3600));
}

#[test]
fn a_few_hosts_are_not_shared_out() {
    let few = chains(SHARED_FROM_HOSTS - 1);
    assert_eq!(share_out(few.clone(), "m"), few);
    assert_eq!(share_out(vec![], "m"), []);
    assert_eq!(parts(&share_out(chains(SHARED_FROM_HOSTS), "m")).len(), 2);
}

#[test]
fn a_host_that_needs_another_stays_and_what_needs_a_batch_waits_for_all_of_it() {
    let mut steps = chains(40);
    // Host 3 goes on only after host 5.
    steps[7].needs.push(super::id(11));
    // One more on host 50, after all second steps.
    let all: Vec<usize> = (0..40).map(|at| 2 * at + 1).collect();
    steps.push(step(80, 50, &all));
    let shared = share_out(steps, "m");
    order(&shared).unwrap();
    assert_eq!(parts(&shared).len(), 3);
    let rest: Vec<(&str, Vec<u32>)> = shared[3..]
        .iter()
        .map(|one| {
            (
                &one.title[..],
                one.needs.iter().map(|need| need.0).collect(),
            )
        })
        .collect();
    // Host 5 is in the first batch.
    let expected = [
        ("step 6", vec![]),
        ("step 7", vec![0, 3]),
        ("step 80", vec![0, 1, 2, 4]),
    ];
    assert_eq!(rest, expected);
}

#[test]
fn what_is_guarded_or_about_several_hosts_stays_with_the_hosts_it_works_on() {
    let call = |hosts: Vec<HostName>| ConditionCall {
        name: "galera.synced".into(),
        service: "mariadb".parse().unwrap(),
        members: hosts.clone(),
        hosts,
        settings: Default::default(),
    };
    let mut steps = chains(40);
    steps[0].guards.push(call(vec![host(0)]));
    steps[2].unless = Some(call(vec![host(1), host(2)]));
    steps[4].undo = Some(step(0, 9, &[]).action);
    let shared = share_out(steps, "m");
    order(&shared).unwrap();
    let kept: BTreeSet<&HostName> = shared.iter().flat_map(worked_on).collect();
    // Host 9 is worked on by the undo of a step of host 2.
    let expected = [host(0), host(1), host(2), host(9)];
    assert_eq!(kept, expected.iter().collect());
    let moved = parts(&shared).concat().len();
    assert_eq!(moved + shared.len() - 3, 80);
}
