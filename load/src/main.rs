//! Load for a running Thalamus: a swarm of agents, commands, reads.
#![expect(clippy::print_stdout, reason = "its report is its output")]

mod agent;
mod bars;
mod beside;
mod clock;
mod commands;
mod events;
mod export;
mod fairness;
mod histogram;
mod idle;
mod machine;
mod pace;
mod plot;
mod process;
mod reads;
mod report;
mod rest;
mod session;
mod start;
mod summary;
mod swarm;
mod target;
mod template;
mod watch;
mod window;
mod wire;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Load generators for Thalamus.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Threads of the generator; one leaves the server the most.
    #[arg(long, default_value_t = 1, global = true)]
    threads: usize,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Agents that stream events; afterwards what was acked is read back.
    Swarm(swarm::Swarm),
    /// Commands against agents that answer at once.
    Commands(commands::Commands),
    /// Lists, details and trees.
    Rest(reads::Reads),
    /// The whole project as CSV, NDJSON or a spreadsheet.
    Export(export::Export),
    /// Sessions that only beat.
    Idle(idle::Idle),
    /// A project that floods the server, and many small ones.
    Fairness(fairness::Fairness),
    /// Starts a server and times it until it is healthy.
    Start(start::Start),
    /// Makes one report of a folder of them.
    Report(summary::Summarise),
    /// The protocol alone: verify and read a frame, seal an ack.
    Wire {
        /// Rounds of 500 frames; the best counts.
        #[arg(long, default_value_t = 2000)]
        rounds: usize,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(arguments.threads).enable_all().build()?;
    let report = runtime.block_on(async {
        match arguments.scenario {
            Scenario::Swarm(swarm) => swarm::run(&swarm).await,
            Scenario::Commands(commands) => commands::run(&commands).await,
            Scenario::Rest(reads) => reads::run(&reads).await,
            Scenario::Export(export) => export::run(&export).await,
            Scenario::Idle(idle) => idle::run(&idle).await,
            Scenario::Fairness(fairness) => fairness::run(&fairness).await,
            Scenario::Start(start) => start::run(&start).await,
            Scenario::Report(asked) => summary::run(&asked),
            Scenario::Wire { rounds } => wire::run(rounds),
        }
    })?;
    println!("{report}");
    Ok(())
}
