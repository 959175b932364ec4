//! What Ceph knows of data whose copies differ, and of requests that wait too long.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    ceph::{ask, documents, manager, typed},
    table::{self, Entry},
};
use crate::wire::ProbeResult;

/// Placement groups whose copies differ, and what the last scrub found about each object. From the active manager and the OSDs.
pub const DAMAGE: &str = "ceph.damage";
/// Requests that wait too long in the host's own OSDs, each by its socket.
pub const BLOCKED: &str = "ceph.blocked";

/// Several answers of manager and OSDs, and two that do not come.
const DAMAGE_SECONDS: u32 = 12;
/// At most 2 s for each OSD of the host.
const BLOCKED_SECONDS: u32 = 60;

pub static PROBES: &[Entry] = &[
    Entry {
        name: DAMAGE,
        service: Some("ceph"),
        request: |_| ask("damage", &[], DAMAGE_SECONDS),
        parse: |result| table::value(manager(result).and_then(table::json::<Damage>)),
    },
    Entry {
        name: BLOCKED,
        service: Some("ceph"),
        request: |_| ask("blocked", &[], BLOCKED_SECONDS),
        parse: |result| table::value(parse_blocked(result)),
    },
];

/// [`DAMAGE`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Damaged placement groups, also those that are not shown.
    pub count: usize,
    pub groups: Vec<DamagedGroup>,
    pub osds: BTreeMap<u32, Store>,
}

/// A placement group and its damaged objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedGroup {
    /// `POOL.NUMBER`, the second in hexadecimal.
    pub group: String,
    pub state: String,
    /// Damaged objects, also those that are not shown. None: the last scrub was too long ago, or people have to look.
    pub count: usize,
    pub objects: Vec<DamagedObject>,
    /// Why nothing is known of its objects.
    #[serde(default)]
    pub why: Vec<String>,
}

/// One object, as `rados list-inconsistent-obj` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedObject {
    pub name: String,
    /// No snapshot of it.
    pub head: bool,
    /// In what the copies differ from each other.
    pub errors: BTreeSet<String>,
    /// Ceph has chosen a copy that it trusts.
    pub authority: bool,
    pub copies: Vec<Copy>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    pub osd: u32,
    /// What is wrong with this copy by itself.
    pub errors: BTreeSet<String>,
    #[serde(default)]
    pub size: Option<u64>,
    /// Of the data that was read; none where it could not be.
    #[serde(default)]
    pub data_digest: Option<String>,
}

/// How an OSD keeps its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// `bluestore` has a checksum of every block, `filestore` has none.
    pub store: Option<String>,
    /// Copies that were repaired on it since its start.
    pub repaired: Option<u64>,
}

/// [`BLOCKED`]: of one OSD.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blocked {
    pub osd: u32,
    /// It does not answer on its socket: nothing is known of its requests.
    pub answers: bool,
    /// Requests that wait for longer than `osd_op_complaint_time`.
    pub blocked: u64,
    pub oldest_seconds: f64,
    pub waits: Vec<Wait>,
    /// There are more kinds of waiting than are shown.
    pub more: bool,
}

/// What requests wait for: the word of `silent` of the OSDs `on`. Ceph does not say which of the copies it asked have answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    pub on: BTreeSet<u32>,
    pub silent: usize,
}

impl Blocked {
    /// OSDs that may be waited for.
    pub fn waits_for(&self) -> BTreeSet<u32> {
        self.waits.iter().flat_map(|wait| wait.on.clone()).collect()
    }
}

pub fn parse_blocked(result: &ProbeResult) -> Result<Vec<Blocked>, String> {
    let all = documents(table::succeeded(result)?)?;
    all.into_iter().map(|one| typed("blocked", one)).collect()
}

#[cfg(test)]
#[path = "ceph_trouble_tests.rs"]
mod tests;
