//! The files of the ledger, through the embedded store that keeps them.

use std::collections::HashMap;
use std::path::Path;

use fjall::config::{
    BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy, PinningPolicy,
};
use fjall::{
    AbstractTree, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode,
};
use keyless_protocol::Ski;

use super::identity::LedgerId;
use super::store::Size;

/// Memory for blocks of the files that are read again.
const CACHE_BYTES: u64 = 32 << 20;
/// Memory for entries that are not in a sorted file yet. They are in the journal, so a crash loses none.
const WRITE_BUFFER_BYTES: u64 = 16 << 20;
/// One new ciphertext in a hundred costs a read of a block; the others are known to be new by the filter alone.
const FILTER_BITS_PER_ENTRY: f32 = 10.0;
/// Sorted files that wait to be merged. The store halts its writer at 30 and, with its own worker gone, for ever.
const UNMERGED_MAX: usize = 24;
/// Full write buffers that wait to be written. The store halts its writer at 4.
const UNWRITTEN_MAX: usize = 3;

const ENTRIES: &str = "entries";
/// SKI of a TLS key to its number u32 and state u8, one of the two below.
const KEYS: &str = "keys";
const STATE_KEPT: u8 = 0;
const STATE_DROPPED: u8 = 1;
/// A key of another length than an SKI, which [`Files::probe`] writes.
const PROBE: [u8; 1] = [0];
/// Another one, of the ledger's id.
const ID: [u8; 1] = [1];

/// What is known of a TLS key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Its entries begin with this.
    Number(u32),
    /// Its entries were dropped; it opens nothing any more.
    Dropped,
}

/// The open files.
pub(super) struct Files {
    database: Database,
    entries: Keyspace,
    keys: Keyspace,
    known: HashMap<Ski, Known>,
    next_number: u32,
}

impl Files {
    /// Opens them, or makes them where there are none.
    pub(super) fn open(path: &Path) -> Result<Self, fjall::Error> {
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .worker_threads(1)
            .open()?;
        let entries = database.keyspace(ENTRIES, options)?;
        let keys = database.keyspace(KEYS, KeyspaceCreateOptions::default)?;
        let mut known = HashMap::new();
        let mut next_number = 0;
        for pair in keys.iter() {
            let (ski, value) = pair.into_inner()?;
            if *ski == PROBE || *ski == ID {
                continue;
            }
            let (ski, number, state) = decode(&ski, &value).ok_or(fjall::Error::Unrecoverable)?;
            next_number = next_number.max(number.saturating_add(1));
            let what = if state == STATE_KEPT {
                Known::Number(number)
            } else {
                Known::Dropped
            };
            known.insert(ski, what);
        }
        Ok(Self {
            database,
            entries,
            keys,
            known,
            next_number,
        })
    }

    /// The id of the ledger, if it has been given one.
    pub(super) fn id(&self) -> Result<Option<LedgerId>, fjall::Error> {
        let id = self.keys.get(ID)?;
        id.map(|id| LedgerId::try_from(&*id).map_err(|_| fjall::Error::Unrecoverable))
            .transpose()
    }

    /// Gives the ledger its id, durably.
    pub(super) fn set_id(&self, id: &LedgerId) -> Result<(), fjall::Error> {
        let mut batch = self.batch();
        batch.insert(&self.keys, ID, id);
        batch.durability(Some(PersistMode::SyncData)).commit()
    }

    /// The entries.
    pub(super) const fn entries(&self) -> &Keyspace {
        &self.entries
    }

    /// Writes that become durable together.
    pub(super) fn batch(&self) -> OwnedWriteBatch {
        self.database.batch()
    }

    /// Whether a write would be taken at once. If not, the store is behind with its own work, and a write would wait
    /// for it; for ever, if the store's own thread has ended.
    pub(super) fn has_room(&self) -> bool {
        self.entries.sealed_memtable_count() < UNWRITTEN_MAX
            && self.entries.tree.l0_run_count() < UNMERGED_MAX
    }

    /// The number of a TLS key; that of a new one is written with `batch`.
    pub(super) fn number(&mut self, key: Ski, batch: &mut OwnedWriteBatch) -> Known {
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let number = self.next_number;
        // Four thousand million keys do not come together; a number that came twice would forget nothing.
        self.next_number = number.saturating_add(1);
        self.known.insert(key, Known::Number(number));
        batch.insert(&self.keys, key, encode(number, STATE_KEPT));
        Known::Number(number)
    }

    /// Marks a key as dropped, durably, and then drops its entries: whole files at once. What is in no file yet, or
    /// shares one with the entries of other keys, stays and is not asked for any more.
    /// `false`: the key is not known.
    pub(super) fn drop_key(&mut self, key: Ski) -> Result<bool, fjall::Error> {
        let number = match self.known.get(&key) {
            Some(Known::Dropped) => return Ok(true),
            Some(Known::Number(number)) => *number,
            None => return Ok(false),
        };
        let mut batch = self.batch();
        batch.insert(&self.keys, key, encode(number, STATE_DROPPED));
        batch.durability(Some(PersistMode::SyncData)).commit()?;
        self.known.insert(key, Known::Dropped);
        let (first, last) = (number.to_be_bytes(), [0xff; 16]);
        let last: Vec<u8> = first.into_iter().chain(last).collect();
        self.entries.tree.drop_range(first.to_vec()..=last)?;
        Ok(true)
    }

    /// Writes something and has it made durable.
    pub(super) fn probe(&self) -> Result<(), fjall::Error> {
        let mut batch = self.batch();
        batch.insert(&self.keys, PROBE, PROBE);
        batch.durability(Some(PersistMode::SyncData)).commit()
    }

    /// How large they are.
    pub(super) fn size(&self) -> Size {
        Size {
            entries: u64::try_from(self.entries.approximate_len()).unwrap_or(u64::MAX),
            bytes: self.database.disk_space().unwrap_or(0),
        }
    }
}

/// Filters and indexes of the large files lie on disk in parts, and what is used of them in the cache: the memory
/// that the ledger takes does not grow with it.
fn options() -> KeyspaceCreateOptions {
    let filter =
        FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(FILTER_BITS_PER_ENTRY));
    KeyspaceCreateOptions::default()
        .max_memtable_size(WRITE_BUFFER_BYTES)
        .filter_policy(FilterPolicy::all(filter))
        .filter_block_partitioning_policy(PartitioningPolicy::new([false, true]))
        .index_block_partitioning_policy(PartitioningPolicy::new([false, true]))
        .index_block_pinning_policy(PinningPolicy::new([true, false]))
}

fn encode(number: u32, state: u8) -> [u8; 5] {
    let [a, b, c, d] = number.to_be_bytes();
    [a, b, c, d, state]
}

fn decode(ski: &[u8], value: &[u8]) -> Option<(Ski, u32, u8)> {
    let ski = ski.try_into().ok()?;
    let [a, b, c, d, state @ (STATE_KEPT | STATE_DROPPED)] = *value else {
        return None;
    };
    Some((ski, u32::from_be_bytes([a, b, c, d]), state))
}
