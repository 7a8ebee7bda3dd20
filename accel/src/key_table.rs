//! The keys of one configuration, looked up by what clients send.

use std::hint::black_box;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::error::{KeyFileError, KeyFileProblem};
use crate::key::Key;
use crate::keystore::LoadedKey;

/// The place of a key in its [`KeyTable`]; good for that table only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyIndex(pub u32);

/// Keys that [`KeyTable::warm`] reads at the same time: a core has some 20 reads under way at most.
pub const WARMED_AT_ONCE: usize = 16;

/// Keys by subject key identifier and by modulus digest. Never changes; a reload makes a new one.
///
/// The tables hold no identifiers: those are in the keys. So they take 5 bytes a key, and of a hundred thousand keys
/// they stay in the caches.
#[derive(Debug, Default)]
pub struct KeyTable {
    keys: Vec<LoadedKey>,
    by_ski: HashTable<KeyIndex>,
    by_digest: HashTable<KeyIndex>,
}

impl KeyTable {
    /// Makes a table of these keys, in this order.
    ///
    /// # Errors
    ///
    /// [`KeyFileProblem::Duplicate`] when two files hold the same key, or RSA keys of the same modulus:
    /// a grant to one would silently be a grant to the other. The error names both files.
    pub fn new(keys: Vec<LoadedKey>) -> Result<Self, KeyFileError> {
        let mut by_ski = HashTable::with_capacity(keys.len());
        let mut by_digest = HashTable::new();
        for (position, loaded) in keys.iter().enumerate() {
            let index = u32::try_from(position)
                .map(KeyIndex)
                .map_err(|_| KeyFileError {
                    path: loaded.path.clone(),
                    problem: KeyFileProblem::TooMany,
                })?;
            insert(&mut by_ski, index, loaded, &keys, |key| Some(key.ski()))?;
            insert(&mut by_digest, index, loaded, &keys, Key::modulus_digest)?;
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
        self.find(&self.by_ski, ski, |key| key.ski() == *ski)
    }

    /// The RSA key with this modulus digest, see [`Key::modulus_digest`].
    #[must_use]
    pub fn by_digest(&self, digest: &[u8; 32]) -> Option<(KeyIndex, &Arc<Key>)> {
        self.find(&self.by_digest, digest, |key| {
            key.modulus_digest().as_ref() == Some(digest)
        })
    }

    fn find(
        &self,
        table: &HashTable<KeyIndex>,
        id: &[u8],
        is_it: impl Fn(&Key) -> bool,
    ) -> Option<(KeyIndex, &Arc<Key>)> {
        let key = |index: KeyIndex| self.get(index).map(|loaded| &loaded.key);
        let is_it = |index: &KeyIndex| key(*index).is_some_and(|key| is_it(key));
        let index = *table.find(hash_of(id), is_it)?;
        key(index).map(|key| (index, key))
    }

    /// Reads what a lookup and a use of each of these keys will read, and gives their places; at most [`WARMED_AT_ONCE`]
    /// are looked at. For a key that does not exist another one is read, so that its refusal does not come sooner, and
    /// that happens to a few of the others.
    ///
    /// Of very many keys, one that is asked for is in no cache, and from its identifier to itself there are several
    /// places in memory, each of which is known by the one before. For one key these are as many waits. But a processor
    /// waits for reads that do not depend on each other at the same time, and these of different keys do not, as
    /// long as nothing is decided by what was read: so whether a key is the right one is not looked at here.
    pub fn warm(&self, skis: &[[u8; 20]]) -> impl Iterator<Item = KeyIndex> + use<> {
        let mut found = [None; WARMED_AT_ONCE];
        for (found, ski) in found.iter_mut().zip(skis) {
            let hash = hash_of(ski);
            let likely = self.by_ski.find(hash, |_| true).copied();
            *found = likely.or_else(|| self.any(hash));
        }
        let indices = found.into_iter().flatten();
        for loaded in indices.clone().filter_map(|index| self.get(index)) {
            black_box(Arc::strong_count(&loaded.key));
            loaded.key.touch();
        }
        indices
    }

    /// The place of some key, always the same one for a hash.
    fn any(&self, hash: u64) -> Option<KeyIndex> {
        let count = u64::try_from(self.keys.len()).ok()?;
        let place = u32::try_from(hash.checked_rem(count)?).ok()?;
        Some(KeyIndex(place))
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

/// Of an identifier that is a digest any part is a hash. That those who ask could find others with the same part helps
/// nobody: only the keys that are there make the table, and those their owner made.
fn hash_of(id: &[u8]) -> u64 {
    id.first_chunk().map_or(0, |part| u64::from_le_bytes(*part))
}

/// Notes the place of a key by its identifier, if it has such a one.
fn insert<const N: usize>(
    table: &mut HashTable<KeyIndex>,
    index: KeyIndex,
    loaded: &LoadedKey,
    keys: &[LoadedKey],
    id_of: impl Fn(&Key) -> Option<[u8; N]>,
) -> Result<(), KeyFileError> {
    let Some(id) = id_of(&loaded.key) else {
        return Ok(());
    };
    let at = |index: &KeyIndex| keys.get(usize::try_from(index.0).ok()?);
    let id_at = |index: &KeyIndex| id_of(&at(index)?.key);
    let rehash = |index: &KeyIndex| id_at(index).map_or(0, |id| hash_of(&id));
    match table.entry(hash_of(&id), |index| id_at(index) == Some(id), rehash) {
        Entry::Vacant(slot) => {
            slot.insert(index);
            Ok(())
        }
        Entry::Occupied(slot) => Err(KeyFileError {
            path: loaded.path.clone(),
            problem: KeyFileProblem::Duplicate {
                first: at(slot.get()).map_or_else(Default::default, |first| first.path.clone()),
            },
        }),
    }
}
