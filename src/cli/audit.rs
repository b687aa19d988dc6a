//! `thalamus audit`: ledgers verified without the server's word: an export with the public key alone, or a store.
//!
//! ```text
//! export   reads an exported ledger, of any length, and walks it
//! signed   what files of checkpoints say
//! store    walks every ledger of a store
//! ```

mod export;
mod signed;
mod store;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use domain::ledger::{Inspected, PublicKey};

use super::flags;
use crate::checkpoints::key;
use export::Export;
use signed::Signed;

const VERIFY_HELP: &str = "\
An export is what GET /api/v1/projects/SLUG/audit?format=ndjson answers: one entry a line, each with its exact bytes.
The chain of hashes is computed again, so an edit, an insertion, a deletion and a swap are named by the first sequence
number that is wrong. Checkpoints, signed by the server outside its store, also show a tail that was cut off and a
chain that was written anew; so does a second export of the same ledger. What is younger than the newest checkpoint is
not provable yet, and the answer says from which entry on. Copy the checkpoints first and export then: an export that
is older than the checkpoints looks like one whose tail was cut off.

A store is verified with the server stopped, every project of it, also with the key that only the server has.

The exit code is 0 if everything is whole, 1 if something is wrong, 2 if it could not be verified.

Examples:
  thalamus audit key --data-dir thalamus-data
  curl -sb jar 'http://127.0.0.1:7700/api/v1/projects/default/audit?format=ndjson' > export.ndjson
  thalamus audit verify export.ndjson --checkpoints thalamus-data-checkpoints.ndjson --public-key \"$KEY\"
  thalamus audit verify export.ndjson --against export-of-last-year.ndjson
  thalamus audit verify --data-dir thalamus-data";

const KEY_HELP: &str = "\
Note it where the server cannot change it: whoever verifies needs it, and no secret.

Example:
  thalamus audit key --data-dir thalamus-data";

pub(super) fn command() -> Command {
    let many = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Append);
    Command::new("audit")
        .about("Verify ledgers")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("verify")
                .about("Verify an exported ledger offline, or every ledger of a store")
                .arg(Arg::new("export").value_name("EXPORT").help("The export: one entry a line"))
                .arg(many("checkpoints").value_name("FILE").help("A file of signed checkpoints; may be given again"))
                .arg(many("public-key").value_name("KEY").help(
                    "The key they are signed with, as `thalamus audit key` prints it, or a file that holds it; may be given again",
                ))
                .arg(Arg::new("against").long("against").value_name("EXPORT").help("A second export of the same ledger"))
                .args(flags::of_audit())
                .after_help(VERIFY_HELP),
        )
        .subcommand(
            Command::new("key")
                .about("Print the public key of this server's checkpoints")
                .args(flags::of_audit())
                .after_help(KEY_HELP),
        )
}

pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let mut out = Vec::new();
    let done = match matches.subcommand() {
        Some(("verify", matches)) => verify(matches, &mut out).await,
        Some(("key", matches)) => print_key(matches, &mut out),
        Some(_) | None => bail!("name what to do; see `thalamus audit --help`"),
    };
    std::io::stdout().write_all(&out)?;
    Ok(match done {
        Ok(Some(true)) => ExitCode::SUCCESS,
        Ok(Some(false)) => ExitCode::from(1),
        // The settings were complained about.
        Ok(None) => ExitCode::from(2),
        Err(error) => {
            super::complain(&format!("not verified: {error:#}"));
            ExitCode::from(2)
        }
    })
}

fn print_key(matches: &ArgMatches, out: &mut impl Write) -> anyhow::Result<Option<bool>> {
    let Some(config) = super::settle(matches) else { return Ok(None) };
    let path = &config.checkpoints.key;
    let key = key::load(path)?.with_context(|| {
        format!("there is no key {} (setting `checkpoint-key`); the first start makes it", path.display())
    })?;
    writeln!(out, "{}", key.public())?;
    Ok(Some(true))
}

/// Whether everything is whole; `None` if the settings are wrong.
async fn verify(matches: &ArgMatches, out: &mut impl Write) -> anyhow::Result<Option<bool>> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let texts = |name: &str| -> Vec<&str> {
        matches.get_many::<String>(name).into_iter().flatten().map(String::as_str).collect()
    };
    let (files, against) = (texts("checkpoints"), text("against"));
    let keys = texts("public-key").into_iter().map(public_key).collect::<anyhow::Result<Vec<_>>>()?;
    let settings = flags::given(matches);
    match text("export") {
        Some(_) if !settings.is_empty() => bail!("give an export or a store, not both"),
        Some(path) => verify_export(path, &files, &keys, against, out).map(Some),
        None if against.is_some() => bail!("--against compares two exports; name the first one too"),
        None if settings.is_empty() => {
            bail!("name an export, or a store with --data-dir; see `thalamus audit verify --help`")
        }
        None => match super::settle(matches) {
            Some(config) => store::verify(&config, &files, keys, out).await.map(Some),
            None => Ok(None),
        },
    }
}

fn public_key(given: &str) -> anyhow::Result<PublicKey> {
    if let Ok(key) = given.parse() {
        return Ok(key);
    }
    let text = std::fs::read_to_string(given)
        .with_context(|| format!("--public-key is neither 64 hex digits nor a readable file: {given}"))?;
    text.parse().with_context(|| format!("{given} holds no public key"))
}

fn verify_export(
    path: &str,
    files: &[&str],
    keys: &[PublicKey],
    against: Option<&str>,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    if files.is_empty() != keys.is_empty() {
        bail!(
            "--checkpoints and --public-key belong together; `thalamus audit key` prints the key on the server's machine"
        );
    }
    let mut export = Export::open(path)?;
    let signed = Signed::read(files, keys, Some(export.project()))?;
    let witnesses = signed.of(export.project());
    let walked = export.walk(&witnesses)?;
    let mut is_whole = say(out, &walked)?;
    is_whole &= say_rest(out, path, &export)?;
    is_whole &= signed.say(out)?;
    if let Some(other) = against {
        let mut second = Export::open(other)?;
        if second.project() != export.project() {
            bail!("{other} is an export of another project");
        }
        let walked = second.walk(&witnesses)?;
        writeln!(out, "the second export, {other}:")?;
        is_whole &= say(out, &walked)?;
        is_whole &= say_rest(out, other, &second)?;
        match export.first_difference(&second)? {
            None => writeln!(out, "the two exports agree wherever both have an entry")?,
            Some(seq) => {
                is_whole = false;
                writeln!(out, "BROKEN at seq {seq}: fork: the two exports hold different entries from seq {seq} on")?;
            }
        }
    }
    Ok(is_whole)
}

/// What a walk came to.
struct Walked {
    found: Inspected,
    /// More than the sentence says.
    detail: Option<String>,
    /// Whether there were checkpoints to compare with.
    has_witnesses: bool,
}

/// Says what a walk found, and whether the chain is whole.
fn say(out: &mut impl Write, walked: &Walked) -> std::io::Result<bool> {
    let Walked { found, detail, has_witnesses } = walked;
    let Inspected { first, checked, head_seq, .. } = *found;
    match (found.first_bad, found.sentence()) {
        (Some(bad), Some(sentence)) => {
            writeln!(out, "BROKEN at seq {}: {}: {sentence}", bad.seq, bad.kind.as_str())?;
            if let Some(detail) = detail {
                writeln!(out, "  {detail}")?;
            }
            writeln!(out, "  {checked} entries from seq {first} on follow from each other")?;
        }
        _ => writeln!(
            out,
            "whole: {checked} entries, seq {first} to {head_seq}, last hash {}",
            hex::encode(found.head_hash)
        )?,
    }
    if first > 1 && found.proven + 1 != first {
        writeln!(
            out,
            "the export begins at seq {first}: what stands before it is not checked, and seq {first} is taken on its word"
        )?;
    }
    match (has_witnesses, found.proven, found.unproven_from()) {
        (false, _, _) => writeln!(
            out,
            "no checkpoint was compared: a tail that was cut off, or a chain that was written anew, would not show"
        )?,
        (true, 0, _) => writeln!(out, "nothing is proven by a checkpoint")?,
        (true, proven, None) => writeln!(out, "proven up to seq {proven}, which is all")?,
        (true, proven, Some(from)) => {
            writeln!(out, "proven up to seq {proven}; nothing is provable yet from seq {from} on")?
        }
    }
    Ok(found.first_bad.is_none())
}

/// Says which lines of an export are no entries of it, and whether there are none.
fn say_rest(out: &mut impl Write, path: &str, export: &Export) -> std::io::Result<bool> {
    for (line, why) in export.strays() {
        writeln!(out, "BROKEN: line {line} of {path} {why}")?;
    }
    Ok(export.strays().is_empty())
}

/// A word of progress; nobody is left to tell when standard error is closed.
fn progress(what: impl Display) {
    let _ = writeln!(std::io::stderr(), "thalamus: {what}");
}
