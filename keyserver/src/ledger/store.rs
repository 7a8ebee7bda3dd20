//! The ledger on disk: a log-structured store of tags, durable before anything is answered.
//!
//! ```text
//!  key     number of the TLS key u32 || tag[16]        value   who, when, how often: see `Entry`
//! ```
//!
//! Keys are numbered in the order in which they first opened something, so that the entries of one lie together
//! and can be dropped together.
//!
//! **What fails is closed.** After a write or a sync that failed nobody knows what is on disk: pages may be marked
//! clean that never got there, and the next sync would succeed. So the store is closed at once, and
//! [`Store::reopen`] has its files read from the disk, not from memory, before it believes them again.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::PersistMode;
use keyless_protocol::Ski;
use keyless_protocol::info::ski_to_hex;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::files::{Files, Known};
use super::identity::{LedgerId, Places};
use super::rule::{Binding, Entry, Verdict, decide};
use super::tag::{Tag, Tagger};
use crate::clock;

/// Files that are behind for longer are taken for broken, and opened again.
const BEHIND_MAX: Duration = Duration::from_secs(10);

/// Why there is no ledger, or no answer from it.
#[derive(Debug, Clone)]
pub struct LedgerError {
    what: Arc<str>,
    path: PathBuf,
}

impl LedgerError {
    fn new(path: &Path, what: impl Into<Arc<str>>) -> Self {
        Self {
            what: what.into(),
            path: path.to_owned(),
        }
    }
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ledger {}: {}", self.path.display(), self.what)
    }
}

impl std::error::Error for LedgerError {}

/// A request to open a ciphertext, as the ledger sees it.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// With which key.
    pub key: Ski,
    /// Which ciphertext.
    pub tag: Tag,
    /// Who asks, for which handshake.
    pub binding: Binding,
}

/// How large a ledger is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Ciphertexts, about: one that was asked for again may be counted twice until files are merged.
    pub entries: u64,
    /// Bytes of files, the journal included.
    pub bytes: u64,
}

/// What the ledger knows about a ciphertext.
enum Memory {
    New,
    Seen(Entry),
    /// It was there once; what was noted about it is damaged.
    Unreadable,
}

/// A ledger.
pub struct Store {
    /// Nothing after a failure, until they have been opened again.
    files: Option<Files>,
    path: PathBuf,
    id: LedgerId,
    /// Entries of the batch under way, which two questions may share.
    pending: HashMap<[u8; 20], Entry>,
    /// Since when the files have been too far behind to be written to.
    behind_since: Option<Instant>,
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
    /// As [`Self::open_known`].
    pub fn open(directory: &Path) -> Result<(Self, Tagger), LedgerError> {
        Self::open_known(directory, None)
    }

    /// The same, for a server whose state directory may know a ledger.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]: another process has it open, its files are damaged, its key is gone, or it is not the one that is
    /// known. It is never begun anew in the place of another: that would forget what was answered.
    pub fn open_known(
        directory: &Path,
        state: Option<&Path>,
    ) -> Result<(Self, Tagger), LedgerError> {
        let failed = |what: String| LedgerError::new(directory, what);
        let places = Places::new(directory, state);
        let known = places.known().map_err(failed)?;
        let is_new = !files_of(directory).exists();
        if let (true, Some((file, _))) = (is_new, known.first()) {
            return Err(lost(directory, file));
        }
        fs::create_dir_all(directory)
            .map_err(|error| failed(format!("cannot make the directory ({error})")))?;
        let key = directory.join("key");
        let tagger = Tagger::open(&key, is_new).map_err(|error| {
            failed(format!(
                "cannot use its key, {} ({error}); restore it from a backup. Without it every recorded \
                 handshake could be replayed once, so it is not made anew",
                key.display()
            ))
        })?;
        let id = tagger.ledger_id();
        if let Some((file, _)) = known.iter().find(|(_, other)| *other != id) {
            return Err(lost(directory, file));
        }
        let mut store = Self {
            files: None,
            path: directory.to_owned(),
            id,
            pending: HashMap::new(),
            behind_since: None,
        };
        let files = store.open_files()?;
        match files.id().map_err(|error| store.unwritable(&error))? {
            Some(found) if found == id => {}
            None if known.is_empty() => {
                // Not one of before that has lost its files: somebody would know it.
                if is_new {
                    tracing::warn!(
                        directory = %directory.display(),
                        id = ski_to_hex(&id),
                        "a new ledger begins: it knows of nothing that was answered before"
                    );
                }
                files
                    .set_id(&id)
                    .map_err(|error| store.unwritable(&error))?;
            }
            None => {
                return Err(lost(
                    directory,
                    known.first().map_or(key.as_path(), |(file, _)| *file),
                ));
            }
            Some(_) => return Err(lost(directory, &key)),
        }
        (places.note(&id)).map_err(|error| failed(format!("cannot be noted ({error})")))?;
        store.files = Some(files);
        Ok((store, tagger))
    }

    fn open_files(&self) -> Result<Files, LedgerError> {
        let path = files_of(&self.path);
        Files::open(&path).map_err(|error| {
            let what = format!(
                "cannot be opened ({error}); one process only may use it, see `fuser {}`",
                path.display()
            );
            LedgerError::new(&self.path, what)
        })
    }

    /// Whether it can be asked: it is closed from a failure until [`Self::reopen`] succeeds.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.files.is_some()
    }

    /// Opens a closed ledger again: as it is on the disk, and only if the disk takes a write.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; it stays closed.
    pub fn reopen(&mut self) -> Result<(), LedgerError> {
        self.files = None;
        self.behind_since = None;
        forget_pages(&files_of(&self.path))
            .map_err(|error| LedgerError::new(&self.path, format!("cannot be read ({error})")))?;
        let files = self.open_files()?;
        if files.id().map_err(|error| self.unwritable(&error))? != Some(self.id) {
            return Err(lost(&self.path, &self.path.join("key")));
        }
        files.probe().map_err(|error| self.unwritable(&error))?;
        self.files = Some(files);
        Ok(())
    }

    /// Decides about all `questions`, makes what is to be answered durable, and only then puts the
    /// verdicts, in order, to the end of `verdicts`.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when the disk does not take the entries: then nothing may be answered, and the ledger
    /// is closed; or when it is too slow to take them now, then [`Self::is_open`] still.
    pub fn settle(
        &mut self,
        questions: &[Question],
        now_ms: u64,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), LedgerError> {
        let from = verdicts.len();
        let Some(mut files) = self.files.take() else {
            return Err(LedgerError::new(&self.path, "is closed after a failure"));
        };
        if !files.has_room() {
            let since = *self.behind_since.get_or_insert_with(clock::now);
            if clock::now().saturating_duration_since(since) < BEHIND_MAX {
                self.files = Some(files);
            }
            let what = "the disk is too slow for what is to be remembered";
            return Err(LedgerError::new(&self.path, what));
        }
        self.behind_since = None;
        let result = self.try_settle(&mut files, questions, now_ms, verdicts);
        self.pending.clear();
        match result {
            Ok(()) => {
                self.files = Some(files);
                Ok(())
            }
            Err(error) => {
                verdicts.truncate(from);
                Err(self.unwritable(&error))
            }
        }
    }

    fn try_settle(
        &mut self,
        files: &mut Files,
        questions: &[Question],
        now_ms: u64,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), fjall::Error> {
        let mut batch = files.batch();
        for question in questions {
            let Known::Number(number) = files.number(question.key, &mut batch) else {
                verdicts.push(Verdict::Dropped);
                continue;
            };
            let name = name(number, question.tag);
            let verdict = match self.recall(files, name)? {
                Memory::New => decide(None, question.binding, now_ms),
                Memory::Seen(entry) => decide(Some(entry), question.binding, now_ms),
                Memory::Unreadable => Verdict::Replay,
            };
            if let Verdict::Answer(entry) = verdict {
                self.pending.insert(name, entry);
            }
            verdicts.push(verdict);
        }
        // Each tag once, with what the last of its questions left: within a batch there is no order.
        for (name, entry) in &self.pending {
            batch.insert(files.entries(), *name, entry.encode());
        }
        batch.durability(Some(PersistMode::SyncData)).commit()
    }

    fn recall(&self, files: &Files, name: [u8; 20]) -> Result<Memory, fjall::Error> {
        if let Some(entry) = self.pending.get(&name) {
            return Ok(Memory::Seen(*entry));
        }
        Ok(files.entries().get(name)?.map_or(Memory::New, |bytes| {
            Entry::decode(&bytes).map_or(Memory::Unreadable, Memory::Seen)
        }))
    }

    /// Drops all entries of a key that will never be used again. The key itself is remembered: should it come
    /// back, nothing is opened with it. `false`: it has opened nothing.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when the disk does not take it: then the ledger is closed, and the entries may still be
    /// there.
    pub fn drop_key(&mut self, key: Ski) -> Result<bool, LedgerError> {
        let Some(mut files) = self.files.take() else {
            return Err(LedgerError::new(&self.path, "is closed after a failure"));
        };
        let known = files
            .drop_key(key)
            .map_err(|error| self.unwritable(&error))?;
        self.files = Some(files);
        Ok(known)
    }

    /// How large it is; zero while it is closed.
    #[must_use]
    pub fn size(&self) -> Size {
        self.files.as_ref().map_or_else(Size::default, Files::size)
    }

    fn unwritable(&self, error: &fjall::Error) -> LedgerError {
        let what = format!("cannot be read or written ({error})");
        LedgerError::new(&self.path, what)
    }
}

/// `file` tells of a ledger that is not there.
fn lost(directory: &Path, file: &Path) -> LedgerError {
    let what = format!(
        "is not the one that {} tells of: it was lost, emptied or exchanged. Whatever it had answered could be opened once \
         more by whoever recorded it, so it is not begun anew unasked: restore it, or, to begin anew on purpose, remove \
         that file as well (docs/deployment.md)",
        file.display()
    );
    LedgerError::new(directory, what)
}

fn files_of(directory: &Path) -> PathBuf {
    directory.join("store")
}

fn name(number: u32, tag: Tag) -> [u8; 20] {
    let mut name = [0; 20];
    let bytes = number.to_be_bytes().into_iter().chain(tag);
    for (out, byte) in name.iter_mut().zip(bytes) {
        *out = byte;
    }
    name
}

/// Has the kernel forget what it holds of the files below `directory`, so that the next read is from the disk.
/// Pages that still wait to be written stay; those that failed to be written are taken for clean by then, and go.
fn forget_pages(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget_pages(&entry.path())?;
        } else {
            let file = File::open(entry.path())?;
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
