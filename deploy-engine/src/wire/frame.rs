//! How values travel: a big-endian `u32` length and that many bytes of JSON. See `docs/wire.md`.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::FRAME_LIMIT_BYTES;

/// Bytes of the length in front of every frame.
pub const FRAME_PREFIX_BYTES: usize = 4;

/// A request or one of its replies. Replies carry the id of their request, so several requests share one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame<B> {
    /// Chosen by the engine, unique among the requests in flight.
    pub id: u64,
    pub body: B,
}

/// Why bytes are not a frame. After any of these the stream has no known frame boundary: close it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("expected a frame of at most {limit} bytes, found one of {found}")]
    TooLarge { found: usize, limit: usize },
    #[error("expected a frame of JSON as docs/wire.md says, found {found}")]
    Malformed { found: String },
}

/// The payload of the first frame in `bytes` and how many bytes the frame takes; `None`: more bytes are needed.
pub fn split(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, FrameError> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<FRAME_PREFIX_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*prefix) as usize;
    if length > FRAME_LIMIT_BYTES {
        return Err(FrameError::TooLarge {
            found: length,
            limit: FRAME_LIMIT_BYTES,
        });
    }
    Ok(rest
        .get(..length)
        .map(|payload| (payload, FRAME_PREFIX_BYTES + length)))
}

/// Reads a payload as [`split`] found it.
pub fn parse<B: DeserializeOwned>(payload: &[u8]) -> Result<Frame<B>, FrameError> {
    serde_json::from_slice(payload).map_err(|error| FrameError::Malformed {
        found: error.to_string(),
    })
}

/// The first frame in `bytes` and how many bytes it used; `None`: more bytes are needed. Pure, and safe on any input.
pub fn decode<B: DeserializeOwned>(bytes: &[u8]) -> Result<Option<(Frame<B>, usize)>, FrameError> {
    split(bytes)?
        .map(|(payload, used)| Ok((parse(payload)?, used)))
        .transpose()
}

/// The JSON of a frame, without its length.
pub fn payload<B: Serialize>(frame: &Frame<B>) -> Result<String, FrameError> {
    serde_json::to_string(frame).map_err(|error| FrameError::Malformed {
        found: error.to_string(),
    })
}

/// A payload with its length in front, ready to be sent.
pub fn enclose(payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|_| payload.len() <= FRAME_LIMIT_BYTES)
        .ok_or(FrameError::TooLarge {
            found: payload.len(),
            limit: FRAME_LIMIT_BYTES,
        })?;
    let mut bytes = Vec::with_capacity(FRAME_PREFIX_BYTES + payload.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

/// [`payload`] and [`enclose`] in one go.
pub fn encode<B: Serialize>(frame: &Frame<B>) -> Result<Vec<u8>, FrameError> {
    enclose(payload(frame)?.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::{
        Command, CommandOutput, Event, Exit, Facts, Fence, Observation, Outcome, Probe,
        ProbeResult, Progress, Reply, Request, Resource, ResourceId, State, StepKey, StepStatus,
        TcpTarget, Work,
    };

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            ".{0,12}",
            Just("⟦secret:a.b⟧".to_owned()),
            Just("\"\\\n\u{0}".to_owned())
        ]
    }

    fn command() -> impl Strategy<Value = Command> {
        (
            prop::collection::vec(text(), 0..4),
            prop::option::of(text()),
            any::<u32>(),
        )
            .prop_map(|(argv, stdin, limit)| Command {
                env: argv.iter().map(|a| (a.clone(), a.clone())).collect(),
                user: stdin.clone(),
                argv,
                stdin,
                timeout_seconds: limit,
                output_limit_bytes: limit,
            })
    }

    fn resource() -> impl Strategy<Value = Resource> {
        prop_oneof![
            (text(), prop::option::of(text()), any::<bool>()).prop_map(
                |(name, version, absent)| Resource::Package {
                    name,
                    version,
                    absent
                }
            ),
            (text(), text(), any::<bool>()).prop_map(|(path, content, sensitive)| Resource::File {
                path,
                content,
                mode: "0640".into(),
                owner: "root".into(),
                group: "root".into(),
                validate: None,
                sensitive,
                absent: false,
            }),
            (text(), prop::collection::vec(text(), 0..3)).prop_map(|(name, restart_on)| {
                Resource::Unit {
                    name,
                    enabled: Some(true),
                    running: None,
                    restart_on,
                    reload_on: vec![],
                }
            }),
            (text(), any::<i64>()).prop_map(|(name, priority)| Resource::RabbitmqPolicy {
                api_port: 15672,
                api_user: name.clone(),
                api_password: name.clone(),
                vhost: "/".into(),
                name,
                pattern: ".*".into(),
                apply_to: "queues".into(),
                definition: serde_json::json!({"ha-mode": "all"}),
                priority,
                absent: false,
            }),
        ]
    }

    fn probe() -> impl Strategy<Value = Probe> {
        prop_oneof![
            command().prop_map(|command| Probe::Command { command }),
            (text(), any::<u16>(), any::<u32>()).prop_map(|(address, port, timeout_ms)| {
                Probe::Tcp {
                    targets: vec![TcpTarget { address, port }],
                    timeout_ms,
                }
            }),
            (prop::collection::vec(text(), 0..3), any::<u32>())
                .prop_map(|(names, timeout_ms)| Probe::Resolve { names, timeout_ms }),
        ]
    }

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![
            any::<u32>().prop_map(|protocol| Request::Hello { protocol }),
            (
                any::<bool>(),
                prop::collection::vec(resource(), 0..4),
                prop::collection::btree_map(text(), probe(), 0..4)
            )
                .prop_map(|(facts, resources, probes)| Request::Observe {
                    facts,
                    resources,
                    probes
                }),
            (
                text(),
                any::<u64>(),
                prop::collection::vec(resource(), 0..4),
                any::<u32>()
            )
                .prop_map(|(key, token, resources, timeout_seconds)| Request::Start {
                    key: StepKey(key.clone()),
                    fence: Fence { scope: key, token },
                    work: Work::Apply {
                        expected: resources.iter().map(|r| (r.id(), "00ff".into())).collect(),
                        resources,
                    },
                    timeout_seconds,
                }),
            (text(), any::<u64>()).prop_map(|(key, seen)| Request::Attach {
                key: StepKey(key),
                seen
            }),
        ]
    }

    fn output() -> impl Strategy<Value = CommandOutput> {
        (
            prop_oneof![
                any::<i32>().prop_map(Exit::Code),
                any::<i32>().prop_map(Exit::Signal),
                Just(Exit::TimedOut)
            ],
            text(),
            any::<u64>(),
        )
            .prop_map(|(exit, stdout, took_ms)| CommandOutput {
                exit,
                stderr: stdout.clone(),
                stdout,
                truncated: true,
                took_ms,
            })
    }

    fn facts() -> impl Strategy<Value = Facts> {
        (text(), any::<u16>(), 0u64..4_000_000_000, any::<u64>()).prop_map(
            |(name, port, clock, bytes)| Facts {
                hostname: name.clone(),
                memory_bytes: bytes,
                clock_seconds: clock as f64,
                clock_synchronised: Some(false),
                addresses: BTreeMap::from([(name.clone(), vec!["10.77.0.11/24".into()])]),
                listening: BTreeMap::from([(port, vec![name.clone()])]),
                filesystems: BTreeMap::from([(name, (bytes, bytes, 1))]),
                ..Facts::default()
            },
        )
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            output().prop_map(|output| Outcome::Done {
                changed: vec![ResourceId("file:/a".into())],
                output: Some(output)
            }),
            text().prop_map(|why| Outcome::Lost { why }),
            any::<u64>().prop_map(|seen| Outcome::Fenced { seen }),
            Just(Outcome::CalledOff),
        ]
    }

    fn reply() -> impl Strategy<Value = Reply> {
        prop_oneof![
            (
                prop::option::of(facts()),
                text(),
                prop::collection::vec(text(), 0..3),
                output()
            )
                .prop_map(|(facts, id, diff, output)| Reply::Observed {
                    facts,
                    observations: vec![Observation {
                        id: ResourceId(id.clone()),
                        state: State::WillChange { diff },
                        digest: id.clone(),
                    }],
                    probes: BTreeMap::from([(id, ProbeResult::Command { output })]),
                }),
            (text(), outcome()).prop_map(|(key, outcome)| Reply::Event {
                key: StepKey(key),
                event: Event::Finished { outcome },
            }),
            (text(), any::<bool>()).prop_map(|(key, changed)| Reply::Event {
                key: StepKey(key.clone()),
                event: Event::Progress {
                    progress: Progress::ResourceDone {
                        id: ResourceId(key),
                        changed,
                        diff: vec![]
                    },
                },
            }),
            (text(), outcome()).prop_map(|(key, outcome)| Reply::Status {
                key: StepKey(key),
                status: StepStatus::Finished { outcome },
            }),
        ]
    }

    proptest! {
        #[test]
        fn requests_come_back_as_they_went(id in any::<u64>(), body in request(), rest in prop::collection::vec(any::<u8>(), 0..8)) {
            let frame = Frame { id, body };
            let mut bytes = encode(&frame).unwrap();
            let length = bytes.len();
            bytes.extend(rest);
            prop_assert_eq!(decode(&bytes).unwrap(), Some((frame, length)));
        }

        #[test]
        fn replies_come_back_as_they_went(id in any::<u64>(), body in reply()) {
            let frame = Frame { id, body };
            let bytes = encode(&frame).unwrap();
            prop_assert_eq!(decode(&bytes).unwrap(), Some((frame, bytes.len())));
        }

        #[test]
        fn a_cut_frame_asks_for_more(body in request(), part in 0.0f64..1.0) {
            let bytes = encode(&Frame { id: 1, body }).unwrap();
            let cut = (bytes.len() as f64 * part) as usize;
            prop_assert_eq!(decode::<Request>(&bytes[..cut]).unwrap(), None);
        }

        #[test]
        fn any_bytes_are_answered_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Reply>(&bytes);
        }

        #[test]
        fn any_payload_is_answered_without_panic(payload in prop::collection::vec(any::<u8>(), 0..256)) {
            let bytes = enclose(&payload).unwrap();
            if let Ok(found) = decode::<Request>(&bytes) {
                prop_assert!(found.is_some());
            }
        }
    }

    #[test]
    fn a_runaway_length_is_refused_before_its_bytes_come() {
        let bytes = (FRAME_LIMIT_BYTES as u32 + 1).to_be_bytes();
        assert_eq!(
            decode::<Request>(&bytes),
            Err(FrameError::TooLarge {
                found: FRAME_LIMIT_BYTES + 1,
                limit: FRAME_LIMIT_BYTES
            })
        );
    }

    #[test]
    fn unknown_words_are_refused() {
        for payload in [
            r#"{"id":1,"body":{"request":"reboot"}}"#,
            r#"{"id":1,"body":{"request":"hello","protocol":1,"extra":true}}"#,
            r#"{"id":1,"body":{"request":"hello","protocol":1},"more":0}"#,
            r#"{"id":-1,"body":{"request":"hello","protocol":1}}"#,
        ] {
            let bytes = enclose(payload.as_bytes()).unwrap();
            assert!(
                matches!(decode::<Request>(&bytes), Err(FrameError::Malformed { .. })),
                "{payload}"
            );
        }
    }
}
