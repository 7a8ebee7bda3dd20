//! Rows side by side: no row may notice its neighbours.

use std::sync::LazyLock;

use accel::{Backend, Class, Hash, Job, JobError, Key, KeyType, Operation};
use aws_lc_rs::signature::{ED25519, ML_DSA_44, UnparsedPublicKey};
use proptest::prelude::*;

use super::oracle::{self, RsaPublic};
use super::{backends, key};

static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    [
        "rsa2048.pkcs8.pem",
        "rsa2048-b.pkcs8.pem",
        "rsa2048-uneven.pkcs1.pem",
        "rsa3072.pkcs8.pem",
        "rsa3072-b.pkcs8.pem",
        "p256.pkcs8.pem",
        "p256-b.pkcs8.pem",
        "p384.pkcs8.pem",
        "p384-b.pkcs8.pem",
        "p521.pkcs8.pem",
        "ed25519.pkcs8.pem",
        "ml-dsa-44.pkcs8.pem",
    ]
    .map(key)
    .into()
});

/// One row of a random batch.
#[derive(Clone, Debug)]
struct Row {
    key: usize,
    operation: Operation,
    input: Vec<u8>,
}

fn any_row(keys: impl Strategy<Value = usize>) -> impl Strategy<Value = Row> {
    let hash = proptest::sample::select(&Hash::ALL[..]);
    let operation = prop_oneof![
        hash.clone().prop_map(Operation::RsaPkcs1Sign),
        hash.clone().prop_map(Operation::RsaPssSign),
        Just(Operation::RsaPrivate),
        hash.prop_map(Operation::EcdsaSign),
        Just(Operation::Ed25519Sign),
        Just(Operation::MlDsaSign),
    ];
    (keys, operation, any::<u8>(), -1_i8..=1, 0..5_u8).prop_map(
        |(key, operation, byte, off, spoil)| {
            // One row in five has an operation that may not fit the key, one in five a length that may be off.
            let operation = if spoil == 0 {
                operation
            } else {
                fitting(&KEYS[key], operation)
            };
            let off = if spoil == 1 { off } else { 0 };
            let length = length_of(&KEYS[key], operation).saturating_add_signed(off.into());
            // 0x55.. is below every modulus here, whose first bit is set.
            let input = (0..length)
                .map(|at| 0x55 ^ (byte & 0x0f) ^ u8::from(at == 1))
                .collect();
            Row {
                key,
                operation,
                input,
            }
        },
    )
}

/// The given operation if it fits the key, else one that does.
fn fitting(key: &Key, operation: Operation) -> Operation {
    match (key.supports(operation), key.key_type()) {
        (true, _) => operation,
        (_, KeyType::Rsa { .. }) => Operation::RsaPrivate,
        (_, KeyType::P256 | KeyType::P384 | KeyType::P521) => Operation::EcdsaSign(Hash::Sha384),
        (_, KeyType::Ed25519) => Operation::Ed25519Sign,
        _ => Operation::MlDsaSign,
    }
}

fn length_of(key: &Key, operation: Operation) -> usize {
    match (operation, key.key_type()) {
        (
            Operation::RsaPkcs1Sign(hash)
            | Operation::RsaPssSign(hash)
            | Operation::EcdsaSign(hash),
            _,
        ) => hash.len(),
        (_, KeyType::Rsa { bits }) => usize::from(bits) / 8,
        _ => 77,
    }
}

/// What must come of a row, found without any backend.
fn expected_error(row: &Row) -> Option<JobError> {
    let key = &KEYS[row.key];
    if !key.supports(row.operation) {
        return Some(JobError::WrongKey);
    }
    let message = matches!(row.operation, Operation::Ed25519Sign | Operation::MlDsaSign);
    let good = message || row.input.len() == length_of(key, row.operation);
    (!good).then_some(JobError::Input)
}

fn is_right(row: &Row, output: &[u8]) -> bool {
    let key = &KEYS[row.key];
    let bits = oracle::public_bits(key);
    match row.operation {
        Operation::RsaPkcs1Sign(hash) => RsaPublic::of(key).verify_pkcs1(hash, &row.input, output),
        Operation::RsaPssSign(hash) => RsaPublic::of(key).verify_pss(hash, &row.input, output),
        Operation::RsaPrivate => RsaPublic::of(key).public(output).as_deref() == Some(&row.input),
        // The oracle takes a second for the larger curves, so here it judges P-256 only.
        Operation::EcdsaSign(_) if key.class() == Class::P256 => {
            oracle::verify_ecdsa(KeyType::P256, &bits, &row.input, output)
        }
        Operation::EcdsaSign(_) => output.len() > 90,
        Operation::Ed25519Sign => UnparsedPublicKey::new(&ED25519, bits)
            .verify(&row.input, output)
            .is_ok(),
        Operation::MlDsaSign => UnparsedPublicKey::new(&ML_DSA_44, bits)
            .verify(&row.input, output)
            .is_ok(),
    }
}

fn check_batch(backend: &dyn Backend, rows: &[Row]) {
    let mut outputs = vec![vec![1, 2, 3]; rows.len()];
    let mut jobs: Vec<_> = rows
        .iter()
        .zip(&mut outputs)
        .map(|(row, output)| Job::new(&KEYS[row.key], row.operation, &row.input, output))
        .collect();
    backend.run(&mut jobs);
    let results: Vec<_> = jobs.iter().map(|job| job.result).collect();
    for ((row, output), result) in rows.iter().zip(&outputs).zip(results) {
        let name = backend.name();
        let accepted = backend.accepts(&KEYS[row.key], row.operation);
        match (expected_error(row), result) {
            (Some(expected), Err(error)) => {
                assert!(error == expected || !accepted, "{name} {row:?} {error}");
                assert!(output.is_empty(), "{name} {row:?}");
            }
            (None, Ok(())) => assert!(is_right(row, output), "{name} {row:?}"),
            (None, Err(_)) if !accepted => assert!(output.is_empty(), "{name} {row:?}"),
            (expected, result) => panic!("{name} {row:?}: {result:?}, not {expected:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_mixture_of_rows_comes_out_right(
        rows in proptest::collection::vec(any_row(0..KEYS.len()), 0..12)
    ) {
        for backend in backends() {
            check_batch(&*backend, &rows);
        }
    }

    /// One class, which is what lanes share: keys 0 to 2 are RSA-2048, 5 and 6 P-256.
    #[test]
    fn any_batch_of_one_class_comes_out_right(
        rsa in proptest::collection::vec(any_row(0..3_usize), 1..10),
        p256 in proptest::collection::vec(any_row(5..7_usize), 1..10),
    ) {
        for backend in backends() {
            check_batch(&*backend, &rsa);
            check_batch(&*backend, &p256);
        }
    }
}

/// Every fill from one row to more than the lanes hold, for each size with lanes, with two keys in turn.
#[test]
fn every_fill_comes_out_right() {
    for (first, operation) in [
        (0, Operation::RsaPkcs1Sign(Hash::Sha256)),
        (3, Operation::RsaPssSign(Hash::Sha384)),
        (5, Operation::EcdsaSign(Hash::Sha256)),
        (7, Operation::EcdsaSign(Hash::Sha384)),
    ] {
        for backend in backends() {
            for fill in 1..=9 {
                let rows: Vec<_> = (0..fill)
                    .map(|at| {
                        let key = first + at % 2;
                        let length = length_of(&KEYS[key], operation);
                        let input = vec![u8::try_from(at).unwrap(); length];
                        Row {
                            key,
                            operation,
                            input,
                        }
                    })
                    .collect();
                check_batch(&*backend, &rows);
            }
        }
    }
}
