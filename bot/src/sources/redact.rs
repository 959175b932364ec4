//! No secret of the bot gets into the store or a chat because some check's output or log line held it.

use std::borrow::Cow;

use collectors::{Alert, source::Told};

use crate::audit::Redactor;

/// Identities (source, fingerprint) stay as they are.
pub fn redacted(redactor: &Redactor, told: Told) -> Told {
    match told {
        Told::Alerts(alerts) => Told::Alerts(each(redactor, alerts)),
        Told::State(mut state) => {
            state.firing = each(redactor, state.firing);
            for handling in state.handled.values_mut() {
                let acknowledged = handling.acknowledged.iter_mut();
                for care in acknowledged
                    .chain(&mut handling.downtimes)
                    .chain(&mut handling.silences)
                {
                    clean(redactor, &mut care.by);
                    clean(redactor, &mut care.comment);
                }
            }
            Told::State(state)
        }
        Told::Readings(mut readings) => {
            for reading in &mut readings {
                reading
                    .samples
                    .iter_mut()
                    .for_each(|one| clean(redactor, one));
                reading
                    .labels
                    .values_mut()
                    .for_each(|one| clean(redactor, one));
            }
            Told::Readings(readings)
        }
    }
}

fn each(redactor: &Redactor, mut alerts: Vec<Alert>) -> Vec<Alert> {
    for alert in &mut alerts {
        let texts = alert.labels.values_mut();
        let texts = texts.chain(alert.annotations.values_mut());
        texts.for_each(|text| clean(redactor, text));
        clean(redactor, &mut alert.name);
    }
    alerts
}

fn clean(redactor: &Redactor, text: &mut String) {
    let cleaned = match redactor.text(text) {
        Cow::Owned(cleaned) => Some(cleaned),
        Cow::Borrowed(_) => None,
    };
    if let Some(cleaned) = cleaned {
        *text = cleaned;
    }
}
