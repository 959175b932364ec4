//! Rights, votes and overrides as people meet them: lines in, answers out. The site's hosts answer nothing.

use deploy_engine::plan::Goal;
use jiff::{SignedDuration, Timestamp};
use runbooks::{gate::GateId, healer::Records};
use serde_json::json;

use crate::{
    answer::{About, Answer},
    bot::{Bot, Place},
    chat::{Incoming, Said},
    heal::BotRecords,
    replicas::Lead,
    rights::{Identity, Role},
    serve::assemble::{Assembled, Ground, assemble, ground},
    store::{Approval, ApprovalState, IncidentRow, Urgency},
};

const SITE: &str = "site: demo\nssh: {port: 1}\nhosts:\n  ctl1: {address: 127.0.0.1, groups: [control]}\n\
    services:\n  memcached: {on: control}\n  haproxy: {on: control}\n";

const CONFIG: &str = r#"
site: site.yaml
state_dir: state
chat:
  matrix:
    homeserver: http://127.0.0.1:1
    user: "@bot:x.org"
    password: {file: password}
    rooms: [{room: "!ops:x.org"}, {room: "!lobby:x.org", ceiling: viewer}]
people:
  "unix:ann": admin
  "matrix:@ann:x.org": admin
  "unix:bob": operator
  "unix:carl": admin
  "unix:dora": viewer
  "unix:eve": viewer
access:
  persons: [["unix:ann", "matrix:@ann:x.org"]]
  grants:
    - {to: ["unix:dora"], commands: [redeploy, deploy, approve, deny], services: [memcached]}
  approvals:
    - {votes: 2, services: [memcached]}
    - {votes: 1, requester: counts, actions: [remove]}
"#;

struct Desk {
    bot: std::sync::Arc<Bot>,
    _ground: Ground,
    _dir: tempfile::TempDir,
}

impl Desk {
    async fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("site.yaml"), SITE).unwrap();
        std::fs::write(path("nightshift.yaml"), CONFIG).unwrap();
        std::fs::write(path("password"), "planted-password").unwrap();
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path("password"), private).unwrap();
        let ground = ground(&path("nightshift.yaml")).await.unwrap();
        let Assembled { bot, .. } = assemble(
            &ground,
            vec![],
            Default::default(),
            Lead::alone(),
            Default::default(),
        )
        .await
        .unwrap();
        Self {
            bot,
            _ground: ground,
            _dir: dir,
        }
    }

    async fn says(&self, who: &str, line: &str) -> Answer {
        self.says_in("control", Role::Admin, who, line).await
    }

    async fn says_in(&self, name: &str, ceiling: Role, who: &str, line: &str) -> Answer {
        let place = Place {
            rooms: vec![],
            ceiling,
            prefix: "!".to_owned(),
            name: name.to_owned(),
        };
        self.bot
            .handle(&Identity::try_from(who.to_owned()).unwrap(), place, line)
            .await
    }

    /// What was answered, all of it.
    async fn told(&self, who: &str, line: &str) -> String {
        crate::wording::render::plain(&self.says(who, line).await.message)
    }

    async fn request(&self, id: &str, goal: Goal, requested_by: &str) {
        let about = About::Deploy {
            goal,
            summary: "a change".to_owned(),
            rooms: vec![],
        };
        let now = Timestamp::now();
        let approval = Approval {
            id: id.to_owned(),
            digest: "d1".to_owned(),
            requested_by: requested_by.to_owned(),
            created_at: now,
            expires_at: now + SignedDuration::from_mins(10),
            state: ApprovalState::Pending,
            decided_by: None,
            decided_at: None,
            body: serde_json::to_value(about).unwrap(),
        };
        self.bot.store.request_approval(&approval).await.unwrap();
    }

    async fn state(&self, id: &str) -> ApprovalState {
        self.bot.store.approval(id).await.unwrap().unwrap().state
    }

    /// Who did what, oldest first.
    async fn log(&self) -> Vec<(String, String)> {
        let kept = self.bot.store.audit_kept(0, 1_000).await.unwrap();
        kept.into_iter()
            .map(|entry| (entry.who, entry.action))
            .collect()
    }

    async fn incident(&self, id: &str) {
        let now = Timestamp::now();
        let body = json!({
            "id": id, "domain": {"domain": "service", "name": "memcached"}, "opened_at": now, "closed_at": null,
            "state": {"state": "open"}, "since": now, "alerts": {}, "subjects": ["ctl1"], "runbooks": ["MEM-1"],
            "steady": {}, "jobs": [], "unproven": [], "under": null, "tell_only": null,
        });
        let row = IncidentRow {
            id: id.to_owned(),
            state: "open".to_owned(),
            service: Some("memcached".to_owned()),
            runbook: Some("MEM-1".to_owned()),
            opened_at: now,
            closed_at: None,
            body: body.to_string(),
            rest: None,
        };
        self.bot.store.put_incident(&row).await.unwrap();
    }
}

fn service(name: &str) -> Goal {
    Goal::Service(name.parse().unwrap())
}

#[tokio::test]
async fn two_people_have_to_approve_and_neither_is_who_asked() {
    let desk = Desk::new().await;
    desk.request("a1", service("memcached"), "unix:ann").await;
    for (who, part) in [
        ("unix:eve", "needs the role operator"),
        ("unix:ghost", "I do not know you"),
        ("unix:ann", "somebody else has to approve"),
        ("matrix:@ann:x.org", "somebody else has to approve"),
    ] {
        let told = desk.told(who, "approve a1").await;
        assert!(told.contains(part), "{who}: {told}");
    }
    let first = desk.says("unix:bob", "approve a1").await;
    assert!(
        first.ok && first.message.title.starts_with("1 of 2 votes"),
        "{first:?}"
    );
    assert_eq!(
        (&first.data["votes"][0]["who"], first.follow),
        (&json!("unix:bob"), None)
    );
    assert!(
        desk.told("unix:bob", "approve a1")
            .await
            .contains("has voted")
    );
    assert_eq!(desk.state("a1").await, ApprovalState::Pending);
    // The second vote is one that was granted. What it starts is planned anew, and hosts that are away make another plan.
    let second = desk.says("unix:dora", "approve a1").await;
    assert!(
        !second.ok && !second.message.title.contains("votes"),
        "{second:?}"
    );
    assert_eq!(desk.state("a1").await, ApprovalState::Approved);
    let by = desk
        .bot
        .store
        .approval("a1")
        .await
        .unwrap()
        .unwrap()
        .decided_by;
    assert_eq!(by.as_deref(), Some("unix:bob, unix:dora"));
    let votes: Vec<_> = desk
        .log()
        .await
        .into_iter()
        .filter(|(_, action)| action == "vote")
        .collect();
    assert_eq!(
        votes.iter().filter(|(who, _)| who == "unix:dora").count(),
        1
    );
}

#[tokio::test]
async fn one_no_ends_a_request_and_the_strictest_rule_counts() {
    let desk = Desk::new().await;
    desk.request("a1", service("memcached"), "unix:carl").await;
    assert!(desk.says("unix:bob", "approve a1").await.ok);
    assert!(desk.says("unix:ann", "deny a1").await.ok);
    assert_eq!(desk.state("a1").await, ApprovalState::Denied);
    assert!(!desk.says("unix:dora", "approve a1").await.ok);
    // The rule for memcached counts for the whole site as well; removing haproxy needs one vote, also of who asked.
    desk.request("a2", Goal::Site, "unix:bob").await;
    assert!(
        desk.told("unix:bob", "approve a2")
            .await
            .contains("somebody else")
    );
    assert!(
        desk.told("unix:ann", "approve a2")
            .await
            .contains("1 of 2 votes")
    );
    desk.request("a3", Goal::Remove("haproxy".parse().unwrap()), "unix:bob")
        .await;
    desk.says("unix:bob", "approve a3").await;
    assert_eq!(desk.state("a3").await, ApprovalState::Approved);
}

#[tokio::test]
async fn a_grant_reaches_its_service_and_nothing_else() {
    let desk = Desk::new().await;
    for (line, part) in [
        (
            "redeploy haproxy",
            "you may use `redeploy`, but not on haproxy",
        ),
        ("deploy haproxy", "you may use `deploy`, but not on haproxy"),
        (
            "deploy site",
            "you may use `deploy`, but not on the whole site",
        ),
        (
            "remove memcached",
            "`remove` needs the role admin; yours is viewer",
        ),
        (
            "halt now",
            "`halt` needs the role operator; yours is viewer",
        ),
    ] {
        let told = desk.told("unix:dora", line).await;
        assert!(told.contains(part), "{line}: {told}");
    }
    let help = desk.told("unix:dora", "help").await;
    assert!(
        help.contains("!redeploy") && !help.contains("!halt") && !help.contains("!remove"),
        "{help}"
    );
    desk.request("a1", service("haproxy"), "unix:bob").await;
    assert!(
        desk.told("unix:dora", "approve a1")
            .await
            .contains("but not on haproxy")
    );
    assert!(
        desk.told("unix:dora", "deny a1")
            .await
            .contains("but not on haproxy")
    );
    assert_eq!(desk.state("a1").await, ApprovalState::Pending);
    // Inside its reach it is a command like any other: refused by the hosts, not by rights.
    let told = desk.told("unix:dora", "redeploy memcached").await;
    assert!(!told.contains("you may"), "{told}");
    let lobby = desk
        .says_in(
            "matrix:!lobby:x.org",
            Role::Viewer,
            "unix:dora",
            "redeploy memcached",
        )
        .await;
    assert!(
        lobby.message.title.contains("nobody has more than viewer"),
        "{lobby:?}"
    );
    let refused = desk
        .log()
        .await
        .into_iter()
        .filter(|(_, action)| action == "refused");
    assert_eq!(refused.count(), 6, "every refused line is on record");
}

#[tokio::test]
async fn break_glass_overrides_one_gate_once_pages_and_waits_for_somebody_elses_review() {
    let desk = Desk::new().await;
    desk.incident("inc-7f3a").await;
    let reason = "the second failure is the switch";
    for (who, line, part) in [
        (
            "unix:bob",
            format!("override G7 inc-7f3a {reason}"),
            "needs the role admin",
        ),
        (
            "unix:ann",
            format!("override G10 inc-7f3a {reason}"),
            "a gate that may be overridden",
        ),
        (
            "unix:ann",
            format!("override G5 inc-7f3a {reason}"),
            "a gate that may be overridden",
        ),
        (
            "unix:ann",
            format!("override G7 inc-0000 {reason}"),
            "no open incident",
        ),
        (
            "unix:ann",
            "override G7 inc-7f3a because".to_owned(),
            "at least 8 characters",
        ),
        (
            "unix:ann",
            "override G7 inc-7f3a".to_owned(),
            "needs REASON",
        ),
    ] {
        let told = desk.told(who, &line).await;
        assert!(told.contains(part), "{line}: {told}");
    }
    let made = desk
        .says("unix:ann", &format!("override G7 7f3a {reason}"))
        .await;
    assert!(made.ok, "{made:?}");
    let id = made.data["id"].as_str().unwrap().to_owned();
    let told = desk
        .told("unix:carl", &format!("override G8 7f3a {reason}"))
        .await;
    assert!(told.contains("one gate at a time"), "{told}");

    let page = desk
        .bot
        .store
        .pending_messages("matrix", Urgency::Severity, Timestamp::now(), 9);
    let page = page.await.unwrap();
    let words = page[0].body.to_string();
    assert!(
        words.contains("BREAK-GLASS") && words.contains(reason),
        "{words}"
    );

    // For one job, once.
    let records = BotRecords {
        store: desk.bot.store.clone(),
        halt: desk.bot.halt.clone(),
    };
    let now = Timestamp::now();
    let found = records
        .overridden("inc-7f3a", None, now)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.gate, found.by.as_str(), found.why.as_str()),
        (GateId::G7, "unix:ann", reason)
    );
    assert_eq!(
        records.overridden("inc-0000", None, now).await.unwrap(),
        None
    );
    records.use_override("inc-7f3a", "j1", now).await.unwrap();
    assert!(
        records
            .overridden("inc-7f3a", Some("j1"), now)
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(
        records
            .overridden("inc-7f3a", Some("j2"), now)
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        records.overridden("inc-7f3a", None, now).await.unwrap(),
        None
    );
    let late = now + SignedDuration::from_mins(31);
    assert_eq!(
        records
            .overridden("inc-7f3a", Some("j1"), late)
            .await
            .unwrap(),
        None
    );

    let reviews = desk.told("unix:eve", "reviews").await;
    assert!(
        reviews.contains(&id) && reviews.contains("j1") && reviews.contains(reason),
        "{reviews}"
    );
    let own = desk
        .told("matrix:@ann:x.org", &format!("review {id} it was right"))
        .await;
    assert!(own.contains("somebody else has to review"), "{own}");
    assert!(
        desk.says("unix:bob", &format!("review {id} it was right"))
            .await
            .ok
    );
    assert!(
        desk.told("unix:eve", "reviews")
            .await
            .contains("No override waits")
    );
    let actions: Vec<String> = desk
        .log()
        .await
        .into_iter()
        .map(|(_, action)| action)
        .collect();
    assert!(actions.contains(&"overridden".to_owned()) && actions.contains(&"reviewed".to_owned()));
}

#[tokio::test]
async fn a_flood_in_a_chat_is_dropped_and_told_once_and_nobody_else_waits() {
    let desk = Desk::new().await;
    let say = async |who: &str, number: u32| {
        let incoming = Incoming {
            room: "matrix:!ops:x.org".parse().unwrap(),
            event: format!("${who}{number}"),
            who: Identity::try_from(who.to_owned()).unwrap(),
            text: "whoami".to_owned(),
            said: Said::Now,
            done: None,
        };
        desk.bot.hear(incoming).await;
    };
    for number in 0..40 {
        say("matrix:@ann:x.org", number).await;
    }
    let now = Timestamp::now();
    let answers = async || {
        let store = &desk.bot.store;
        let said = store
            .pending_messages("matrix", Urgency::Story, now, 100)
            .await
            .unwrap();
        let titles = said
            .iter()
            .map(|one| one.body["message"]["title"].as_str().unwrap().to_owned());
        titles.collect::<Vec<String>>()
    };
    let found = answers().await;
    let too_fast = found
        .iter()
        .filter(|title| title.starts_with("Too fast"))
        .count();
    let done = found
        .iter()
        .filter(|title| title.starts_with("You are"))
        .count();
    assert_eq!(too_fast, 1, "{found:?}");
    assert!(
        done >= 20 && done + too_fast < 40,
        "the rest was dropped: {found:?}"
    );
    say("unix:bob", 0).await;
    assert_eq!(answers().await.len(), found.len() + 1);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    let desk = Desk::new().await;
    desk.request("a1", service("haproxy"), "automation").await;
    desk.bot
        .store
        .put("audit", "head", "no head")
        .await
        .unwrap();
    let told = desk.told("unix:ann", "halt a test").await;
    assert!(told.contains("nothing was done"), "{told}");
    assert!(desk.bot.halt.now().is_none());
    assert!(!desk.says("unix:ann", "approve a1").await.ok);
    assert_eq!(desk.state("a1").await, ApprovalState::Pending);
    assert!(
        desk.says("unix:eve", "whoami").await.ok,
        "looking is always allowed"
    );
}
