//! An exported ledger, of any length and in any order: its lines are found once, sorted by their place in the chain,
//! and read again one by one.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::id::ProjectId;
use domain::ledger::{AuditItem, Entry, Fault, Inspection, Sealed, Witness};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Walked, progress};

/// Lines between two words of progress.
const PROGRESS_EVERY: usize = 100_000;

/// An export whose lines are found.
pub(super) struct Export {
    path: String,
    file: File,
    project: ProjectId,
    /// In the order of the chain.
    places: Vec<Place>,
    strays: Vec<(usize, &'static str)>,
}

/// Where an entry's line is.
struct Place {
    seq: u64,
    offset: u64,
    length: usize,
}

/// What places a line.
#[derive(Deserialize)]
struct Heading {
    project_id: Option<ProjectId>,
    seq: u64,
}

/// An entry, and what the line shows of it.
struct Told {
    sealed: Sealed,
    shown: Map<String, Value>,
}

impl Export {
    pub(super) fn open(path: &str) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
        let mut reader = BufReader::with_capacity(1 << 16, file.try_clone()?);
        let (mut project, mut places, mut strays) = (None, Vec::new(), Vec::new());
        let (mut line, mut offset, mut number) = (Vec::new(), 0, 0_usize);
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).with_context(|| format!("cannot read {path}"))?;
            if length == 0 {
                break;
            }
            number += 1;
            match serde_json::from_slice::<Heading>(&line) {
                Ok(heading) => {
                    let this = heading.project_id.unwrap_or(ProjectId::NIL);
                    if *project.get_or_insert(this) == this {
                        places.push(Place { seq: heading.seq, offset, length });
                    } else {
                        strays.push((number, "belongs to another project than the first"));
                    }
                }
                Err(_) if line.trim_ascii().is_empty() => {}
                Err(_) => strays.push((number, "is no entry of an export")),
            }
            offset += length as u64;
            if number.is_multiple_of(PROGRESS_EVERY) {
                progress(format_args!("{number} lines of {path} found"));
            }
        }
        places.sort_by_key(|place| place.seq);
        let project = project.with_context(|| format!("{path} holds no entry of an export in ndjson"))?;
        Ok(Self { path: path.to_owned(), file, project, places, strays })
    }

    pub(super) const fn project(&self) -> ProjectId {
        self.project
    }

    /// Lines that are no entries, with what is wrong with them.
    pub(super) fn strays(&self) -> &[(usize, &'static str)] {
        &self.strays
    }

    /// Walks the chain beside its checkpoints, up to the first entry that is wrong.
    pub(super) fn walk(&mut self, witnesses: &[Witness]) -> anyhow::Result<Walked> {
        let first = self.places.first().map_or(1, |place| place.seq);
        let mut walk = Inspection::from(first, self.project, None, witnesses);
        let mut detail = None;
        for (number, place) in (1_usize..).zip(&self.places) {
            let Some(told) = self.read(place)? else {
                walk.bad(place.seq, Fault::Unreadable);
                break;
            };
            let Ok(entry) = walk.take(&told.sealed) else { break };
            detail = told.contradiction(self.project, &entry);
            if detail.is_some() {
                walk.bad(place.seq, Fault::Retold);
                break;
            }
            if number.is_multiple_of(PROGRESS_EVERY) {
                progress(format_args!("{number} of {} entries of {} verified", self.places.len(), self.path));
            }
        }
        Ok(Walked { found: walk.end(0), detail, has_witnesses: !witnesses.is_empty() })
    }

    /// The first entry that both have and that is not the same.
    pub(super) fn first_difference(&self, other: &Self) -> anyhow::Result<Option<u64>> {
        let mut theirs = other.places.iter().peekable();
        for mine in &self.places {
            while theirs.next_if(|place| place.seq < mine.seq).is_some() {}
            let Some(place) = theirs.next_if(|place| place.seq == mine.seq) else { continue };
            let same = match (self.read(mine)?, other.read(place)?) {
                (Some(mine), Some(theirs)) => {
                    mine.sealed.bytes == theirs.sealed.bytes && mine.sealed.hash == theirs.sealed.hash
                }
                // What cannot be read was named by its own walk.
                (None, _) | (_, None) => true,
            };
            if !same {
                return Ok(Some(mine.seq));
            }
        }
        Ok(None)
    }

    /// Reads a line; `None` if what an entry needs is not in it.
    fn read(&self, place: &Place) -> anyhow::Result<Option<Told>> {
        let mut line = vec![0; place.length];
        self.file.read_exact_at(&mut line, place.offset).with_context(|| format!("cannot read {} again", self.path))?;
        let Ok(mut shown) = serde_json::from_slice::<Map<String, Value>>(&line) else { return Ok(None) };
        let (entry, mac) = (shown.remove("entry"), shown.remove("mac"));
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let sealed = || {
            Some(Sealed {
                seq: place.seq,
                bytes: STANDARD.decode(text(entry.as_ref())?).ok()?,
                hash: hex::decode(text(shown.get("hash"))?).ok()?.try_into().ok()?,
                mac: hex::decode(text(mac.as_ref())?).ok()?.try_into().ok()?,
            })
        };
        let sealed = sealed();
        Ok(sealed.map(|sealed| Told { sealed, shown }))
    }
}

impl Told {
    /// What the line shows and the entry does not say. Members that only another version knows are passed over.
    fn contradiction(&self, project: ProjectId, entry: &Entry) -> Option<String> {
        let item = serde_json::to_value(AuditItem::of(project, entry, &self.sealed.hash)).ok()?;
        let differs = |(name, shown): (&String, &Value)| {
            let said = item.get(name)?;
            (said != shown).then(|| format!("`{name}` shows {shown}, and the entry says {said}"))
        };
        self.shown.iter().find_map(differs)
    }
}
