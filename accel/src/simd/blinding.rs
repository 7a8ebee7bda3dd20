//! Blinding pairs of one key, kept between batches.
//!
//! A pair serves one lane at a time and is squared by each use. After [`USES`] of them a fresh one is
//! written over it, so that no chain of related pairs grows long. Making pairs costs as much as a batch of
//! operations, and makes eight at a time: when one of a batch is worn, all of them are renewed. So the time
//! between two renewals is that of [`USES`] batches or more, about `1 / USES` of the time goes there, and pairs
//! that are used together wear together.
//!
//! A pair whose lane failed its check is dropped: if the fault is in the pair, it would fail again.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use accel_lanes::rsa::{self, Blinding, Renewal};
use accel_lanes::{LANES, Path, RsaKey};
use aws_lc_rs::rand;
use smallvec::SmallVec;
use zeroize::Zeroizing;

use crate::error::JobError;

/// How often a pair is used before a fresh one takes its place.
const USES: u32 = 128;
/// The most pairs a key has in store: what three threads use in full batches. More threads make more while they
/// work, and drop them.
const KEPT: usize = 3 * LANES;
/// Bytes of the longest modulus that runs in lanes.
const MAX_LEN: usize = 512;

/// A value for each row of a batch, on the stack.
pub(crate) type Rows<T> = SmallVec<[T; LANES]>;

/// A pair and what is left of its life. Lives in one place in memory, where it is wiped.
pub(crate) struct Pair {
    /// The pair itself.
    pub(crate) blinding: Blinding,
    /// 0: the pair is worn, or has never been made.
    uses_left: u32,
}

impl Pair {
    fn empty() -> Box<Self> {
        Box::new(Self {
            blinding: Blinding::empty(),
            uses_left: 0,
        })
    }

    const fn is_worn(&self) -> bool {
        self.uses_left == 0
    }
}

/// An RSA key as the lanes compute with it: constants made once, and pairs waiting for use.
pub(crate) struct RsaLanes {
    /// The constants.
    pub(crate) key: RsaKey,
    store: Mutex<Store>,
}

struct Store {
    #[expect(
        clippy::vec_box,
        reason = "a pair is wiped where it lies; one that moves leaves a copy behind"
    )]
    waiting: Vec<Box<Pair>>,
    /// Pairs that exist, waiting or in use.
    made: usize,
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
        let store = Store {
            waiting: Vec::new(),
            made: 0,
        };
        Self {
            key,
            store: Mutex::new(store),
        }
    }

    /// A pair that waits, or an empty one.
    fn take(&self) -> Box<Pair> {
        let mut store = self.store();
        store.waiting.pop().unwrap_or_else(|| {
            store.made += 1;
            Pair::empty()
        })
    }

    /// An empty pair, if there is room for one more than those that exist.
    fn spare(&self) -> Option<Box<Pair>> {
        let mut store = self.store();
        (store.made < KEPT).then(|| {
            store.made += 1;
            Pair::empty()
        })
    }

    /// Gives a pair back after a good use, or a fresh one for the first.
    pub(crate) fn keep(&self, pair: Box<Pair>) {
        let mut store = self.store();
        if store.waiting.len() < KEPT {
            store.waiting.push(pair);
        } else {
            store.made = store.made.saturating_sub(1);
        }
    }

    /// Wipes a pair that is no good.
    pub(crate) fn discard(&self, pair: Box<Pair>) {
        drop(pair);
        let mut store = self.store();
        store.made = store.made.saturating_sub(1);
    }

    /// The data is whole after every statement, so a panic elsewhere leaves nothing broken.
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pair for each of up to eight keys, and a use of it. [`JobError::Failed`] where there was no randomness for a
/// fresh one, [`JobError::CheckFailed`] where a fresh one did not pass its check.
///
/// Allocates only as long as a key has fewer than [`KEPT`] pairs.
pub(crate) fn pairs_for(path: Path, keys: &[&RsaLanes]) -> Rows<Result<Box<Pair>, JobError>> {
    let mut pairs: Rows<Box<Pair>> = keys.iter().map(|key| key.take()).collect();
    let refusal = if pairs.iter().any(|pair| pair.is_worn()) && !renew(path, keys, &mut pairs) {
        JobError::Failed
    } else {
        JobError::CheckFailed
    };
    let ready = |(mut pair, key): (Box<Pair>, &&RsaLanes)| {
        if pair.is_worn() {
            key.discard(pair);
            return Err(refusal);
        }
        pair.uses_left -= 1;
        Ok(pair)
    };
    pairs.into_iter().zip(keys).map(ready).collect()
}

/// Writes fresh pairs over all of a batch; where they do not pass their check, worn ones remain. `false` if the
/// random generator failed.
fn renew(path: Path, keys: &[&RsaLanes], pairs: &mut [Box<Pair>]) -> bool {
    let mut random = Zeroizing::new([0; LANES * MAX_LEN]);
    if rand::fill(random.as_mut_slice()).is_err() {
        return false;
    }
    // Eight cost as much as one, so lanes that are free make pairs for later.
    let mut spares: Rows<(&RsaLanes, Box<Pair>)> = (keys.iter().cycle().copied())
        .take(LANES - keys.len())
        .filter_map(|key| Some((key, key.spare()?)))
        .collect();
    let all = (keys.iter().copied())
        .zip(pairs.iter_mut().map(Box::as_mut))
        .chain(spares.iter_mut().map(|(key, pair)| (*key, pair.as_mut())));
    let len = keys.first().map_or(1, |key| key.key.size().bytes());
    let (mut rows, mut lives) = (Rows::new(), Rows::new());
    for ((key, pair), random) in all.zip(random.chunks_exact(len)) {
        rows.push(Renewal {
            key: &key.key,
            random,
            blinding: &mut pair.blinding,
            correct: false,
        });
        lives.push(&mut pair.uses_left);
    }
    rsa::renew(path, &mut rows);
    for (row, uses_left) in rows.iter().zip(lives) {
        *uses_left = if row.correct { USES } else { 0 };
    }
    drop(rows);
    for (key, pair) in spares {
        if pair.is_worn() {
            key.discard(pair);
        } else {
            key.keep(pair);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::simd::rsa::lanes_of;

    /// Pairs that are worn at different times would each cost a renewal, and those of eight lanes eight times as
    /// much as they should: after one renewal they wear together.
    #[test]
    fn one_worn_pair_renews_all_of_its_batch() {
        let key = Key::from_bytes(include_bytes!("../calibrate/rsa-2048.der")).unwrap();
        let key = lanes_of(&key).unwrap();
        let take = |lanes| -> Vec<Box<Pair>> {
            let pairs = pairs_for(Path::detect(), &vec![key; lanes]);
            pairs.into_iter().map(Result::unwrap).collect()
        };
        for mut pair in take(LANES) {
            // As if batches of other sizes had used them: 8 at most are left, and 0 once.
            pair.uses_left = u32::try_from(key.store().waiting.len()).unwrap();
            key.keep(pair);
        }
        for left in (0..USES).rev() {
            let pairs = take(LANES);
            assert!(pairs.iter().all(|pair| pair.uses_left == left), "{left}");
            pairs.into_iter().for_each(|pair| key.keep(pair));
        }
        // A smaller batch uses its free lanes for as many as a key keeps.
        let mut pairs = take(1);
        assert_eq!(key.store().made, 2 * LANES - 1);
        pairs.drain(..).for_each(|pair| key.keep(pair));
    }
}
