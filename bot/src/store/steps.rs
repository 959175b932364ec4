//! What happens to jobs, in the audit log: one entry an event of the journal, in the same transaction. Pure.

use deploy_engine::job::{JobEvent, JobId};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::audit::{AuditEntry, sha256};

/// The action of these entries.
pub const ACTION: &str = "step";
/// Who does what nobody said at that moment; the first entry of a job says who asked for it.
const JOB: &str = "job";

/// `event` as it is kept in the journal is `text`: its digest makes the journal a part of the chain.
pub(super) fn entry(
    job: &JobId,
    position: u64,
    at: Timestamp,
    event: &JobEvent,
    text: &str,
) -> AuditEntry {
    AuditEntry {
        at,
        who: who(event).to_owned(),
        action: ACTION.to_owned(),
        target: format!("job:{job}"),
        body: json!({ "position": position, "sha256": sha256(text), "event": brief(event) }),
    }
}

fn who(event: &JobEvent) -> &str {
    match event {
        JobEvent::Created { requested_by, .. } => requested_by,
        JobEvent::CancelRequested { by } => by,
        JobEvent::Leased { holder, .. } => holder,
        _ => JOB,
    }
}

/// The event without what is large; the journal has that, and the digest covers it.
fn brief(event: &JobEvent) -> Value {
    match event {
        JobEvent::Created {
            kind,
            title,
            requested_by,
            scope,
            steps,
        } => {
            let steps: Vec<_> = steps.iter().map(|step| &step.title).collect();
            json!({
                "event": "created", "kind": kind, "title": title, "requested_by": requested_by,
                "scope": scope, "steps": steps,
            })
        }
        JobEvent::Evidence { step, .. } => json!({ "event": "evidence", "step": step }),
        other => serde_json::to_value(other).unwrap_or_default(),
    }
}
