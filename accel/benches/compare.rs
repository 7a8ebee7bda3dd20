//! The comparison table: this crate against `aws-lc-rs`, and against Intel's `crypto_mb` where the environment
//! variable `KEYSERVER_CRYPTO_MB` names `libcrypto_mb.so`.
//!
//! ```sh
//! pip download --no-deps ipp-crypto intel-cmplr-lib-rt    # unzip both
//! LD_LIBRARY_PATH=.../lib KEYSERVER_CRYPTO_MB=.../lib/libcrypto_mb.so cargo bench -p accel --bench compare
//! ```
//!
//! All competitors take turns within one process on one thread, so that a drifting clock drifts for
//! all; times are CPU time of that thread for eight operations, medians of many turns. Every figure of
//! this crate contains blinding, fresh nonces and the check of RSA results; `crypto_mb` has neither
//! blinding nor nonces nor, in its first column, the check. The column `lanes/mb` is against the
//! checked one where there is a check to make. `crypto_mb` spills to an unaligned stack, so it is
//! called from four stack positions and gets its best.
//!
//! The limit is the time the 52-bit multiply-adds of the exponentiations alone would take at the rate that
//! this run measures for them: for each of the two primes, with n digits of 52 bits, one squaring a bit, n(n+1) + 2n^2
//! multiply-adds, and with a window of five bits one multiplication every five bits and 30 for the table, 3n^2 each.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "a command for people; a failure ends it"
)]

mod crypto_mb;

use std::hint::black_box;
use std::time::Duration;

use accel::{Backend, Class, Hash, Job, Key, Lanes, Operation, Single};
use accel_lanes::vector::{Kernel, Vector, run};
use accel_lanes::{Path, Row};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use nix::time::{ClockId, clock_gettime};

use crypto_mb::{CryptoMb, EcdsaBatch, RsaBatch};

const LANES: usize = 8;

fn main() {
    // Cargo passes --bench, and filters that a table has no use for.
    let library = std::env::var("KEYSERVER_CRYPTO_MB").ok().map(|path| {
        CryptoMb::load(&path).unwrap_or_else(|error| panic!("KEYSERVER_CRYPTO_MB: {error}"))
    });
    let lanes = Lanes::detect();
    let rate = multiply_add_rate();
    println!(
        "lanes: {}",
        lanes.map_or("none, no AVX-512 IFMA here", |lanes| lanes.name())
    );
    println!(
        "crypto_mb: {}",
        if library.is_some() {
            "loaded"
        } else {
            "not named"
        }
    );
    if let Some(rate) = rate {
        println!("multiply-adds: {:.2} G/s, eight lanes each", rate / 1e9);
    }
    heading();
    rows(lanes, library, rate);
    if let Some(lanes) = lanes {
        prepared(lanes);
    }
}

fn heading() {
    let titles = [
        [
            "class",
            "aws-lc-rs",
            "single",
            "lanes",
            "crypto_mb",
            "mb + check",
            "lanes/",
            "lanes/",
            "of the",
        ],
        [
            "", "ops/s", "ops/s", "ops/s", "ops/s", "ops/s", "aws", "mb", "limit",
        ],
    ];
    println!();
    for [class, rates @ .., aws, mb, limit] in titles {
        let rates: String = rates.iter().map(|rate| format!(" {rate:>11}")).collect();
        println!("{class:<8}{rates} {aws:>8} {mb:>8} {limit:>8}");
    }
}

fn rows(lanes: Option<Lanes>, library: Option<CryptoMb>, rate: Option<f64>) {
    let rsa: [(_, &[u8], _); 3] = [
        (
            "rsa2048",
            include_bytes!("../src/calibrate/rsa-2048.der"),
            1024,
        ),
        (
            "rsa3072",
            include_bytes!("../src/calibrate/rsa-3072.der"),
            1536,
        ),
        (
            "rsa4096",
            include_bytes!("../src/calibrate/rsa-4096.der"),
            2048,
        ),
    ];
    for (name, der, prime_bits) in rsa {
        let limit = rate.map(|rate| multiply_adds(prime_bits) / rate);
        let mut entrants = ours(der, Operation::RsaPkcs1Sign(Hash::Sha256), lanes);
        entrants.extend(rsa_rivals(der, library));
        row(name, entrants, limit);
    }
    let ecdsa: [(_, &[u8], _); 2] = [
        (
            "p256",
            include_bytes!("../src/calibrate/p256.der"),
            Hash::Sha256,
        ),
        (
            "p384",
            include_bytes!("../src/calibrate/p384.der"),
            Hash::Sha384,
        ),
    ];
    for (name, der, hash) in ecdsa {
        let mut entrants = ours(der, Operation::EcdsaSign(hash), lanes);
        entrants.extend(ecdsa_rivals(der, hash, library));
        row(name, entrants, None);
    }
}

/// What a signature costs whose nonce was prepared in idle time, and the preparation, which is not part of it.
fn prepared(lanes: Lanes) {
    println!();
    let keys: [(Class, &[u8], Hash); 2] = [
        (
            Class::P256,
            include_bytes!("../src/calibrate/p256.der"),
            Hash::Sha256,
        ),
        (
            Class::P384,
            include_bytes!("../src/calibrate/p384.der"),
            Hash::Sha384,
        ),
    ];
    for (class, der, hash) in keys {
        let key = Key::from_bytes(der).expect("a good key");
        let input = vec![0x5a; hash.len()];
        let mut outputs = vec![Vec::new(); LANES];
        let mut time = |backend: &dyn Backend| {
            let mut jobs: Vec<_> = (outputs.iter_mut())
                .map(|output| Job::new(&key, Operation::EcdsaSign(hash), &input, output))
                .collect();
            let before = thread_time();
            backend.run(&mut jobs);
            let time = thread_time().saturating_sub(before);
            assert!(jobs.iter().all(|job| job.result.is_ok()));
            time
        };
        let (mut alone, mut with) = (Vec::new(), Vec::new());
        for _ in 0..3000 {
            while lanes.prepared(class) < LANES {
                assert!(lanes.prepare());
            }
            with.push(time(&lanes));
            alone.push(time(&Single));
        }
        let [alone, with] = [&mut alone, &mut with].map(|samples| median(samples).as_secs_f64());
        println!(
            "{:<8} with prepared nonces: {:.0} ops/s in lanes, {:.1} times single",
            class.name(),
            8.0 / with,
            alone / with
        );
    }
}

/// A competitor: the column it belongs to, and eight of its operations.
type Entrant = (Column, Box<dyn FnMut()>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    AwsLcRs,
    Single,
    Lanes,
    CryptoMb,
    CryptoMbChecked,
}

const COLUMNS: [Column; 5] = [
    Column::AwsLcRs,
    Column::Single,
    Column::Lanes,
    Column::CryptoMb,
    Column::CryptoMbChecked,
];

/// Runs all entrants in turns for three seconds and prints a line; an entrant's figure is its column's best.
fn row(name: &str, mut entrants: Vec<Entrant>, limit_seconds: Option<f64>) {
    let mut samples = vec![Vec::new(); entrants.len()];
    for (_, eight) in &mut entrants {
        eight();
    }
    let start = thread_time();
    while thread_time().saturating_sub(start) < Duration::from_secs(3) {
        for ((_, eight), samples) in entrants.iter_mut().zip(&mut samples) {
            let before = thread_time();
            eight();
            samples.push(thread_time().saturating_sub(before));
        }
    }
    let best = |column| {
        entrants
            .iter()
            .zip(&mut samples)
            .filter(|((other, _), _)| *other == column)
            .map(|(_, samples)| median(samples))
            .min()
            .map(|time| time.as_secs_f64())
    };
    let times = COLUMNS.map(best);
    let rate =
        |time: Option<f64>| time.map_or_else(|| "-".into(), |time| format!("{:.0}", 8.0 / time));
    let [aws, single, lanes, mb, checked] = times.map(rate);
    // ECDSA results are not checked with e, so there crypto_mb is compared as it is.
    let [aws_time, _, lanes_time, mb_time, checked_time] = times;
    let ratio = |rival: Option<f64>, ours: Option<f64>| match (rival, ours) {
        (Some(rival), Some(ours)) => format!("{:.2}", rival / ours),
        _ => "-".into(),
    };
    let of_limit = match (limit_seconds, lanes_time) {
        (Some(limit), Some(time)) => format!("{:.0} %", limit / time * 100.0),
        _ => "-".into(),
    };
    println!(
        "{name:<8} {aws:>11} {single:>11} {lanes:>11} {mb:>11} {checked:>11} {:>8} {:>8} {of_limit:>8}",
        ratio(aws_time, lanes_time),
        ratio(checked_time.or(mb_time), lanes_time),
    );
}

fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// This crate's two ways.
fn ours(der: &'static [u8], operation: Operation, lanes: Option<Lanes>) -> Vec<Entrant> {
    let entrant = |column, backend: Box<dyn Backend>| -> Entrant {
        let key = Key::from_bytes(der).expect("a good key");
        let mut outputs = vec![Vec::new(); LANES];
        let input = [0x5a; 48];
        let input_len = match operation {
            Operation::EcdsaSign(hash) | Operation::RsaPkcs1Sign(hash) => hash.len(),
            _ => panic!("not compared"),
        };
        let eight = move || {
            let input = input.get(..input_len).unwrap_or_default();
            let mut jobs: Vec<_> = outputs
                .iter_mut()
                .map(|output| Job::new(&key, operation, input, output))
                .collect();
            backend.run(&mut jobs);
            assert!(
                jobs.iter().all(|job| job.result.is_ok()),
                "{}",
                backend.name()
            );
        };
        (column, Box::new(eight))
    };
    let mut entrants = vec![entrant(Column::Single, Box::new(Single))];
    entrants.extend(lanes.map(|lanes| entrant(Column::Lanes, Box::new(lanes))));
    entrants
}

fn rsa_rivals(der: &'static [u8], library: Option<CryptoMb>) -> Vec<Entrant> {
    let pair = RsaKeyPair::from_der(der).expect("a good key");
    let numbers = integers(der);
    let [_, n, _, _, p, q, dp, dq, qinv] = numbers[..] else {
        panic!("not an RSAPrivateKey");
    };
    let mut signature = vec![0; n.len()];
    let aws = move || {
        for _ in 0..LANES {
            pair.sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                &[0x5a; 32],
                &mut signature,
            )
            .expect("a signature");
        }
    };
    let mut rivals: Vec<Entrant> = vec![(Column::AwsLcRs, Box::new(aws))];
    let Some(library) = library else {
        return rivals;
    };
    let mut input = vec![0x5a; n.len()];
    input[0] = 0;
    for depth in 0..DEPTHS {
        for column in [Column::CryptoMb, Column::CryptoMbChecked] {
            let mut batch = RsaBatch::new(library, n, [p, q, dp, dq, qinv], &input);
            assert!(batch.run() && batch.check(), "crypto_mb computes as we do");
            let eight = move || {
                let good = at_depth(depth, &mut || {
                    batch.run() && (column == Column::CryptoMb || batch.check())
                });
                assert!(good, "crypto_mb");
            };
            rivals.push((column, Box::new(eight)));
        }
    }
    rivals
}

fn ecdsa_rivals(der: &'static [u8], hash: Hash, library: Option<CryptoMb>) -> Vec<Entrant> {
    let key = Key::from_bytes(der).expect("a good key");
    let length = hash.len();
    // ECPrivateKey: SEQUENCE, INTEGER 1, OCTET STRING; headers of up to three bytes before.
    let start = der
        .windows(2)
        .position(|pair| pair == [4, if length == 32 { 32 } else { 48 }]);
    let scalar = start
        .and_then(|at| der.get(at + 2..at + 2 + length))
        .expect("a scalar");
    let algorithm = if length == 32 {
        &ECDSA_P256_SHA256_ASN1_SIGNING
    } else {
        &ECDSA_P384_SHA384_ASN1_SIGNING
    };
    let spki = key.spki_der();
    let point = spki
        .get(spki.len() - 2 * length - 1..)
        .expect("a point")
        .to_vec();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, scalar, &point)
        .expect("a good key");
    let aws = move || {
        for _ in 0..LANES {
            black_box(
                pair.sign(&SystemRandom::new(), &[0x5a; 48])
                    .expect("a signature"),
            );
        }
    };
    let mut rivals: Vec<Entrant> = vec![(Column::AwsLcRs, Box::new(aws))];
    let Some(library) = library else {
        return rivals;
    };
    for depth in 0..DEPTHS {
        let nonces = std::array::from_fn(|_| {
            let mut nonce = vec![0; length];
            aws_lc_rs::rand::fill(&mut nonce).expect("randomness");
            // Below the order, whose first byte is 0xff.
            nonce[0] &= 0x7f;
            nonce
        });
        let mut batch = EcdsaBatch::new(library, scalar, &nonces, &vec![0x5a; length]);
        assert!(batch.run(), "crypto_mb");
        let (r, s) = batch.first();
        assert!(r.iter().chain(s).any(|byte| *byte != 0), "crypto_mb signed");
        let eight = move || assert!(at_depth(depth, &mut || batch.run()), "crypto_mb");
        rivals.push((Column::CryptoMb, Box::new(eight)));
    }
    rivals
}

/// Stack positions that are tried, 16 bytes apart: all that alignment to 64 can tell.
const DEPTHS: usize = 4;

fn at_depth(depth: usize, work: &mut dyn FnMut() -> bool) -> bool {
    match depth {
        0 => deeper::<0>(work),
        1 => deeper::<16>(work),
        2 => deeper::<32>(work),
        _ => deeper::<48>(work),
    }
}

/// Calls `work` with the stack `N` bytes further down.
#[inline(never)]
fn deeper<const N: usize>(work: &mut dyn FnMut() -> bool) -> bool {
    let space = [0_u8; N];
    black_box(&space);
    let good = work();
    black_box(&space);
    good
}

/// The integers of a SEQUENCE, big endian without sign bytes: enough for a PKCS#1 key.
fn integers(der: &[u8]) -> Vec<&[u8]> {
    let mut rest = element(der).0;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (content, after) = element(rest);
        let zeros = content.iter().take_while(|byte| **byte == 0).count();
        found.push(content.get(zeros..).unwrap_or_default());
        rest = after;
    }
    found
}

/// Content of the first element, and what follows it.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (start, length) = match *der {
        [_, 0x82, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
        [_, 0x81, length, ..] => (3, usize::from(length)),
        [_, length, ..] => (2, usize::from(length)),
        _ => panic!("not DER"),
    };
    der.get(start..)
        .and_then(|rest| rest.split_at_checked(length))
        .expect("whole DER")
}

/// Multiply-adds for eight operations with two primes of this length.
fn multiply_adds(prime_bits: u32) -> f64 {
    let digits = f64::from(prime_bits.div_ceil(52));
    let squarings = f64::from(prime_bits) * (digits * (digits + 1.0) + 2.0 * digits * digits);
    let products = f64::from(prime_bits.div_ceil(5) + 30) * 3.0 * digits * digits;
    2.0 * (squarings + products)
}

/// How many 512-bit multiply-adds this core does a second: sixteen chains, so that latency does not count.
struct Chains {
    rounds: u32,
    /// Two factors from memory: the compiler folds multiply-adds of numbers it knows.
    factors: [Row; 2],
}

const CHAINS: usize = 16;

impl Kernel for Chains {
    type Output = u64;

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) -> u64 {
        let [a, b] = &self.factors;
        let (a, b) = (V::load(token, a), V::load(token, b));
        let mut sums = [V::splat(token, 0); CHAINS];
        for _ in 0..self.rounds {
            let mut at = 0;
            while at < CHAINS {
                sums[at] = sums[at].madd52lo(a, b);
                sums[at] = sums[at].madd52hi(b, a);
                at += 1;
            }
        }
        let mut total = sums[0];
        let mut at = 1;
        while at < CHAINS {
            total = total.add(sums[at]);
            at += 1;
        }
        let mut row = Row::ZERO;
        total.store(&mut row);
        row.0[0]
    }
}

/// Multiply-adds a second; `None` without the instructions.
fn multiply_add_rate() -> Option<f64> {
    const ROUNDS: u32 = 200_000;
    let path = Path::detect();
    if path.name() != "ifma" {
        return None;
    }
    let mut samples: Vec<_> = (0..21)
        .map(|_| {
            let before = thread_time();
            let chains = Chains {
                rounds: ROUNDS,
                factors: [
                    Row::splat(0x000f_1234_5678_9abc),
                    Row::splat(0x0009_8765_4321_0fed),
                ],
            };
            black_box(run(path, black_box(chains)));
            thread_time().saturating_sub(before)
        })
        .collect();
    let count = f64::from(ROUNDS) * 2.0 * 16.0;
    Some(count / median(&mut samples).as_secs_f64())
}
