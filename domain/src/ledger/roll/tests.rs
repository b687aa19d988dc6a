use super::*;
use crate::ledger::checkpoint::{CheckpointKey, Point};

const PROJECT: ProjectId = ProjectId::from_bytes([7; 16]);
const OTHER: ProjectId = ProjectId::NIL;

fn point(project: ProjectId, seq: u64) -> Point {
    Point { project, seq, hash: [seq as u8; 32], at: Timestamp::from_secs(seq.cast_signed()) }
}

/// Nine checkpoints of one project, at every tenth entry.
fn nine(key: &CheckpointKey) -> Vec<Checkpoint> {
    let mut tree = Tree::default();
    (1..=9).map(|n| point(PROJECT, n * 10).sign(&mut tree, key)).collect()
}

fn read(lines: &[String], keys: &[PublicKey]) -> Rolled {
    let mut roll = Roll::new(keys);
    lines.iter().for_each(|line| roll.read(line));
    roll.end()
}

fn lines(checkpoints: &[Checkpoint]) -> Vec<String> {
    checkpoints.iter().map(Checkpoint::line).collect()
}

/// The entries that are vouched for.
fn seqs(rolled: &Rolled) -> Vec<u64> {
    rolled.projects.get(&PROJECT).map_or(Vec::new(), |signed| signed.witnesses.iter().map(|it| it.seq).collect())
}

#[test]
fn projects_share_a_file_and_go_on_from_it() {
    let (key, mut tree) = (CheckpointKey::mint(), Tree::default());
    let mut both = nine(&key);
    both.insert(4, point(OTHER, 1).sign(&mut tree, &key));
    let rolled = read(&lines(&both), &[key.public()]);
    assert_eq!(rolled.remarks, []);
    assert_eq!(seqs(&rolled), [10, 20, 30, 40, 50, 60, 70, 80, 90]);
    let mut signed = rolled.projects[&PROJECT].clone();
    assert_eq!(signed.newest, Some(both[9]));
    both.push(point(PROJECT, 99).sign(signed.tree.as_mut().unwrap(), &key));
    let rolled = read(&lines(&both), &[key.public()]);
    assert_eq!((rolled.remarks.len(), seqs(&rolled).last()), (0, Some(&99)));
}

#[test]
fn a_torn_line_is_told_and_harmless() {
    let key = CheckpointKey::mint();
    let mut torn = lines(&nine(&key));
    let last = torn[8][..100].to_owned();
    torn.push(last.clone());
    torn.insert(3, last);
    let rolled = read(&torn, &[key.public()]);
    assert_eq!(rolled.remarks, [Remark::Torn { line: 4 }, Remark::Torn { line: 11 }]);
    assert!(rolled.remarks.iter().all(|remark| !remark.is_fault()));
    assert_eq!(seqs(&rolled).len(), 9);
}

#[test]
fn a_server_that_lost_its_file_begins_anew() {
    let key = CheckpointKey::mint();
    let mut tree = Tree::default();
    let mut all = nine(&key);
    all.push(point(PROJECT, 95).sign(&mut tree, &key));
    all.push(point(PROJECT, 97).sign(&mut tree, &key));
    let rolled = read(&lines(&all), &[key.public()]);
    assert_eq!(rolled.remarks, [Remark::Anew { line: 10, project: PROJECT }]);
    assert_eq!(seqs(&rolled).len(), 11);
    let late = read(&lines(&all[4..9]), &[key.public()]);
    assert_eq!(late.remarks, [Remark::Late { line: 1, project: PROJECT, size: 5 }]);
    assert_eq!((seqs(&late), late.projects[&PROJECT].tree.is_none()), (vec![50, 60, 70, 80, 90], true));
}

#[test]
fn every_change_of_the_file_is_a_fault_at_its_line() {
    type Crime = fn(&mut Vec<Checkpoint>, &CheckpointKey);
    let crimes: [(&str, Crime, Remark, &[u64]); 6] = [
        (
            "a checkpoint is taken out",
            |all, _| {
                all.remove(4);
            },
            Remark::Missing { line: 5, project: PROJECT, expected: 5, found: 6 },
            &[10, 20, 30, 40, 60, 70, 80, 90],
        ),
        (
            "a hash is changed",
            |all, _| all[4].point.hash[0] ^= 1,
            Remark::Signature { line: 5 },
            &[10, 20, 30, 40, 60, 70, 80, 90],
        ),
        (
            "a time is changed in the last one",
            |all, _| all[8].point.at = Timestamp::EPOCH,
            Remark::Signature { line: 9 },
            &[10, 20, 30, 40, 50, 60, 70, 80],
        ),
        (
            "two change places",
            |all, _| all.swap(3, 4),
            Remark::Missing { line: 4, project: PROJECT, expected: 4, found: 5 },
            &[10, 20, 30, 50, 40, 60, 70, 80, 90],
        ),
        (
            "one is put in twice",
            |all, _| all.insert(4, all[3]),
            Remark::Missing { line: 5, project: PROJECT, expected: 5, found: 4 },
            &[10, 20, 30, 40, 40, 50, 60, 70, 80, 90],
        ),
        (
            "all are made anew with another key",
            |all, _| *all = nine(&CheckpointKey::mint()),
            Remark::Signature { line: 9 },
            &[],
        ),
    ];
    for (what, commit, remark, counted) in crimes {
        let key = CheckpointKey::mint();
        let mut all = nine(&key);
        commit(&mut all, &key);
        let rolled = read(&lines(&all), &[key.public()]);
        assert_eq!(rolled.remarks.first(), Some(&remark), "{what}");
        assert!(remark.is_fault(), "{what}");
        assert_eq!(seqs(&rolled), counted, "{what}");
    }
}

#[test]
fn a_leaf_signed_over_another_past_is_a_fault() {
    let key = CheckpointKey::mint();
    let mut all = nine(&key);
    let mut other = Tree::default();
    for n in 1..=4 {
        point(PROJECT, n).sign(&mut other, &key);
    }
    all[4] = point(PROJECT, 50).sign(&mut other, &key);
    let rolled = read(&lines(&all), &[key.public()]);
    assert_eq!(rolled.remarks, [Remark::Root { line: 5, project: PROJECT }]);
}

#[test]
fn witnesses_of_several_files_are_each_heard_once() {
    let one = |seq, byte| Witness { seq, hash: [byte; 32], at: Timestamp::EPOCH };
    let all = vec![one(9, 1), one(3, 1), one(9, 1), one(9, 2)];
    assert_eq!(Witness::in_order(all), [one(3, 1), one(9, 1), one(9, 2)]);
}

#[test]
fn a_thinned_crowd_keeps_the_newest() {
    let one = |seq| Witness { seq, hash: [1; 32], at: Timestamp::EPOCH };
    for count in 1..40 {
        let thinned = Witness::thinned((1..=count).map(one).collect(), 8);
        assert_eq!(thinned.last(), Some(&one(count)), "of {count}");
        assert!(thinned.len() <= 8 && (count <= 8 || thinned.len() > 3), "{} of {count}", thinned.len());
        assert!(thinned.is_sorted_by_key(|witness| witness.seq));
    }
}
