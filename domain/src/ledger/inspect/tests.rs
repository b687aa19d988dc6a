//! Every crime on a chain of twenty, by somebody without the key and by somebody with it.

use super::*;
use crate::command::{Actor, Source};
use crate::ledger::entry::{Kind, Login};
use crate::time::Timestamp;

const PROJECT: ProjectId = ProjectId::from_bytes([7; 16]);

fn ours() -> LedgerKey {
    LedgerKey::new(&[1; 32])
}

fn entry(seq: u64, reason: &str) -> Entry {
    let kind = Kind::Login(Login { user: None, success: false, reason: Some(reason.to_owned()) });
    Entry { seq, at: Timestamp::from_secs(seq.cast_signed()), actor: Actor::System, source: Source::default(), kind }
}

fn chain(length: u64) -> Vec<Sealed> {
    let mut chain = Vec::new();
    write_on(&mut chain, 1..=length, "true", &ours());
    chain
}

/// Writes entries behind a chain, as whoever has the key would.
fn write_on(chain: &mut Vec<Sealed>, seqs: std::ops::RangeInclusive<u64>, reason: &str, key: &LedgerKey) {
    for seq in seqs {
        let before = chain.last().map_or_else(|| genesis(PROJECT), |last| last.hash);
        chain.push(Sealed::new(&entry(seq, reason), &before, key));
    }
}

/// Every fifth entry was signed.
fn witnesses(chain: &[Sealed]) -> Vec<Witness> {
    let signed = chain.iter().filter(|sealed| sealed.seq.is_multiple_of(5));
    signed.map(|sealed| Witness { seq: sealed.seq, hash: sealed.hash, at: Timestamp::EPOCH }).collect()
}

fn inspect(chain: &[Sealed], key: Option<&LedgerKey>, witnesses: &[Witness]) -> Inspected {
    let mut walk = Inspection::from(chain.first().map_or(1, |first| first.seq), PROJECT, key, witnesses);
    for sealed in chain {
        if walk.take(sealed).is_err() {
            break;
        }
    }
    let found = walk.end(0);
    if let Some(key) = key {
        assert_eq!(pass(chain, key, witnesses), found, "who does not read the entries finds the same");
    }
    found
}

fn pass(chain: &[Sealed], key: &LedgerKey, witnesses: &[Witness]) -> Inspected {
    let mut walk = Inspection::from(chain.first().map_or(1, |first| first.seq), PROJECT, Some(key), witnesses);
    for sealed in chain {
        if walk.pass(sealed, key).is_err() {
            break;
        }
    }
    walk.end(0)
}

#[test]
fn a_whole_chain_is_proven_up_to_the_newest_checkpoint() {
    let whole = chain(23);
    let found = inspect(&whole, Some(&ours()), &witnesses(&whole));
    assert_eq!((found.first_bad, found.checked, found.head_seq, found.proven), (None, 23, 23, 20));
    assert_eq!((found.head_hash, found.unproven_from()), (whole[22].hash, Some(21)));
    assert_eq!(inspect(&whole[..20], None, &witnesses(&whole)).unproven_from(), None);
    let unsigned = inspect(&whole, None, &[]);
    assert_eq!((unsigned.first_bad, unsigned.proven, unsigned.unproven_from()), (None, 0, Some(1)));
}

#[test]
fn every_crime_is_named_with_its_first_entry() {
    type Crime = fn(&mut Vec<Sealed>);
    type Named = (u64, Fault, u64);
    // What was done; the finding of an outsider who has the checkpoints.
    let crimes: [(&str, Crime, Option<Named>); 13] = [
        ("nothing", |_| {}, None),
        ("a text is edited", |all| all[11].bytes[20] ^= 1, Some((12, Fault::Hash, 10))),
        ("the last text is edited", |all| all[22].bytes[20] ^= 1, Some((23, Fault::Hash, 20))),
        ("an entry is deleted", |all| drop(all.remove(11)), Some((12, Fault::Gap, 10))),
        (
            "an entry is deleted, and the others move up",
            |all| {
                all.remove(11);
                all.iter_mut().skip(11).for_each(|sealed| sealed.seq -= 1);
            },
            Some((12, Fault::Misplaced, 10)),
        ),
        (
            "two entries are swapped",
            |all| {
                all.swap(11, 14);
                (all[11].seq, all[14].seq) = (12, 15);
            },
            Some((12, Fault::Misplaced, 10)),
        ),
        ("an entry is doubled", |all| all.insert(11, all[11].clone()), Some((12, Fault::Doubled, 10))),
        (
            "an entry that follows is inserted, and the others move down",
            |all| {
                let forged = Sealed::new(&entry(12, "forged"), &all[10].hash, &LedgerKey::new(&[9; 32]));
                all.iter_mut().skip(11).for_each(|sealed| sealed.seq += 1);
                all.insert(11, forged);
            },
            Some((12, Fault::Inserted, 10)),
        ),
        ("the tail is cut off below the newest checkpoint", |all| all.truncate(18), Some((19, Fault::Short, 15))),
        ("the tail is cut off beyond it", |all| all.truncate(21), None),
        (
            "the chain is written anew, with the key",
            |all| {
                all.truncate(11);
                write_on(all, 12..=23, "forged", &ours());
            },
            Some((15, Fault::Fork, 10)),
        ),
        (
            "all of it is written anew, with the key",
            |all| {
                all.clear();
                write_on(all, 1..=23, "forged", &ours());
            },
            Some((5, Fault::Fork, 0)),
        ),
        (
            "what follows the newest checkpoint is written anew, with the key",
            |all| {
                all.truncate(20);
                write_on(all, 21..=23, "forged", &ours());
            },
            None,
        ),
    ];
    for (what, commit, expected) in crimes {
        let whole = chain(23);
        let mut changed = whole.clone();
        commit(&mut changed);
        for key in [None, Some(&ours())] {
            let found = inspect(&changed, key, &witnesses(&whole));
            let told = found.first_bad.map(|it| (it.seq, it.kind, it.proven));
            // Who has the key names a forger without it before anything else.
            let forged_first = key.is_some() && matches!(expected, Some((_, Fault::Inserted, _)));
            let expected = if forged_first { Some((12, Fault::Mac, 10)) } else { expected };
            assert_eq!(told, expected, "{what}, key {}", key.is_some());
        }
    }
}

#[test]
fn a_part_is_taken_on_its_first_entrys_word_unless_that_is_signed() {
    let whole = chain(23);
    let signed = witnesses(&whole);
    let part = inspect(&whole[7..], None, &signed);
    assert_eq!((part.first_bad, part.first, part.checked, part.proven), (None, 8, 16, 20));
    let mut edited = whole[7..].to_vec();
    edited[0].hash[0] ^= 1;
    assert_eq!(inspect(&edited, None, &signed).first_bad.map(|it| (it.seq, it.kind)), Some((9, Fault::Hash)));
    // Entry 10 was signed, so entry 11 has something to follow from.
    let mut edited = whole[10..].to_vec();
    edited[0] = Sealed::new(&entry(11, "forged"), &whole[9].hash, &ours());
    edited[0].hash = whole[10].hash;
    assert_eq!(inspect(&edited, None, &signed).first_bad.map(|it| (it.seq, it.kind)), Some((11, Fault::Hash)));
}

#[test]
fn a_chain_that_is_gone_is_short_of_its_first_entry() {
    let whole = chain(23);
    let gone = inspect(&[], None, &witnesses(&whole));
    assert_eq!(gone.first_bad, Some(Finding { seq: 1, kind: Fault::Short, proven: 0 }));
}

#[test]
fn checkpoints_that_contradict_each_other_are_a_fork() {
    let whole = chain(23);
    let mut signed = witnesses(&whole);
    signed.push(Witness { seq: 15, hash: [9; 32], at: Timestamp::EPOCH });
    let found = inspect(&whole, None, &Witness::in_order(signed));
    assert_eq!(found.first_bad.map(|it| (it.seq, it.kind)), Some((15, Fault::Fork)));
}

#[test]
fn an_answer_names_a_fault_as_it_is_serialised() {
    let all = [
        Fault::Gap,
        Fault::Unreadable,
        Fault::Misplaced,
        Fault::Doubled,
        Fault::Inserted,
        Fault::Hash,
        Fault::Mac,
        Fault::Short,
        Fault::Fork,
        Fault::Retold,
    ];
    for fault in all {
        assert_eq!(serde_json::to_value(fault).unwrap(), fault.as_str());
    }
}
