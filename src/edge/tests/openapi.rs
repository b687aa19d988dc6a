//! The document in the repository is the one that is served.

use std::path::Path;

use crate::edge::document;

/// Set it to write the document anew.
const BLESS: &str = "THALAMUS_BLESS";

#[test]
fn the_openapi_document_in_the_repository_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let served = document().to_pretty_json().unwrap() + "\n";
    if std::env::var_os(BLESS).is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &served).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == served, "docs/openapi.json is out of date: {BLESS}=1 cargo test -p thalamus openapi");
}
