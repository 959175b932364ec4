//! What the engine and the agent say to each other: values only, no I/O.
//!
//! Texts may hold secret references (see [`secret_reference`]). They are replaced by the secrets' values in one place,
//! just before a frame leaves for a host, so plans, journals, logs and chat only ever hold references.

mod command;
mod exchange;
mod frame;
mod ports;
mod resource;
mod signed;

pub use command::{Command, CommandOutput, Exit};
pub use exchange::{
    Event, Facts, Fence, Observation, Outcome, Probe, ProbeResult, Progress, Reply, Request,
    SocketAddress, State, StepKey, StepStatus, TcpAnswer, TcpTarget, Work,
};
pub use frame::{
    FRAME_PREFIX_BYTES, Frame, FrameError, decode, enclose, encode, parse, payload, split,
};
pub use resource::{ARCHIVE_MARKER, Resource, ResourceId};
pub use signed::{HostKey, STEP_SECRET, seal, unseal};

/// Version of the frames. Both sides refuse to talk when it differs; the agent is content-addressed, so a mismatch
/// means that something other than the engine started it.
pub const PROTOCOL: u32 = 4;

/// The largest frame either side accepts, in bytes: a rendered configuration or a probe's output fits many times over,
/// and a runaway length prefix cannot exhaust memory.
pub const FRAME_LIMIT_BYTES: usize = 16 * 1024 * 1024;

/// How a secret is named inside a text, for example `⟦secret:mariadb.root⟧`.
pub fn secret_reference(name: &str) -> String {
    format!("⟦secret:{name}⟧")
}
