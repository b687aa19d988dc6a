//! The canonical form against the reference itself: CPython's `json`, on generated documents.
//!
//! Every document goes through both; bytes and refusals must agree. `THALAMUS_DIFFERENTIAL_DOCUMENTS` sets how many
//! (20 000), `THALAMUS_DIFFERENTIAL_SEED` replays a run. Without python3 the test fails: a comparison that did not
//! happen proves nothing.

mod documents;
mod reference;

use documents::Documents;
use domain::wire::canonical::Canonicaliser;

#[test]
fn the_canonical_form_is_cpythons() {
    let count = setting("THALAMUS_DIFFERENTIAL_DOCUMENTS", 20_000);
    let seed = setting("THALAMUS_DIFFERENTIAL_SEED", 0x7a1a_3005);
    let documents: Vec<Vec<u8>> = Documents::new(seed).take(count as usize).collect();
    let verdicts = reference::judge(&documents);
    assert_eq!(verdicts.len(), documents.len(), "one verdict per document");

    let mut canonicaliser = Canonicaliser::new();
    let (mut accepted, mut refused) = (0, 0);
    for (place, (document, expected)) in documents.iter().zip(&verdicts).enumerate() {
        let ours = canonicaliser.canonical(document);
        let shown = String::from_utf8_lossy(document);
        match (expected, ours) {
            (Some(expected), Ok(ours)) => {
                assert_eq!(
                    String::from_utf8_lossy(ours),
                    String::from_utf8_lossy(expected),
                    "document {place} of seed {seed}: {shown}"
                );
                accepted += 1;
            }
            (None, Err(_)) => refused += 1,
            (Some(_), Err(refusal)) => panic!("document {place} of seed {seed}: only we refuse ({refusal}): {shown}"),
            (None, Ok(_)) => panic!("document {place} of seed {seed}: only CPython refuses: {shown}"),
        }
    }
    // A generator that makes one kind only would let the comparison pass for nothing.
    assert!(accepted > count / 4 && refused > count / 20, "{accepted} accepted, {refused} refused");
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")),
        Err(_) => default,
    }
}
