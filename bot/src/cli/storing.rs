//! `store migrate`: from one bot to several, or back.

use serde_json::json;

use super::{Invocation, Outcome, StoreKind, wrong};
use crate::{
    config::{self, Loaded},
    lock::InstanceLock,
    replicas,
    store::{Copied, Store, copy},
};

/// Copies everything, or nothing.
pub async fn migrate(invocation: &Invocation, from: StoreKind, to: StoreKind) -> Outcome {
    if from == to {
        return wrong("expected two different stores");
    }
    let loaded = match config::load(&invocation.config) {
        Ok(loaded) => loaded,
        Err(errors) => return wrong(errors),
    };
    match try_migrate(&loaded, from, to).await {
        Ok(copied) => {
            show(&copied, invocation.json);
            Outcome::Ok
        }
        Err(why) => {
            eprintln!("{why}");
            Outcome::Failed
        }
    }
}

async fn try_migrate(
    loaded: &Loaded,
    from: StoreKind,
    to: StoreKind,
) -> Result<Vec<Copied>, String> {
    let dir = &loaded.config.state_dir;
    // Whoever runs on this state directory has it; bots elsewhere are seen by their beats.
    let _lock = InstanceLock::take(dir).map_err(|error| error.to_string())?;
    let from = open(loaded, from).await?;
    let to = open(loaded, to).await?;
    let copied = copy(&from, &to).await;
    from.close().await;
    to.close().await;
    copied.map_err(|error| error.to_string())
}

async fn open(loaded: &Loaded, kind: StoreKind) -> Result<Store, String> {
    let dir = &loaded.config.state_dir;
    let opened = match kind {
        StoreKind::Embedded => Store::open(dir).await,
        StoreKind::Postgres => {
            let shared = loaded.shared_store.as_ref().ok_or(
                "expected `store: {postgres: …}` in the configuration, found the embedded store alone",
            )?;
            let copier = format!("{}:migrate", replicas::host_name());
            Store::open_shared(shared, &copier).await
        }
    };
    opened.map_err(|error| error.to_string())
}

fn show(copied: &[Copied], as_json: bool) {
    if as_json {
        println!("{}", json!({ "ok": true, "tables": copied }));
        return;
    }
    for table in copied {
        println!("{}: {} rows", table.table, table.rows);
    }
    let rows: u64 = copied.iter().map(|table| table.rows).sum();
    println!("{rows} rows copied and compared");
}
