//! Does the time of answering a key exchange depend on the padding? Welch's t-test between good blocks and each way of
//! being bad, after "Dude, is my code constant time?" (Reparaz, Balasch, Verbauwhede 2017).
//!
//! ```text
//! cargo run --release -p accel --example timing_key_exchange [samples]
//! ```
//!
//! Run it on an otherwise idle core. |t| below 4.5 says that no difference was found; it grows with the square root of
//! the number of samples where there is one. The last test leaves early at the first wrong byte, as a naive server
//! does, and must be found.
#![expect(clippy::print_stdout, reason = "a command that prints its findings")]

use std::error::Error;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use accel::{Key, KeyExchange, Prf, Seed};

/// |t| from which on the times of the two classes count as different.
const THRESHOLD: f64 = 4.5;
/// Answers in one sample.
const REPEATS: usize = 16;
const K: usize = 256;

/// A block of random-looking bytes that conforms, changed at one place.
fn block(state: &mut u64, change: Option<(usize, u8)>) -> Vec<u8> {
    let mut block: Vec<u8> = (0..K).map(|_| next(state) | 1).collect();
    for (place, byte) in [(0, 0), (1, 2), (K - 49, 0)].into_iter().chain(change) {
        if let Some(out) = block.get_mut(place) {
            *out = byte;
        }
    }
    block
}

/// xorshift64, one byte.
fn next(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.to_le_bytes()[4]
}

/// The check that everybody writes first.
fn naive(block: &[u8]) -> bool {
    block.starts_with(&[0, 2]) && block.iter().skip(2).position(|byte| *byte == 0) == Some(K - 51)
}

type Class = Option<(usize, u8)>;

/// The largest |t| over several cut-offs, so that a few interrupts hide nothing.
fn t_test(samples: usize, classes: [Class; 2], mut run: impl FnMut(&mut Vec<u8>)) -> f64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..samples + samples / 10 {
        let class = usize::from(next(&mut state) & 1);
        let change = classes.get(class).copied().flatten();
        let mut blocks: Vec<_> = (0..REPEATS).map(|_| block(&mut state, change)).collect();
        let start = Instant::now();
        blocks.iter_mut().for_each(&mut run);
        let elapsed = start.elapsed().as_secs_f64() * 1e9;
        if let Some(times) = times.get_mut(class).filter(|_| round >= samples / 10) {
            times.push(elapsed);
        }
    }
    let mut all: Vec<f64> = times.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let percentile = |part: usize| all.get(all.len() * part / 100).copied().unwrap_or(f64::MAX);
    [50, 75, 90, 100]
        .map(percentile)
        .map(|limit| welch(&times, limit))
        .into_iter()
        .fold(
            0.0,
            |most, t| if t.abs() > f64::abs(most) { t } else { most },
        )
}

/// Welch's t of the times up to `limit`.
fn welch([a, b]: &[Vec<f64>; 2], limit: f64) -> f64 {
    let moments = |times: &[f64]| {
        let kept: Vec<f64> = times.iter().copied().filter(|t| *t <= limit).collect();
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        let variance = kept.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((mean_a, error_a), (mean_b, error_b)) = (moments(a), moments(b));
    (mean_a - mean_b) / (error_a + error_b).sqrt()
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let samples = std::env::args()
        .nth(1)
        .map_or(Ok(100_000), |count| count.parse())?;
    println!("{samples} samples of {REPEATS} answers a test");
    let key = Key::from_bytes(include_bytes!("../tests/keys/rsa2048.pkcs8.pem"))?;
    let ciphertext = [0x5c; K];
    let exchanges = [
        (
            "premaster",
            KeyExchange::Premaster {
                client_version: [3, 3],
            },
        ),
        ("compatible", KeyExchange::Compatible),
        (
            "master",
            KeyExchange::Master {
                client_version: [3, 3],
                prf: Prf::Sha256,
                seed: Seed::Randoms([7; 64]),
            },
        ),
    ];
    let ways: [(&str, Class); 4] = [
        ("leading byte", Some((0, 1))),
        ("block type", Some((1, 1))),
        ("zero in the filler", Some((2, 0))),
        ("no separator", Some((K - 49, 1))),
    ];
    let mut failures = 0;
    let mut report = |name: &str, t: f64, leaks: bool| {
        let found = t.abs() >= THRESHOLD;
        failures += u32::from(found != leaks);
        let verdict = if found { "differs" } else { "no difference" };
        println!("{name:44} t = {t:8.2}  {verdict}");
    };
    for (form, exchange) in exchanges {
        for (way, change) in ways {
            let t = t_test(samples, [None, change], |block| {
                let _ = black_box(exchange.answer(&key, &ciphertext, block));
            });
            report(&format!("{form}: good, wrong {way}"), t, false);
        }
    }
    let t = t_test(samples, [None, Some((0, 1))], |block| {
        black_box(naive(black_box(block)));
    });
    report("a naive check, which must be found", t, true);
    Ok(if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
