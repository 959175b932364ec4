//! What every answer needs: the site, the way to hosts, the store, the chats, the jobs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use deploy_engine::{model::Model, transport::Hosts};
use jiff::{SignedDuration, Timestamp};
use runbooks::{healer::HealSettings, library::Library};
use serde_json::json;
use tokio::sync::Notify;

use crate::{
    answer::Answer,
    audit::Redactor,
    chat::{
        Incoming, Room, Said,
        office::{Office, withheld},
    },
    command::{self, Vocabulary},
    config::{Config, FilesRead},
    halt::Halt,
    heal,
    jobs::{JobDesk, Projection},
    logs::LogStores,
    pace::{CommandPace, Paced},
    replicas::Lead,
    rights::{self, Identity, People, Permit, Refusal, Role, Spot},
    store::{AuditEntry, Store},
    wording::{Message, Severity},
};

/// How often a stranger in a chat gets an answer: enough to learn why nothing happens, too little to be a nuisance.
const STRANGER_EVERY: SignedDuration = SignedDuration::from_mins(10);
/// Strangers remembered for that; a crowd beyond it is not answered at all.
const STRANGERS_MAX: usize = 1_000;
/// Actions of the audit log beside the names of commands.
const REFUSED: &str = "refused";
const ANSWERED: &str = "answered";
/// What was handled is remembered this long; chats re-send for minutes, not days.
pub const HANDLED_DAYS: i64 = 14;

/// The bot.
pub struct Bot {
    pub config: Config,
    pub files: FilesRead,
    pub model: Arc<Model>,
    pub hosts: Arc<dyn Hosts>,
    pub store: Store,
    pub office: Office,
    pub people: People,
    pub jobs: JobDesk,
    /// How far what happens to jobs was told.
    pub told: Arc<Projection>,
    pub halt: Halt,
    /// Is it this bot that acts and speaks?
    pub lead: Lead,
    pub library: Arc<Library>,
    pub healing: Arc<HealSettings>,
    pub ear: heal::Ear,
    pub senses: Arc<heal::Senses>,
    /// Woken when somebody takes care of something, here or in a monitoring system.
    pub care: Arc<Notify>,
    pub logs: LogStores,
    pub vocabulary: Vocabulary,
    pub strangers: Mutex<HashMap<Identity, Timestamp>>,
    pub redactor: Redactor,
    pub pace: CommandPace,
}

/// Where something was asked.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where the jobs that come of it are told.
    pub rooms: Vec<Room>,
    /// The highest role anybody has there.
    pub ceiling: Role,
    pub prefix: String,
    /// For the audit log.
    pub name: String,
}

/// Who asks, with what right, and where.
pub struct Asked {
    pub permit: Permit,
    pub place: Place,
}

impl Asked {
    pub fn who(&self) -> String {
        self.permit.who().to_string()
    }
}

impl Bot {
    /// Understands, permits, records and does one line, and records what came of it.
    pub async fn handle(&self, who: &Identity, place: Place, line: &str) -> Answer {
        // First of all: a pasted secret becomes a reference before anything is recorded, kept or repeated.
        let line = self.redactor.text(line);
        let answer = self.permitted(who, place, &line).await;
        self.redactor.value(answer, || Answer::new(withheld()))
    }

    async fn permitted(&self, who: &Identity, place: Place, line: &str) -> Answer {
        if self.people.role(who).is_none() {
            self.audit_line(who, &place, REFUSED, line).await;
            return Answer::refused(Refusal::Stranger { who: who.clone() }.to_string());
        }
        let (spec, command) = match command::parse(line, &self.vocabulary) {
            Ok(understood) => understood,
            Err(error) => return Answer::refused(error.to_string()),
        };
        let spot = Spot {
            ceiling: place.ceiling,
            name: &place.name,
        };
        let permit = match rights::permit(&self.people, who, spot, spec) {
            Ok(permit) => permit,
            Err(refusal) => {
                self.audit_line(who, &place, REFUSED, line).await;
                return Answer::refused(refusal.to_string());
            }
        };
        if let Err(answer) = self.within_reach(&permit, &command).await {
            self.audit_line(who, &place, REFUSED, line).await;
            return answer;
        }
        // A bot that stands by shows what it knows. It can stop everything, too: nobody should have to look for the one that leads.
        if spec.role > Role::Viewer && spec.name != "halt" && !self.lead.leads() {
            let why = self.lead.may_act().err().unwrap_or_default();
            return Answer::refused(format!("{why}: say it to the bot that leads"));
        }
        // What cannot be recorded is not done; looking is always allowed.
        let acts = spec.role > Role::Viewer;
        if !self.audit_line(who, &place, spec.name, line).await && acts {
            return Answer::failed("the audit log cannot be written, so nothing was done");
        }
        let asked = Asked { permit, place };
        let answer = self.answer(&asked, command).await;
        if acts {
            let said = json!({
                "line": line_of(line), "done": answer.ok, "said": answer.message.title, "job": answer.follow,
            });
            self.record(who, ANSWERED, &asked.place.name, said).await;
        }
        answer
    }

    async fn audit_line(&self, who: &Identity, place: &Place, action: &str, line: &str) -> bool {
        let body = json!({ "line": line_of(line) });
        self.record(who, action, &place.name, body).await
    }

    /// Writes one entry of the audit log, without any secret that the bot knows. False: it could not be written.
    pub async fn record(
        &self,
        who: &Identity,
        action: &str,
        target: &str,
        body: serde_json::Value,
    ) -> bool {
        let entry = AuditEntry {
            at: Timestamp::now(),
            who: who.to_string(),
            action: action.to_owned(),
            target: target.to_owned(),
            body: self.redactor.value(body, || serde_json::Value::Null),
        };
        let written = self.store.audit(&entry).await;
        written
            .inspect_err(|error| tracing::error!(%error, "the audit log cannot be written"))
            .is_ok()
    }

    /// Handles what a person said in a chat; answers there.
    pub async fn hear(&self, mut incoming: Incoming) {
        let done = incoming.done.take();
        let answer = self.hear_and_answer(&incoming).await;
        let Some(done) = done else { return };
        let adapter = &incoming.room.adapter;
        self.office.flush(adapter).await;
        let ok = match answer {
            Some(Answer {
                ok: whole,
                follow: Some(job),
                ..
            }) => {
                let ok = self.until_end(&job).await && whole;
                self.told.caught_up().await;
                self.office.flush(adapter).await;
                ok
            }
            Some(answer) => answer.ok,
            None => false,
        };
        done.tell(ok);
    }

    /// `None`: it was handled before, must not be, or is not worth an answer.
    async fn hear_and_answer(&self, incoming: &Incoming) -> Option<Answer> {
        let space = format!("chat:{}", incoming.room.adapter);
        match self
            .store
            .claim(&space, &incoming.event, Timestamp::now())
            .await
        {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                tracing::error!(%error, "a command was dropped: it cannot be recorded that it is run");
                if error.is_away() && self.people.role(&incoming.who).is_some() {
                    let message =
                        Message::new(Severity::Bad, "The store is away, so nothing was done")
                            .line(error.to_string())
                            .hint("say it again when I say that it is back");
                    self.office
                        .announce(std::slice::from_ref(&incoming.room), &message)
                        .await;
                }
                return None;
            }
        }
        if self.people.role(&incoming.who).is_none() {
            // What a stranger said while the bot was away is not worth a word.
            let missed = incoming.said != Said::Now;
            if missed || !self.may_answer_stranger(&incoming.who) {
                return None;
            }
        }
        let answer = match incoming.said {
            Said::Now => {
                match self.paced(&incoming.who) {
                    Paced::Go => {}
                    Paced::Silent => return None,
                    Paced::Tell { wait } => {
                        let seconds = wait.as_secs() + 1;
                        let why = format!(
                            "Too fast: I did not run this. Say it again in {seconds} s, or less at once"
                        );
                        return self.reply_to(incoming, Answer::refused(why)).await;
                    }
                }
                self.handle(&incoming.who, self.place(&incoming.room), &incoming.text)
                    .await
            }
            Said::WhileAway { others } => missed(others),
        };
        self.reply_to(incoming, answer).await
    }

    async fn reply_to(&self, incoming: &Incoming, answer: Answer) -> Option<Answer> {
        let said = self
            .office
            .reply(&incoming.room, &incoming.event, answer.message.clone())
            .await;
        if let Err(error) = said {
            tracing::error!(%error, "an answer could not be queued");
        }
        Some(answer)
    }

    /// Users of this machine are not held up: whoever has a shell here has other ways to keep it busy, and scripts are theirs.
    fn paced(&self, who: &Identity) -> Paced {
        if who.is_of_this_machine() {
            return Paced::Go;
        }
        let paced = self.pace.check(who);
        if paced != Paced::Go {
            tracing::warn!(%who, "commands come too fast and are dropped");
        }
        paced
    }

    /// Did a job succeed? Waits for its end.
    pub async fn until_end(&self, job: &deploy_engine::job::JobId) -> bool {
        use deploy_engine::job::JobResult;

        use crate::jobs::Ended;
        matches!(
            self.jobs.wait(job).await,
            Ok(Ended::Finished(JobResult::Succeeded))
        )
    }

    fn place(&self, room: &Room) -> Place {
        let matrix = self
            .config
            .chat
            .matrix
            .as_ref()
            .filter(|_| room.adapter == "matrix");
        let configured =
            matrix.and_then(|matrix| matrix.rooms.iter().find(|known| known.room == room.room));
        let prefix = self.office.prefix_of(&room.adapter);
        Place {
            rooms: vec![room.clone()],
            ceiling: configured.map_or(Role::Admin, |room| room.ceiling),
            prefix,
            name: room.to_string(),
        }
    }

    fn may_answer_stranger(&self, who: &Identity) -> bool {
        let now = Timestamp::now();
        let mut strangers = self
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        strangers.retain(|_, at| now.duration_since(*at) < STRANGER_EVERY);
        if strangers.contains_key(who) || strangers.len() >= STRANGERS_MAX {
            return false;
        }
        strangers.insert(who.clone(), now);
        true
    }
}

/// A line as it is recorded: pasted texts are cut.
fn line_of(line: &str) -> String {
    line.chars().take(command::LINE_LIMIT_BYTES).collect()
}

fn missed(others: usize) -> Answer {
    let count = match others {
        0 => "I was away when you said this, and did not run it".to_owned(),
        1 => "I was away when you said this and the command before it, and ran neither".to_owned(),
        others => {
            format!("I was away when you said this and {others} commands before it, and ran none")
        }
    };
    let message = Message::new(Severity::Refused, count).hint("say again what you still want");
    Answer {
        ok: false,
        ..Answer::new(message)
    }
}
