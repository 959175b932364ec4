//! Every probe's parser, with whatever a host may answer: the first byte chooses the probe, the second the kind of answer.
#![no_main]

use std::collections::BTreeMap;

use deploy_engine::{
    probe,
    wire::{CommandOutput, Exit, ProbeResult},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, &str)| {
    let (which, kind, text) = input;
    let probes: Vec<_> = probe::registry().collect();
    let probe = probes[usize::from(which) % probes.len()];
    let _ = probe.parse(&answer(kind, text));
});

fn answer(kind: u8, text: &str) -> ProbeResult {
    let output = |code| CommandOutput {
        exit: Exit::Code(code),
        stdout: text.to_owned(),
        stderr: text.to_owned(),
        truncated: false,
        took_ms: 1,
    };
    let lines = || text.lines().map(str::to_owned);
    match kind % 8 {
        0 => ProbeResult::Command { output: output(0) },
        1 => ProbeResult::Command { output: output(1) },
        2 => ProbeResult::Http {
            status: 200,
            body: text.to_owned(),
        },
        3 => ProbeResult::Http {
            status: 503,
            body: text.to_owned(),
        },
        4 => ProbeResult::Socket {
            answer: text.to_owned(),
        },
        5 => ProbeResult::File {
            content: Some(text.to_owned()),
        },
        6 => {
            let property = |line: String| {
                let (name, value) = line.split_once('=')?;
                Some((name.to_owned(), value.to_owned()))
            };
            let properties: BTreeMap<String, String> = lines().filter_map(property).collect();
            ProbeResult::Units {
                properties: [("a.service".to_owned(), properties)].into(),
            }
        }
        // Anything else that the wire can carry.
        _ => serde_json::from_str(text).unwrap_or(ProbeResult::Failed {
            why: text.to_owned(),
        }),
    }
}
