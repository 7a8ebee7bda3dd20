//! The keys of one configuration, looked up by what clients send.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::hint::black_box;
use std::sync::Arc;

use crate::error::{KeyFileError, KeyFileProblem};
use crate::key::Key;
use crate::keystore::LoadedKey;

/// The place of a key in its [`KeyTable`]; good for that table only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyIndex(pub u32);

/// Keys that [`KeyTable::warm`] reads at the same time: a core has some 20 reads under way at most.
pub const WARMED_AT_ONCE: usize = 16;

/// Keys by subject key identifier and by modulus digest. Never changes; a reload makes a new one.
#[derive(Debug, Default)]
pub struct KeyTable {
    keys: Vec<LoadedKey>,
    by_ski: HashMap<[u8; 20], KeyIndex>,
    by_digest: HashMap<[u8; 32], KeyIndex>,
}

impl KeyTable {
    /// Makes a table of these keys, in this order.
    ///
    /// # Errors
    ///
    /// [`KeyFileProblem::Duplicate`] when two files hold the same key, or RSA keys of the same modulus:
    /// a grant to one would silently be a grant to the other. The error names both files.
    pub fn new(keys: Vec<LoadedKey>) -> Result<Self, KeyFileError> {
        let mut by_ski = HashMap::with_capacity(keys.len());
        let mut by_digest = HashMap::new();
        for (position, loaded) in keys.iter().enumerate() {
            let index = u32::try_from(position)
                .map(KeyIndex)
                .map_err(|_| KeyFileError {
                    path: loaded.path.clone(),
                    problem: KeyFileProblem::TooMany,
                })?;
            insert(&mut by_ski, loaded.key.ski(), index, loaded, &keys)?;
            if let Some(digest) = loaded.key.modulus_digest() {
                insert(&mut by_digest, digest, index, loaded, &keys)?;
            }
        }
        Ok(Self {
            keys,
            by_ski,
            by_digest,
        })
    }

    /// Puts the objects of `old` in the place of those of this table that are the same key, for those that it
    /// `may` keep: what was prepared for them stays, and no second copy. A key in a token has a way to it that may
    /// have changed, so it is left.
    pub fn adopt(&mut self, old: &Self, may: impl Fn(&Key) -> bool) {
        for loaded in &mut self.keys {
            let same = |key: &Key| {
                key.spki_der() == loaded.key.spki_der()
                    && !(key.is_in_token() || loaded.key.is_in_token())
                    && may(key)
            };
            if let Some((_, key)) = old.by_ski(&loaded.key.ski())
                && same(key)
            {
                loaded.key = Arc::clone(key);
            }
        }
    }

    /// The key with this subject key identifier.
    #[must_use]
    pub fn by_ski(&self, ski: &[u8; 20]) -> Option<(KeyIndex, &Arc<Key>)> {
        self.entry(*self.by_ski.get(ski)?)
    }

    /// The RSA key with this modulus digest, see [`Key::modulus_digest`].
    #[must_use]
    pub fn by_digest(&self, digest: &[u8; 32]) -> Option<(KeyIndex, &Arc<Key>)> {
        self.entry(*self.by_digest.get(digest)?)
    }

    /// Looks up many keys at once, and reads what a lookup and a use of each will read; gives the places of those that
    /// exist. At most [`WARMED_AT_ONCE`] are looked at.
    ///
    /// Of very many keys, one that is asked for is in no cache, and from its identifier to itself there are five
    /// places in memory, each of which is known by the one before. For one key these are five waits. Here each place
    /// of all the keys is read before the next, and a processor waits for reads that do not depend on each
    /// other at the same time.
    pub fn warm(&self, skis: &[[u8; 20]]) -> impl Iterator<Item = KeyIndex> + use<> {
        let mut found = [None; WARMED_AT_ONCE];
        for (found, ski) in found.iter_mut().zip(skis) {
            *found = self.by_ski.get(ski).copied();
        }
        let indices = found.into_iter().flatten();
        for loaded in indices.clone().filter_map(|index| self.get(index)) {
            black_box(Arc::strong_count(&loaded.key));
            loaded.key.touch();
        }
        indices
    }

    fn entry(&self, index: KeyIndex) -> Option<(KeyIndex, &Arc<Key>)> {
        self.get(index).map(|loaded| (index, &loaded.key))
    }

    /// The key at an index of this table.
    #[must_use]
    pub fn get(&self, index: KeyIndex) -> Option<&LoadedKey> {
        self.keys.get(usize::try_from(index.0).ok()?)
    }

    /// Every key with its index, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (KeyIndex, &LoadedKey)> {
        // `new` made sure that every position fits.
        self.keys.iter().enumerate().map(|(position, loaded)| {
            (
                KeyIndex(u32::try_from(position).unwrap_or(u32::MAX)),
                loaded,
            )
        })
    }

    /// Number of keys.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

fn insert<I: Eq + Hash>(
    map: &mut HashMap<I, KeyIndex>,
    id: I,
    index: KeyIndex,
    loaded: &LoadedKey,
    keys: &[LoadedKey],
) -> Result<(), KeyFileError> {
    match map.entry(id) {
        Entry::Vacant(slot) => {
            slot.insert(index);
            Ok(())
        }
        Entry::Occupied(slot) => {
            let first = usize::try_from(slot.get().0)
                .ok()
                .and_then(|at| keys.get(at));
            Err(KeyFileError {
                path: loaded.path.clone(),
                problem: KeyFileProblem::Duplicate {
                    first: first.map_or_else(Default::default, |first| first.path.clone()),
                },
            })
        }
    }
}
