//! The signatures of logs there are: the embedded ones and those of the site's directories, checked, with all errors at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use collectors::logs::{Fold, Pattern, Severity, Signature, Signatures, signature};
use deploy_engine::model::{Diagnostics, Document, ServiceName, load_document, parse_document};
use include_dir::{Dir, include_dir};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{format::RunbookId, library};

/// The signatures that come with the program (`RECOVERY` §8a): every file of the folder.
static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/signatures");

/// A shorter phrase is in too many lines.
const PHRASE_SHORTEST_CHARS: usize = 4;

/// Kinds of lines of one service that mean something.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "signatures of logs")]
pub struct SignatureFile {
    /// The service that they are about; `host` for what the kernel says.
    pub service: ServiceName,
    /// Programs that write them, spelled as in the store of logs.
    #[schemars(length(min = 1))]
    pub programs: Vec<String>,
    #[schemars(length(min = 1))]
    pub signatures: Vec<SignatureSpec>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignatureSpec {
    /// `SERVICE.WHAT`; one of a directory replaces the built-in one with its id.
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_-]{0,31}\.[a-z][a-z0-9_]{0,47}$"))]
    pub id: String,
    /// This text, letter for letter.
    #[serde(default)]
    pub phrase: Option<String>,
    /// An expression as the crate `regex` reads it. Its group `about`, if it has one, tells bursts apart.
    #[serde(default)]
    pub regex: Option<String>,
    /// Other programs than the file's.
    #[serde(default)]
    pub programs: Option<Vec<String>>,
    pub severity: SeverityWord,
    #[serde(default)]
    pub fold: FoldWord,
    /// Runbooks that it is evidence for; never a reason to act by itself.
    #[serde(default)]
    pub feeds: Vec<RunbookId>,
    /// For people.
    pub means: String,
}

/// How bad such a line is by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SeverityWord {
    /// A sign of life.
    Progress,
    Notice,
    Warning,
    /// Somebody should look even if nothing else says so: it opens an incident that is told only.
    Page,
}

/// Whose lines are one burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FoldWord {
    /// Those of one host.
    #[default]
    Host,
    /// Those of all hosts.
    Service,
}

/// The embedded signatures; one of a directory replaces the embedded one with its id, or adds to them.
///
/// # Errors
/// Everything that is wrong in any file, with its place.
pub fn load(directories: &[PathBuf]) -> Result<Signatures, Diagnostics> {
    let mut errors = Diagnostics::default();
    let mut all = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for (name, text) in library::embedded(&EMBEDDED) {
        take(parse_document(name, text), &mut all, &mut ids, &mut errors);
    }
    for directory in directories {
        let mut ids = BTreeSet::new();
        for path in library::files(directory, "signatures", &mut errors) {
            take(load_document(&path), &mut all, &mut ids, &mut errors);
        }
    }
    let all = errors.or(all)?;
    // Each was compiled by itself already; together they are only larger.
    Signatures::new(all.into_values().collect()).map_err(|(_, why)| {
        let mut errors = Diagnostics::default();
        let why = format!("the signatures cannot be looked for together: {why}");
        errors.push(deploy_engine::model::Diagnostic::whole_file(
            "signatures",
            why,
        ));
        errors
    })
}

/// `own`: ids of the same place so far.
fn take(
    loaded: Result<Document<SignatureFile>, Diagnostics>,
    all: &mut BTreeMap<String, Signature>,
    own: &mut BTreeSet<String>,
    errors: &mut Diagnostics,
) {
    let document = match loaded {
        Ok(document) => document,
        Err(found) => return errors.extend(found),
    };
    for (index, spec) in document.value.signatures.iter().enumerate() {
        let place = index.to_string();
        let at = |key: &'static str| ["signatures", &place, key].map(str::to_owned);
        let mut wrong = |key: &'static str, why: String| {
            let at = at(key);
            errors.push(document.error_at(&at.each_ref().map(String::as_str), why));
        };
        if !own.insert(spec.id.clone()) {
            wrong("id", format!("{} is there twice", spec.id));
        }
        match understood(&document.value, spec) {
            Ok(signature) => drop(all.insert(spec.id.clone(), signature)),
            Err((key, why)) => wrong(key, why),
        }
    }
}

fn understood(
    file: &SignatureFile,
    spec: &SignatureSpec,
) -> Result<Signature, (&'static str, String)> {
    let (key, pattern) = match (&spec.phrase, &spec.regex) {
        (Some(phrase), None) if phrase.chars().count() < PHRASE_SHORTEST_CHARS => {
            let why = format!("expected at least {PHRASE_SHORTEST_CHARS} characters");
            return Err(("phrase", why));
        }
        (Some(phrase), None) => ("phrase", Pattern::Phrase(phrase.clone())),
        (None, Some(regex)) => ("regex", Pattern::Regex(regex.clone())),
        _ => {
            let why = "expected exactly one of `phrase` and `regex`".to_owned();
            return Err(("id", why));
        }
    };
    let compiled = signature::compile(&pattern).map_err(|why| (key, why))?;
    if compiled.is_match("") {
        return Err((key, "it is in every line".to_owned()));
    }
    Ok(Signature {
        id: spec.id.clone(),
        service: file.service.to_string(),
        programs: spec
            .programs
            .clone()
            .unwrap_or_else(|| file.programs.clone()),
        pattern,
        severity: match spec.severity {
            SeverityWord::Progress => Severity::Progress,
            SeverityWord::Notice => Severity::Notice,
            SeverityWord::Warning => Severity::Warning,
            SeverityWord::Page => Severity::Page,
        },
        feeds: spec.feeds.iter().map(ToString::to_string).collect(),
        fold: match spec.fold {
            FoldWord::Host => Fold::Host,
            FoldWord::Service => Fold::Service,
        },
        means: spec.means.clone(),
    })
}

#[cfg(test)]
mod tests {
    use collectors::logs::Line;
    use jiff::Timestamp;

    use super::*;

    fn found(program: &str, text: &str) -> Vec<(String, String)> {
        let line = Line {
            order: Timestamp::UNIX_EPOCH,
            at: Timestamp::UNIX_EPOCH,
            ingested: None,
            host: "ctl1".into(),
            program: program.into(),
            level: String::new(),
            text: text.into(),
        };
        let all = load(&[]).unwrap_or_else(|errors| panic!("{errors}"));
        let found = all.of(&line);
        found
            .into_iter()
            .map(|one| (one.signature.id.clone(), one.about))
            .collect()
    }

    /// Lines as the programs write them.
    #[rstest::rstest]
    #[case(
        "rabbitmq",
        "Mnesia(rabbit@ctl1): ** ERROR ** mnesia_event got {inconsistent_database, running_partitioned_network, rabbit@ctl2}",
        "rabbitmq.inconsistent_database",
        ""
    )]
    #[case(
        "rabbitmq",
        "node rabbit@ctl2 down: net_tick_timeout",
        "rabbitmq.net_tick_timeout",
        ""
    )]
    #[case(
        "rabbitmq",
        "Error while waiting for Mnesia tables: {timeout_waiting_for_tables,[rabbit@ctl2]}",
        "rabbitmq.waits_for_tables",
        ""
    )]
    #[case(
        "rabbitmq",
        "Waiting for Mnesia tables for 30000 ms, 9 retries left",
        "rabbitmq.waits_for_tables",
        ""
    )]
    #[case("rabbitmq-server", "BOOT FAILED", "rabbitmq.boot_failed", "")]
    #[case(
        "rabbitmq",
        " * Authentication failed (rejected by the remote node), please check the Erlang cookie",
        "rabbitmq.cookie_rejected",
        ""
    )]
    #[case(
        "rabbitmq",
        "memory resource limit alarm set on node rabbit@ctl1.",
        "rabbitmq.resource_alarm",
        ""
    )]
    #[case(
        "mariadb",
        "2026-11-24  3:00:01 0 [Note] WSREP: Shifting SYNCED -> DONOR/DESYNCED (TO: 1234)",
        "mariadb.leaves_synced",
        ""
    )]
    #[case(
        "mariadbd",
        "[Note] WSREP: Received NON-PRIMARY.",
        "mariadb.non_primary",
        ""
    )]
    #[case(
        "mariadb",
        "[Note] WSREP: New COMPONENT: primary = no, bootstrap = no, my_idx = 0, memb_num = 1",
        "mariadb.component_not_primary",
        ""
    )]
    #[case(
        "mariadb",
        "[Note] WSREP: Member 1.0 (ctl2) requested state transfer from '*any*'. Selected 0.0 (ctl1)(SYNCED) as donor.",
        "mariadb.state_transfer_requested",
        "ctl2"
    )]
    #[case(
        "mariadb",
        "[ERROR] WSREP: SST failed: 1 (Operation not permitted)",
        "mariadb.sst_failed",
        ""
    )]
    #[case(
        "mariadb",
        "WSREP_SST: [ERROR] previous SST is not completed, waiting for it to exit",
        "mariadb.previous_sst_not_completed",
        ""
    )]
    #[case(
        "mariadb",
        "[ERROR] WSREP: It may not be safe to bootstrap the cluster from this node.",
        "mariadb.not_safe_to_bootstrap",
        ""
    )]
    #[case(
        "mariadb",
        "WSREP: Recovered position: 3f2504e0-4f89-11d3-9a0c-0305e82c3301:1234",
        "mariadb.recovered_position",
        ""
    )]
    #[case(
        "ceph",
        "cluster [INF] osd.3 marked down after no beacon for 900 seconds",
        "ceph.osd_marked_down",
        "3"
    )]
    #[case(
        "ceph-osd",
        "log_channel(cluster) log [WRN] : Monitor daemon marked osd.3 down, but it is still running; map e12 wrongly marked me down at e11",
        "ceph.wrongly_marked_down",
        ""
    )]
    #[case(
        "ceph",
        "cluster [WRN] 3 slow requests are blocked > 32 sec",
        "ceph.slow_requests",
        ""
    )]
    #[case(
        "ceph",
        "cluster [WRN] clock skew detected on mon.b",
        "ceph.clock_skew",
        ""
    )]
    #[case("ceph", "cluster [ERR] 2.5 scrub 1 errors", "ceph.scrub_errors", "")]
    #[case(
        "nova-compute",
        "WARNING nova.virt.libvirt.host [-] Connection to libvirt lost: 1",
        "nova.libvirt_lost",
        ""
    )]
    #[case(
        "nova-compute",
        "Destroying instance as it has been evacuated from this host",
        "nova.destroys_evacuated",
        ""
    )]
    #[case(
        "nova-compute",
        "oslo_messaging.exceptions.MessagingTimeout: Timed out waiting for a reply",
        "nova.messaging_timeout",
        ""
    )]
    #[case(
        "neutron-openvswitch-agent",
        "OVS is dead. OVSNeutronAgent will keep running and checking OVS status periodically.",
        "neutron.ovs_dead",
        ""
    )]
    #[case(
        "neutron-openvswitch-agent",
        "Agent out of sync with plugin!",
        "neutron.out_of_sync",
        ""
    )]
    #[case(
        "neutron-openvswitch-agent",
        "Agent rpc_loop - iteration:1234 started",
        "neutron.loop_iteration",
        ""
    )]
    #[case(
        "Keepalived_vrrp",
        "(VI_1) Entering MASTER STATE",
        "keepalived.enters_master",
        ""
    )]
    #[case(
        "Keepalived_vrrp",
        "(VI_1) Entering FAULT STATE",
        "keepalived.enters_fault",
        ""
    )]
    #[case(
        "fluentd",
        "[error]: found broken chunk file during resume. path=\"/var/lib/fluentd/b5f\"",
        "fluentd.broken_chunk",
        ""
    )]
    #[case(
        "prometheus",
        "level=info component=tsdb msg=\"WAL segment loaded\" segment=12 maxSegment=40",
        "prometheus.wal_replay",
        ""
    )]
    #[case(
        "prometheus",
        "err=\"corruption in segment /prometheus/wal/00000012 at 32768\"",
        "prometheus.wal_corruption",
        ""
    )]
    #[case(
        "elasticsearch",
        "flood stage disk watermark [95%] exceeded on [x][ctl1], all indices on this node will be marked read-only",
        "elasticsearch.flood_stage",
        ""
    )]
    #[case(
        "icinga2",
        "[2026-11-24] notice/ApiListener: Discarding 'check result' message from 'sat1'",
        "icinga2.discards_results",
        ""
    )]
    #[case(
        "kernel",
        "blk_update_request: critical medium error, dev sdb, sector 1234",
        "host.medium_error",
        ""
    )]
    #[case(
        "kernel",
        "Out of memory: Killed process 812 (mariadbd) total-vm:1234kB",
        "host.oom_kill",
        "mariadbd"
    )]
    #[case(
        "kernel",
        "mce: [Hardware Error]: Machine check events logged",
        "host.machine_check",
        ""
    )]
    fn lines_and_what_they_mean(
        #[case] program: &str,
        #[case] text: &str,
        #[case] id: &str,
        #[case] about: &str,
    ) {
        assert_eq!(found(program, text), [(id.to_owned(), about.to_owned())]);
        assert_eq!(found("sshd", text), [], "of another program");
    }

    #[test]
    fn an_own_directory_adds_replaces_and_is_checked_with_places() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("own.yaml");
        let text = "service: mariadb\nprograms: [mariadb]\nsignatures:\n  \
                    - {id: mariadb.sst_failed, phrase: SST broke, severity: notice, means: ours}\n  \
                    - {id: mariadb.own, regex: 'disk \\d+', severity: page, feeds: [GAL-8], means: ours}\n";
        std::fs::write(&file, text).unwrap();
        let directories = [folder.path().to_owned()];
        let all = load(&directories).unwrap();
        assert_eq!(
            all.get("mariadb.sst_failed").unwrap().severity,
            Severity::Notice
        );
        assert!(all.get("mariadb.own").is_some());

        let wrong = "service: mariadb\nprograms: [mariadb]\nsignatures:\n  \
                     - {id: mariadb.a, regex: '(', severity: notice, means: x}\n  \
                     - {id: mariadb.b, severity: notice, means: x}\n  \
                     - {id: mariadb.c, phrase: ab, severity: notice, means: x}\n  \
                     - {id: mariadb.d, regex: 'a*', severity: notice, means: x}\n  \
                     - {id: mariadb.d, phrase: abcde, severity: notice, means: x}\n";
        std::fs::write(&file, wrong).unwrap();
        let errors = load(&directories).unwrap_err();
        let lines: Vec<usize> = errors.0.iter().map(|one| one.line).collect();
        assert_eq!(lines, [4, 5, 6, 7, 8], "{errors}");
        std::fs::write(&file, "service: mariadb\nprogramms: [x]\n").unwrap();
        assert!(
            load(&directories)
                .unwrap_err()
                .to_string()
                .contains("programs")
        );
    }
}
