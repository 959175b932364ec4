//! The agent that this engine carries, built by `build.rs`.

use std::sync::OnceLock;

use sha2::{Digest, Sha256};

/// The program as hosts run it.
pub static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nightshift-agent"));

/// Its SHA-256 in hex: part of its path on hosts, so versions never mix.
pub fn agent_sha256() -> &'static str {
    static DIGEST: OnceLock<String> = OnceLock::new();
    DIGEST.get_or_init(|| {
        let digest = Sha256::digest(AGENT);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    })
}

/// Where it is on a host.
pub fn agent_path() -> String {
    format!(
        "/var/lib/nightshift/agent/{}/nightshift-agent",
        agent_sha256()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 MB: copied to a host over a slow line in a second or two.
    const LIMIT_BYTES: usize = 2_000_000;

    #[test]
    fn is_a_small_static_program_that_runs() {
        assert!(
            AGENT.len() <= LIMIT_BYTES,
            "expected at most {LIMIT_BYTES} bytes, found {}",
            AGENT.len()
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        std::fs::write(&path, AGENT).unwrap();
        let mut mode = std::fs::metadata(&path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o700);
        std::fs::set_permissions(&path, mode).unwrap();
        let output = std::process::Command::new(&path)
            .arg("--version")
            .env_clear()
            .output()
            .unwrap();
        let expected = format!("nightshift-agent {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        assert!(!names_interpreter(AGENT), "expected a static program");
    }

    /// Whether an ELF file has a program header of type `PT_INTERP`.
    fn names_interpreter(elf: &[u8]) -> bool {
        let number = |at: usize, bytes: usize| {
            elf[at..at + bytes]
                .iter()
                .rev()
                .fold(0, |n, b| n << 8 | usize::from(*b))
        };
        let (first, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        (0..count).any(|n| number(first + n * size, 4) == 3)
    }
}
