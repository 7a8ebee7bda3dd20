//! Replays what fuzzing kept for the ECDSA kernels.
#![expect(
    clippy::expect_used,
    reason = "helpers of tests: a failure ends the test"
)]

#[path = "../../../tests/fuzz/lanes_ec.rs"]
mod property;

use std::fs;

#[test]
fn the_corpus_holds() {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fuzz/corpus/lanes_ec"
    );
    let mut files = 0;
    for entry in fs::read_dir(folder).expect("the corpus is in the tree") {
        let path = entry.expect("a folder that can be read").path();
        property::lanes_ec(&fs::read(&path).expect("a file that can be read"));
        files += 1;
    }
    assert!(files >= 6, "the corpus has {files} files");
}
