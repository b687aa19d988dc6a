use proptest::prelude::*;

use super::*;
use crate::command::{Actor, Source};
use crate::id::UserId;
use crate::ledger::entry::{Kind, Login};
use crate::time::Timestamp;

const PROJECT: ProjectId = ProjectId::from_bytes([7; 16]);

fn chain(length: u64, key: &LedgerKey) -> Vec<Sealed> {
    let mut before = genesis(PROJECT);
    (1..=length)
        .map(|seq| {
            let kind = Kind::Login(Login { user: Some(UserId::NIL), success: true, reason: None });
            let at = Timestamp::from_secs(seq.cast_signed());
            let entry = Entry { seq, at, actor: Actor::System, source: Source::default(), kind };
            let sealed = Sealed::new(&entry, &before, key);
            before = sealed.hash;
            sealed
        })
        .collect()
}

/// Where a walk over a chain finds the first fault.
fn first_bad(chain: &[Sealed], key: Option<&LedgerKey>) -> Option<Broken> {
    let mut before = genesis(PROJECT);
    for (seq, sealed) in (1..).zip(chain) {
        if let Err(broken) = sealed.verify(seq, &before, key) {
            return Some(broken);
        }
        before = sealed.hash;
    }
    None
}

fn key() -> LedgerKey {
    LedgerKey::new(&[1; 32])
}

#[test]
fn hashes_are_golden() {
    // printf 'thalamus-ledger-1' and sixteen bytes 07 into sha256sum.
    assert_eq!(hex::encode(genesis(PROJECT)), "87324cb2269924bf3e778db9de8047e2ae76b091f71a8dd5fb0cbbdb18255fb7");
    assert_eq!(
        hex::encode(link(&genesis(PROJECT), b"\x01{}")),
        "ec37041e0c4be67b891d5cd86025d64d9a55ef787b6c7610f7e368085eb5a30b"
    );
    assert_eq!(
        hex::encode(key().mac(&genesis(PROJECT))),
        "69f87f9d11ef4a03f2ab4e8a5a8546f8ef03280971558a2aed5672c99780a0ab"
    );
}

proptest! {
    #[test]
    fn an_edit_is_found_where_it_was_made(
        length in 2..40_u64, at in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let mut edited = chain(length, &key());
        let at = at.index(edited.len());
        let byte = byte.index(edited[at].bytes.len());
        edited[at].bytes[byte] ^= 1 << bit;
        let seq = at as u64 + 1;
        prop_assert_eq!(first_bad(&edited, None), Some(Broken { seq, kind: Fault::Hash }));
    }

    #[test]
    fn a_missing_a_doubled_and_a_swapped_entry_are_found(length in 3..40_u64, at in any::<prop::sample::Index>()) {
        let whole = chain(length, &key());
        let at = at.index(whole.len() - 1);
        let seq = at as u64 + 1;
        let mut missing = whole.clone();
        missing.remove(at);
        prop_assert_eq!(first_bad(&missing, None), Some(Broken { seq, kind: Fault::Gap }));
        let mut doubled = whole.clone();
        doubled.insert(at, whole[at].clone());
        prop_assert_eq!(first_bad(&doubled, None), Some(Broken { seq: seq + 1, kind: Fault::Misplaced }));
        let mut swapped = whole;
        swapped.swap(at, at + 1);
        prop_assert_eq!(first_bad(&swapped, None).map(|broken| broken.seq), Some(seq));
    }

    #[test]
    fn a_chain_rewritten_without_the_key_is_found_with_it(length in 1..20_u64, at in any::<prop::sample::Index>()) {
        let forger = LedgerKey::new(&[2; 32]);
        let (mut forged, whole) = (chain(length, &forger), chain(length, &key()));
        let at = at.index(forged.len());
        for (n, sealed) in whole.into_iter().take(at).enumerate() {
            forged[n] = sealed;
        }
        prop_assert_eq!(first_bad(&forged, None), None, "the hashes alone hold");
        let seq = at as u64 + 1;
        prop_assert_eq!(first_bad(&forged, Some(&key())), Some(Broken { seq, kind: Fault::Mac }));
    }
}
