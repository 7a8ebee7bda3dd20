//! Eight RSA private-key operations: blind, two half-length exponentiations, recombine, unblind, check.
//!
//! ```text
//! c' = c r^e                  mod n    base blinding: nobody chooses what the primes see
//! a  = c'^dp                  mod p
//! b  = c'^dq                  mod q
//! h  = (a - b) / q            mod p    Garner's recombination
//! s' = b + q h
//! s  = s' / r                 mod n
//! s^65537 = c                 mod n?   else the lane is not released: a fault in one half would give away the primes
//! ```
//!
//! Every line is eight-fold. Lanes may carry eight different keys of one size.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::batch::Batch;
use crate::rsa_key::{Key, Size};
use crate::token::Path;
use crate::vector::LANES;

/// A blinding pair of one key: (r^e, 1/r) for a random r nobody knows, both encoded; wiped on drop.
///
/// Each use squares both, which gives the pair of r^2.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Blinding {
    pub(crate) factor: Vec<u64>,
    pub(crate) inverse: Vec<u64>,
}

impl fmt::Debug for Blinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blinding(..)")
    }
}

/// One operation of a batch.
#[derive(Debug)]
pub struct Lane<'a> {
    /// The private key. All lanes of a batch have keys of one size.
    pub key: &'a Key,
    /// A pair of this very key, used by this lane alone; holds the next pair afterwards.
    pub blinding: &'a mut Blinding,
    /// The number to raise to d: big endian, below the modulus. A longer number is taken modulo 2^bits.
    pub input: &'a [u8],
    /// Where the result goes, big endian, as long as the modulus. Written only if the result is `correct`.
    pub output: &'a mut [u8],
    /// Set by [`private`]: the result to the power of 65537 is the input.
    pub correct: bool,
}

/// Raises every lane's input to its key's private exponent. Takes the same time for one lane as for eight.
///
/// Lanes beyond the eighth, or of another size than the first, are left alone with `correct` false.
pub fn private(path: Path, lanes: &mut [Lane<'_>]) {
    private_in_slices(path, lanes, &mut || ());
}

/// The same, and calls `between` about every 120 us (4 times for RSA-2048, 12 times for RSA-3072, 32 times for
/// RSA-4096), so that brief work need not wait for the whole batch. The moments depend on the length of the keys alone.
pub fn private_in_slices(path: Path, lanes: &mut [Lane<'_>], between: &mut dyn FnMut()) {
    for lane in lanes.iter_mut() {
        lane.correct = false;
    }
    let Some(size) = lanes.first().map(|lane| lane.key.size) else {
        return;
    };
    let same = lanes
        .iter()
        .take(LANES)
        .take_while(|lane| lane.key.size == size)
        .count();
    let lanes = &mut lanes[..same];
    match size {
        Size::Rsa2048 => Batch::<20, 40>::new(size).private(path, lanes, between),
        Size::Rsa3072 => Batch::<30, 60>::new(size).private(path, lanes, between),
        Size::Rsa4096 => Batch::<40, 80>::new(size).private(path, lanes, between),
    }
}

/// A blinding pair for each of up to eight keys of one size (a key may stand there several times), from `random`: for
/// each key as many uniform bytes as its modulus has.
///
/// The pair is (x, x^-d) for the random x itself: r^e is x, and r is never known. This costs as much as one call of
/// [`private`], whatever the number of keys. `None` where a lane has no random bytes or does not pass its check.
#[must_use]
pub fn blindings(path: Path, keys: &[&Key], random: &[&[u8]]) -> Vec<Option<Blinding>> {
    let Some(size) = keys.first().map(|key| key.size) else {
        return Vec::new();
    };
    let good = keys
        .iter()
        .zip(random)
        .take(LANES)
        .take_while(|(key, random)| key.size == size && random.len() == size.bytes())
        .count();
    let mut pairs = if good == 0 {
        Vec::new()
    } else {
        let (keys, random) = (&keys[..good], &random[..good]);
        match size {
            Size::Rsa2048 => Batch::<20, 40>::new(size).blindings(path, keys, random),
            Size::Rsa3072 => Batch::<30, 60>::new(size).blindings(path, keys, random),
            Size::Rsa4096 => Batch::<40, 80>::new(size).blindings(path, keys, random),
        }
    };
    pairs.resize_with(keys.len(), || None);
    pairs
}
