//! Every crime, committed on a copy of a store and on an export, and what is said about it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use cql::engine::fjall::{Fjall, FjallConfig};
use cql::ledger::entries;
use cql::{Commit, Committed, Key, Store as _, Table};
use domain::command::{Actor, Source};
use domain::id::{ProjectId, UserId};
use domain::ledger::chain::{genesis, link};
use domain::ledger::entry::Login;
use domain::ledger::{AuditItem, CheckpointKey, Entry, Kind, LedgerKey, Point, Sealed};
use domain::secret::{KeyUse, MasterSecret};
use domain::time::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::checkpoints::file::Book;
use crate::config::{Config, Layers};

const PROJECT: ProjectId = ProjectId::from_bytes([7; 16]);
const SECRET: &str = "0123456789abcdef0123456789abcdef-master";
/// Entries of the ledger; every fifth is signed.
const LENGTH: u64 = 23;

fn ledger_key() -> LedgerKey {
    let master = MasterSecret::new(SECRET).unwrap();
    LedgerKey::new(master.site_key(KeyUse::Ledger, PROJECT).as_bytes())
}

fn entry(seq: u64, reason: &str) -> Entry {
    let kind = Kind::Login(Login { user: None, success: false, reason: Some(reason.to_owned()) });
    let at = Timestamp::from_secs(1_800_000_000 + seq.cast_signed());
    Entry { seq, at, actor: Actor::User(UserId::NIL), source: Source::default(), kind }
}

/// Writes entries behind a chain, as whoever has the key would.
fn write_on(chain: &mut Vec<Sealed>, seqs: std::ops::RangeInclusive<u64>, reason: &str) {
    for seq in seqs {
        let before = chain.last().map_or_else(|| genesis(PROJECT), |last| last.hash);
        chain.push(Sealed::new(&entry(seq, reason), &before, &ledger_key()));
    }
}

/// A data folder and its checkpoints.
struct Site {
    folder: tempfile::TempDir,
    key: Arc<CheckpointKey>,
    chain: Vec<Sealed>,
}

impl Site {
    async fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (key, mut chain) = (Arc::new(CheckpointKey::mint()), Vec::new());
        write_on(&mut chain, 1..=LENGTH, "true");
        std::fs::create_dir(folder.path().join("data")).unwrap();
        std::fs::write(folder.path().join("data/master-secret"), SECRET).unwrap();
        let site = Self { folder, key, chain };
        let store = site.open("data");
        entries::append(&store, PROJECT, &site.chain, Vec::new()).await.unwrap();
        store.close().await;
        let signed = site.chain.iter().filter(|sealed| sealed.seq.is_multiple_of(5));
        let at = Timestamp::from_secs(1_800_000_100);
        let points: Vec<Point> =
            signed.map(|sealed| Point { project: PROJECT, seq: sealed.seq, hash: sealed.hash, at }).collect();
        Book::new(site.checkpoints(), Arc::clone(&site.key)).append(&points).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn checkpoints(&self) -> PathBuf {
        self.path("checkpoints.ndjson")
    }

    fn open(&self, data: &str) -> Fjall {
        Fjall::open(&FjallConfig::new(self.path(data).join("store"))).unwrap()
    }

    /// What is said of a copy of the store whose ledger is this.
    async fn say_of_store(&self, name: &str, ledger: &[Sealed]) -> (bool, String) {
        copy(&self.path("data"), &self.path(name));
        let store = self.open(name);
        for seq in 1..=LENGTH + 1 {
            let of = |chain: &[Sealed]| chain.iter().find(|sealed| sealed.seq == seq).map(stored);
            let commit = match (of(&self.chain), of(ledger)) {
                (before, after) if before == after => continue,
                (Some(before), Some(after)) => Commit::replace(row(seq), before, after),
                (Some(before), None) => Commit::remove(row(seq), before),
                (None, Some(after)) => Commit::insert(row(seq), after),
                (None, None) => continue,
            };
            assert_eq!(store.commit_one(commit).await.unwrap(), Committed::Done);
        }
        store.close().await;
        drop(store);
        self.verify_store(name).await.unwrap()
    }

    async fn verify_store(&self, name: &str) -> anyhow::Result<(bool, String)> {
        let data_dir = self.path(name).display().to_string();
        let flags =
            BTreeMap::from([("data-dir", data_dir), ("checkpoint-file", self.checkpoints().display().to_string())]);
        let config = Config::resolve(&Layers::collect(flags, &|_| None).unwrap()).unwrap();
        let mut out = Vec::new();
        let is_whole = store::verify(&config, &[], vec![self.key.public()], &mut out).await?;
        Ok((is_whole, String::from_utf8(out).unwrap()))
    }

    /// What is said of an export whose lines are these.
    fn say_of_export(&self, lines: &[Value], against: Option<&[Value]>) -> (bool, String) {
        let write = |name: &str, lines: &[Value]| {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(self.path(name), text).unwrap();
            self.path(name).display().to_string()
        };
        let path = write("export.ndjson", lines);
        let against = against.map(|lines| write("second.ndjson", lines));
        let mut out = Vec::new();
        let files = [self.checkpoints().display().to_string()];
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let is_whole = verify_export(&path, &files, &[self.key.public()], against.as_deref(), &mut out).unwrap();
        (is_whole, String::from_utf8(out).unwrap())
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to)
        } else {
            assert!(std::fs::copy(entry.path(), to).is_ok());
        }
    }
}

fn row(seq: u64) -> Key {
    let partition = [&PROJECT.bytes()[..], &[0; 8]].concat();
    Key::new(Table::Ledger, Bytes::from(partition), Bytes::copy_from_slice(&seq.to_be_bytes()))
}

fn stored(sealed: &Sealed) -> Bytes {
    let mut value = BytesMut::new();
    value.put_slice(&sealed.hash);
    value.put_slice(&sealed.mac);
    value.put_slice(&sealed.bytes);
    value.freeze()
}

/// An export as the server writes it, newest first. Whoever forges it shows what the entries say.
fn export(chain: &[Sealed]) -> Vec<Value> {
    let line = |sealed: &Sealed| {
        let mut line = match Entry::decode(&sealed.bytes) {
            Ok(said) => serde_json::to_value(AuditItem::of(PROJECT, &said, &sealed.hash)).unwrap(),
            Err(_) => json!({ "project_id": PROJECT, "hash": hex::encode(sealed.hash) }),
        };
        line["seq"] = json!(sealed.seq);
        line["entry"] = json!(STANDARD.encode(&sealed.bytes));
        line["mac"] = json!(hex::encode(sealed.mac));
        line
    };
    chain.iter().rev().map(line).collect()
}

/// What was done, and how it is named: in an export, by whoever has the checkpoints; in a store, with its key too.
struct Case {
    what: &'static str,
    commit: fn(&mut Vec<Sealed>),
    in_export: Option<&'static str>,
    in_store: Option<&'static str>,
}

const CASES: [Case; 13] = [
    Case { what: "nothing", commit: |_| {}, in_export: None, in_store: None },
    Case {
        what: "an edit",
        commit: |all| {
            let at = all[11].bytes.len() - 6;
            all[11].bytes[at] ^= 1;
        },
        in_export: Some("BROKEN at seq 12: hash: seq 12 does not follow"),
        in_store: Some("BROKEN at seq 12: hash: seq 12 does not follow"),
    },
    Case {
        what: "an edit whose hash was computed again",
        commit: |all| {
            all[11].bytes = entry(12, "forged").encode();
            all[11].hash = link(&all[10].hash, &all[11].bytes);
        },
        in_export: Some("BROKEN at seq 13: hash: seq 13 does not follow from what stands before it"),
        in_store: Some("BROKEN at seq 12: mac: seq 12 was not written with the key"),
    },
    Case {
        what: "an insertion, the others moved down",
        commit: |all| {
            let forged = Sealed::new(&entry(12, "forged"), &all[10].hash, &LedgerKey::new(&[9; 32]));
            all.iter_mut().skip(11).for_each(|sealed| sealed.seq += 1);
            all.insert(11, forged);
        },
        in_export: Some("BROKEN at seq 12: inserted: seq 12 was inserted"),
        in_store: Some("BROKEN at seq 12: mac:"),
    },
    Case {
        what: "a deletion",
        commit: |all| drop(all.remove(11)),
        in_export: Some("BROKEN at seq 12: gap: seq 12 is missing"),
        in_store: Some("BROKEN at seq 12: gap: seq 12 is missing"),
    },
    Case {
        what: "a deletion, the others moved up",
        commit: |all| {
            all.remove(11);
            all.iter_mut().skip(11).for_each(|sealed| sealed.seq -= 1);
        },
        in_export: Some("BROKEN at seq 12: misplaced:"),
        in_store: Some("BROKEN at seq 12: misplaced:"),
    },
    Case {
        what: "the first is deleted, the others moved up",
        commit: |all| {
            all.remove(0);
            all.iter_mut().for_each(|sealed| sealed.seq -= 1);
        },
        in_export: Some("BROKEN at seq 1: misplaced:"),
        in_store: Some("BROKEN at seq 1: misplaced:"),
    },
    Case {
        what: "a swap",
        commit: |all| {
            all.swap(11, 14);
            (all[11].seq, all[14].seq) = (12, 15);
        },
        in_export: Some("BROKEN at seq 12: misplaced:"),
        in_store: Some("BROKEN at seq 12: misplaced:"),
    },
    Case {
        what: "a tail cut below the newest checkpoint",
        commit: |all| all.truncate(18),
        in_export: Some("BROKEN at seq 19: short: seq 19 is missing and nothing follows it, though seq 20 was signed"),
        in_store: Some("BROKEN at seq 19: short: seq 19 is missing and nothing follows it, though seq 20 was signed"),
    },
    Case {
        what: "a fork, written with the key",
        commit: |all| {
            all.truncate(11);
            write_on(all, 12..=LENGTH, "forged");
        },
        in_export: Some(
            "BROKEN at seq 15: fork: seq 15 is not the entry that was signed: the chain was written anew from one of seq 11 to 15 on",
        ),
        in_store: Some("BROKEN at seq 15: fork:"),
    },
    Case {
        what: "a fork right behind a checkpoint's neighbour",
        commit: |all| {
            all.truncate(14);
            write_on(all, 15..=LENGTH, "forged");
        },
        in_export: Some("BROKEN at seq 15: fork:"),
        in_store: Some("BROKEN at seq 15: fork:"),
    },
    Case {
        what: "a tail cut that no checkpoint has seen",
        commit: |all| all.truncate(21),
        in_export: None,
        in_store: None,
    },
    Case {
        what: "a fork that no checkpoint has seen",
        commit: |all| {
            all.truncate(20);
            write_on(all, 21..=LENGTH, "forged");
        },
        in_export: None,
        in_store: None,
    },
];

#[tokio::test]
async fn every_crime_on_a_copied_store_is_named() {
    let site = Site::make().await;
    for (n, Case { what, commit, in_store, .. }) in CASES.iter().enumerate() {
        let mut ledger = site.chain.clone();
        commit(&mut ledger);
        let (is_whole, said) = site.say_of_store(&format!("copy{n}"), &ledger).await;
        assert_eq!(is_whole, in_store.is_none(), "{what}: {said}");
        assert!(said.contains(in_store.unwrap_or("nothing is provable yet from seq 21 on")), "{what}: {said}");
    }
}

#[tokio::test]
async fn every_crime_on_an_export_is_named() {
    let site = Site::make().await;
    for Case { what, commit, in_export, .. } in &CASES {
        let mut ledger = site.chain.clone();
        commit(&mut ledger);
        let (is_whole, said) = site.say_of_export(&export(&ledger), None);
        assert_eq!(is_whole, in_export.is_none(), "{what}: {said}");
        assert!(said.contains(in_export.unwrap_or("nothing is provable yet from seq 21 on")), "{what}: {said}");
    }
}

#[tokio::test]
async fn every_crime_on_the_lines_of_an_export_is_named() {
    type Crime = fn(&mut Vec<Value>);
    let site = Site::make().await;
    // Line 12 from the top is seq 12: there are 23.
    let crimes: [(&str, Crime, &str); 7] = [
        (
            "what is shown is edited",
            |lines| lines[11]["actor"] = json!("system"),
            "BROKEN at seq 12: retold: what is shown of seq 12 is not what its entry says: it was edited\n  `actor` shows \"system\"",
        ),
        (
            "what is shown of the outcome is edited",
            |lines| lines[11]["result"] = json!("success"),
            "BROKEN at seq 12: retold:",
        ),
        ("a line is garbled", |lines| lines[11] = json!("?"), "BROKEN at seq 12: gap:"),
        ("an entry is emptied", |lines| lines[11]["entry"] = Value::Null, "BROKEN at seq 12: unreadable:"),
        ("a line is doubled", |lines| lines.insert(3, lines[11].clone()), "BROKEN at seq 12: doubled:"),
        (
            "a line of another project is put in",
            |lines| lines.push(json!({ "project_id": null, "seq": 1 })),
            "BROKEN: line 24 of",
        ),
        ("the newest line is garbled", |lines| lines[0] = json!("?"), "BROKEN: line 1 of"),
    ];
    for (what, commit, expected) in crimes {
        let mut lines = export(&site.chain);
        commit(&mut lines);
        let (is_whole, said) = site.say_of_export(&lines, None);
        assert!(!is_whole && said.contains(expected), "{what}: {said}");
    }
}

#[tokio::test]
async fn a_second_export_names_the_very_entry_of_a_fork() {
    let site = Site::make().await;
    let (mut forged, whole) = (site.chain.clone(), export(&site.chain));
    forged.truncate(21);
    write_on(&mut forged, 22..=LENGTH + 5, "forged");
    let (is_whole, said) = site.say_of_export(&export(&forged), Some(&whole));
    assert!(!is_whole && said.contains("BROKEN at seq 22: fork: the two exports hold different entries"), "{said}");
    // A part of the same ledger, fetched earlier, contradicts nothing.
    let (is_whole, said) = site.say_of_export(&whole, Some(&whole[1..9]));
    assert!(is_whole && said.contains("the two exports agree wherever both have an entry"), "{said}");
    assert!(said.contains("the export begins at seq 15"), "{said}");
}

#[tokio::test]
async fn changed_checkpoints_and_a_wrong_key_are_named() {
    let site = Site::make().await;
    let text = std::fs::read_to_string(site.checkpoints()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    std::fs::write(site.checkpoints(), [lines[0], lines[1], lines[3]].join("\n") + "\n").unwrap();
    let (is_whole, said) = site.say_of_export(&export(&site.chain), None);
    assert!(!is_whole && said.contains("before line 3 checkpoints of"), "{said}");
    std::fs::write(site.checkpoints(), &text[..text.len() - 40]).unwrap();
    let (is_whole, said) = site.say_of_export(&export(&site.chain), None);
    assert!(is_whole && said.contains("line 4 is torn and was left out"), "{said}");
    assert!(said.contains("nothing is provable yet from seq 16 on"), "{said}");
    std::fs::write(site.checkpoints(), &text).unwrap();
    let stranger = Site { key: Arc::new(CheckpointKey::mint()), ..site };
    let (is_whole, said) = stranger.say_of_export(&export(&stranger.chain), None);
    assert!(!is_whole && said.contains("line 4 is not signed by the key"), "{said}");
}

#[tokio::test]
async fn a_store_in_use_and_a_folder_without_one_are_refused_in_words() {
    let site = Site::make().await;
    let held = site.open("data");
    let refused = format!("{:#}", site.verify_store("data").await.unwrap_err());
    assert!(refused.contains("a server runs on this data folder: stop it first"), "{refused}");
    drop(held);
    assert!(site.verify_store("data").await.unwrap().0);
    let refused = format!("{:#}", site.verify_store("elsewhere").await.unwrap_err());
    assert!(refused.contains("there is no store in the data folder"), "{refused}");
    assert!(!site.path("elsewhere").exists(), "nothing is made");
}

#[tokio::test]
async fn a_ledger_that_is_gone_altogether_is_missed() {
    let site = Site::make().await;
    let (is_whole, said) = site.say_of_store("emptied", &[]).await;
    assert!(!is_whole && said.contains("BROKEN at seq 1: short:"), "{said}");
}
