//! The Debian mirror: taken from the machine's own apt configuration, never written into this program.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command;
use crate::error::{IoContext, LabError, Result};

/// Release of the lab's hosts.
pub(crate) const SUITE: &str = "bookworm";

/// What the hosts' apt needs to know, as found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    main: String,
    security: Option<String>,
    updates: bool,
    /// Proxy of the machine's apt, to be used by the package cache.
    pub proxy: Option<String>,
    /// Options of the machine's apt about the age of indexes (a pinned or offline mirror needs them).
    checks: Vec<String>,
}

impl Mirror {
    /// Reads the apt configuration of this machine, whose own release is `codename`.
    pub fn of_this_machine(codename: &str) -> Result<Mirror> {
        let config = command::run(Command::new("apt-config").arg("dump"), command::QUICK)?;
        let mut sources = Vec::new();
        collect(Path::new("/etc/apt/sources.list"), &mut sources)?;
        let folder = Path::new("/etc/apt/sources.list.d");
        if folder.is_dir() {
            let mut files: Vec<_> = fs::read_dir(folder)
                .at("read", folder)?
                .filter_map(|entry| entry.ok().map(|e| e.path()))
                .collect();
            files.sort();
            for file in files {
                collect(&file, &mut sources)?;
            }
        }
        let environment = std::env::var("http_proxy").ok();
        from_config(&sources, codename, &config, environment)
    }

    /// `sources.list` of the hosts.
    pub fn sources_list(&self) -> String {
        let mut list = format!("deb {} {SUITE} main\n", self.main);
        if self.updates {
            list.push_str(&format!("deb {} {SUITE}-updates main\n", self.main));
        }
        if let Some(security) = &self.security {
            list.push_str(&format!("deb {security} {SUITE}-security main\n"));
        }
        list
    }

    /// Options for the hosts' `apt.conf`.
    pub fn apt_options(&self) -> String {
        self.checks.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// One archive of one suite.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
}

fn collect(file: &Path, into: &mut Vec<Source>) -> Result<()> {
    let parse = match file.extension().and_then(|e| e.to_str()) {
        Some("list") => one_line,
        Some("sources") => deb822,
        _ => return Ok(()),
    };
    if file.exists() {
        into.extend(parse(&fs::read_to_string(file).at("read", file)?));
    }
    Ok(())
}

/// The one-line format of `sources.list(5)`.
fn one_line(text: &str) -> Vec<Source> {
    let parse = |line: &str| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        words.any(|c| c == "main").then(|| Source {
            uri: uri.to_owned(),
            suite: suite.to_owned(),
        })
    };
    text.lines().filter_map(parse).collect()
}

/// The stanza format of `sources.list(5)`.
fn deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza
                .lines()
                .find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.eq_ignore_ascii_case(name).then_some(value)
                })
                .unwrap_or("")
                .split_whitespace()
        };
        let off = field("Enabled").any(|v| v == "no");
        if off || !field("Types").any(|t| t == "deb") || !field("Components").any(|c| c == "main") {
            continue;
        }
        for uri in field("URIs") {
            sources.extend(field("Suites").map(|suite| Source {
                uri: uri.to_owned(),
                suite: suite.to_owned(),
            }));
        }
    }
    sources
}

fn from_config(
    sources: &[Source],
    codename: &str,
    apt_config: &str,
    environment_proxy: Option<String>,
) -> Result<Mirror> {
    let uri = |suite: String| {
        sources
            .iter()
            .find(|s| s.suite == suite && s.uri.starts_with("http"))
            .map(|s| through_cache(s.uri.trim_end_matches('/')))
    };
    let main = uri(codename.to_owned()).ok_or_else(|| {
        LabError::Missing(vec![format!(
            "an http(s) mirror of {codename}/main in the machine's apt sources"
        )])
    })?;
    let option = |name: &str| {
        apt_config
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(';'))
            .map(|value| value.trim_matches('"').to_owned())
    };
    let checks = ["Acquire::Check-Valid-Until", "Acquire::Check-Date"]
        .iter()
        .filter_map(|name| Some(format!("{name} \"{}\";", option(&format!("{name} "))?)))
        .collect();
    Ok(Mirror {
        main,
        security: uri(format!("{codename}-security")),
        updates: uri(format!("{codename}-updates")).is_some(),
        proxy: option("Acquire::http::Proxy ")
            .or(environment_proxy)
            .filter(|p| p.starts_with("http") && !p.ends_with("DIRECT")),
        checks,
    })
}

/// The package cache speaks plain http to the hosts and https to such a mirror; this is its way to write it.
pub(crate) fn through_cache(uri: &str) -> String {
    match uri.strip_prefix("https://") {
        Some(rest) => format!("http://HTTPS///{rest}"),
        None => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: https://mirror.example/debian-security/
Suites: bookworm-security
Components: main contrib

Types: deb-src
URIs: http://other.example/debian
Suites: bookworm
Components: main
";

    #[test]
    fn reads_both_formats_the_same() {
        let lines = "# x\ndeb [signed-by=/a b] http://mirror.example/debian bookworm main\n\
            deb http://mirror.example/debian bookworm-updates main\n\
            deb https://mirror.example/debian-security/ bookworm-security contrib main\n\
            deb-src http://other.example/debian bookworm main\n";
        assert_eq!(deb822(STANZAS), one_line(lines));
    }

    #[test]
    fn hosts_get_the_mirror_through_the_cache() {
        let config =
            "Acquire::Check-Valid-Until \"false\";\nAcquire::http::Proxy \"http://p:1/\";\n";
        let mirror = from_config(&deb822(STANZAS), "bookworm", config, None).unwrap();
        assert_eq!(
            mirror.sources_list(),
            "deb http://mirror.example/debian bookworm main\n\
             deb http://mirror.example/debian bookworm-updates main\n\
             deb http://HTTPS///mirror.example/debian-security bookworm-security main\n"
        );
        assert_eq!(
            mirror.apt_options(),
            "Acquire::Check-Valid-Until \"false\";\n"
        );
        assert_eq!(mirror.proxy.as_deref(), Some("http://p:1/"));
    }

    #[test]
    fn a_machine_without_a_mirror_is_told_so() {
        let error = from_config(&[], "bookworm", "", None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("mirror of bookworm/main"), "{error}");
    }
}
