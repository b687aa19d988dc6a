//! Load for a running Thalamus: a swarm of agents, commands, reads.
#![expect(clippy::print_stdout, reason = "its report is its output")]

mod agent;
mod clock;
mod commands;
mod events;
mod histogram;
mod pace;
mod process;
mod reads;
mod report;
mod rest;
mod swarm;
mod target;
mod template;
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
            Scenario::Wire { rounds } => wire::run(rounds),
        }
    })?;
    println!("{report}");
    Ok(())
}
