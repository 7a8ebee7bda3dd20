//! Replays the kept corpus of the fuzz target `sealed`, and properties of what is sealed.
#![expect(
    clippy::unwrap_used,
    reason = "a test says where it failed by panicking there"
)]

use std::fs;
use std::path::Path;

use keyserver::tickets::{Master, SEALED_MAX, create, seal, unseal};
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

const NOW: u64 = 500_000 * 3600;
const SKI: [u8; 20] = [7; 20];

fn master() -> Master {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master");
    create(&path).unwrap();
    Master::load(&path).unwrap()
}

#[test]
fn nothing_of_the_corpus_opens() {
    let master = master();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/sealed");
    let files: Vec<_> = fs::read_dir(corpus)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(files.len() >= 8, "the corpus is there");
    for file in files {
        let data = fs::read(&file).unwrap();
        let opened = unseal(&master, &SKI, 0, NOW, &data);
        assert!(opened.is_err(), "{}", file.display());
    }
}

proptest! {
    #[test]
    fn what_is_sealed_opens_and_nothing_else(
        plain in vec(any::<u8>(), 1..2000),
        at in any::<proptest::sample::Index>(),
        bit in 0..8_u32,
        later in 0..6 * 3600_u64,
    ) {
        let master = master();
        let blob = seal(&master, &SKI, 0, NOW, &plain).unwrap();
        prop_assert!(plain.len() <= SEALED_MAX);
        let opened = unseal(&master, &SKI, 0, NOW + later, &blob);
        prop_assert_eq!(opened.is_ok(), later < 3 * 3600);
        let mut bad = blob.clone();
        bad[at.index(blob.len())] ^= 1 << bit;
        prop_assert!(unseal(&master, &SKI, 0, NOW, &bad).is_err());
    }

    #[test]
    fn whatever_the_bytes_there_is_an_answer(data in vec(any::<u8>(), 0..200)) {
        prop_assert!(unseal(&master(), &SKI, 0, NOW, &data).is_err());
    }
}
