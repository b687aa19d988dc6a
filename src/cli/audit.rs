//! `thalamus audit`: checks on an exported ledger, without a server and without a key.

use std::io::{BufRead, BufReader, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Arg, ArgMatches, Command};
use domain::id::ProjectId;
use domain::ledger::Sealed;
use domain::ledger::chain::{Broken, genesis};
use serde::Deserialize;

const HELP: &str = "\
The export is what GET /api/v1/projects/SLUG/audit?format=ndjson answers: one entry a line, each with its exact
bytes. The chain of hashes is computed again; no key is needed, and none can be checked. An edit, an insertion, a
deletion or a swap is named by the first sequence number that does not follow. What an export alone cannot show is
a tail that was cut off: compare its last hash with one that was noted earlier.

Example:
  curl -sb jar 'http://127.0.0.1:7700/api/v1/projects/default/audit?format=ndjson' > export.ndjson
  thalamus audit verify export.ndjson";

/// Lines between two words of progress.
const PROGRESS_EVERY: usize = 100_000;

pub(super) fn command() -> Command {
    Command::new("audit")
        .about("Check a project's ledger")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("verify")
                .about("Verify an exported ledger offline")
                .arg(Arg::new("export").value_name("EXPORT").required(true).help("The export: one entry a line"))
                .after_help(HELP),
        )
}

pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let Some(path) = matches.subcommand_matches("verify").and_then(|verify| verify.get_one::<String>("export")) else {
        anyhow::bail!("nothing to verify");
    };
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {path}"))?;
    let (project, chain) = read(BufReader::new(file))?;
    let verdict = verify(project, &chain);
    let mut out = std::io::stdout();
    writeln!(out, "{verdict}")?;
    Ok(if verdict.first_bad.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Deserialize)]
struct Line {
    project_id: Option<ProjectId>,
    seq: u64,
    hash: String,
    entry: String,
    mac: String,
}

/// The project and its entries in the order of the chain.
fn read(export: impl BufRead) -> anyhow::Result<(ProjectId, Vec<Sealed>)> {
    let (mut project, mut chain) = (None, Vec::new());
    for (number, line) in export.lines().enumerate() {
        let line = line.context("export not readable")?;
        if line.trim().is_empty() {
            continue;
        }
        let what = || format!("line {} is no entry of an export", number + 1);
        let line: Line = serde_json::from_str(&line).with_context(what)?;
        let this = line.project_id.unwrap_or(ProjectId::NIL);
        if *project.get_or_insert(this) != this {
            anyhow::bail!("line {} belongs to another project than the first", number + 1);
        }
        chain.push(Sealed {
            seq: line.seq,
            bytes: STANDARD.decode(&line.entry).with_context(what)?,
            hash: hex::decode(&line.hash).ok().and_then(|hash| hash.try_into().ok()).with_context(what)?,
            mac: hex::decode(&line.mac).ok().and_then(|mac| mac.try_into().ok()).with_context(what)?,
        });
        if chain.len() % PROGRESS_EVERY == 0 {
            tracing::info!(entries = chain.len(), "read");
        }
    }
    chain.sort_by_key(|sealed| sealed.seq);
    Ok((project.context("the export holds no entry")?, chain))
}

struct Verdict {
    first: u64,
    last: u64,
    head: String,
    checked: usize,
    first_bad: Option<Broken>,
}

/// Walks the chain; a part that does not begin at 1 is taken on its first entry's word.
fn verify(project: ProjectId, chain: &[Sealed]) -> Verdict {
    let (first, last) = (chain.first().map_or(0, |sealed| sealed.seq), chain.last().map_or(0, |sealed| sealed.seq));
    let mut verdict = Verdict { first, last, head: String::new(), checked: 0, first_bad: None };
    let mut before = genesis(project);
    let mut rest = chain;
    if let [start, others @ ..] = chain
        && start.seq > 1
    {
        (before, rest, verdict.checked) = (start.hash, others, 1);
    }
    for (expected, sealed) in (chain.len() as u64 - rest.len() as u64 + first..).zip(rest) {
        if let Err(broken) = sealed.verify(expected, &before, None) {
            verdict.first_bad = Some(broken);
            break;
        }
        before = sealed.hash;
        verdict.checked += 1;
    }
    verdict.head = hex::encode(before);
    verdict
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.first_bad {
            Some(broken) => write!(
                f,
                "BROKEN at seq {}: {:?}; {} entries from seq {} on are whole",
                broken.seq, broken.kind, self.checked, self.first
            ),
            None => {
                write!(
                    f,
                    "whole: {} entries, seq {} to {}, last hash {}",
                    self.checked, self.first, self.last, self.head
                )?;
                if self.first > 1 {
                    write!(f, "\nthe export begins at seq {}: what stands before it is not checked", self.first)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::command::{Actor, Source};
    use domain::ledger::entry::Login;
    use domain::ledger::{Entry, Kind, LedgerKey};
    use domain::time::Timestamp;

    use super::*;

    fn chain(length: u64) -> Vec<Sealed> {
        let mut before = genesis(ProjectId::NIL);
        (1..=length)
            .map(|seq| {
                let kind = Kind::Login(Login { user: None, success: seq % 2 == 0, reason: None });
                let entry = Entry { seq, at: Timestamp::EPOCH, actor: Actor::System, source: Source::default(), kind };
                let sealed = Sealed::new(&entry, &before, &LedgerKey::new(&[7; 32]));
                before = sealed.hash;
                sealed
            })
            .collect()
    }

    fn first_bad(chain: &[Sealed]) -> Option<u64> {
        verify(ProjectId::NIL, chain).first_bad.map(|broken| broken.seq)
    }

    #[test]
    fn every_crime_is_named_by_the_first_entry_that_does_not_follow() {
        let whole = chain(9);
        assert_eq!(first_bad(&whole), None);
        assert_eq!(first_bad(&whole[3..]), None, "a part is checked on its first entry's word");
        let mut edited = whole.clone();
        edited[4].bytes[20] ^= 1;
        assert_eq!(first_bad(&edited), Some(5));
        let mut deleted = whole.clone();
        deleted.remove(4);
        assert_eq!(first_bad(&deleted), Some(5));
        let mut swapped = whole.clone();
        swapped.swap(4, 5);
        (swapped[4].seq, swapped[5].seq) = (5, 6);
        assert_eq!(first_bad(&swapped), Some(5));
        let mut inserted = whole.clone();
        inserted.insert(4, whole[4].clone());
        assert_eq!(first_bad(&inserted), Some(6));
        let other = ProjectId::from_bytes([1; 16]);
        assert_eq!(verify(other, &whole).first_bad.map(|broken| broken.seq), Some(1), "another project's chain");
    }
}
