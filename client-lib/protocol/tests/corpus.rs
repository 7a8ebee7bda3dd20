//! Replays the kept corpus of the fuzz targets: what fuzzing once found interesting stays right.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test says which file it was at, and where it failed by panicking there"
)]

use std::fs;
use std::path::Path;

#[path = "../../../tests/fuzz/properties.rs"]
mod properties;

/// Calls `property` with every file of one target's corpus.
fn replay(target: &str, property: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fuzz/corpus")
        .join(target);
    let files: Vec<_> = fs::read_dir(&corpus)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(
        files.len() >= 10,
        "the corpus of {target} is there: {}",
        corpus.display()
    );
    for file in files {
        println!("{}", file.display());
        property(&fs::read(&file).unwrap());
    }
}

#[test]
fn frame() {
    replay("frame", properties::frame);
}

#[test]
fn request() {
    replay("request", properties::request);
}

#[test]
fn reply() {
    replay("reply", properties::reply);
}

#[test]
fn payload() {
    replay("payload", properties::payload);
}

#[test]
fn info() {
    replay("info", properties::info);
}
