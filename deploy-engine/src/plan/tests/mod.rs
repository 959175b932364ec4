mod hosts;
mod properties;
mod world;

use std::fmt::Write;

use super::*;
use crate::{
    job::{Action, CheckMode},
    model::tests::load,
    wire::{CommandOutput, Exit, ProbeResult, Resource, TcpAnswer, TcpTarget, Work},
};
use world::World;

/// A database that forms a cluster, a cache on every host, a front end that needs the database, an address that moves.
pub const SITE: &str = "=== site.yaml
site: demo
hosts:
  ctl1: {address: 10.77.0.11, groups: [control]}
  ctl2: {address: 10.77.0.12, groups: [control]}
  ctl3: {address: 10.77.0.13, groups: [control]}
services:
  cache: {on: control}
  db: {on: control}
  front: {on: [ctl1, ctl2]}
=== services/cache/service.yaml
service: cache
title: Cache
group: Test
topology: per_host
settings:
  size: {type: integer, default: 64, doc: Size}
ports: [11211]
process: [cached]
packages: [cached]
resources:
  - {file: /etc/cached.conf, content: 'size {{ settings.size }}', restart: cached.service}
  - {unit: cached.service, enabled: true, running: true}
rollout: {start: all_at_once, change: one_at_a_time}
health: memcached.answers
remove: {packages: [cached], directories: [/var/lib/cached]}
=== services/db/service.yaml
service: db
title: Database
group: Test
topology: clustered
settings:
  port: {type: port, default: 3306, doc: Port}
secrets: [monitor]
ports: ['{{ settings.port }}']
process: [dbd]
data: {path: /var/lib/db, need_free_bytes: 1073741824}
packages: [db-server, shared-tool]
resources:
  - {directory: /etc/db}
  - {file: /etc/db/db.conf, content: \"members {{ members | map(attribute='name') | join(',') }}\\n\", restart: db.service}
  - {file: /etc/db/secret.conf, content: '{{ secret.monitor }}', mode: '0600', sensitive: true}
  - {unit: db.service, enabled: true, running: true}
provision:
  - {sql_user: exporter, from: localhost, password: '{{ secret.monitor }}'}
rollout: {start: one_at_a_time, change: one_at_a_time, before_stop: galera.may_stop}
health: galera.synced
healthy_within: 300
remove: {packages: [db-server, shared-tool], directories: [/etc/db, /var/lib/db]}
=== services/front/service.yaml
service: front
title: Front
group: Test
topology: clustered
needs: [db]
after: [cache]
ports: [80]
process: [frontd]
virtual_address: 10.77.0.100/24
packages: [frontd, shared-tool]
resources:
  - {sysctl: net.ipv4.ip_nonlocal_bind, value: '1'}
  - {file: /etc/front.conf, content: front, reload: front.service}
  - {unit: front.service, enabled: true, running: true}
rollout: {start: all_at_once, change: one_at_a_time, before_stop: keepalived.may_stop}
health: haproxy.healthy
";

pub fn model() -> Model {
    load(SITE).unwrap_or_else(|errors| panic!("{errors}"))
}

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

fn planned(model: &Model, world: &World, goal: &Goal) -> Plan {
    plan(model, goal, &world.observed(model, goal)).unwrap()
}

/// A world in which the site was deployed.
fn deployed(model: &Model) -> World {
    let mut world = World::new(model);
    let plan = planned(model, &world, &Goal::Site);
    world.run(&plan).unwrap();
    world
}

/// The plan and its steps as a person would draw them.
fn drawn(plan: &Plan) -> String {
    let mut text = plan.render(true).replace(plan.short_digest(), "DIGEST");
    text.push_str(&format!("\n{}\n", plan.table()));
    for step in &plan.steps {
        let needs: Vec<String> = step.needs.iter().map(ToString::to_string).collect();
        let guards: Vec<&str> = step
            .guards
            .iter()
            .map(|guard| guard.name.as_str())
            .collect();
        let how = match &step.action {
            Action::Host {
                work:
                    Work::Apply {
                        resources,
                        expected,
                    },
                ..
            } => {
                format!("{} resources, {} as seen", resources.len(), expected.len())
            }
            Action::Host {
                work: Work::Fetch { packages },
                ..
            } => packages.join(" "),
            Action::Check {
                mode: CheckMode::Within { deadline },
                ..
            } => format!("within {deadline}"),
            other => format!("{other:?}"),
        };
        let _ = writeln!(
            text,
            "{:>2} {} [{how}] needs {}",
            step.id,
            step.title,
            needs.join(" ")
        );
        if !guards.is_empty() {
            let _ = writeln!(text, "   guarded by {}", guards.join(", "));
        }
    }
    let waves: Vec<usize> = plan.waves().iter().map(Vec::len).collect();
    let _ = writeln!(text, "waves {waves:?}");
    text
}

#[test]
fn fresh_hosts() {
    let model = model();
    insta::assert_snapshot!(drawn(&planned(&model, &World::new(&model), &Goal::Site)));
}

#[test]
fn a_deployed_site_has_nothing_to_change() {
    let model = model();
    let plan = planned(&model, &deployed(&model), &Goal::Site);
    assert!(plan.is_empty() && plan.changes.is_empty() && plan.refused.is_empty());
    assert_eq!(plan.summary(), "no changes");
}

#[test]
fn one_file_changed_on_one_member() {
    let model = model();
    let mut world = deployed(&model);
    let id = ResourceId("file:/etc/db/db.conf".to_owned());
    if let Some(Resource::File { content, .. }) = world.machine("ctl2").things.get_mut(&id) {
        content.push_str("edited\n");
    }
    insta::assert_snapshot!(drawn(&planned(&model, &world, &Goal::Site)));
}

#[test]
fn a_changed_setting_rolls_one_member_after_the_other() {
    let model = model();
    let world = deployed(&model);
    let text = SITE.replace(
        "cache: {on: control}",
        "cache: {on: control, settings: {size: 128}}",
    );
    let changed = load(&text).unwrap();
    insta::assert_snapshot!(drawn(&planned(&changed, &world, &Goal::Site)));
}

#[test]
fn a_host_that_is_down_is_refused_and_stays_a_member() {
    let model = model();
    let mut world = World::new(&model);
    world.machine("ctl3").down = true;
    let plan = planned(&model, &world, &Goal::Site);
    insta::assert_snapshot!(drawn(&plan));
    let contents = format!("{:?}", plan.steps);
    assert!(contents.contains("members ctl1,ctl2,ctl3"));
    world.machine("ctl1").down = true;
    world.machine("ctl2").down = true;
    let all_down = plan_error(&model, &world, &Goal::Site);
    assert!(all_down.contains("cannot be reached"), "{all_down}");
}

fn plan_error(model: &Model, world: &World, goal: &Goal) -> String {
    plan(model, goal, &world.observed(model, goal))
        .unwrap_err()
        .to_string()
}

#[test]
fn drift_after_planning_changes_the_digest_and_stops_the_step() {
    let model = model();
    let mut world = deployed(&model);
    let id = ResourceId("file:/etc/front.conf".to_owned());
    world.machine("ctl1").things.remove(&id);
    let before = planned(&model, &world, &Goal::Site);
    assert_eq!(before.digest, planned(&model, &world, &Goal::Site).digest);
    let mut edited = world.clone();
    let other = world.machine("ctl2").things[&id].clone();
    if let Resource::File {
        path,
        mode,
        owner,
        group,
        ..
    } = other
    {
        let content = "somebody else's".to_owned();
        let file = Resource::File {
            path,
            content,
            mode,
            owner,
            group,
            validate: None,
            sensitive: false,
            absent: false,
        };
        edited.machine("ctl1").things.insert(id, file);
    }
    assert_ne!(before.digest, planned(&model, &edited, &Goal::Site).digest);
    let stopped = edited.run(&before).unwrap_err();
    assert!(stopped.contains("/etc/front.conf drifted"), "{stopped}");
}

#[test]
fn volatile_facts_do_not_change_the_digest() {
    let model = model();
    let mut world = World::new(&model);
    let before = planned(&model, &world, &Goal::Site);
    world.machine("ctl1").facts.memory_bytes = 1;
    world.machine("ctl1").facts.clock_seconds += 0.4;
    assert_eq!(before.digest, planned(&model, &world, &Goal::Site).digest);
}

#[test]
fn removal_leaves_what_others_use() {
    let model = model();
    let mut world = deployed(&model);
    let goal = Goal::Remove("front".parse().unwrap());
    let plan = planned(&model, &world, &goal);
    insta::assert_snapshot!(drawn(&plan));
    world.run(&plan).unwrap();
    assert!(planned(&model, &world, &goal).is_empty());
    assert!(planned(&model, &world, &Goal::Service("db".parse().unwrap())).is_empty());
    let needed = plan_error(&model, &world, &Goal::Remove("db".parse().unwrap()));
    assert_eq!(needed, "`db` is still needed by front: remove those first");
}

#[test]
fn an_unknown_service_is_named_with_those_there_are() {
    let model = model();
    let error = questions(&model, &Goal::Service("dv".parse().unwrap())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected a service of this site, found `dv`; the site has cache, db, front"
    );
}

#[test]
fn secrets_are_references_and_sensitive_content_is_not_shown() {
    let model = model();
    let plan = planned(&model, &World::new(&model), &Goal::Site);
    let shown = plan.render(true);
    assert!(shown.contains("file:/etc/db/secret.conf"));
    assert!(shown.contains("content changes (not shown)"));
    assert!(!shown.contains("secret:db.monitor"));
    assert!(
        serde_json::to_string(&plan)
            .unwrap()
            .contains("⟦secret:db.monitor⟧")
    );
}

type Spoil = fn(&mut World);

#[rstest::rstest]
#[case::port(|w: &mut World| listens(w, 80, "0.0.0.0 apache2"), "front on ctl1: ports: port 80 is held by 0.0.0.0 apache2")]
#[case::maintenance(|w: &mut World| w.machine("ctl1").facts.maintenance_marker = Some("disk swap".into()), "ctl1: maintenance: it is under maintenance (disk swap)")]
#[case::clock(|w: &mut World| w.machine("ctl1").facts.clock_seconds += 7.0, "ctl1: clock: its clock is 7.0 s off")]
#[case::system(|w: &mut World| w.machine("ctl1").facts.os_version = "11".into(), "expected debian 12, found debian 11")]
#[case::full(|w: &mut World| { w.machine("ctl1").facts.filesystems.insert("/".into(), (1 << 20, 1 << 40, 9)); }, "ctl1: disk: expected 16 MiB free for /etc, found 1 MiB")]
#[case::disk(|w: &mut World| { w.machine("ctl1").facts.filesystems.insert("/var/lib/db".into(), (1 << 20, 1 << 40, 9)); }, "db on ctl1: disk: expected 1024 MiB free for /var/lib/db, found 1 MiB")]
#[case::repositories(
    unreachable_repositories,
    "the package sources cannot be reached: E: no proxy"
)]
#[case::repositories_unknown(|w: &mut World| { w.machine("ctl1").probes.remove("precheck repositories"); }, "the package sources were not tried")]
#[case::address_outside(|w: &mut World| { w.machine("ctl1").facts.addresses.clear(); }, "10.77.0.100 lies in no network")]
#[case::address_used(address_answers, "something that is no member answers at 10.77.0.100")]
#[case::address_elsewhere(|w: &mut World| { w.machine("ctl3").facts.addresses.insert("x".into(), vec!["10.77.0.100/32".into()]); }, "10.77.0.100 belongs to ctl3, which is no member")]
#[case::listening_unknown(|w: &mut World| { w.machine("ctl1").facts.unknown.insert("listening".into(), "denied".into()); }, "who listens is unknown: denied")]
fn a_failed_precheck_refuses_with_its_remedy(#[case] spoil: Spoil, #[case] says: &str) {
    let model = model();
    let mut world = World::new(&model);
    spoil(&mut world);
    let plan = planned(&model, &world, &Goal::Site);
    let refused: Vec<String> = plan.refused.iter().map(ToString::to_string).collect();
    assert!(
        refused.iter().any(|line| line.contains(says)),
        "{refused:#?}"
    );
    assert!(
        plan.refused
            .iter()
            .all(|refused| !refused.remedy.is_empty()),
        "{refused:#?}"
    );
    // The rest of the site is planned.
    assert!(plan.steps.iter().any(|step| step.title.contains("ctl2")));
    let touched = plan.refused.iter().any(|refused| {
        plan.changes.iter().any(|change| {
            refused.host.as_ref() == Some(&change.host)
                && refused
                    .service
                    .as_ref()
                    .is_none_or(|service| *service == change.service)
        })
    });
    assert!(!touched, "a refused part is changed: {refused:#?}");
}

fn listens(world: &mut World, port: u16, who: &str) {
    world
        .machine("ctl1")
        .facts
        .listening
        .insert(port, vec![who.to_owned()]);
}

fn unreachable_repositories(world: &mut World) {
    let output = CommandOutput {
        exit: Exit::Code(100),
        stdout: String::new(),
        stderr: "E: no proxy\n".to_owned(),
        truncated: false,
        took_ms: 5,
    };
    let probe = ProbeResult::Command { output };
    world
        .machine("ctl1")
        .probes
        .insert("precheck repositories".to_owned(), probe);
}

fn address_answers(world: &mut World) {
    let target = TcpTarget {
        address: "10.77.0.100".to_owned(),
        port: 22,
    };
    let answers = vec![TcpAnswer {
        target,
        open: false,
        error: Some("refused".to_owned()),
    }];
    let probe = ProbeResult::Tcp { answers };
    world
        .machine("ctl1")
        .probes
        .insert("precheck virtual address front".to_owned(), probe);
}

#[test]
fn own_processes_may_hold_the_ports() {
    let model = model();
    let mut world = World::new(&model);
    listens(&mut world, 80, "10.77.0.11 frontd");
    let plan = planned(&model, &world, &Goal::Site);
    assert!(plan.refused.is_empty(), "{:?}", plan.refused);
}

#[test]
fn what_cannot_be_judged_is_refused() {
    let model = model();
    let world = World::new(&model);
    let mut observed = world.observed(&model, &Goal::Site);
    if let Some(HostView::Seen(seen)) = observed.hosts.get_mut(&host("ctl2")) {
        let id = ResourceId("file:/etc/cached.conf".to_owned());
        let found = seen.observations.get_mut(&id).unwrap();
        found.state = crate::wire::State::Unknown {
            why: "input/output error".to_owned(),
        };
        seen.observations
            .remove(&ResourceId("unit:db.service".to_owned()));
    }
    let plan = plan(&model, &Goal::Site, &observed).unwrap();
    let refused: Vec<String> = plan.refused.iter().map(ToString::to_string).collect();
    assert!(
        refused[0].contains("cache on ctl2: file:/etc/cached.conf: its state is unknown"),
        "{refused:?}"
    );
    assert!(
        refused[1].contains("db on ctl2: unit:db.service: the host said nothing"),
        "{refused:?}"
    );
    assert!(
        !plan
            .steps
            .iter()
            .any(|step| step.title.contains("db on ctl2"))
    );
}
