//! Nonces of ECDSA that a thread has worked on while it had nothing else to do.
//!
//! Of a signature only `s = (e + r d) / k` needs the key and the digest. The pair (1/k, r) depends on the nonce alone,
//! so it can wait here, and a signature then costs a tenth. Nothing is prepared unless
//! [`crate::Engine::precompute_ecdsa`] was called.
//!
//! **What is lost.** Elsewhere (`ecdsa.rs`) a nonce is a hash of the key and the digest too, and stays secret and
//! unrepeated if the random generator fails. A prepared one cannot be: there is no key and no digest yet. It is
//!
//! ```text
//! HMAC-SHA-512(fresh || secret, label || curve || row || number)
//! ```
//!
//! with 256 bits drawn for these eight alone, 256 bits drawn when the thread began, and the number of the batch.
//! It can be guessed if the generator was bad at both times, and it repeats only if both draws repeat. And secrets
//! lie in memory for as long as the thread is idle: a copy of the whole machine, such as two virtual machines
//! resumed from one snapshot, would sign with the same nonces twice and so give its keys away.
//!
//! **What is kept.** A pair belongs to one thread of one process. It is used where it lies, by one signature, and wiped
//! before that signature is handed out. In a process that was forked all pairs, and the secret, are wiped before
//! any is used. They are wiped when the thread ends.

use std::cell::RefCell;
use std::process;

use accel_lanes::curve::{NONCE_LEN, Prepared, hmac_sha512, prepare_p256, prepare_p384};
use accel_lanes::{LANES, Path};
use aws_lc_rs::rand;
use zeroize::{Zeroize, Zeroizing};

/// The most pairs of one curve that wait in one thread: 512 KiB, and 15 ms of full work.
pub(crate) const CAPACITY: usize = 4096;
const _: () = assert!(CAPACITY.is_multiple_of(LANES));

/// What sets these hashes apart from any other.
const LABEL: &[u8] = b"ecdsa prepared nonce 1";

/// A curve with prepared nonces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
}

/// The pairs of one curve: the first `len` places are filled.
struct Pool {
    places: Box<[Prepared]>,
    len: usize,
}

impl Pool {
    fn new() -> Self {
        Self {
            places: vec![Prepared::EMPTY; CAPACITY].into_boxed_slice(),
            len: 0,
        }
    }

    const fn is_full(&self) -> bool {
        self.len == CAPACITY
    }

    /// Adds those of eight that will do.
    fn fill(&mut self, pairs: &[Prepared; LANES]) {
        for pair in pairs.iter().filter(|pair| **pair != Prepared::EMPTY) {
            if let Some(place) = self.places.get_mut(self.len) {
                *place = *pair;
                self.len += 1;
            }
        }
    }

    /// Lends the last `count` pairs to `sign`, and wipes them whatever it does. `None` if there are not so many.
    fn spend<T>(&mut self, count: usize, sign: impl FnOnce(&[Prepared]) -> T) -> Option<T> {
        let rest = self.len.checked_sub(count)?;
        let pairs = self.places.get_mut(rest..self.len)?;
        // Gone before they are used: nothing that goes wrong meanwhile brings them back.
        self.len = rest;
        let result = sign(pairs);
        pairs.zeroize();
        Some(result)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.places.zeroize();
    }
}

/// Eight wide nonces.
type Nonces = [[u8; NONCE_LEN]; LANES];

/// What one thread has prepared.
struct Pools {
    /// The process in which it was prepared.
    process: u32,
    secret: Zeroizing<[u8; 32]>,
    /// Batches made so far.
    number: u64,
    p256: Pool,
    p384: Pool,
}

thread_local! {
    static POOLS: RefCell<Option<Pools>> = const { RefCell::new(None) };
}

impl Pools {
    fn new() -> Option<Self> {
        let mut secret = Zeroizing::new([0; 32]);
        rand::fill(secret.as_mut_slice()).ok()?;
        Some(Self {
            process: process::id(),
            secret,
            number: 0,
            p256: Pool::new(),
            p384: Pool::new(),
        })
    }

    const fn pool(&mut self, curve: Curve) -> &mut Pool {
        match curve {
            Curve::P256 => &mut self.p256,
            Curve::P384 => &mut self.p384,
        }
    }

    /// The curve that has fewer pairs, if there is room for eight.
    const fn wanting(&self) -> Option<Curve> {
        let curve = if self.p256.len <= self.p384.len {
            Curve::P256
        } else {
            Curve::P384
        };
        let full = match curve {
            Curve::P256 => self.p256.is_full(),
            Curve::P384 => self.p384.is_full(),
        };
        if full { None } else { Some(curve) }
    }

    /// Eight nonces, of which no two batches have the same; `None` if the random generator failed.
    fn nonces(&mut self, path: Path, curve: Curve) -> Option<Zeroizing<Nonces>> {
        let mut fresh = Zeroizing::new([0; 32]);
        rand::fill(fresh.as_mut_slice()).ok()?;
        self.number += 1;
        self.derive(path, curve, *fresh)
    }

    fn derive(&self, path: Path, curve: Curve, fresh: [u8; 32]) -> Option<Zeroizing<Nonces>> {
        let mut key = Zeroizing::new([0; 64]);
        let (first, second) = key.split_at_mut(32);
        first.copy_from_slice(&fresh);
        second.copy_from_slice(self.secret.as_slice());
        let number = self.number.to_be_bytes();
        let curve = [curve as u8];
        let rows: [[u8; 1]; LANES] = [[0], [1], [2], [3], [4], [5], [6], [7]];
        let messages = rows.each_ref().map(|row| [LABEL, &curve, row, &number]);
        let mut nonces = Zeroizing::new([[0; NONCE_LEN]; LANES]);
        hmac_sha512(path, key.as_slice(), &messages, &mut nonces).then_some(nonces)
    }
}

/// Runs `work` on this thread's pools. A process that was forked has none of its own yet: those it inherited are
/// wiped. `None` while the thread ends.
fn with_pools<T>(work: impl FnOnce(&mut Option<Pools>) -> T) -> Option<T> {
    POOLS
        .try_with(|pools| {
            let mut pools = pools.try_borrow_mut().ok()?;
            if (pools.as_ref()).is_some_and(|pools| pools.process != process::id()) {
                *pools = None;
            }
            Some(work(&mut pools))
        })
        .ok()
        .flatten()
}

/// Prepares eight pairs more in this thread. `false`: there is no room, or no randomness.
pub(crate) fn prepare(path: Path) -> bool {
    let prepare = |pools: &mut Option<Pools>| {
        if pools.is_none() {
            *pools = Pools::new();
        }
        let pools = pools.as_mut()?;
        let curve = pools.wanting()?;
        let nonces = pools.nonces(path, curve)?;
        let mut pairs = Zeroizing::new([Prepared::EMPTY; LANES]);
        match curve {
            Curve::P256 => prepare_p256(path, &nonces, &mut pairs),
            Curve::P384 => prepare_p384(path, &nonces, &mut pairs),
        }
        pools.pool(curve).fill(&pairs);
        Some(())
    };
    with_pools(prepare).flatten().is_some()
}

/// How many pairs wait in this thread.
pub(crate) fn waiting(curve: Curve) -> usize {
    let count = |pools: &mut Option<Pools>| pools.as_mut().map_or(0, |p| p.pool(curve).len);
    with_pools(count).unwrap_or(0)
}

/// Lends `count` pairs of this thread to `sign`, for one signature each, and wipes them. `None` if there are fewer.
pub(crate) fn spend<T>(
    curve: Curve,
    count: usize,
    sign: impl FnOnce(&[Prepared]) -> T,
) -> Option<T> {
    with_pools(|pools| pools.as_mut()?.pool(curve).spend(count, sign)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> Vec<Path> {
        let paths = Path::all();
        eprintln!("nonces are prepared here on: {paths:?}");
        paths
    }

    #[test]
    fn pairs_are_all_different_and_wiped_when_spent() {
        for path in paths() {
            let mut seen = Vec::new();
            for round in 0..60 {
                assert!(prepare(path));
                // The curves take turns.
                let curve = [Curve::P256, Curve::P384][round % 2];
                let other = [Curve::P384, Curve::P256][round % 2];
                assert_eq!(waiting(curve), LANES, "round {round}");
                assert_eq!(waiting(other), LANES * usize::from(round > 0));
                if round == 0 {
                    continue;
                }
                let pairs = spend(other, LANES, <[_]>::to_vec).unwrap();
                assert_eq!(pairs.len(), LANES);
                for pair in pairs {
                    assert!(pair != Prepared::EMPTY && !seen.contains(&pair));
                    seen.push(pair);
                }
                assert_eq!((waiting(other), spend(other, 1, |_| ())), (0, None));
                with_pools(|pools| {
                    let pool = pools.as_mut().unwrap().pool(other);
                    assert!(pool.places.iter().all(|place| *place == Prepared::EMPTY));
                });
            }
            with_pools(|pools| *pools = None);
        }
    }

    #[test]
    fn a_pool_ends_at_its_capacity_and_belongs_to_its_thread() {
        let path = Path::detect();
        let rounds = if path == Path::portable() {
            40
        } else {
            2 * CAPACITY / LANES
        };
        for _ in 0..rounds {
            assert!(prepare(path));
        }
        if rounds > 40 {
            assert!(!prepare(path));
            assert_eq!(
                (waiting(Curve::P256), waiting(Curve::P384)),
                (CAPACITY, CAPACITY)
            );
            assert_eq!(spend(Curve::P256, 3, <[_]>::len), Some(3));
            assert!(prepare(path));
        }
        std::thread::spawn(|| {
            assert_eq!((waiting(Curve::P256), waiting(Curve::P384)), (0, 0));
        })
        .join()
        .unwrap();
    }

    /// With a stuck generator and another secret, or a stuck secret and another draw, or the next batch alone, the nonces
    /// are others.
    #[test]
    fn nonces_depend_on_each_of_their_sources() {
        let path = Path::detect();
        let mut pools = Pools::new().unwrap();
        let mut seen = Vec::new();
        for curve in [Curve::P256, Curve::P384, Curve::P256] {
            let nonces = pools.nonces(path, curve).unwrap();
            for nonce in nonces.iter() {
                assert!(!seen.contains(nonce));
                seen.push(*nonce);
            }
        }
        let derive = |fresh: u8, secret: u8, curve, number| {
            let mut pools = Pools::new().unwrap();
            pools.secret.fill(secret);
            pools.number = number;
            *pools.derive(path, curve, [fresh; 32]).unwrap()
        };
        let base = derive(1, 2, Curve::P256, 3);
        assert_eq!(base, derive(1, 2, Curve::P256, 3));
        for other in [
            derive(9, 2, Curve::P256, 3),
            derive(1, 9, Curve::P256, 3),
            derive(1, 2, Curve::P384, 3),
            derive(1, 2, Curve::P256, 9),
        ] {
            assert!(base.iter().all(|nonce| !other.contains(nonce)));
        }
    }

    /// What a child of a fork sees: pairs of another process.
    #[test]
    fn pairs_of_another_process_are_gone() {
        let path = Path::detect();
        assert!(prepare(path));
        with_pools(|pools| pools.as_mut().unwrap().process ^= 1);
        assert_eq!(
            (waiting(Curve::P256), spend(Curve::P256, 1, |_| ())),
            (0, None)
        );
    }
}
