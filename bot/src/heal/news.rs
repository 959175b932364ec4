//! News of the healer become edits of each incident's one message, and requests for approval.

use jiff::Timestamp;
use runbooks::{
    healer,
    incident::{Incident, State},
};
use tokio::sync::mpsc;

use super::wording;
use crate::{
    answer::About,
    care,
    chat::{Room, Subject, office::Office},
    store::{Approval, ApprovalState, Store, StoreError},
    wording::{Message, Severity},
};

/// News that may wait. Each holds an incident with its alerts; past this the oldest state is told again with the next change.
const QUEUE: usize = 4_096;

/// The healer's end: never waits.
pub struct News(mpsc::Sender<healer::News>);

impl News {
    pub fn new() -> (Self, mpsc::Receiver<healer::News>) {
        let (send, receive) = mpsc::channel(QUEUE);
        (Self(send), receive)
    }
}

impl healer::Tell for News {
    fn tell(&self, news: healer::News) {
        if self.0.try_send(news).is_err() {
            tracing::warn!("too much news at once; some is told with the next change");
        }
    }
}

/// Tells until the healer has ended.
pub async fn tell_all(
    mut news: mpsc::Receiver<healer::News>,
    store: Store,
    office: Office,
    rooms: Vec<Room>,
    prefix: String,
) {
    while let Some(one) = news.recv().await {
        let told = match one {
            healer::News::Incident { incident, page } => {
                incident_news(&store, &office, &rooms, &prefix, &incident, page).await
            }
            healer::News::Demoted { runbook, to, why } => {
                let message = Message::new(
                    Severity::Attention,
                    format!("{runbook} is trusted less: {to:?}"),
                )
                .line(why)
                .hint(format!("{prefix}trust {runbook} MODE changes it"));
                office
                    .say(&rooms, &Subject(format!("trust:{runbook}")), &message)
                    .await
            }
            healer::News::Storm { storm } => {
                office
                    .say(
                        &rooms,
                        &Subject("storm".to_owned()),
                        &wording::storm_message(&storm),
                    )
                    .await
            }
            healer::News::Trouble { what } => {
                tracing::error!(what, "the healer is in trouble");
                let message = Message::new(Severity::Bad, "The healer is in trouble").line(what);
                office
                    .say(&rooms, &Subject("healer".to_owned()), &message)
                    .await
            }
        };
        if let Err(error) = told {
            tracing::error!(%error, "news could not be told");
        }
    }
}

async fn incident_news(
    store: &Store,
    office: &Office,
    rooms: &[Room],
    prefix: &str,
    incident: &Incident,
    page: bool,
) -> Result<(), StoreError> {
    let now = Timestamp::now();
    let approval = match &incident.state {
        State::Asking {
            digest,
            expires,
            why,
        } => Some(ask(store, incident, digest, *expires, why).await?),
        _ => None,
    };
    let acked = store.get(ACKS, &incident.id.0).await?;
    let mut message = wording::incident_message(incident, now);
    if let Some(by) = &acked {
        message = message.line(format!("taken by {by}"));
    }
    for line in care::lines_of(store, &incident.id.0).await? {
        message = message.line(line);
    }
    // Somebody has it: it is shown, but does not ring.
    if page && acked.is_none() {
        message.severity = message.severity.max(Severity::Attention);
    }
    if let State::Unproven { job, .. } = &incident.state {
        message = message.hint(format!(
            "{prefix}clear {job} REASON takes it on you: its runbook may try again"
        ));
    }
    if let Some(id) = approval {
        message = message.hint(format!(
            "{prefix}approve {id} runs exactly this; {prefix}deny {id} drops it"
        ));
    }
    office
        .say(rooms, &Subject::incident(&incident.id), &message)
        .await
}

/// The space of the store with who took which incident.
pub const ACKS: &str = "acks";

/// One request for one question: the same digest asked again is the same request.
async fn ask(
    store: &Store,
    incident: &Incident,
    digest: &str,
    expires: Timestamp,
    why: &str,
) -> Result<String, StoreError> {
    let id = request_id(&incident.id.0, digest, expires);
    if store.approval(&id).await?.is_some() {
        return Ok(id);
    }
    let about = About::Repair {
        incident: incident.id.0.clone(),
        summary: format!("repair of {}: {why}", incident.domain),
    };
    let approval = Approval {
        id: id.clone(),
        digest: digest.to_owned(),
        requested_by: "automation".to_owned(),
        created_at: Timestamp::now(),
        expires_at: expires,
        state: ApprovalState::Pending,
        decided_by: None,
        decided_at: None,
        body: serde_json::to_value(&about).unwrap_or_default(),
    };
    store.request_approval(&approval).await?;
    Ok(id)
}

/// Short enough to type at night; the same for the same question.
fn request_id(incident: &str, digest: &str, expires: Timestamp) -> String {
    use sha2::{Digest, Sha256};
    let text = format!("{incident}\n{digest}\n{expires}");
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(3)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
