//! What no runbook may do (`RECOVERY` §1, "never automatic"), as data. There is no switch that allows it.
//!
//! A command is refused when all words of an entry are in it, whatever program it is given to and however it is spelled: case does
//! not count, `_` and `-` are the same. Where one of these acts is the last step of a guarded path, that path is named here too.

use std::collections::BTreeSet;

/// Who may do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Class N: nobody through the bot, not with a button either.
    Nobodys,
    /// Class H: a person, by hand.
    Peoples,
}

/// The only guarded path on which an act may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The decision that proves the situation.
    pub decide: &'static str,
    /// The guard of the step itself.
    pub guard: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Never {
    pub act: &'static str,
    pub whose: Whose,
    /// All must be there; one with a blank or a sign is looked for in the whole text, others as words.
    pub words: &'static [&'static str],
    pub unless: Option<Path>,
}

const fn never(act: &'static str, words: &'static [&'static str]) -> Never {
    Never {
        act,
        whose: Whose::Nobodys,
        words,
        unless: None,
    }
}

const fn people(act: &'static str, words: &'static [&'static str]) -> Never {
    Never {
        whose: Whose::Peoples,
        ..never(act, words)
    }
}

const fn only(act: &'static str, words: &'static [&'static str], path: Path) -> Never {
    Never {
        unless: Some(path),
        ..never(act, words)
    }
}

/// Every member was asked: nobody is in a primary component.
const GAL_4: Path = Path {
    decide: "galera.no_primary",
    guard: "galera.no_primary",
};
/// Every member was asked: no server runs anywhere.
const GAL_5: Path = Path {
    decide: "galera.cluster_crash",
    guard: "galera.none_running",
};

const RESET: &str = "resetting RabbitMQ";
const COMPONENT: &str = "forming a Galera component while a member may be unaccounted for";
const STATE_FILE: &str = "changing a Galera state file";
const CEPH_DATA: &str = "giving up data of Ceph";
const CEPH_MONITORS: &str = "changing the monitors of Ceph";
const SHARDS: &str = "allocating a stale or empty shard";
const INDICES: &str = "deleting indices by pattern";
const EVACUATE: &str = "evacuating without a confirmed fence";
const ROWS: &str = "editing rows of a database";
const NETWORK: &str = "tearing down networks of a live node";
const KEYS: &str = "setting up or rotating token keys";
const CONTAINERS: &str = "pruning containers or removing volumes";
const BUFFERS: &str = "deleting buffers or write-ahead logs";

pub static NEVER: &[Never] = &[
    never(RESET, &["force-reset"]),
    never(RESET, &["rabbitmqctl", "reset"]),
    never(RESET, &["rabbitmq-reset-state"]),
    never("deleting the database of RabbitMQ", &["mnesia"]),
    never("deleting the database of RabbitMQ", &["khepri"]),
    only(COMPONENT, &["pc.bootstrap"], GAL_4),
    only(COMPONENT, &["galera-new-cluster"], GAL_5),
    never(COMPONENT, &["wsrep-new-cluster"]),
    only(STATE_FILE, &["grastate.dat"], GAL_5),
    never(STATE_FILE, &["gvwstate.dat"]),
    never(STATE_FILE, &["galera.cache"]),
    never(STATE_FILE, &["ibdata1"]),
    never(CEPH_DATA, &["osd", "lost"]),
    never(CEPH_DATA, &["osd", "purge"]),
    never(CEPH_DATA, &["osd", "purge-new"]),
    never(CEPH_DATA, &["osd", "destroy"]),
    never(CEPH_DATA, &["force-create-pg"]),
    never(CEPH_DATA, &["mark-unfound-lost"]),
    never(CEPH_DATA, &["ceph-objectstore-tool"]),
    never(CEPH_DATA, &["osd", "pool", "delete"]),
    never(CEPH_DATA, &["osd", "pool", "rm"]),
    never(CEPH_DATA, &["rados", "purge"]),
    never(CEPH_DATA, &["osd", "rm"]),
    never(CEPH_DATA, &["osd", "crush", "rm"]),
    never(CEPH_DATA, &["osd", "crush", "remove"]),
    never(CEPH_DATA, &["ceph-bluestore-tool"]),
    never(CEPH_DATA, &["ceph-kvstore-tool"]),
    never(CEPH_DATA, &["ceph-volume", "zap"]),
    never(CEPH_DATA, &["auth", "del"]),
    never(CEPH_DATA, &["auth", "rm"]),
    never("hiding crashes of Ceph", &["crash", "archive-all"]),
    never(CEPH_MONITORS, &["monmaptool"]),
    never(CEPH_MONITORS, &["ceph-monstore-tool"]),
    never(CEPH_MONITORS, &["ceph-mon", "--mkfs"]),
    never(CEPH_MONITORS, &["inject-monmap"]),
    never(CEPH_MONITORS, &["mon", "remove"]),
    never(CEPH_MONITORS, &["mon", "rm"]),
    never("pausing all of Ceph", &["osd", "pause"]),
    never("pausing all of Ceph", &["osd", "set", "pause"]),
    never(SHARDS, &["allocate-stale-primary"]),
    never(SHARDS, &["allocate-empty-primary"]),
    never(INDICES, &["delete", "/*"]),
    never(INDICES, &["delete", "-*"]),
    never(INDICES, &["delete", "/-all"]),
    never(EVACUATE, &["evacuate"]),
    never(EVACUATE, &["host-evacuate"]),
    never(EVACUATE, &["host-evacuate-live"]),
    never(EVACUATE, &["service-force-down"]),
    never(EVACUATE, &["forced-down"]),
    never(EVACUATE, &["force-down"]),
    never(ROWS, &["update", "set", " set "]),
    never(ROWS, &["delete", "from"]),
    never(ROWS, &["insert", "into"]),
    never(ROWS, &["replace", "into"]),
    never(ROWS, &["drop", "table"]),
    never(ROWS, &["drop", "database"]),
    never(ROWS, &["truncate", "table"]),
    never(ROWS, &["alter", "table"]),
    never(NETWORK, &["neutron-ovs-cleanup"]),
    never(NETWORK, &["neutron-netns-cleanup"]),
    never(NETWORK, &["netns-cleanup"]),
    never(NETWORK, &["netns", "delete"]),
    never(NETWORK, &["netns", "del"]),
    never(KEYS, &["fernet-setup"]),
    never(KEYS, &["fernet-rotate"]),
    never(KEYS, &["credential-setup"]),
    never(CONTAINERS, &["docker", "prune"]),
    never(CONTAINERS, &["podman", "prune"]),
    never(CONTAINERS, &["nerdctl", "prune"]),
    never(CONTAINERS, &["volume", "rm"]),
    never(CONTAINERS, &["volume", "remove"]),
    never(BUFFERS, &["/wal"]),
    never(BUFFERS, &["fluentd", "buffer"]),
    never("emptying caches", &["flush-all"]),
    people("forcing a boot", &["force-boot"]),
    people("forgetting a member", &["forget-cluster-node"]),
    people("deleting queues", &["delete-queue"]),
    people("deleting queues", &["purge-queue"]),
    people("moving a watermark", &["set-vm-memory-high-watermark"]),
    people("moving a watermark", &["set-disk-free-limit"]),
    people("moving a full ratio", &["set-full-ratio"]),
    people("moving a full ratio", &["set-nearfull-ratio"]),
    people("moving a full ratio", &["set-backfillfull-ratio"]),
    people("taking an OSD out", &["osd", "out"]),
    people("weighing an OSD anew", &["osd", "reweight"]),
    people("freezing the view of Ceph", &["osd", "set", "noup"]),
    people("freezing the view of Ceph", &["osd", "set", "nodown"]),
    people("taking back a flag of Ceph", &["osd", "unset"]),
    people("taking back a flag of Ceph", &["osd", "unset-group"]),
    people("resetting the state of an instance", &["reset-state"]),
    people("switching a host off or over", &["ipmitool"]),
    people("switching a host off or over", &["reboot"]),
    people("switching a host off or over", &["poweroff"]),
    people("switching a host off or over", &["shutdown"]),
    people("switching a host off or over", &["kexec"]),
    people("switching a host off or over", &["isolate"]),
    people("purging what somebody wrote", &["purge"]),
    people("destroying what somebody made", &["destroy"]),
];

/// Programs that take a text as a program, run another one, or destroy by name or pattern: what they would do cannot be read
/// from the words of a runbook.
pub static PROGRAMS: &[&str] = &[
    "ash",
    "awk",
    "bash",
    "busybox",
    "chroot",
    "csh",
    "dash",
    "dd",
    "doas",
    "env",
    "eval",
    "exec",
    "expect",
    "fallocate",
    "find",
    "fish",
    "flock",
    "gawk",
    "ionice",
    "kill",
    "killall",
    "ksh",
    "lua",
    "mawk",
    "mkfs",
    "mv",
    "nice",
    "node",
    "nohup",
    "nsenter",
    "parallel",
    "perl",
    "php",
    "pkexec",
    "pkill",
    "python",
    "python3",
    "rm",
    "rmdir",
    "rsync",
    "ruby",
    "runuser",
    "script",
    "setpriv",
    "setsid",
    "sh",
    "shred",
    "ssh",
    "stdbuf",
    "su",
    "sudo",
    "systemd-run",
    "tclsh",
    "tee",
    "time",
    "timeout",
    "truncate",
    "unlink",
    "unshare",
    "watch",
    "wipefs",
    "xargs",
    "zsh",
];

/// The first entry that a command falls under. Pure.
pub fn of_command(argv: &[String]) -> impl Iterator<Item = &'static Never> + use<> {
    let text = argv.join(" ").to_lowercase().replace('_', "-");
    let words: BTreeSet<String> = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.')))
        .flat_map(|word| [word, word.trim_matches('-')])
        .map(str::to_owned)
        .collect();
    let there = move |needle: &&str| {
        let is_word = needle
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !needle.starts_with('-');
        if is_word {
            words.contains(*needle)
        } else {
            text.contains(needle)
        }
    };
    NEVER
        .iter()
        .filter(move |never| never.words.iter().all(&there))
}

/// Is the program itself refused?
pub fn is_refused_program(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or_default();
    PROGRAMS.contains(&name) || name.starts_with("mkfs.")
}

/// Why a command may not be run, given the decision and the guards that it stands behind. Pure.
pub fn refusal<'g>(
    argv: &[String],
    decide: &str,
    guards: impl Iterator<Item = &'g str> + Clone,
) -> Option<String> {
    if let Some(program) = argv.first().filter(|program| is_refused_program(program)) {
        return Some(format!(
            "{program} is not run by runbooks: no shell, nothing that runs another program or destroys by pattern"
        ));
    }
    let allowed = |path: Path| path.decide == decide && guards.clone().any(|one| one == path.guard);
    let mut against = of_command(argv).filter(|never| !never.unless.is_some_and(allowed));
    let never = against.next()?;
    let words = never.words.join(" … ");
    Some(match (never.whose, never.unless) {
        (Whose::Peoples, _) => format!("{} ({words}) is left to people: class H", never.act),
        (Whose::Nobodys, None) => format!(
            "{} ({words}) is never done by the bot, nor on anybody's request: class N",
            never.act
        ),
        (Whose::Nobodys, Some(path)) => format!(
            "{} ({words}) is class N, but for what {} has decided behind the guard {}",
            never.act, path.decide, path.guard
        ),
    })
}

#[cfg(test)]
#[path = "never_tests.rs"]
mod tests;
