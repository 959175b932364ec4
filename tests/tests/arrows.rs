//! The arrows of `docs/ARCHITECTURE.md`: which package may depend on which, and one version of each heavy crate.
#![allow(
    clippy::unwrap_used,
    reason = "helper functions of tests fail the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each package may name of the others, in any kind of dependency. `tests` may name all.
const ARROWS: [(&str, &[&str]); 5] = [
    ("bot", &["runbooks", "collectors", "deploy-engine"]),
    ("runbooks", &["collectors", "deploy-engine"]),
    ("collectors", &[]),
    ("deploy-engine", &[]),
    ("tests", &["bot", "runbooks", "collectors", "deploy-engine"]),
];
/// Packages that may name `matrix-sdk`, the slowest build by far.
const MATRIX: [&str; 2] = ["bot", "tests"];
/// Crates that are slow to build or link a C library: two versions of one would be paid twice, or not link.
const HEAVY: [&str; 6] = [
    "axum",
    "hyper",
    "libsqlite3-sys",
    "reqwest",
    "rustls",
    "tokio",
];

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The packages of the workspace; without their dependencies cargo needs neither registry nor network.
fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps"])
        .current_dir(ROOT)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// Direct dependencies (all kinds) of each package of the workspace, by name, with the kind.
fn workspace(metadata: &Value) -> BTreeMap<String, Vec<(String, Option<String>)>> {
    let members: BTreeSet<&str> = metadata["workspace_members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap())
        .collect();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .filter(|package| members.contains(text(package, "id")))
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let named = dependencies.iter().map(|dependency| {
                let kind = dependency["kind"].as_str().map(str::to_owned);
                (text(dependency, "name").to_owned(), kind)
            });
            (text(package, "name").to_owned(), named.collect())
        })
        .collect()
}

/// Sentences about everything that is against the arrows.
fn against_the_arrows(workspace: &BTreeMap<String, Vec<(String, Option<String>)>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (package, dependencies) in workspace {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| name == package) else {
            wrong.push(format!("`{package}` is not one of the five packages"));
            continue;
        };
        for (name, kind) in dependencies {
            // A package may ask for a feature of its own in its tests.
            let itself = name == package && kind.as_deref() == Some("dev");
            let known = workspace.contains_key(name) && !itself;
            if known && !allowed.contains(&name.as_str()) {
                wrong.push(format!(
                    "`{package}` depends on `{name}` against the arrows"
                ));
            }
            let matrix = name == "matrix-sdk";
            let only_for_tests = package != "tests" || kind.as_deref() == Some("dev");
            if matrix && !(MATRIX.contains(&package.as_str()) && only_for_tests) {
                wrong.push(format!("`{package}` depends on matrix-sdk ({kind:?})"));
            }
        }
    }
    wrong
}

#[test]
fn packages_depend_along_the_arrows_only() {
    let workspace = workspace(&metadata());
    assert_eq!(workspace.len(), ARROWS.len(), "{:?}", workspace.keys());
    assert_eq!(against_the_arrows(&workspace), Vec::<String>::new());
}

/// The bugs that can be planted are there in the engine's own tests alone.
#[test]
fn no_program_has_the_simulation() {
    let metadata = metadata();
    let mut users = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        for dependency in package["dependencies"].as_array().unwrap() {
            let features = dependency["features"].as_array().unwrap();
            if features.iter().any(|feature| feature == "simulation") {
                users.push((text(package, "name"), dependency["kind"].as_str()));
            }
        }
    }
    assert_eq!(users, [("deploy-engine", Some("dev"))]);
}

#[test]
fn a_dependency_against_the_arrows_is_seen() {
    for (package, name, kind) in [
        ("collectors", "deploy-engine", None),
        ("deploy-engine", "runbooks", Some("dev")),
        ("runbooks", "bot", Some("build")),
        ("runbooks", "matrix-sdk", None),
        ("tests", "matrix-sdk", None),
        ("common", "serde", None),
    ] {
        let mut workspace = workspace(&metadata());
        let dependency = (name.to_owned(), kind.map(str::to_owned));
        workspace
            .entry(package.to_owned())
            .or_default()
            .push(dependency);
        let wrong = against_the_arrows(&workspace);
        assert_eq!(wrong.len(), 1, "{package} → {name}: {wrong:?}");
    }
}

#[test]
fn heavy_crates_come_in_one_version() {
    let lock = std::fs::read_to_string(format!("{ROOT}/Cargo.lock")).unwrap();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let field = |key: &str| {
            package
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))
                .map_or("", |value| value.trim_matches('"'))
        };
        if HEAVY.contains(&field("name")) {
            versions
                .entry(field("name"))
                .or_default()
                .insert(field("version"));
        }
    }
    // A heavy crate that nobody uses any more belongs off the list.
    assert_eq!(versions.keys().copied().collect::<Vec<_>>(), HEAVY);
    versions.retain(|_, versions| versions.len() != 1);
    assert!(versions.is_empty(), "more than one version: {versions:?}");
}
