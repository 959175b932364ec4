//! A webhook, and what is left of it for the bot that leads.

use std::sync::Arc;

use bot::{
    audit::Redactor,
    config::Secret,
    store::{Parcel, Store},
    web,
};
use collectors::{Alert, Change};
use tokio_util::sync::CancellationToken;

const WEBHOOK: &str = include_str!("../../../collectors/src/testdata/webhook-watchdog.json");

/// One webhook to a bot's own server. Its status.
pub async fn post_webhook(store: &Store) -> u16 {
    let door = web::Door {
        tokens: web::Tokens::new(&[("am".to_owned(), Secret::new("secret"))]),
        signers: web::Signers::new(&[]),
        certified: false,
        pace: web::WebPace::new(100),
        redactor: Redactor::default(),
    };
    let (web, committing) = web::Web::new(store.clone(), door, Arc::default(), Arc::default());
    tokio::spawn(committing);
    let listener = web::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let url = format!("http://{}/v1/alertmanager", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let serving = tokio::spawn(web::serve(listener, None, web, stop.clone()));
    let request = reqwest::Client::new().post(url).bearer_auth("secret");
    let response = request.body(WEBHOOK).send().await.unwrap();
    stop.cancel();
    serving.await.unwrap().unwrap();
    response.status().as_u16()
}

/// What is in parcels.
pub fn parcels(parcels: &[Parcel]) -> Vec<(Alert, Change)> {
    let batch = |parcel: &Parcel| -> Vec<(Alert, Change)> {
        serde_json::from_value(parcel.body.clone()).unwrap()
    };
    parcels.iter().flat_map(batch).collect()
}
