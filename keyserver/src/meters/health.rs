//! How the file of the meters is, for everybody who is not its thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::disk::WriteWatch;

/// What became of the writes.
#[derive(Debug, Default)]
pub struct MetersHealth {
    write: WriteWatch,
    failures: AtomicU64,
    /// Why the last write failed.
    failure: Mutex<Option<String>>,
}

impl MetersHealth {
    /// Whether uses can be written down, and so be handed out.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        !self.is_hung() && self.failure().is_none()
    }

    /// Whether the disk keeps a write waiting.
    #[must_use]
    pub fn is_hung(&self) -> bool {
        self.write.is_hung()
    }

    /// Writes that failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// A line for the operator, when uses cannot be written down.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let why = self.failure().clone();
        let why = why.or_else(|| {
            self.is_hung()
                .then(|| "the disk of [admin] state does not answer".to_owned())
        })?;
        Some(format!(
            "{why}: grants with `daily` give nothing more until it can be written; others go on"
        ))
    }

    /// A write begins.
    pub(super) fn writing(&self) {
        self.write.begin();
    }

    /// It ended, with an error or none.
    pub(super) fn written(&self, failure: Option<String>) {
        self.write.end();
        if failure.is_some() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        *self.failure() = failure;
    }

    /// A write ended that was not about uses: what became of it is told elsewhere.
    pub(super) fn over(&self) {
        self.write.end();
    }

    /// What is guarded is whole after every statement, so a panic elsewhere leaves nothing broken.
    fn failure(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
