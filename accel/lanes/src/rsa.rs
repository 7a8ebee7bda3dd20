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

use core::cell::Cell;
use core::fmt;
use std::thread::LocalKey;

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
    pub(crate) factor: [u64; MAX_DIGITS],
    pub(crate) inverse: [u64; MAX_DIGITS],
}

/// Digits of the longest modulus.
const MAX_DIGITS: usize = 2 * Size::Rsa4096.half_digits();

impl Blinding {
    /// The place for a pair. Used as one it would fail every check: fill it with [`renew`] first.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            factor: [0; MAX_DIGITS],
            inverse: [0; MAX_DIGITS],
        }
    }

    /// Writes another pair over this one.
    pub(crate) fn put(
        &mut self,
        factor: impl Iterator<Item = u64>,
        inverse: impl Iterator<Item = u64>,
    ) {
        for (to, from) in self.factor.iter_mut().zip(factor) {
            *to = from;
        }
        for (to, from) in self.inverse.iter_mut().zip(inverse) {
            *to = from;
        }
    }
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
        Size::Rsa2048 => with_memory(&MEMORY_2048, size, |b| b.private(path, lanes, between)),
        Size::Rsa3072 => with_memory(&MEMORY_3072, size, |b| b.private(path, lanes, between)),
        Size::Rsa4096 => with_memory(&MEMORY_4096, size, |b| b.private(path, lanes, between)),
    }
}

/// One blinding pair to be made.
#[derive(Debug)]
pub struct Renewal<'a> {
    /// The key. It may stand in several rows; all have one size.
    pub key: &'a Key,
    /// As many uniform bytes as the modulus has.
    pub random: &'a [u8],
    /// Where the pair goes. Written only if it is `correct`.
    pub blinding: &'a mut Blinding,
    /// Set by [`renew`]: the two halves of the pair belong together.
    pub correct: bool,
}

/// Makes up to eight blinding pairs.
///
/// A pair is (x, x^-d) for the random x itself: r^e is x, and r is never known. This costs as much as one call of
/// [`private`], whatever the number of rows. Rows beyond the eighth, of another size than the first, or without enough
/// random bytes are left alone, like all that follow them, with `correct` false.
pub fn renew(path: Path, rows: &mut [Renewal<'_>]) {
    for row in rows.iter_mut() {
        row.correct = false;
    }
    let Some(size) = rows.first().map(|row| row.key.size) else {
        return;
    };
    let good = rows
        .iter()
        .take(LANES)
        .take_while(|row| row.key.size == size && row.random.len() == size.bytes())
        .count();
    if good == 0 {
        return;
    }
    let rows = &mut rows[..good];
    match size {
        Size::Rsa2048 => with_memory(&MEMORY_2048, size, |b| b.renew(path, rows)),
        Size::Rsa3072 => with_memory(&MEMORY_3072, size, |b| b.renew(path, rows)),
        Size::Rsa4096 => with_memory(&MEMORY_4096, size, |b| b.renew(path, rows)),
    }
}

/// A thread's memory for batches of one size: 60 to 120 KiB, kept from batch to batch and wiped after each. Absent
/// before the first batch, and while one runs.
type Memory<const H: usize, const F: usize> = Cell<Option<Box<Batch<H, F>>>>;

thread_local! {
    static MEMORY_2048: Memory<20, 40> = const { Cell::new(None) };
    static MEMORY_3072: Memory<30, 60> = const { Cell::new(None) };
    static MEMORY_4096: Memory<40, 80> = const { Cell::new(None) };
}

/// Runs a batch in this thread's memory. One that is run between the slices of another of its size gets memory of its
/// own.
fn with_memory<const H: usize, const F: usize>(
    memory: &'static LocalKey<Memory<H, F>>,
    size: Size,
    work: impl FnOnce(&mut Batch<H, F>),
) {
    // A thread that is ending has lost its memory already.
    let kept = memory.try_with(Cell::take).ok().flatten();
    let mut batch = kept.unwrap_or_else(|| Batch::new(size));
    work(&mut batch);
    batch.wipe();
    let _ = memory.try_with(|memory| memory.set(Some(batch)));
}
