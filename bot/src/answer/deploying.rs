//! `plan`, `deploy`, `redeploy`, `remove`: a plan, its digest, and the request to approve it.

use deploy_engine::{
    job::{Action, JobKind, Step, is_batch, scopes_conflict, share_out},
    model::ServiceName,
    plan::{Goal, Plan, prepare},
};
use jiff::{SignedDuration, Timestamp};
use runbooks::{budget, format::RunbookId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Answer;
use crate::{
    bot::{Asked, Bot},
    chat::Room,
    command::Target,
    heal,
    jobs::{self, NewJob},
    replicas,
    store::{Approval, ApprovalState, Repair},
    wording::{Message, Severity, Tone},
};

/// What an approval is about; kept with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "about", rename_all = "snake_case")]
pub enum About {
    Deploy {
        goal: Goal,
        summary: String,
        rooms: Vec<Room>,
    },
    /// A repair that the healer proposes.
    Repair { incident: String, summary: String },
}

impl About {
    pub fn summary(&self) -> &str {
        match self {
            Self::Deploy { summary, .. } | Self::Repair { summary, .. } => summary,
        }
    }
}

impl Bot {
    pub(super) async fn plan(&self, target: Target) -> Result<Answer, Answer> {
        let plan = self.prepare(&goal_of(target)).await?;
        let message = plan_message(&plan);
        Ok(Answer::new(message).with(&plan))
    }

    pub(super) async fn deploy(&self, asked: &Asked, target: Target) -> Result<Answer, Answer> {
        self.propose(asked, goal_of(target)).await
    }

    pub(super) async fn redeploy(
        &self,
        asked: &Asked,
        service: ServiceName,
    ) -> Result<Answer, Answer> {
        self.propose(asked, Goal::Service(service)).await
    }

    pub(super) async fn remove(
        &self,
        asked: &Asked,
        service: ServiceName,
    ) -> Result<Answer, Answer> {
        self.propose(asked, Goal::Remove(service)).await
    }

    /// A plan of files that are not those on disk would surprise whoever wrote them.
    async fn prepare(&self, goal: &Goal) -> Result<Plan, Answer> {
        if let Some(file) = self.files.changed() {
            let title = format!("{} was changed after I read it", file.display());
            let message = Message::new(Severity::Refused, title)
                .hint("`nightshift check` it, then restart me; what runs goes on");
            return Err(Answer {
                ok: false,
                ..Answer::new(message)
            });
        }
        prepare(&*self.hosts, &self.model, goal, Timestamp::now())
            .await
            .map_err(|refusal| Answer::refused(refusal.to_string()))
    }

    async fn propose(&self, asked: &Asked, goal: Goal) -> Result<Answer, Answer> {
        let plan = self.prepare(&goal).await?;
        let message = plan_message(&plan);
        if plan.is_empty() {
            let ok = plan.refused.is_empty();
            return Ok(Answer {
                ok,
                ..Answer::new(message).with(&plan)
            });
        }
        let now = Timestamp::now();
        let minutes = i64::from(self.config.limits.approval_minutes);
        let about = About::Deploy {
            summary: format!("{}: {}", goal.title(), plan.summary()),
            goal,
            rooms: self.rooms_for(&asked.place.rooms),
        };
        let approval = Approval {
            id: new_approval_id(),
            digest: plan.digest.clone(),
            requested_by: asked.who(),
            created_at: now,
            expires_at: now + SignedDuration::from_mins(minutes),
            state: ApprovalState::Pending,
            decided_by: None,
            decided_at: None,
            body: serde_json::to_value(&about).unwrap_or_default(),
        };
        self.store.request_approval(&approval).await?;
        let prefix = &asked.place.prefix;
        let hint = format!(
            "{prefix}approve {id} runs exactly this plan within {minutes} min; {prefix}deny {id} drops it",
            id = approval.id
        );
        let message = match self.spent_already(&plan).await? {
            Some(why) => message.toned(
                format!("the budget that repairs share with you is spent (G7): {why}"),
                Tone::Warn,
            ),
            None => message,
        };
        let message = Message {
            severity: Severity::Attention,
            ..message
        }
        .hint(hint);
        let data = json!({ "approval": approval.id, "digest": plan.digest, "plan": plan });
        Ok(Answer::new(message).with(data))
    }

    /// Plans again, and starts the job if nothing is different from what was approved.
    pub(super) async fn start_deploy(
        &self,
        asked: &Asked,
        approval: &Approval,
        goal: &Goal,
        rooms: &[Room],
    ) -> Result<Answer, Answer> {
        let scope = format!("site:{}", self.model.site.name);
        self.refuse_if_busy(&scope).await?;
        let plan = self.prepare(goal).await?;
        if plan.digest != approval.digest {
            let message = Message::new(
                Severity::Refused,
                "The site is not as it was when this was planned",
            )
            .line(format!("approved: plan {}", short(&approval.digest)))
            .line(format!(
                "now: plan {} ({})",
                plan.short_digest(),
                plan.summary()
            ))
            .hint(format!(
                "{}{} plans again",
                asked.place.prefix,
                goal.title()
            ));
            return Err(Answer {
                ok: false,
                ..Answer::new(message)
            });
        }
        self.store
            .use_approval(&approval.id, &plan.digest, Timestamp::now())
            .await
            .map_err(|error| Answer::refused(error.to_string()))?;
        self.start_job(asked, &plan, &approval.requested_by, rooms)
            .await
    }

    /// Runs a plan that was made and agreed to in the same breath: the command line without a running bot.
    pub async fn deploy_now(&self, asked: &Asked, plan: &Plan) -> Result<Answer, Answer> {
        self.refuse_if_busy(&format!("site:{}", self.model.site.name))
            .await?;
        self.start_job(asked, plan, &asked.who(), &self.team_rooms())
            .await
    }

    async fn start_job(
        &self,
        asked: &Asked,
        plan: &Plan,
        requested_by: &str,
        rooms: &[Room],
    ) -> Result<Answer, Answer> {
        let title = plan.goal.title();
        let job = NewJob {
            id: jobs::new_job_id(),
            kind: JobKind::Deploy {
                plan_digest: plan.digest.clone(),
            },
            title: title.clone(),
            requested_by: requested_by.to_owned(),
            scope: format!("site:{}", self.model.site.name),
            steps: self.shared_out(&plan.steps),
        };
        if let Goal::Service(service) = &plan.goal {
            self.charge(&job, service, plan).await?;
        }
        let id = self
            .jobs
            .start(job, rooms)
            .await
            .map_err(|error| Answer::failed(error.to_string()))?;
        let title = format!("{title} starts: {}", plan.summary());
        let message = Message::new(Severity::Working, title).toned(
            format!("job {}, approved by {}", jobs::short_id(&id), asked.who()),
            Tone::Dim,
        );
        let message = refusals(message, plan);
        let data = json!({ "job": id, "refused": plan.refused });
        Ok(Answer {
            // The job may succeed; what was asked for is not done as a whole.
            ok: plan.refused.is_empty(),
            follow: Some(id),
            ..Answer::new(message).with(data)
        })
    }

    /// Where there are other bots, they get a share of what concerns many hosts.
    fn shared_out(&self, steps: &[Step]) -> Vec<Step> {
        match self.store.is_shared() {
            true => share_out(steps.to_vec(), &replicas::model_digest(&self.model)),
            false => steps.to_vec(),
        }
    }

    /// People and automation share one budget: who redeploys a service has restarted the same thing (gate G7). Charged before the
    /// job is made, so that a crash in between costs a try and never gives one.
    async fn charge(&self, job: &NewJob, service: &ServiceName, plan: &Plan) -> Result<(), Answer> {
        let repair = Repair {
            job: job.id.to_string(),
            runbook: budget::REDEPLOY.to_owned(),
            targets: targets(service, plan),
            at: Timestamp::now(),
            by: job.requested_by.clone(),
            outcome: None,
            ended_at: None,
        };
        Ok(self.store.repair_started(&repair, None).await?)
    }

    /// What the shared budget says of another restart of this service; a person may go on all the same.
    async fn spent_already(&self, plan: &Plan) -> Result<Option<String>, Answer> {
        let Goal::Service(service) = &plan.goal else {
            return Ok(None);
        };
        let now = Timestamp::now();
        let ledger = heal::ledger_of(&self.store, now - budget::LEDGER_SPAN).await?;
        let gate = budget::judge(
            &budget::Budget::default(),
            &ledger,
            &RunbookId(budget::REDEPLOY.to_owned()),
            &targets(service, plan),
            None,
            now,
        );
        Ok((!gate.passes()).then(|| gate.why().to_owned()))
    }

    /// A deploy and anything else on the same hosts exclude each other; the lease says so too, but later.
    async fn refuse_if_busy(&self, scope: &str) -> Result<(), Answer> {
        let leases = self.store.leases().await?;
        match leases.iter().find(|record| {
            // A batch that outlived its job keeps the next one back as well.
            scopes_conflict(&record.lease.scope, scope) || is_batch(&record.lease.scope)
        }) {
            None => Ok(()),
            Some(record) => {
                let job = jobs::short_id(&record.lease.job);
                Err(Answer::refused(format!(
                    "Job {job} is working on {}: wait for it or cancel it",
                    record.lease.scope
                )))
            }
        }
    }

    /// Where a job is told: where it was asked for, and to the team.
    pub fn rooms_for(&self, asked: &[Room]) -> Vec<Room> {
        let mut rooms = asked.to_vec();
        rooms.extend(self.team_rooms());
        rooms.sort();
        rooms.dedup();
        rooms
    }

    /// The rooms in which incidents are told.
    pub fn team_rooms(&self) -> Vec<Room> {
        let matrix = self
            .config
            .chat
            .matrix
            .iter()
            .flat_map(|matrix| &matrix.rooms);
        let matrix = matrix.filter(|room| room.incidents).map(|room| Room {
            adapter: crate::chat::matrix::NAME.to_owned(),
            room: room.room.clone(),
        });
        let console = self
            .office
            .adapters()
            .filter(|adapter| adapter.name() == crate::chat::console::NAME)
            .map(|_| crate::chat::console::Console::room());
        matrix.chain(console).collect()
    }
}

/// What a redeploy touches, in the words of the ledger.
fn targets(service: &ServiceName, plan: &Plan) -> Vec<String> {
    let hosts = plan.steps.iter().filter_map(|step| match &step.action {
        Action::Host { host, .. } => Some(format!("host:{host}")),
        _ => None,
    });
    let hosts: std::collections::BTreeSet<String> = hosts.collect();
    std::iter::once(format!("domain:{service}"))
        .chain(hosts)
        .collect()
}

fn goal_of(target: Target) -> Goal {
    match target {
        Target::Site => Goal::Site,
        Target::Service(service) => Goal::Service(service),
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// Short enough to type at night.
pub(super) fn new_approval_id() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    id.chars().take(6).collect()
}

/// A plan as people see it in a chat: what changes, without the contents of files.
pub fn plan_message(plan: &Plan) -> Message {
    let title = format!("{} on {}: {}", plan.goal.title(), plan.site, plan.summary());
    if plan.is_empty() {
        let severity = if plan.refused.is_empty() {
            Severity::Good
        } else {
            Severity::Refused
        };
        return remarks(Message::new(severity, title), plan);
    }
    let message = Message::new(Severity::Info, title).code(plan.table());
    let message = remarks(message, plan);
    message.toned(format!("plan {}", plan.short_digest()), Tone::Dim)
}

/// What of the plan will not be done.
fn refusals(message: Message, plan: &Plan) -> Message {
    plan.refused.iter().fold(message, |message, refused| {
        message.toned(format!("refused: {refused}"), Tone::Bad)
    })
}

fn remarks(message: Message, plan: &Plan) -> Message {
    let mut message = refusals(message, plan);
    for warning in &plan.warnings {
        message = message.toned(warning.clone(), Tone::Warn);
    }
    message
}
