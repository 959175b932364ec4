//! What the bot writes back: acknowledgements, comments, downtimes. Objects are named by values of a filter; no text from outside
//! becomes part of one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Icinga2Client, Named};
use crate::SourceError;

/// One order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Until the problem is over, also if it changes from warning to critical; or until then.
    Acknowledge {
        until: Option<Timestamp>,
    },
    RemoveAcknowledgement,
    Comment,
    /// Fixed: from now until then.
    ScheduleDowntime {
        until: Timestamp,
    },
    /// Those of this author.
    RemoveDowntimes,
}

/// Whose word it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    pub author: String,
    pub comment: String,
}

/// How an order ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It is so now; or it was before, or there is nothing left that it could be done to.
    Done,
    /// Icinga refuses, and would again.
    Refused(String),
}

#[derive(Deserialize)]
struct Results {
    results: Vec<ActionResult>,
}

#[derive(Deserialize)]
struct ActionResult {
    code: f64,
    #[serde(default)]
    status: String,
}

impl Icinga2Client {
    /// Carries an order out. Safe to repeat: an acknowledgement or downtime of the same author that is there is not made again.
    ///
    /// # Errors
    /// It is unknown whether it was carried out.
    pub async fn order(
        &self,
        what: &Named,
        order: &Order,
        signed: &Signed,
        now: Timestamp,
    ) -> Result<Done, SourceError> {
        if self.is_so(what, order, signed).await? {
            return Ok(Done::Done);
        }
        let (path, body) = request(what, order, signed, now);
        let answer = self.first(|master| {
            let body = body.clone();
            async move { Ok(master.api.post(path, &body).await?.answer) }
        });
        match answer.await {
            Ok(answer) => {
                let results: Results = answer.json()?;
                Ok(judge(&results.results))
            }
            // No such object, or what was to be removed is not there.
            Err(SourceError::Status { status: 404, .. }) => Ok(Done::Done),
            Err(SourceError::Status { status, body, .. }) if is_refusal(status) => {
                Ok(Done::Refused(format!("status {status}: {body}")))
            }
            Err(error) => Err(error),
        }
    }

    /// Was it carried out before, and the answer lost?
    async fn is_so(
        &self,
        what: &Named,
        order: &Order,
        signed: &Signed,
    ) -> Result<bool, SourceError> {
        use super::HeldBy::{Acknowledgement, Downtime};
        let by = match order {
            Order::Acknowledge { .. } => Acknowledgement,
            Order::ScheduleDowntime { .. } => Downtime,
            Order::RemoveAcknowledgement | Order::Comment | Order::RemoveDowntimes => {
                return Ok(false);
            }
        };
        let held = self.held().await?;
        let mut of_this = held.iter().filter(|one| one.what == *what && one.by == by);
        Ok(of_this.any(|one| one.care.by == signed.author && one.care.comment == signed.comment))
    }
}

fn is_refusal(status: u16) -> bool {
    // 401 and 403 may be mended by whoever cares for the API user, so they are not the end of an order.
    matches!(status, 400 | 409)
}

/// Pure.
fn judge(results: &[ActionResult]) -> Done {
    let refused = results.iter().find(|one| {
        let code = one.code as u16;
        // 409 and 404: there is no problem (any more), or it is acknowledged, or what was to be removed is not there.
        !(200..300).contains(&code) && code != 404 && code != 409
    });
    match refused {
        None => Done::Done,
        Some(one) => Done::Refused(crate::label::tame(
            &format!("code {}: {}", one.code, one.status),
            400,
        )),
    }
}

/// Path and body. Pure. A value must not be called like an object that Icinga joins to what is filtered (`host`, `service`): the object
/// would be taken.
fn request(what: &Named, order: &Order, signed: &Signed, now: Timestamp) -> (&'static str, Value) {
    let (kind, filter) = match what.service {
        None => ("Host", "host.__name == name"),
        Some(_) => ("Service", "service.__name == name"),
    };
    let seconds = |at: Timestamp| at.as_microsecond() as f64 / 1e6;
    let mut body = json!({
        "type": kind, "filter": filter, "filter_vars": { "name": what.full() }, "author": signed.author,
    });
    let mut add = |name: &str, value: Value| body[name] = value;
    let comment = json!(signed.comment);
    let path = match order {
        Order::Acknowledge { until } => {
            add("comment", comment);
            add("sticky", json!(true));
            add("notify", json!(false));
            if let Some(until) = until {
                add("expiry", json!(seconds(*until)));
            }
            "v1/actions/acknowledge-problem"
        }
        Order::RemoveAcknowledgement => "v1/actions/remove-acknowledgement",
        Order::Comment => {
            add("comment", comment);
            "v1/actions/add-comment"
        }
        Order::ScheduleDowntime { until } => {
            add("comment", comment);
            add("start_time", json!(seconds(now)));
            add("end_time", json!(seconds(*until)));
            add("fixed", json!(true));
            "v1/actions/schedule-downtime"
        }
        Order::RemoveDowntimes => {
            add("type", json!("Downtime"));
            add(
                "filter",
                json!(
                    "downtime.host_name == of_host && downtime.service_name == of_service && downtime.author == by"
                ),
            );
            let service = what.service.as_deref().unwrap_or_default();
            add(
                "filter_vars",
                json!({ "of_host": what.host, "of_service": service, "by": signed.author }),
            );
            "v1/actions/remove-downtime"
        }
    };
    (path, body)
}

#[cfg(test)]
mod tests {
    use super::{super::rig::Icinga, *};

    fn named() -> Named {
        Named {
            host: "ctl1\" || true || \"".to_owned(),
            service: Some("memcached".to_owned()),
        }
    }

    fn signed() -> Signed {
        Signed {
            author: "ann".to_owned(),
            comment: "I am at it".to_owned(),
        }
    }

    #[rstest::rstest]
    #[case(Order::Acknowledge { until: None }, "v1/actions/acknowledge-problem")]
    #[case(Order::RemoveAcknowledgement, "v1/actions/remove-acknowledgement")]
    #[case(Order::Comment, "v1/actions/add-comment")]
    #[case(Order::ScheduleDowntime { until: Timestamp::UNIX_EPOCH }, "v1/actions/schedule-downtime")]
    #[case(Order::RemoveDowntimes, "v1/actions/remove-downtime")]
    fn names_are_values_and_never_part_of_a_filter(#[case] order: Order, #[case] expected: &str) {
        let (path, body) = request(&named(), &order, &signed(), Timestamp::UNIX_EPOCH);
        assert_eq!(path, expected);
        let filter = body["filter"].as_str().unwrap();
        assert!(!filter.contains("ctl1"), "{filter}");
        assert!(body["filter_vars"].to_string().contains("ctl1"), "{body}");
        // Objects that Icinga joins have these names in every filter, and are taken before any value.
        for joined in ["host", "service", "downtime", "comment", "zone", "endpoint"] {
            assert_eq!(body["filter_vars"].get(joined), None, "{body}");
        }
        assert_eq!(body["author"], "ann");
    }

    #[tokio::test]
    async fn an_acknowledgement_is_made_once_and_removed() {
        let icinga = Icinga::start().await;
        icinga.problem("ctl1", Some("memcached"), 2, true);
        let (client, now) = (icinga.client(), Timestamp::now());
        let what = Named {
            host: "ctl1".to_owned(),
            ..named()
        };
        let acknowledge = Order::Acknowledge { until: None };
        for _ in 0..2 {
            let done = client.order(&what, &acknowledge, &signed(), now).await;
            assert_eq!(done, Ok(Done::Done));
        }
        let held = client.held().await.unwrap();
        assert_eq!(held.len(), 1, "not made again");
        assert_eq!((held[0].care.by.as_str(), &held[0].what), ("ann", &what));
        let remove = Order::RemoveAcknowledgement;
        let done = client.order(&what, &remove, &signed(), now).await;
        assert_eq!((done, client.held().await), (Ok(Done::Done), Ok(vec![])));
    }

    #[tokio::test]
    async fn what_is_over_needs_no_acknowledgement_and_a_dead_icinga_leaves_it_unknown() {
        let icinga = Icinga::start().await;
        let (client, now) = (icinga.client(), Timestamp::now());
        let what = Named {
            host: "ctl1".to_owned(),
            service: None,
        };
        let acknowledge = Order::Acknowledge { until: None };
        let done = client.order(&what, &acknowledge, &signed(), now).await;
        assert_eq!(done, Ok(Done::Done), "there is no such host");
        for fault in crate::source::testing::Fault::ALL {
            icinga.server.fault(Some(fault));
            let done = client.order(&what, &acknowledge, &signed(), now).await;
            assert!(done.is_err(), "{fault:?}: {done:?}");
        }
    }

    #[tokio::test]
    async fn a_downtime_is_scheduled_and_removed() {
        let icinga = Icinga::start().await;
        icinga.problem("ctl1", None, 1, true);
        let (client, now) = (icinga.client(), Timestamp::now());
        let what = Named {
            host: "ctl1".to_owned(),
            service: None,
        };
        let until = now + jiff::SignedDuration::from_hours(1);
        let schedule = Order::ScheduleDowntime { until };
        let done = client.order(&what, &schedule, &signed(), now).await;
        assert_eq!(done, Ok(Done::Done));
        let held = client.held().await.unwrap();
        assert_eq!(
            (held.len(), held[0].by),
            (1, super::super::HeldBy::Downtime)
        );
        let (remove, signed) = (Order::RemoveDowntimes, signed());
        let done = client.order(&what, &remove, &signed, now).await;
        assert_eq!(done, Ok(Done::Done));
        assert_eq!(client.held().await, Ok(vec![]));
    }
}
