//! Blinding pairs of one key, kept between batches.
//!
//! A pair serves one lane at a time and is squared by each use. After [`USES`] of them it is dropped
//! and a fresh one is made, so that no chain of related pairs grows long. Making pairs costs as much
//! as a batch of operations and always makes eight, hence about `1 / USES` of the time.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use accel_lanes::rsa::{self, Blinding};
use accel_lanes::{LANES, Path, RsaKey};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

/// How often a pair is used before a fresh one takes its place.
const USES: u32 = 128;
/// The most pairs a key keeps: what three threads use in full batches. Further ones are dropped.
const KEPT: usize = 3 * LANES;
/// Bytes of the longest modulus that runs in lanes.
const MAX_LEN: usize = 512;

/// A pair and what is left of its life.
pub(crate) struct Pair {
    /// The pair itself.
    pub(crate) blinding: Blinding,
    uses_left: u32,
}

/// An RSA key as the lanes compute with it: constants made once, and pairs waiting for use.
pub(crate) struct RsaLanes {
    /// The constants.
    pub(crate) key: RsaKey,
    pairs: Mutex<Vec<Pair>>,
}

impl fmt::Debug for RsaLanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RsaLanes")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl RsaLanes {
    /// A key without pairs; the first batch makes them.
    pub(crate) const fn new(key: RsaKey) -> Self {
        Self {
            key,
            pairs: Mutex::new(Vec::new()),
        }
    }

    fn take(&self) -> Option<Pair> {
        self.pairs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    /// Gives a pair back after a use, or a fresh one for the first.
    pub(crate) fn keep(&self, pair: Pair) {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        if pair.uses_left > 0 && pairs.len() < KEPT {
            pairs.push(pair);
        }
    }
}

/// A pair for each of up to eight keys, waiting or fresh. `None` where randomness failed or a fresh pair
/// did not pass its check.
pub(crate) fn pairs_for(path: Path, keys: &[&RsaLanes]) -> Vec<Option<Pair>> {
    let mut pairs: Vec<_> = keys.iter().map(|key| key.take()).collect();
    let wanting: Vec<&RsaLanes> = keys
        .iter()
        .zip(&pairs)
        .filter(|(_, pair)| pair.is_none())
        .map(|(key, _)| *key)
        .collect();
    if !wanting.is_empty() {
        // Eight cost as much as one: what is left over waits for the next batch.
        let eight: Vec<&RsaLanes> = wanting.iter().copied().cycle().take(LANES).collect();
        let mut fresh = make(path, &eight).into_iter().zip(eight);
        for pair in pairs.iter_mut().filter(|pair| pair.is_none()) {
            *pair = fresh.next().and_then(|(pair, _)| pair);
        }
        for (pair, key) in fresh {
            if let Some(pair) = pair {
                key.keep(pair);
            }
        }
    }
    for pair in pairs.iter_mut().flatten() {
        pair.uses_left -= 1;
    }
    pairs
}

fn make(path: Path, keys: &[&RsaLanes]) -> Vec<Option<Pair>> {
    let mut random = Zeroizing::new([0; LANES * MAX_LEN]);
    if rand::fill(random.as_mut_slice()).is_err() {
        return Vec::new();
    }
    let len = keys.first().map_or(1, |key| key.key.size().bytes());
    let random: Vec<&[u8]> = random.chunks_exact(len).take(keys.len()).collect();
    let keys: Vec<&RsaKey> = keys.iter().map(|key| &key.key).collect();
    rsa::blindings(path, &keys, &random)
        .into_iter()
        .map(|pair| {
            pair.map(|blinding| Pair {
                blinding,
                uses_left: USES,
            })
        })
        .collect()
}
