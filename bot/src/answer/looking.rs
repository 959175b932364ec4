//! Commands that look: who, what, where, jobs, alerts.

use collectors::{
    logs::{
        Severity as LineSeverity,
        reading::{self, SEVERITY},
    },
    source::Reading,
};
use deploy_engine::job::{JobId, JobResult};
use jiff::Timestamp;
use serde_json::json;

use super::Answer;
use crate::{
    bot::{Asked, Bot},
    jobs, logs,
    store::JobSummary,
    wording::{Cell, Message, Severity, Table, Tone, ago, duration},
};

/// Jobs in a list.
pub(super) const JOBS_SHOWN: u32 = 20;
/// Jobs looked through for an id; older ones need the whole id.
const JOBS_SEARCHED: u32 = 500;
/// Alerts in a list.
const ALERTS_SHOWN: u32 = 50;

impl Bot {
    pub(super) fn whoami(&self, asked: &Asked) -> Answer {
        let (who, role) = (asked.permit.who(), asked.permit.role());
        let message = Message::new(Severity::Info, format!("You are {who}, {role} here"));
        Answer::new(message).with(json!({ "identity": who, "role": role }))
    }

    pub(super) fn services(&self) -> Answer {
        let mut table = Table::new(&["service", "what", "on"]);
        for (name, deployment) in &self.model.services {
            let members: Vec<&str> = deployment
                .members
                .iter()
                .map(|host| host.as_str())
                .collect();
            table.row([
                name.to_string().into(),
                deployment.spec.title.clone().into(),
                members.join(" ").into(),
            ]);
        }
        let data: Vec<_> = self
            .model
            .services
            .iter()
            .map(|(name, deployment)| json!({ "service": name, "title": deployment.spec.title, "on": deployment.members }))
            .collect();
        let title = format!("Services of the site {}", self.model.site.name);
        Answer::new(Message::new(Severity::Info, title).table(table)).with(data)
    }

    pub(super) async fn alerts(&self) -> Result<Answer, Answer> {
        let now = Timestamp::now();
        let firing = self.store.firing_alerts(ALERTS_SHOWN).await?;
        let count = self.store.count_firing().await?;
        let title = match count {
            0 => "No alert fires".to_owned(),
            1 => "1 alert fires".to_owned(),
            count => format!("{count} alerts fire"),
        };
        let severity = if count == 0 {
            Severity::Good
        } else {
            Severity::Attention
        };
        let mut table = Table::new(&["alert", "about", "since", "says"]);
        for alert in &firing {
            let body: serde_json::Value = serde_json::from_str(&alert.body).unwrap_or_default();
            let label = |name: &str| body["labels"][name].as_str().unwrap_or_default();
            let annotation = body["annotations"]["summary"].as_str().unwrap_or_default();
            table.row([
                Cell::new(alert.name.clone(), tone_of(label("severity"))),
                label("instance").into(),
                ago(alert.starts_at, now).into(),
                annotation.into(),
            ]);
        }
        let mut message = Message::new(severity, title);
        if !firing.is_empty() {
            message = message.table(table);
        }
        let blind = self.senses.blind_spots(now);
        for spot in &blind {
            message = message.toned(
                format!("blind to {} of {}: {}", spot.shows, spot.source, spot.why),
                Tone::Bad,
            );
        }
        let readings = logs::readings(&self.store).await?;
        let of_now: Vec<_> = readings
            .iter()
            .filter(|one| is_of_now(one, now))
            .cloned()
            .collect();
        if !of_now.is_empty() {
            message = message.table(logs::readings_table(&of_now, now));
        }
        let blind: Vec<_> = blind
            .iter()
            .map(|spot| json!({ "source": spot.source, "shows": spot.shows, "why": spot.why }))
            .collect();
        Ok(Answer::new(message)
            .with(json!({ "firing": firing, "blind": blind, "readings": readings })))
    }

    pub(super) async fn list_jobs(&self) -> Result<Answer, Answer> {
        let now = Timestamp::now();
        let jobs = self.store.jobs(false, JOBS_SHOWN).await?;
        let mut table = Table::new(&["job", "what", "by", "started", "took", "state"]);
        for job in &jobs {
            let (word, tone) = standing(job);
            let took = job
                .finished_at
                .map(|at| duration(at.duration_since(job.created_at)));
            table.row([
                jobs::short_id(&job.id).into(),
                job.title.clone().into(),
                job.requested_by.clone().into(),
                ago(job.created_at, now).into(),
                took.unwrap_or_default().into(),
                Cell::new(word, tone),
            ]);
        }
        let message = match jobs.len() {
            0 => Message::new(Severity::Info, "There has been no job yet"),
            count => Message::new(Severity::Info, format!("The last {count} jobs")).table(table),
        };
        Ok(Answer::new(message).with(jobs))
    }

    pub(super) async fn show_job(&self, id: &str) -> Result<Answer, Answer> {
        let id = self.find_job(id).await?;
        let state = self
            .jobs
            .state(&id)
            .await
            .map_err(|error| Answer::failed(error.to_string()))?;
        let told = jobs::job_message(&id, &state, &Default::default());
        let (Some(message), Some(job)) = (told, state.job()) else {
            return Err(Answer::failed(format!(
                "job {id} has no beginning in the journal"
            )));
        };
        Ok(Answer::new(message.table(jobs::steps_table(job))).with(&state))
    }

    pub(super) async fn cancel(&self, asked: &Asked, id: Option<&str>) -> Result<Answer, Answer> {
        let id = match id {
            Some(id) => self.find_job(id).await?,
            None => {
                let open = self.store.jobs(true, JOBS_SHOWN).await?;
                match &open[..] {
                    [] => return Err(Answer::refused("No job is running")),
                    [one] => one.id.clone(),
                    many => {
                        let ids: Vec<_> = many.iter().map(|job| jobs::short_id(&job.id)).collect();
                        return Err(Answer::refused(format!(
                            "{} jobs are running: say which one ({})",
                            many.len(),
                            ids.join(", ")
                        )));
                    }
                }
            }
        };
        self.jobs
            .cancel(&id, &asked.who())
            .await
            .map_err(|error| Answer::refused(error.to_string()))?;
        let title = format!("Job {} stops after its running steps", jobs::short_id(&id));
        Ok(Answer::new(Message::new(Severity::Working, title)).with(json!({ "job": id })))
    }

    /// A job by its whole id or the end of it.
    pub(super) async fn find_job(&self, word: &str) -> Result<JobId, Answer> {
        let whole = JobId(word.to_owned());
        if self.store.job(&whole).await?.is_some() {
            return Ok(whole);
        }
        let known = self.store.jobs(false, JOBS_SEARCHED).await?;
        let found: Vec<_> = known
            .iter()
            .filter(|job| job.id.0.ends_with(word) || job.id.0.starts_with(word))
            .collect();
        match &found[..] {
            [one] => Ok(one.id.clone()),
            [] => Err(Answer::refused(format!("There is no job {word}"))),
            many => Err(Answer::refused(format!(
                "{} jobs are called {word}: say more of the id",
                many.len()
            ))),
        }
    }
}

/// Signs of life are no news.
fn is_of_now(reading: &Reading, now: Timestamp) -> bool {
    let progress = reading
        .labels
        .get(SEVERITY)
        .is_some_and(|word| word == LineSeverity::Progress.word());
    !progress && reading::standing(reading, now) == reading::Standing::Evidence
}

fn standing(job: &JobSummary) -> (String, Tone) {
    match &job.result {
        None => ("running".to_owned(), Tone::Warn),
        Some(result) => {
            let tone = match result {
                JobResult::Succeeded => Tone::Good,
                JobResult::Failed { .. } => Tone::Bad,
                JobResult::Cancelled { .. } | JobResult::Refused { .. } => Tone::Warn,
            };
            (jobs::result_word(result).to_owned(), tone)
        }
    }
}

fn tone_of(severity: &str) -> Tone {
    match severity {
        "critical" | "page" | "error" => Tone::Bad,
        "warning" => Tone::Warn,
        _ => Tone::Plain,
    }
}
