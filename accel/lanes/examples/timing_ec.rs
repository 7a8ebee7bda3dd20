//! Looks for secrets in the time that a batch of ECDSA signatures takes, as dudect does (Reparaz, Balasch, Verbauwhede,
//! "Dude, is my code constant time?", 2017):
//!
//! ```sh
//! cargo run --release -p accel-lanes --example timing_ec -- 100000
//! ```
//!
//! Two classes of batches alternate at random: one with the same extreme key and nonce in every lane, one with random
//! ones. Welch's t over their times, cropped at several quantiles, stays below 4.5 in size if time does not depend on
//! them; 10 and more means that it does. Run it on an otherwise idle core: noise hides leaks, it does not make them.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a command for people, about time"
)]
#![allow(
    clippy::allow_attributes,
    unfulfilled_lint_expectations,
    reason = "whether the clock is banned here is decided elsewhere"
)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use accel_lanes::curve::{NONCE_LEN, Request, hmac_sha512, sign_p256, sign_p384};
use accel_lanes::{LANES, Path};

/// xorshift64*: the classes must differ, not be unpredictable.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(word.get(..chunk.len()).unwrap_or(&word));
        }
    }
}

/// One batch: a key and a nonce for each lane.
#[derive(Clone, Copy)]
struct Inputs {
    keys: [[u8; 48]; LANES],
    nonces: [[u8; NONCE_LEN]; LANES],
}

impl Inputs {
    /// Key 1 and nonce 1: almost all digits zero, and windows that are all alike.
    fn extreme() -> Self {
        let mut keys = [[0; 48]; LANES];
        let mut nonces = [[0; NONCE_LEN]; LANES];
        for (key, nonce) in keys.iter_mut().zip(&mut nonces) {
            // The last byte of the 32 that P-256 reads, and of the 48 of P-384.
            key[31] = 1;
            key[47] = 1;
            nonce[NONCE_LEN - 1] = 1;
        }
        Self { keys, nonces }
    }

    fn random(random: &mut Random) -> Self {
        let mut inputs = Self::extreme();
        for (key, nonce) in inputs.keys.iter_mut().zip(&mut inputs.nonces) {
            random.fill(key);
            key[0] &= 0x7f;
            random.fill(nonce);
        }
        inputs
    }

    /// Takes the other's place or not, with the same steps.
    fn replace_if(&mut self, other: &Self, condition: bool) {
        let mask = black_box(0_u8.wrapping_sub(u8::from(condition)));
        let (keys, nonces) = (other.keys.as_flattened(), other.nonces.as_flattened());
        let ours = self.keys.as_flattened_mut().iter_mut();
        let ours = ours.chain(self.nonces.as_flattened_mut());
        for (byte, other) in ours.zip(keys.iter().chain(nonces)) {
            *byte = (*byte & !mask) | (other & mask);
        }
    }

    fn run(&self, path: Path, what: What) {
        let len = if what == What::P256 { 32 } else { 48 };
        let requests: [Request<'_>; LANES] = core::array::from_fn(|lane| Request {
            key: &self.keys[lane][..len],
            digest: &[0x5a; 48][..len],
            nonce: &self.nonces[lane],
        });
        match what {
            What::P256 => {
                let _ = black_box(sign_p256(path, &requests));
            }
            What::P384 => {
                let _ = black_box(sign_p384(path, &requests));
            }
            What::Hmac => {
                let messages = self.keys.each_ref().map(|key| [key.as_slice()]);
                let mut tags = [[0; NONCE_LEN]; LANES];
                black_box(hmac_sha512(path, &self.nonces[0], &messages, &mut tags));
                black_box(tags);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    P256,
    P384,
    Hmac,
}

/// The largest t in size over several croppings of the times, slowest samples first.
fn largest_t(times: &[(bool, f64)]) -> f64 {
    let mut sorted: Vec<f64> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_by(f64::total_cmp);
    [100, 95, 90, 75, 50]
        .iter()
        .filter_map(|percent| sorted.get((sorted.len() * percent / 100).saturating_sub(1)))
        .map(|limit| t(times, *limit))
        .fold(
            0.0,
            |largest: f64, t| if t.abs() > largest.abs() { t } else { largest },
        )
}

/// Welch's t of the two classes, over samples up to `limit`.
fn t(times: &[(bool, f64)], limit: f64) -> f64 {
    let mut sums = [[0.0; 3]; 2];
    for (class, time) in times.iter().filter(|(_, time)| *time <= limit) {
        let [count, sum, squares] = &mut sums[usize::from(*class)];
        *count += 1.0;
        *sum += time;
        *squares += time * time;
    }
    let [(m0, v0), (m1, v1)] = sums.map(|[count, sum, squares]| {
        let mean = sum / count;
        (mean, (squares / count - mean * mean) / count)
    });
    (m0 - m1) / (v0 + v1).sqrt()
}

fn main() -> ExitCode {
    let samples = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(50_000);
    let path = Path::detect();
    println!("path {}, {samples} samples each", path.name());
    let mut verdict = ExitCode::SUCCESS;
    let mut random = Random(0x0123_4567_89ab_cdef);
    for what in [What::P256, What::P384, What::Hmac] {
        let mut times = Vec::with_capacity(samples);
        for round in 0..samples + 1000 {
            let extreme = random.next() >> 63 == 1;
            // Both are made each time, and mixed byte by byte: what was written last, or read from where, shows in
            // an operation of a microsecond. (A copy of one of them gave the hash a t of up to 18, of either sign.)
            let mut inputs = Inputs::random(&mut random);
            inputs.replace_if(&Inputs::extreme(), extreme);
            let inputs = black_box(inputs);
            let before = Instant::now();
            inputs.run(path, what);
            let time = before.elapsed().as_secs_f64();
            if round >= 1000 {
                times.push((extreme, time));
            }
        }
        let t = largest_t(&times);
        println!("{what:?}: t = {t:.2}");
        if t.abs() > 10.0 {
            verdict = ExitCode::FAILURE;
        }
    }
    verdict
}
