//! An encrypted room with the bot and a person.

use std::path::Path;

use lab::synapse::{Limits, SERVER_NAME, Synapse};
use serde_json::{Value, json};

use super::{human::Human, only_for_owner};

const PASSWORD: &str = "a password for tests";
const BOT: &str = "nightshift";
/// The most that a configuration takes, a second and at once.
const PACE_MAX: f64 = 1000.0;

/// A person in an encrypted room, into which the bot is invited.
pub async fn room(synapse: &Synapse) -> (Human, String) {
    let bot = synapse.register(BOT, PASSWORD).unwrap();
    synapse.register("ann", PASSWORD).unwrap();
    let human = Human::log_in(&synapse.url(), "ann", PASSWORD).await;
    let room = human.make_encrypted_room(&[&bot]).await;
    (human, room)
}

/// The bot's account.
pub fn bot() -> String {
    format!("@{BOT}:{SERVER_NAME}")
}

/// The entry `chat` of a configuration for that room; `folder` takes the password.
pub fn chat(folder: &Path, synapse: &Synapse, room: &str, limits: Limits) -> Value {
    let password = folder.join("matrix-password");
    std::fs::write(&password, PASSWORD).unwrap();
    only_for_owner(&password);
    json!({"matrix": {
        "homeserver": synapse.url(),
        "user": bot(),
        "password": {"file": password},
        "rooms": [{"room": room}],
        "messages_per_second": limits.per_second.min(PACE_MAX),
        "burst": limits.burst.min(PACE_MAX as u32),
    }})
}
