//! Builds the agent for hosts, so that the engine can carry it: static, small, without the `engine` feature.
//!
//! The product is kept by the digest of all that goes into it, in one place of the build directory, so `check`, `clippy`,
//! `test` and `doc` share one build of it. A nested build that fails fails this one, with its words.

use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

/// What of this package goes into the agent.
const INPUTS: [&str; 8] = [
    "src/wire",
    "src/agent",
    "src/impstats.rs",
    "src/bin/nightshift-agent.rs",
    "src/lib.rs",
    "Cargo.toml",
    "build.rs",
    LINKER_SCRIPT,
];
/// Leaves out the unwind tables of what others compiled: some 180 KB.
const LINKER_SCRIPT: &str = "agent.ld";
/// Position-dependent code and folded functions: some 100 KB of 2 MB. `panic = "abort"` needs no unwind tables.
const RUSTFLAGS: [&str; 5] = [
    "-Ctarget-feature=+crt-static",
    "-Crelocation-model=static",
    "-Cforce-unwind-tables=no",
    "-Clink-arg=-Wl,--icf=all",
    "-Clink-arg=-Wl,--no-eh-frame-hdr",
];
/// What the outer cargo and its wrappers (clippy) set for themselves and what must not leak into the nested build.
const FOREIGN: [&str; 10] = [
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOC",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
    "TARGET",
    "HOST",
    "PROFILE",
];
/// Settings of cargo's that must reach the nested build: where packages come from, and the job server.
const KEPT: [&str; 7] = [
    "CARGO_HOME",
    "CARGO_MAKEFLAGS",
    "CARGO_NET_",
    "CARGO_HTTP_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
];

fn main() -> Result<(), String> {
    for input in INPUTS {
        println!("cargo::rerun-if-changed={input}");
    }
    if env::var_os("CARGO_FEATURE_ENGINE").is_none() {
        return Ok(());
    }
    // Embedded by a macro, which cargo only tells of files that were there already.
    println!("cargo::rerun-if-changed=services");
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = package
        .parent()
        .ok_or("expected the package in a workspace")?;
    for shared in ["Cargo.toml", "Cargo.lock"] {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(shared).display()
        );
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    let triple = variable("HOST")?;
    if !triple.ends_with("-linux-gnu") {
        return Err(format!(
            "expected to build on linux-gnu, where a static agent can be built; found {triple}"
        ));
    }
    let nest = Nest {
        place: shared_place(&out),
        package,
        triple,
    };
    let kept = nest
        .place
        .join(format!("{:016x}", nest.digest()?))
        .join("nightshift-agent");
    if !kept.exists() {
        let built = nest.build()?;
        put(&built, &kept)?;
    }
    put(&kept, &out.join("nightshift-agent"))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("expected {name} from cargo, found: {error}"))
}

/// The build directory, which all its profiles share. Cargo marks it when it makes it itself; a directory that was there before has no
/// mark, and lies four levels above (`PROFILE/build/PACKAGE-HASH/out`).
fn shared_place(out: &Path) -> PathBuf {
    let marked = out
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists());
    marked
        .or_else(|| out.ancestors().nth(4))
        .unwrap_or(out)
        .join("agent-builds")
}

/// Copies aside and renames: another build may read at the same time.
fn put(from: &Path, to: &Path) -> Result<(), String> {
    let fail = |error: std::io::Error| {
        format!(
            "expected to copy {} to {}, found: {error}",
            from.display(),
            to.display()
        )
    };
    let aside = to.with_extension(format!("new-{}", std::process::id()));
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).map_err(fail)?;
    }
    fs::copy(from, &aside)
        .and_then(|_| fs::rename(&aside, to))
        .map_err(fail)
}

struct Nest {
    place: PathBuf,
    package: PathBuf,
    triple: String,
}

impl Nest {
    fn cargo(&self, words: &[&str]) -> Result<Command, String> {
        let mut command = Command::new(variable("CARGO")?);
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let of_cargo =
                name.starts_with("CARGO") && !KEPT.iter().any(|kept| name.starts_with(kept));
            if of_cargo || FOREIGN.contains(&name.as_str()) {
                command.env_remove(name);
            }
        }
        let target = self.place.join("target");
        let script = self.package.join(LINKER_SCRIPT);
        let script = format!("-Clink-arg=-T{}", script.display());
        // Encoded: the path may have spaces.
        let flags = [&RUSTFLAGS[..], &[script.as_str()]].concat().join("\x1f");
        command
            .current_dir(&self.package)
            .env("CARGO_ENCODED_RUSTFLAGS", flags)
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_BUILD_BUILD_DIR", &target)
            .args(words)
            .args([
                "--no-default-features",
                "--locked",
                "--target",
                &self.triple,
            ]);
        Ok(command)
    }

    fn run(&self, words: &[&str]) -> Result<Vec<u8>, String> {
        let output = self
            .cargo(words)?
            .output()
            .map_err(|error| format!("expected to run cargo, found: {error}"))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(format!(
            "the nested `cargo {}` of the agent failed ({}):\n{}",
            words.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))
    }

    /// Over the sources, the flags, the profile, the compiler, and the versions of what the agent depends on.
    fn digest(&self) -> Result<u64, String> {
        let mut hasher = DefaultHasher::new();
        (RUSTFLAGS, &self.triple).hash(&mut hasher);
        for input in INPUTS {
            hash_tree(&self.package.join(input), &mut hasher)?;
        }
        let workspace = fs::read_to_string(self.package.with_file_name("Cargo.toml"));
        let workspace = workspace.map_err(|error| {
            format!("expected to read the workspace's Cargo.toml, found: {error}")
        })?;
        let profile = workspace
            .split("[profile.agent]")
            .nth(1)
            .unwrap_or_default();
        profile.split("\n[").next().hash(&mut hasher);
        let rustc = Command::new(variable("RUSTC")?).arg("-vV").output();
        rustc
            .map_err(|error| format!("expected to run rustc, found: {error}"))?
            .stdout
            .hash(&mut hasher);
        // Names and versions only; the paths of this checkout do not matter.
        let tree = self.run(&[
            "tree",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])?;
        let tree = String::from_utf8_lossy(&tree).into_owned();
        tree.lines().skip(1).for_each(|line| line.hash(&mut hasher));
        Ok(hasher.finish())
    }

    fn build(&self) -> Result<PathBuf, String> {
        self.run(&["build", "--bin", "nightshift-agent", "--profile", "agent"])?;
        Ok(self
            .place
            .join("target")
            .join(&self.triple)
            .join("agent/nightshift-agent"))
    }
}

fn hash_tree(path: &Path, hasher: &mut DefaultHasher) -> Result<(), String> {
    let fail =
        |error: std::io::Error| format!("expected to read {}, found: {error}", path.display());
    if !path.is_dir() {
        fs::read(path).map_err(fail)?.hash(hasher);
        return Ok(());
    }
    let mut entries = fs::read_dir(path)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|e| e.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(fail)?;
    entries.sort();
    for entry in entries {
        entry
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .hash(hasher);
        hash_tree(&entry, hasher)?;
    }
    Ok(())
}
