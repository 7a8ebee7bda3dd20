//! A warm engine works without the heap: every allocation would be a lock, a cache miss, and one more place where
//! secrets may stay behind. Counts those of the Rust allocator; AWS-LC's are its own.

#![allow(
    clippy::allow_attributes,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "test helpers fail the test; the lints exempt only the test functions themselves"
)]

use std::time::Duration;

use accel::{
    Backend, Engine, EngineChoice, EngineConfig, Hash, Job, Key, Lanes, Operation, VerifyRate,
};

fn key(name: &str) -> Key {
    let path = format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"));
    Key::from_bytes(&std::fs::read(path).unwrap()).unwrap()
}

fn engine(engine: EngineChoice, verify_ecdsa: VerifyRate) -> Engine {
    let lanes = Lanes::detect().unwrap_or_else(Lanes::portable);
    eprintln!("allocations are counted on {}", lanes.name());
    let config = EngineConfig {
        engine,
        verify_ecdsa,
        calibration: Duration::ZERO,
    };
    Engine::with_lanes(config, Some(Box::new(lanes))).unwrap()
}

/// Runs `rounds` batches, `fill(round)` jobs in each, and says how often the heap was used.
fn allocations(
    engine: &Engine,
    keys: &[Key],
    operation: Operation,
    rounds: usize,
    fill: impl Fn(usize) -> usize,
) -> u64 {
    let (Operation::RsaPkcs1Sign(hash) | Operation::RsaPssSign(hash) | Operation::EcdsaSign(hash)) =
        operation
    else {
        return u64::MAX;
    };
    let input = [0x42; 64];
    let mut outputs: [Vec<u8>; 8] = std::array::from_fn(|_| Vec::with_capacity(512));
    let mut run = |fill: usize| {
        let mut outputs = outputs.iter_mut();
        let mut jobs: [_; 8] = std::array::from_fn(|row| {
            let output = outputs.next().unwrap();
            Job::new(
                &keys[row % keys.len()],
                operation,
                &input[..hash.len()],
                output,
            )
        });
        engine.run(&mut jobs[..fill]);
        assert!(jobs[..fill].iter().all(|job| job.result.is_ok()));
    };
    let counted = allocation_counter::measure(|| (0..rounds).for_each(|round| run(fill(round))));
    counted.count_total
}

/// Whether `steady` batches of all fills leave the heap alone after `warm_up` small ones, which make constants,
/// tables, working memory and, for RSA, all the blinding pairs that a key keeps: seven more for one that is worn out.
fn assert_quiet(
    engine: &Engine,
    keys: &[Key],
    operation: Operation,
    warm_up: usize,
    steady: usize,
) {
    let first = allocations(engine, keys, operation, warm_up, |_| keys.len());
    let then = allocations(engine, keys, operation, steady, |round| 1 + round % 8);
    assert_eq!(then, 0, "{:?} {operation:?}, after {first}", keys[0]);
}

const PKCS1: Operation = Operation::RsaPkcs1Sign(Hash::Sha256);
const PSS: Operation = Operation::RsaPssSign(Hash::Sha512);
const P256: Operation = Operation::EcdsaSign(Hash::Sha256);
const P384: Operation = Operation::EcdsaSign(Hash::Sha384);

#[test]
fn a_warm_engine_leaves_the_heap_alone_in_lanes() {
    let engine = engine(EngineChoice::Lanes, VerifyRate::ALWAYS);
    // The portable twin is slow, and runs the same code around the kernels.
    let (long, short) = if Lanes::detect().is_some() {
        (400, 150)
    } else {
        (0, 20)
    };
    let two = ["rsa2048.pkcs8.pem", "rsa2048-b.pkcs8.pem"].map(key);
    assert_quiet(
        &engine,
        &two,
        PKCS1,
        1000.min(3 * long).max(20),
        long.max(short),
    );
    assert_quiet(&engine, &two, PSS, 1, short);
    for name in ["rsa3072.pkcs8.pem", "rsa4096.pkcs8.pem"] {
        assert_quiet(&engine, &[key(name)], PKCS1, long.max(20), short);
    }
    let p256 = ["p256.pkcs8.pem", "p256-b.pkcs8.pem"].map(key);
    let p384 = ["p384.pkcs8.pem", "p384-b.pkcs8.pem"].map(key);
    assert_quiet(&engine, &p256, P256, 1, 100);
    assert_quiet(&engine, &p384, P384, 1, 100);
    assert_eq!(engine.counters().single, 0);
}

#[test]
fn a_warm_engine_leaves_the_heap_alone_one_by_one() {
    let engine = engine(EngineChoice::Single, VerifyRate::ALWAYS);
    for name in [
        "rsa2048.pkcs8.pem",
        "rsa3072.pkcs8.pem",
        "rsa4096.pkcs8.pem",
    ] {
        for operation in [PKCS1, PSS] {
            assert_quiet(&engine, &[key(name)], operation, 1, 10);
        }
    }
    assert_quiet(&engine, &[key("p256.pkcs8.pem")], P256, 1, 10);
    assert_quiet(&engine, &[key("p384.pkcs8.pem")], P384, 1, 10);
}

/// The counter counts: the first batch of a key makes its constants.
#[test]
fn a_cold_engine_does_not() {
    let engine = engine(EngineChoice::Lanes, VerifyRate::NEVER);
    let keys = [key("rsa2048.pkcs8.pem")];
    assert!(allocations(&engine, &keys, PKCS1, 1, |_| 1) > 10);
}
