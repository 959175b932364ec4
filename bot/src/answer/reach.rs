//! What a command is about, for people whose rights do not reach everything.

use std::collections::BTreeSet;

use deploy_engine::{job::JobId, model::ServiceName, plan::Goal};
use runbooks::{
    format::RunbookId,
    incident::{Domain, Incident, IncidentId},
};

use super::{About, Answer};
use crate::{
    bot::Bot,
    command::{Command, Target},
    heal,
    rights::{ApprovalAction, Permit, Subject},
};

impl Bot {
    /// May the permit's command be used on what it is about? What is asked for by an id that does not exist is told by the
    /// command itself.
    pub(crate) async fn within_reach(
        &self,
        permit: &Permit,
        command: &Command,
    ) -> Result<(), Answer> {
        if permit.reaches_everything() {
            return Ok(());
        }
        match self.subject(command).await? {
            None => Ok(()),
            Some(subject) => covered(permit, &subject),
        }
    }

    /// `None`: it only looks, or it looks up itself what it is about.
    async fn subject(&self, command: &Command) -> Result<Option<Subject>, Answer> {
        Ok(match command {
            Command::Help { .. }
            | Command::Whoami
            | Command::Services
            | Command::Status { .. }
            | Command::Alerts
            | Command::Logs { .. }
            | Command::Jobs
            | Command::Job { .. }
            | Command::Plan { .. }
            | Command::Incidents
            | Command::Silences
            | Command::Why { .. }
            | Command::Runbooks
            | Command::Drill
            | Command::Explain { .. }
            | Command::Reviews
            | Command::Replay { .. }
            | Command::Trust { change: None, .. } => None,
            // See `approve` and `deny`.
            Command::Approve { .. } | Command::Deny { .. } => None,
            // A silence may be about anything.
            Command::Halt { .. }
            | Command::Resume
            | Command::Review { .. }
            | Command::Unsilence { .. } => Some(Subject::Site),
            Command::Deploy {
                target: Target::Site,
            } => Some(Subject::Site),
            Command::Deploy {
                target: Target::Service(service),
            }
            | Command::Redeploy { service }
            | Command::Remove { service } => Some(self.service_subject(service, BTreeSet::new())),
            Command::Run { runbook, .. } | Command::Drilled { runbook, .. } => {
                Some(self.runbook_subject(runbook))
            }
            Command::Trust {
                about,
                change: Some(_),
            } => {
                // `RUNBOOK@GROUP`: trust on some hosts is trust in the runbook.
                let runbook = about.as_deref().and_then(|about| about.split('@').next());
                Some(runbook.map_or(Subject::Site, |runbook| self.runbook_subject(runbook)))
            }
            Command::Ack { id }
            | Command::Unack { id }
            | Command::Silence { id, .. }
            | Command::Override { id, .. } => self
                .open_incident(id)
                .await?
                .map(|incident| self.incident_subject(&incident)),
            Command::Cancel { id: None } => {
                return Err(Answer::refused(
                    "Say which job: you may not cancel every one",
                ));
            }
            Command::Cancel { id: Some(id) } | Command::Clear { job: id, .. } => {
                let id = self.find_job(id).await?;
                Some(self.job_subject(&id).await?)
            }
        })
    }

    pub(super) fn service_subject(
        &self,
        service: &ServiceName,
        runbooks: BTreeSet<String>,
    ) -> Subject {
        let groups = |host| {
            let spec = self.model.site.hosts.get(host);
            spec.into_iter()
                .flat_map(|spec| &spec.groups)
                .map(ToString::to_string)
                .collect()
        };
        Subject::Service {
            service: service.clone(),
            hosts: self.model.members(service).iter().map(groups).collect(),
            runbooks,
        }
    }

    fn runbook_subject(&self, runbook: &str) -> Subject {
        match self.library.get(&RunbookId(runbook.to_owned())) {
            Some(found) => self.service_subject(&found.service, [runbook.to_owned()].into()),
            None => Subject::Site,
        }
    }

    fn incident_subject(&self, incident: &Incident) -> Subject {
        match &incident.domain {
            Domain::Service(service) => {
                let runbooks = incident.runbooks.iter().map(ToString::to_string);
                self.service_subject(service, runbooks.collect())
            }
            Domain::Host(_) | Domain::Alert(_) => Subject::Site,
        }
    }

    async fn job_subject(&self, id: &JobId) -> Result<Subject, Answer> {
        let scope = self
            .store
            .job(id)
            .await?
            .map(|job| job.scope)
            .unwrap_or_default();
        let service = scope
            .strip_prefix("domain:")
            .and_then(|name| name.parse().ok());
        Ok(service.map_or(Subject::Site, |service| {
            self.service_subject(&service, BTreeSet::new())
        }))
    }

    /// An open incident by its id or the beginning or end of it; `None`: there is none, or more than one.
    pub(super) async fn open_incident(&self, word: &str) -> Result<Option<Incident>, Answer> {
        if let Some(whole) = heal::incident_of(&self.store, &IncidentId(word.to_owned())).await? {
            return Ok(Some(whole).filter(Incident::is_open));
        }
        let mut fit = self.open_incidents().await?;
        fit.retain(|one| one.incident.id.0.ends_with(word) || one.incident.id.0.starts_with(word));
        let one = fit.pop().filter(|_| fit.is_empty());
        Ok(one.map(|one| one.incident))
    }

    /// What a request for approval is about.
    pub(super) async fn requested_subject(
        &self,
        about: &About,
    ) -> Result<(Subject, ApprovalAction), Answer> {
        Ok(match about {
            About::Deploy { goal, .. } => match goal {
                Goal::Site => (Subject::Site, ApprovalAction::Deploy),
                Goal::Service(service) => (
                    self.service_subject(service, BTreeSet::new()),
                    ApprovalAction::Redeploy,
                ),
                Goal::Remove(service) => (
                    self.service_subject(service, BTreeSet::new()),
                    ApprovalAction::Remove,
                ),
            },
            About::Repair { incident, .. } => {
                let open = self.open_incidents().await?;
                let mut open = open.iter().map(|one| &one.incident);
                let found = open.find(|one| one.id.0 == *incident);
                let subject = found.map_or(Subject::Site, |one| self.incident_subject(one));
                (subject, ApprovalAction::Repair)
            }
        })
    }
}

pub(super) fn covered(permit: &Permit, subject: &Subject) -> Result<(), Answer> {
    permit
        .covers(subject)
        .map_err(|refusal| Answer::refused(refusal.to_string()))
}
