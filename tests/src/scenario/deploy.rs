//! Plans and deploys through the command line, as a person would.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{Installation, PROGRAM_LIMIT};
use crate::command;

/// What one deploy did.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// The plan that was run, as the program tells it; empty if nothing was to be done.
    pub plan: Value,
    /// Without the time to look at the plan.
    pub took: Duration,
}

impl Deployed {
    /// Changed resources of the host.
    pub fn changes_on(&self, host: &str) -> usize {
        let changes = self.plan["changes"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        changes
            .iter()
            .filter(|change| change["host"] == host)
            .count()
    }
}

impl Installation {
    /// What a deploy of `target` would do now.
    pub fn plan(&self, target: &str) -> anyhow::Result<Value> {
        let mut answer = self.ask(&["plan", target])?;
        ensure!(
            answer["data"]["digest"].is_string(),
            "expected a plan, found {answer}"
        );
        Ok(answer["data"].take())
    }

    /// Deploys without a running bot: looks at the plan, then runs exactly that one.
    pub fn deploy_alone(&self, target: &str) -> anyhow::Result<Deployed> {
        let plan = self.plan(target)?;
        let digest = plan["digest"].as_str().unwrap_or_default();
        let start = Instant::now();
        self.output(&["deploy", target, "--yes", digest])?;
        let took = start.elapsed();
        Ok(Deployed { plan, took })
    }

    /// Runs `deploy` where there is nothing to do, without a running bot.
    pub fn deploy_nothing(&self, target: &str) -> anyhow::Result<Deployed> {
        let start = Instant::now();
        let mut answer = self.ask(&["deploy", target])?;
        let took = start.elapsed();
        Ok(Deployed {
            plan: answer["data"].take(),
            took,
        })
    }

    /// Deploys through the running bot: `deploy`, and `approve` if there is something to do; both count.
    pub fn deploy_with_bot(&self, target: &str) -> anyhow::Result<Deployed> {
        let start = Instant::now();
        let mut answer = self.ask(&["deploy", target])?;
        let mut data = answer["data"].take();
        let Some(approval) = data["approval"].as_str().map(str::to_owned) else {
            return Ok(Deployed {
                plan: data,
                took: start.elapsed(),
            });
        };
        self.output(&["approve", &approval])?;
        Ok(Deployed {
            plan: data["plan"].take(),
            took: start.elapsed(),
        })
    }

    /// Standard output of `nightshift WORDS…`.
    ///
    /// # Errors
    /// A non-zero exit, with the end of the output.
    pub fn output(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = self.cli(words)?;
        command::run(&mut command, PROGRAM_LIMIT)
            .with_context(|| format!("nightshift {}", words.join(" ")))
    }
}
