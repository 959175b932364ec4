//! ES-1 to ES-4: shards that are missing, disks and heaps that are full. Diagnoses: each says what was found, what a person may do
//! and what nobody ever does. They change nothing, so what is unknown is said and not refused.

use std::collections::BTreeMap;

use deploy_engine::{
    model::HostName,
    probe::elasticsearch::{
        ALLOCATION, BLOCKS, HEALTH, INDICES, Index, NODES, Status, Unassigned, WATERMARKS,
        Watermarks,
    },
};

use super::{
    Act, Facts, Input, Verdict,
    elasticsearch_views::{View, colour, disk, first_unassigned, listed},
    input::names,
    table::{Entry, elsewhere, page},
};

/// `cluster.routing.allocation` ... `index.allocation.max_retries`: what both programs ship.
const MAX_RETRIES: u64 = 5;

const DATA_LOSS: &str = "never: having the cluster take a stale or an empty copy for the whole shard, which gives up data for a better colour";
const MASS_DELETION: &str = "never: deleting by a pattern, and a higher watermark in place of room: the disk fills up to it";

macro_rules! diagnosis {
    ($name:literal, $doc:literal, $evidence:expr, $settings:expr, $decide:expr) => {
        Entry {
            name: $name,
            doc: $doc,
            roles: &[],
            parameters: &[],
            evidence: $evidence,
            settings: $settings,
            facts: |_| Facts::new(),
            decide: $decide,
        }
    };
}

pub static RED: Entry = diagnosis!(
    "elasticsearch.red",
    "a diagnosis: the cluster is red; it names the indices, and who is missing",
    &[HEALTH, NODES, INDICES, ALLOCATION],
    &[],
    red
);
pub static UNASSIGNED: Entry = diagnosis!(
    "elasticsearch.unassigned",
    "a diagnosis: copies of shards are unassigned; it says why, and what would have them tried again",
    &[HEALTH, NODES, ALLOCATION, WATERMARKS],
    &[],
    unassigned
);
pub static DISK: Entry = diagnosis!(
    "elasticsearch.disk",
    "a diagnosis: a node's disk is above a watermark, or something is read-only for it",
    &[HEALTH, NODES, WATERMARKS, BLOCKS],
    &[],
    full_disk
);
pub static HEAP: Entry = diagnosis!(
    "elasticsearch.heap",
    "a diagnosis: a node's heap is nearly full",
    &[HEALTH, NODES],
    &["heap_percent"],
    full_heap
);

fn red(input: &Input<'_>) -> Result<Act, Verdict> {
    let mut view = View::of(input)?;
    if view.shards.status != Status::Red {
        let by = &view.by;
        return Err(elsewhere(format!(
            "{by} says {}",
            colour(view.shards.status)
        )));
    }
    let indices: Option<Vec<Index>> = view.also(input, INDICES);
    let nodes = view.nodes(input);
    let missing = view.missing(input, nodes.as_ref());
    let what = match &indices {
        Some(indices) => {
            let red: Vec<&str> = indices
                .iter()
                .filter(|index| index.health == Some(Status::Red))
                .map(|index| index.name.as_str())
                .collect();
            format!(
                "{} cannot be read or written whole",
                listed(red.into_iter())
            )
        }
        None => "it is not known which indices".to_owned(),
    };
    let why = format!(
        "red, {} shards are unassigned: {what}",
        view.shards.unassigned_shards
    );
    let mut evidence = vec![waits_for(input, &missing)];
    let first: Option<Option<Unassigned>> = view.also(input, ALLOCATION);
    evidence.extend(first.flatten().as_ref().map(first_unassigned));
    evidence.append(&mut view.unknown);
    evidence.push("what mends it: the node that has the shard, or a snapshot".to_owned());
    evidence.push(DATA_LOSS.to_owned());
    Err(page(why, evidence))
}

fn waits_for(input: &Input<'_>, missing: &[HostName]) -> String {
    match missing.is_empty() {
        true => format!(
            "no member is known to be missing from the cluster of {}",
            input.members.len()
        ),
        false => format!(
            "{} is not in the cluster: what is missing may be there (ES-5 starts a node that is down)",
            names(missing)
        ),
    }
}

fn unassigned(input: &Input<'_>) -> Result<Act, Verdict> {
    let mut view = View::of(input)?;
    let (count, status) = (view.shards.unassigned_shards, view.shards.status);
    if count == 0 {
        return Err(elsewhere("no shard is unassigned"));
    }
    if status == Status::Red {
        return Err(elsewhere("the cluster is red, which is more (ES-1)"));
    }
    let nodes = view.nodes(input);
    let missing = view.missing(input, nodes.as_ref());
    let marks: Option<Watermarks> = view.also(input, WATERMARKS);
    let first: Option<Unassigned> = view.also(input, ALLOCATION).flatten();
    let given_up = first
        .as_ref()
        .is_some_and(|of| of.reason == "ALLOCATION_FAILED" && of.failed_attempts >= MAX_RETRIES);
    let mut evidence = vec![waits_for(input, &missing)];
    evidence.extend(first.as_ref().map(first_unassigned));
    let disks = nodes.iter().flatten();
    evidence.extend(disks.map(|node| disk(node, marks.as_ref())));
    let cause = match (&first, given_up) {
        (_, true) => "it was tried too often and is given up",
        (Some(of), _) if of.reason == "NODE_LEFT" => "its node left",
        (Some(_), _) => "not for failed attempts",
        (None, _) => "why is not known",
    };
    if given_up {
        let full = nodes.iter().flatten().any(|node| {
            let passed = |used| {
                marks
                    .as_ref()
                    .is_some_and(|marks| marks.passed(used).is_some())
            };
            node.disk_used_percent.is_none_or(passed)
        });
        let known = nodes.is_some() && marks.as_ref().is_some_and(Watermarks::are_shares);
        let moving = view.shards.relocating_shards + view.shards.initializing_shards;
        let ready = known && !full && missing.is_empty() && moving == 0;
        evidence.push(again(&view.url(input), ready));
    }
    evidence.append(&mut view.unknown);
    evidence.push(DATA_LOSS.to_owned());
    let why = format!(
        "{}, {count} copies of shards are unassigned: {cause}",
        colour(status)
    );
    Err(page(why, evidence))
}

/// What has them tried once more, and whether it is time for it.
fn again(url: &str, ready: bool) -> String {
    let command = format!(
        "curl -X POST '{url}/_cluster/reroute?retry_failed=true&dry_run=true', and without dry_run when that is right"
    );
    match ready {
        true => format!("when the cause is gone, once: {command}"),
        false => format!(
            "not yet, as a node is missing, a disk is above its low watermark or not known, or shards move; then, once: {command}"
        ),
    }
}

fn full_disk(input: &Input<'_>) -> Result<Act, Verdict> {
    let mut view = View::of(input)?;
    let nodes = view.nodes(input);
    let marks: Option<Watermarks> = view.also(input, WATERMARKS);
    let blocks: Option<BTreeMap<String, Vec<String>>> = view.also(input, BLOCKS);
    let mut found = Vec::new();
    for node in nodes.iter().flatten() {
        let passed = |used| {
            marks
                .as_ref()
                .is_some_and(|marks| marks.passed(used).is_some())
        };
        if node.disk_used_percent.is_some_and(passed) {
            found.push(disk(node, marks.as_ref()));
        }
    }
    let read_only = blocks.iter().flatten().map(|(index, _)| index.as_str());
    let read_only: Vec<&str> = read_only.collect();
    if !read_only.is_empty() {
        let (count, listed) = (read_only.len(), listed(read_only.into_iter()));
        found.push(format!("{count} indices are blocked: {listed}"));
    }
    let whole = marks.iter().flat_map(|marks| &marks.blocked);
    found.extend(whole.map(|block| format!("the whole cluster is blocked: {block}")));
    let (all_known, nothing) = (
        nodes.is_some() && blocks.is_some() && marks.as_ref().is_some_and(Watermarks::are_shares),
        found.is_empty(),
    );
    if nothing && all_known {
        return Err(elsewhere(
            "every disk is below the low watermark, and nothing is blocked",
        ));
    }
    let mut evidence: Vec<String> = nodes
        .iter()
        .flatten()
        .map(|node| disk(node, marks.as_ref()))
        .collect();
    evidence.extend(marks.as_ref().map(|marks| {
        let off = if marks.enabled {
            ""
        } else {
            ", but nobody looks: it is switched off"
        };
        format!(
            "watermarks: low {}, high {}, flood stage {}{off}",
            marks.low, marks.high, marks.flood_stage
        )
    }));
    evidence.append(&mut view.unknown);
    evidence.push(
        "what mends it: room, or the deletion of old indices by their whole names, as your retention says; a block ends by itself below the high watermark (not up to version 7.3)".to_owned(),
    );
    evidence.push(MASS_DELETION.to_owned());
    let why = match nothing {
        true => "it is not known whether a disk is above its watermark".to_owned(),
        false => found.join("; "),
    };
    Err(page(why, evidence))
}

fn full_heap(input: &Input<'_>) -> Result<Act, Verdict> {
    let most = input.number("heap_percent")?;
    let mut view = View::of(input)?;
    let nodes = view.nodes(input);
    let all = nodes.iter().flatten();
    let full: Vec<String> = all
        .clone()
        .filter(|node| node.heap_percent.is_some_and(|used| used >= most))
        .map(|node| node.name.clone())
        .collect();
    let silent = nodes.is_none() || all.clone().any(|node| node.heap_percent.is_none());
    let mut evidence: Vec<String> = all
        .map(|node| match node.heap_percent {
            Some(used) => format!("{}: heap {used:.0} % used", node.name),
            None => format!("{}: its heap is not known", node.name),
        })
        .collect();
    if full.is_empty() && !silent {
        return Err(elsewhere(format!(
            "{}; expected {most} % or more",
            evidence.join("; ")
        )));
    }
    let moving = view.shards.relocating_shards + view.shards.initializing_shards;
    evidence.append(&mut view.unknown);
    evidence.push(format!(
        "the cluster is {} and {moving} shards move; a person may restart one node, and only where it is green and none does",
        colour(view.shards.status)
    ));
    let why = match full.is_empty() {
        true => "the heap of a node is not known".to_owned(),
        false => format!(
            "the heap of {} is nearly full",
            listed(full.iter().map(String::as_str))
        ),
    };
    Err(page(why, evidence))
}

#[cfg(test)]
#[path = "elasticsearch_found_tests.rs"]
mod tests;
