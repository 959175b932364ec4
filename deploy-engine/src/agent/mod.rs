//! What runs on hosts: observes, applies, and remembers every step it started.
//!
//! No tokio, no name-service switch, no shell: one small static program. `serve` answers frames on standard input and output;
//! `work` is the separate process of one step and outlives the connection that asked for it. `gate` is the forced command of an SSH key.

mod apply;
mod apt;
mod collect;
mod diff;
mod durable;
mod exec;
mod export;
mod facts;
mod fence;
mod gate;
mod http;
mod install;
mod observe;
mod output;
mod probe;
mod resource;
mod root;
mod serve;
mod spool;
mod step_key;
mod systemd;
mod worker;

use std::process::ExitCode;

pub use root::Root;

const USAGE: &str = "usage: nightshift-agent [--root DIR] serve | gate | work KEY | install SHA256 | export --config FILE | --version";

/// The program: picks the subcommand. `--root` makes another directory stand for `/`; tests use it.
pub fn main(args: impl IntoIterator<Item = String>) -> ExitCode {
    let mut args: Vec<String> = args.into_iter().skip(1).collect();
    let root = match args.first().map(String::as_str) {
        Some("--root") if args.len() > 1 => {
            let root = Root::new(args.remove(1));
            args.remove(0);
            root
        }
        _ => Root::new("/"),
    };
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["serve"] => serve::serve(&root),
        ["gate"] => {
            return gate::gate(&root, std::env::var("SSH_ORIGINAL_COMMAND").ok().as_deref());
        }
        ["work", key] => worker::work(&root, key),
        ["install", sha256] => install::install(&root, sha256),
        ["export", "--config", file] => export::serve(&root, file),
        ["--version"] => {
            println!("nightshift-agent {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("nightshift-agent: {why}");
            ExitCode::FAILURE
        }
    }
}
