//! One suite for every backend.
//!
//! A new backend is one line in [`backends`]. Each test runs all of them over the same rows and compares what comes
//! out with an oracle that shares no code with them (`conformance/oracle.rs`), with vectors, or with the
//! verification of `aws-lc-rs`. Rows that a backend does not accept must end in an error there.

#![expect(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure ends the test, and the run says which backends it saw"
)]

#[path = "conformance/batches.rs"]
mod batches;
#[path = "conformance/faults.rs"]
mod faults;
#[path = "conformance/key_exchange.rs"]
mod key_exchange;
#[path = "conformance/numbers.rs"]
mod numbers;
#[path = "conformance/oracle.rs"]
mod oracle;
#[path = "conformance/signatures.rs"]
mod signatures;
#[path = "conformance/tokens.rs"]
#[cfg(feature = "pkcs11")]
mod tokens;
#[path = "conformance/vectors.rs"]
mod vectors;

use accel::{
    Backend, Class, Engine, EngineChoice, EngineConfig, Job, JobError, Key, KeyRules, Lanes,
    Operation, Single, VerifyRate,
};

/// Every way of computing.
fn backends() -> Vec<Box<dyn Backend>> {
    let mut backends: Vec<Box<dyn Backend>> = vec![
        Box::new(Single),
        Box::new(Lanes::portable()),
        Box::new(WholeEngine::new()),
    ];
    match Lanes::detect() {
        Some(lanes) => backends.push(Box::new(lanes)),
        None => println!("no AVX-512 IFMA here: the lanes run as their portable twin only"),
    }
    backends.push(Box::new(Foresighted));
    #[cfg(feature = "pkcs11")]
    if let Some(tokens) = tokens::backend() {
        backends.push(Box::new(tokens));
    }
    for backend in &backends {
        println!("backend {}", backend.name());
    }
    backends
}

/// Lanes in a thread that has prepared nonces for whatever comes.
struct Foresighted;

impl Foresighted {
    fn lanes() -> Lanes {
        Lanes::detect().unwrap_or_else(Lanes::portable)
    }
}

impl Backend for Foresighted {
    fn name(&self) -> &'static str {
        "lanes-prepared"
    }

    fn lanes(&self, class: Class) -> usize {
        Self::lanes().lanes(class)
    }

    fn checks_results(&self) -> bool {
        true
    }

    fn accepts(&self, key: &Key, operation: Operation) -> bool {
        Self::lanes().accepts(key, operation)
    }

    fn run(&self, jobs: &mut [Job<'_>]) {
        let lanes = Self::lanes();
        let before = [Class::P256, Class::P384].map(|class| {
            while lanes.prepared(class) < jobs.len() {
                assert!(lanes.prepare());
            }
            lanes.prepared(class)
        });
        lanes.run(jobs);
        // Whatever was signed was signed with a prepared nonce, and each was used once.
        for (class, before) in [Class::P256, Class::P384].into_iter().zip(before) {
            let is_signed = |job: &&Job<'_>| job.key.class() == class && job.result.is_ok();
            let signed = jobs.iter().filter(is_signed).count();
            assert_eq!(before - lanes.prepared(class), signed);
        }
    }
}

/// The engine as the server uses it, held to the same suite.
struct WholeEngine(Engine);

impl WholeEngine {
    fn new() -> Self {
        let config = EngineConfig {
            engine: EngineChoice::Auto,
            verify_ecdsa: VerifyRate::ALWAYS,
            calibration: std::time::Duration::ZERO,
        };
        Self(Engine::new(config).expect("an engine"))
    }
}

impl Backend for WholeEngine {
    fn name(&self) -> &'static str {
        "engine"
    }

    fn lanes(&self, _: Class) -> usize {
        1
    }

    fn checks_results(&self) -> bool {
        true
    }

    fn run(&self, jobs: &mut [Job<'_>]) {
        self.0.run(jobs);
        assert_eq!(self.0.counters().check_failures, 0);
    }
}

/// Runs one job by itself.
fn run_one(
    backend: &dyn Backend,
    key: &Key,
    operation: Operation,
    input: &[u8],
) -> Result<Vec<u8>, JobError> {
    // Old bytes in the output must not survive.
    let mut output = vec![0xaa; 5];
    let mut job = Job::new(key, operation, input, &mut output);
    backend.run(std::slice::from_mut(&mut job));
    let result = job.result;
    if result.is_err() {
        assert!(
            output.is_empty(),
            "{} left bytes behind an error",
            backend.name()
        );
    }
    result.map(|()| output)
}

/// The same; `None` when the backend does not take such rows, after seeing that it says so.
fn run_if_accepted(
    backend: &dyn Backend,
    key: &Key,
    operation: Operation,
    input: &[u8],
) -> Option<Result<Vec<u8>, JobError>> {
    let result = run_one(backend, key, operation, input);
    if key.supports(operation) && !backend.accepts(key, operation) {
        assert!(
            result.is_err(),
            "{} ran what it does not accept",
            backend.name()
        );
        return None;
    }
    Some(result)
}

/// Runs rows side by side, as lanes like it, and returns their outputs in order; `None` where the backend
/// does not take such rows. Every row must be good.
fn run_all(backend: &dyn Backend, rows: &[(&Key, Operation, &[u8])]) -> Vec<Option<Vec<u8>>> {
    let mut outputs = vec![Vec::new(); rows.len()];
    let mut jobs: Vec<_> = rows
        .iter()
        .zip(&mut outputs)
        .map(|((key, operation, input), output)| Job::new(key, *operation, input, output))
        .collect();
    backend.run(&mut jobs);
    let results: Vec<_> = jobs.iter().map(|job| job.result).collect();
    let name = backend.name();
    rows.iter()
        .zip(outputs)
        .zip(results)
        .map(|(((key, operation, _), output), result)| {
            let accepted = backend.accepts(key, *operation);
            assert_eq!(
                result.is_ok(),
                accepted,
                "{name} {key:?} {operation:?} {result:?}"
            );
            accepted.then_some(output)
        })
        .collect()
}

/// A key of `tests/keys`.
fn key(name: &str) -> Key {
    let path = format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).expect(&path);
    let rules = KeyRules { any_exponent: true };
    Key::from_bytes_with(&bytes, rules).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).expect("randomness");
    bytes
}

fn hex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0, "{text}");
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("hex");
    text.as_bytes()
        .chunks(2)
        .map(|pair| (digit(pair[0]) << 4 | digit(pair[1])) as u8)
        .collect()
}

/// The rows of a vector file: fields between `|`, `#` begins a comment line.
fn rows(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('|').map(str::trim).collect())
}
