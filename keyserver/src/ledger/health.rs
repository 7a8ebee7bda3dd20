//! How the ledger is, for everybody who is not its thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyless_protocol::Ski;
use serde::{Deserialize, Serialize};

use super::store::{LedgerError, Size};
use crate::disk::WriteWatch;

/// The longest that a command waits for the ledger's thread.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

/// What the thread of the ledger tells, and what it is told.
#[derive(Debug, Default)]
pub struct LedgerHealth {
    is_configured: AtomicBool,
    is_open: AtomicBool,
    /// Nothing more is sent to a disk that does not answer.
    write: WriteWatch,
    /// Passed by each write; see [`Self::hold_writes`].
    gate: Mutex<()>,
    figures: Figures,
    failure: Mutex<Option<LedgerError>>,
    commands: Mutex<Vec<DropCommand>>,
}

#[derive(Debug, Default)]
struct Figures {
    decided: AtomicU64,
    writes: AtomicU64,
    write_us: AtomicU64,
    last_write_us: AtomicU64,
    failures: AtomicU64,
    replays: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
}

/// A command to drop the entries of a key, and where its outcome goes.
#[derive(Debug)]
pub(super) struct DropCommand {
    pub(super) key: Ski,
    pub(super) done: Sender<Result<bool, LedgerError>>,
}

/// How the ledger is. Fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LedgerReport {
    /// Whether ciphertexts can be recorded, and so be answered.
    pub writable: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Ciphertexts it remembers, about.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Requests it decided about since the start.
    pub decisions: u64,
    /// Writes that made the decisions durable.
    pub writes: u64,
    /// Microseconds that they took in all.
    pub write_us: u64,
    /// Microseconds of the last one.
    pub last_write_us: u64,
    /// Writes that failed.
    pub failures: u64,
    /// Ciphertexts that were sent again and refused.
    pub replays: u64,
}

impl LedgerHealth {
    /// How it is; nothing where there is none.
    #[must_use]
    pub fn report(&self) -> Option<LedgerReport> {
        if !self.is_configured.load(Ordering::Relaxed) {
            return None;
        }
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let failure = lock(&self.failure).as_ref().map(ToString::to_string);
        let hung = || {
            self.write
                .is_hung()
                .then(|| "the disk does not answer".to_owned())
        };
        Some(LedgerReport {
            writable: self.is_writable(),
            failure: failure.or_else(hung),
            entries: read(&self.figures.entries),
            bytes: read(&self.figures.bytes),
            decisions: read(&self.figures.decided),
            writes: read(&self.figures.writes),
            write_us: read(&self.figures.write_us),
            last_write_us: read(&self.figures.last_write_us),
            failures: read(&self.figures.failures),
            replays: read(&self.figures.replays),
        })
    }

    /// Whether it is worth while to open a ciphertext now.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.is_open.load(Ordering::Relaxed) && !self.write.is_hung()
    }

    /// Whether the disk keeps a write waiting.
    #[must_use]
    pub fn is_hung(&self) -> bool {
        self.write.is_hung()
    }

    /// Keeps writes from beginning until the guard is dropped: how a test makes a disk that hangs.
    #[doc(hidden)]
    pub fn hold_writes(&self) -> MutexGuard<'_, ()> {
        lock(&self.gate)
    }

    /// Has the entries of a key dropped. Blocks until it is done, or has failed.
    ///
    /// # Errors
    ///
    /// What went wrong, for the operator.
    pub fn drop_key(&self, key: Ski) -> Result<(), String> {
        if !self.is_configured.load(Ordering::Relaxed) {
            return Err("there is no ledger: [ledger] is not configured".to_owned());
        }
        let (done, outcome) = channel();
        lock(&self.commands).push(DropCommand { key, done });
        match outcome.recv_timeout(COMMAND_PATIENCE) {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err("this key has opened nothing that the ledger knows of".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err("the ledger does not answer; `ksctl status` says how it is".to_owned())
            }
        }
    }

    /// What it was told since this was last called.
    pub(super) fn take_commands(&self) -> Vec<DropCommand> {
        std::mem::take(&mut *lock(&self.commands))
    }

    /// It is open.
    pub(super) fn opened(&self) {
        *lock(&self.failure) = None;
        self.is_configured.store(true, Ordering::Relaxed);
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// It is closed, because of `error`.
    pub(super) fn closed(&self, error: &LedgerError) {
        self.is_open.store(false, Ordering::Relaxed);
        *lock(&self.failure) = Some(error.clone());
    }

    /// A write begins.
    pub(super) fn writing(&self) {
        self.write.begin();
        drop(lock(&self.gate));
    }

    /// It ended after `time`, and made the decisions about `jobs` requests durable; or it failed.
    pub(super) fn written(&self, time: Duration, jobs: Option<usize>) {
        self.write.end();
        let add = |figure: &AtomicU64, by: u64| figure.fetch_add(by, Ordering::Relaxed);
        let Some(jobs) = jobs else {
            add(&self.figures.failures, 1);
            return;
        };
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        add(&self.figures.decided, u64::try_from(jobs).unwrap_or(0));
        add(&self.figures.writes, 1);
        add(&self.figures.write_us, time);
        self.figures.last_write_us.store(time, Ordering::Relaxed);
    }

    /// Something other than decisions was written, or not.
    pub(super) fn minded(&self) {
        self.write.end();
    }

    /// A ciphertext was sent again.
    pub(super) fn replayed(&self) {
        self.figures.replays.fetch_add(1, Ordering::Relaxed);
    }

    /// It is this large.
    pub(super) fn measured(&self, size: Size) {
        self.figures.entries.store(size.entries, Ordering::Relaxed);
        self.figures.bytes.store(size.bytes, Ordering::Relaxed);
    }
}

/// What is guarded is whole after every statement, so a panic elsewhere leaves nothing broken.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn a_write_that_does_not_end_counts_as_a_failure_until_it_does() {
        let mut health = LedgerHealth::default();
        assert_eq!(health.report(), None, "there is none");
        health.opened();
        health.writing();
        assert!(health.is_writable());
        health.write.age(2 * limits::DISK_HUNG_AFTER);
        assert!(!health.is_writable());
        let report = health.report().unwrap();
        assert_eq!(report.failure.as_deref(), Some("the disk does not answer"));
        health.written(Duration::from_secs(10), Some(3));
        assert!(health.is_writable());
        let report = health.report().unwrap();
        assert_eq!(
            (report.decisions, report.writes, report.failure),
            (3, 1, None)
        );
    }
}
