//! Does the time of an RSA batch depend on a secret? Welch's t-test over two classes of secrets, after "Dude, is my code
//! constant time?" (Reparaz, Balasch, Verbauwhede 2017).
//!
//! ```text
//! cargo run --release -p accel-lanes --example timing_rsa [batches]
//! ```
//!
//! Run it on an otherwise idle core. |t| below 4.5 says that no difference was found; it grows with the square root of the
//! number of batches where there is one. The last test has a leak built in and must find it.
#![expect(clippy::print_stdout, reason = "a command that prints its findings")]

use std::error::Error;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use accel_lanes::rsa::{Blinding, Lane, Renewal, private, renew};
use accel_lanes::{LANES, Path, RsaKey, RsaNumbers};

/// |t| from which on the times of the two classes count as different.
const THRESHOLD: f64 = 4.5;

/// Numbers with the shape of an RSA-2048 key. Results do not pass their check, which takes the same time.
fn key(exponent: &[u8; 128], prime: u8) -> Result<RsaKey, &'static str> {
    let (mut n, mut p) = ([0xc5; 256], [prime; 128]);
    (n[0], p[0]) = (0xf1, 0xd3);
    (n[255], p[127]) = (0x0b, 0x07);
    let numbers = RsaNumbers {
        n: &n,
        p: &p,
        q: &p,
        dp: exponent,
        dq: exponent,
        qinv: &p,
    };
    RsaKey::new(numbers).ok_or("the lanes declined the test key")
}

/// Pairs for keys that are none: made for a sound key of the test vectors, whose modulus is larger than ours.
fn pairs() -> Result<Vec<Blinding>, Box<dyn Error>> {
    let text = include_str!("../tests/vectors/rsa_keys.txt");
    let block = text
        .split("\n\n")
        .find(|block| block.starts_with("bits = 2048"));
    let mut numbers = Vec::new();
    for line in block.ok_or("no 2048-bit test key")?.lines().skip(1) {
        let (_, digits) = line.split_once(" = ").ok_or("not a field")?;
        let bytes = (0..digits.len()).step_by(2);
        let byte = |i| u8::from_str_radix(digits.get(i..i + 2).unwrap_or_default(), 16);
        numbers.push(bytes.map(byte).collect::<Result<Vec<u8>, _>>()?);
    }
    let [n, p, q, dp, dq, qinv] = numbers.as_slice() else {
        return Err("a key has six numbers".into());
    };
    let key = RsaKey::new(RsaNumbers {
        n,
        p,
        q,
        dp,
        dq,
        qinv,
    })
    .ok_or("declined")?;
    let random = [0x5a; 256];
    let mut pairs: Vec<_> = (0..LANES).map(|_| Blinding::empty()).collect();
    let row = |blinding| Renewal {
        key: &key,
        random: &random,
        blinding,
        correct: false,
    };
    let mut rows: Vec<_> = pairs.iter_mut().map(row).collect();
    renew(Path::detect(), &mut rows);
    if rows.iter().any(|row| !row.correct) {
        return Err("a pair failed its check".into());
    }
    Ok(pairs)
}

/// Time of one batch with one key and one input in all lanes, in nanoseconds.
fn time(key: &RsaKey, input: &[u8; 256], pairs: &mut [Blinding], leak: bool) -> f64 {
    let mut outputs = [[0; 256]; LANES];
    let mut lanes: Vec<_> = pairs
        .iter_mut()
        .zip(&mut outputs)
        .map(|(blinding, output)| Lane {
            key,
            blinding,
            input,
            output,
            correct: false,
        })
        .collect();
    let start = Instant::now();
    private(Path::detect(), &mut lanes);
    if leak {
        // One part in a hundred more work where the input's first byte is zero.
        let rounds = if input[0] == 0 { 20_000 } else { 0 };
        black_box((0..rounds).fold(0_u64, |sum, i| black_box(sum + i)));
    }
    start.elapsed().as_secs_f64() * 1e9
}

/// Mean and variance of a sample.
fn moments(sample: &[f64]) -> (f64, f64, f64) {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for value in sample {
        count += 1.0;
        let delta = value - mean;
        mean += delta / count;
        squares += delta * (value - mean);
    }
    (count, mean, squares / (count - 1.0))
}

/// Welch's t between two classes measured in random order, the slowest third of all measurements left out: those are
/// interrupts.
fn t_test(batches: usize, mut measure: impl FnMut(usize) -> f64) -> f64 {
    let mut samples = [Vec::new(), Vec::new()];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..batches + batches / 10 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let class = usize::from(state & 1 == 1);
        let time = measure(class);
        if round >= batches / 10 {
            samples[class].push(time);
        }
    }
    let mut all: Vec<f64> = samples.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let limit = all.get(all.len() * 2 / 3).copied().unwrap_or(f64::MAX);
    let [(n0, m0, v0), (n1, m1, v1)] = samples.map(|sample| {
        moments(
            &sample
                .into_iter()
                .filter(|time| *time <= limit)
                .collect::<Vec<_>>(),
        )
    });
    (m0 - m1) / (v0 / n0 + v1 / n1).sqrt()
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let batches = std::env::args()
        .nth(1)
        .map_or(Ok(4_000), |count| count.parse())?;
    println!("path {}, {batches} batches a test", Path::detect().name());
    let mut pairs = pairs()?;
    let mut mixed = [0; 128];
    for (i, byte) in (0_u8..).zip(&mut mixed) {
        *byte = i.wrapping_mul(167) ^ 0x3c;
    }
    let (zero, ones) = ([0; 128], [0xff; 128]);
    let usual = [0x42; 256];
    let mut failures = 0;
    let mut report = |name: &str, t: f64, leaks: bool| {
        let found = t.abs() >= THRESHOLD;
        failures += u32::from(found != leaks);
        println!(
            "{name:44} t = {t:8.2}  {}",
            if found { "differs" } else { "no difference" }
        );
    };

    // Windows of the exponent are the indices of the table: all 0, all 15, and mixed.
    for (name, one, two) in [
        ("exponent: all windows 0, mixed windows", &zero, &mixed),
        ("exponent: all windows 15, mixed windows", &ones, &mixed),
    ] {
        let keys = [key(one, 0x9d)?, key(two, 0x9d)?];
        let t = t_test(batches, |class| {
            time(&keys[class], &usual, &mut pairs, false)
        });
        report(name, t, false);
    }
    let keys = [key(&mixed, 0x9d)?, key(&mixed, 0x00)?];
    let t = t_test(batches, |class| {
        time(&keys[class], &usual, &mut pairs, false)
    });
    report("prime: dense, sparse", t, false);
    let inputs = [[0; 256], usual];
    let t = t_test(batches, |class| {
        time(&keys[0], &inputs[class], &mut pairs, false)
    });
    report("input: zero, dense", t, false);
    let t = t_test(batches, |class| {
        time(&keys[0], &inputs[class], &mut pairs, true)
    });
    report("a leak of one percent, which must be found", t, true);
    Ok(if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
