//! `nightshift-lab`: the lab from the command line.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use comfy_table::{ContentArrangement, Table};
use lab::{Fault, Lab, LabName, LabOptions, Mend, Progress, Store};

/// Real Debian hosts on this machine: bring them up, break them, take them down.
#[derive(Parser)]
#[command(name = "nightshift-lab", version)]
struct Cli {
    /// Which lab of this machine.
    #[arg(long, global = true, env = "NIGHTSHIFT_LAB", default_value = "lab")]
    lab: LabName,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Bring the lab up, or what is missing of it.
    Up {
        /// Number of hosts, named ctl1, ctl2, …
        #[arg(long, default_value_t = 3)]
        hosts: u8,
        /// Saved layer with packages already installed.
        #[arg(long)]
        layer: Option<String>,
    },
    /// Take the lab down and leave nothing of it.
    Down,
    /// Show the hosts.
    Status,
    /// Log in on a host, or run a command there.
    Ssh {
        host: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Table of all faults and their parameters.
    Faults,
    /// Break something; see `faults`. Example: fault partition ctl1,ctl2 / ctl3
    Fault {
        #[arg(required = true, trailing_var_arg = true)]
        words: Vec<String>,
    },
    /// Mend faults: a number from `status`, a fault's name, or all.
    Mend {
        #[arg(default_value = "all")]
        which: Mend,
    },
    /// Hosts, the bot and its console: deploy a site, break it, watch it heal.
    Demo(lab::demo::Demo),
    /// Table of all drills.
    Drills,
    /// Break something and see the bot heal it, or refuse where it must.
    Drill(lab::drill::Selection),
    /// Measure Nightshift beside other tools, on hosts of its own.
    #[command(subcommand)]
    Bench(lab::bench::Bench),
    /// Saved layers with packages installed.
    #[command(subcommand)]
    Layer(LayerVerb),
    /// A real OpenSearch node on this machine's loopback, new and empty, until it is interrupted.
    Opensearch,
    /// Run a program inside the lab's namespace, where the hosts are reachable.
    Exec {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

#[derive(Subcommand)]
enum LayerVerb {
    /// Save what a host's package manager wrote; give it to new hosts with `up --layer NAME`.
    Save {
        name: String,
        #[arg(default_value = "ctl1")]
        host: String,
    },
    /// Show the saved layers.
    List,
    /// Remove a layer that no lab uses.
    Remove { name: String },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nightshift-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let lab = Lab::named(cli.lab.clone());
    match cli.verb {
        Verb::Up { hosts, layer } => {
            let start = Instant::now();
            let progress = Progress::to_stderr();
            let options = LabOptions {
                name: cli.lab,
                hosts,
                layer,
            };
            Lab::up(&options, &progress)?;
            progress.say(&format!(
                "lab `{}` is up with {hosts} hosts after {:.1?}",
                options.name,
                start.elapsed()
            ));
        }
        Verb::Down => {
            let start = Instant::now();
            lab.down()?;
            eprintln!("lab `{}` is down after {:.1?}", cli.lab, start.elapsed());
        }
        Verb::Status => status(&lab)?,
        Verb::Faults => println!("{}", catalogue()),
        Verb::Fault { words } => break_it(&lab, &words.join(" "))?,
        Verb::Mend { which } => {
            let mended = lab.mend(&which)?;
            for fault in &mended {
                println!("mended {} `{}`", fault.id, fault.fault);
            }
            if mended.is_empty() {
                println!("no fault is active");
            }
        }
        Verb::Demo(demo) => lab::demo::run(&demo, &lab, &Progress::to_stderr())?,
        Verb::Drills => lab::drill::list()?,
        Verb::Drill(drills) => lab::drill::run_selected(&drills, &lab, &Progress::to_stderr())?,
        Verb::Opensearch => {
            let node = lab::opensearch::OpenSearch::start()?;
            println!("{}", node.url());
            let interrupted = Arc::new(AtomicBool::new(false));
            for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
                signal_hook::flag::register(signal, interrupted.clone())?;
            }
            while !interrupted.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Verb::Bench(bench) => lab::bench::run(&bench, &lab, &Progress::to_stderr())?,
        Verb::Layer(verb) => layers(&lab, verb)?,
        Verb::Ssh { host, command } => {
            let error = lab.ssh_command(&host)?.args(command).exec();
            return Err(error.into());
        }
        Verb::Exec { command } => {
            let (program, arguments) = command.split_first().expect("clap requires one word");
            let error = lab.command(program)?.args(arguments).exec();
            return Err(error.into());
        }
    }
    Ok(())
}

fn catalogue() -> Table {
    let mut table = Table::new();
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["fault", "parameters", "effect", "checked by", "mend"]);
    for entry in lab::CATALOGUE {
        table.add_row([
            entry.name,
            entry.parameters,
            entry.effect,
            entry.check,
            entry.mend,
        ]);
    }
    table
}

fn break_it(lab: &Lab, text: &str) -> anyhow::Result<()> {
    let fault: Fault = text.parse()?;
    match lab.fault(&fault)? {
        Some(active) => println!("fault {} `{fault}` took effect", active.id),
        None => println!("`{fault}` took effect"),
    }
    Ok(())
}

fn layers(lab: &Lab, verb: LayerVerb) -> anyhow::Result<()> {
    let store = Store::from_environment();
    match verb {
        LayerVerb::Save { name, host } => {
            let start = Instant::now();
            lab.save_layer(&name, &host)?;
            println!(
                "saved layer `{name}` from {host} in {:.1?}",
                start.elapsed()
            );
        }
        LayerVerb::Remove { name } => {
            lab::layer::remove(&store, &name)?;
            println!("removed layer `{name}`");
        }
        LayerVerb::List => {
            let mut table = Table::new();
            table.set_header(["layer", "on base", "above", "saved"]);
            for layer in lab::layer::list(&store)? {
                let below = layer.below.join(", ");
                table.add_row([layer.name, layer.base, below, layer.saved.to_string()]);
            }
            println!("{table}");
        }
    }
    Ok(())
}

fn status(lab: &Lab) -> anyhow::Result<()> {
    let hosts = lab.status()?;
    if hosts.is_empty() {
        println!("lab `{}` is not up", lab.name());
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["host", "address", "power"]);
    for host in hosts {
        let power = if host.powered { "on" } else { "off" };
        table.add_row([
            host.host.to_string(),
            host.address.to_string(),
            power.to_owned(),
        ]);
    }
    println!("{table}");
    for active in lab.faults()? {
        println!(
            "fault {} `{}` since {}",
            active.id, active.fault, active.since
        );
    }
    Ok(())
}
