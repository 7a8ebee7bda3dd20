//! The ledger on disk: a log-structured store of tags, durable before anything is answered.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::rule::{Binding, Entry, Verdict, decide};
use super::tag::{Tag, Tagger};

/// Memory for blocks of the store that are read again.
const CACHE_BYTES: u64 = 32 << 20;
/// Memory for entries that are not in a sorted file yet. They are in the journal, so a crash loses none.
const WRITE_BUFFER_BYTES: u64 = 16 << 20;
/// Name of the keyspace with the tags.
const TAGS: &str = "tags";

/// Why there is no ledger, or no answer from it.
#[derive(Debug)]
pub struct LedgerError {
    what: String,
    path: PathBuf,
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ledger {}: {}", self.path.display(), self.what)
    }
}

impl std::error::Error for LedgerError {}

/// A request to open a ciphertext, as the ledger sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    /// Which ciphertext.
    pub(crate) tag: Tag,
    /// Who asks, for which handshake.
    pub(crate) binding: Binding,
}

/// What the ledger knows about a ciphertext.
enum Memory {
    New,
    Seen(Entry),
    /// It was there once; what was noted about it is damaged.
    Unreadable,
}

/// An open ledger.
pub(crate) struct Store {
    database: Database,
    tags: Keyspace,
    path: PathBuf,
    /// Entries of the batch under way, which two questions may share.
    pending: HashMap<Tag, Entry>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the ledger in `directory`, or begins one there if the directory is empty or missing.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]: another process has it open, its files are damaged, or its key is gone. It is never
    /// begun anew over old files: that would forget what was answered.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Tagger), LedgerError> {
        let failed = |what: String| LedgerError {
            what,
            path: directory.to_owned(),
        };
        fs::create_dir_all(directory)
            .map_err(|error| failed(format!("cannot make the directory ({error})")))?;
        let files = directory.join("store");
        let key = directory.join("key");
        let tagger = Tagger::open(&key, !files.exists()).map_err(|error| {
            failed(format!(
                "cannot use its key, {} ({error}); restore it from a backup. Without it every recorded \
                 handshake could be replayed once, so it is not made anew",
                key.display()
            ))
        })?;
        let database = Database::builder(&files)
            .cache_size(CACHE_BYTES)
            .worker_threads(1)
            .open()
            .map_err(|error| {
                failed(format!(
                    "cannot be opened ({error}); one process only may use it, see `fuser {}`",
                    files.display()
                ))
            })?;
        let tags = database
            .keyspace(TAGS, || {
                KeyspaceCreateOptions::default().max_memtable_size(WRITE_BUFFER_BYTES)
            })
            .map_err(|error| failed(format!("cannot be opened ({error})")))?;
        let store = Self {
            database,
            tags,
            path: directory.to_owned(),
            pending: HashMap::new(),
        };
        Ok((store, tagger))
    }

    /// Decides about all `questions`, makes what is to be answered durable, and only then puts the
    /// verdicts, in order, to the end of `verdicts`.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when the disk does not take the entries: then nothing may be answered.
    pub(crate) fn settle(
        &mut self,
        questions: &[Question],
        now_ms: u64,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), LedgerError> {
        let from = verdicts.len();
        let result = self.try_settle(questions, now_ms, verdicts);
        self.pending.clear();
        result.map_err(|error| {
            verdicts.truncate(from);
            LedgerError {
                what: format!("cannot be read or written ({error})"),
                path: self.path.clone(),
            }
        })
    }

    fn try_settle(
        &mut self,
        questions: &[Question],
        now_ms: u64,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), fjall::Error> {
        for question in questions {
            let verdict = match self.recall(question.tag)? {
                Memory::New => decide(None, question.binding, now_ms),
                Memory::Seen(entry) => decide(Some(entry), question.binding, now_ms),
                Memory::Unreadable => Verdict::Replay,
            };
            if let Verdict::Answer(entry) = verdict {
                self.pending.insert(question.tag, entry);
            }
            verdicts.push(verdict);
        }
        // Each tag once, with what the last of its questions left: within a batch there is no order.
        let mut batch = self.database.batch();
        for (tag, entry) in &self.pending {
            batch.insert(&self.tags, *tag, entry.encode());
        }
        batch.durability(Some(PersistMode::SyncData)).commit()
    }

    fn recall(&self, tag: Tag) -> Result<Memory, fjall::Error> {
        if let Some(entry) = self.pending.get(&tag) {
            return Ok(Memory::Seen(*entry));
        }
        Ok(self.tags.get(tag)?.map_or(Memory::New, |bytes| {
            Entry::decode(&bytes).map_or(Memory::Unreadable, Memory::Seen)
        }))
    }
}

#[cfg(test)]
mod tests;
