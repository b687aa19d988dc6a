//! `thalamus audit`: checks on a ledger.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

const HELP: &str = "\
Example:
  thalamus audit verify export.ndjson --checkpoints checkpoints.ndjson --public-key audit.pub";

pub(super) fn command() -> Command {
    Command::new("audit")
        .about("Check a project's ledger")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("verify")
                .about("Verify an exported ledger offline: hashes, gaps, and the signed checkpoints")
                .arg(Arg::new("export").value_name("EXPORT").required(true).help("The export: one entry a line"))
                .arg(
                    Arg::new("checkpoints")
                        .long("checkpoints")
                        .value_name("FILE")
                        .help("The file of signed checkpoints"),
                )
                .arg(Arg::new("public-key").long("public-key").value_name("KEY").help("The key they are signed with"))
                .after_help(HELP),
        )
}

pub(super) async fn run(_matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this build cannot verify exports yet")
}
