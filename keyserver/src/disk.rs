//! How long a disk lets a write wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::{clock, limits};

/// Whether a write is under way, and since when: told by the thread that waits for it, asked by all others.
#[derive(Debug)]
pub(crate) struct WriteWatch {
    began: Instant,
    /// Milliseconds after `began` when the write under way began, plus one; 0 when there is none.
    since: AtomicU64,
}

impl Default for WriteWatch {
    fn default() -> Self {
        Self {
            began: clock::now(),
            since: AtomicU64::new(0),
        }
    }
}

impl WriteWatch {
    /// A write begins.
    pub(crate) fn begin(&self) {
        self.since.store(self.now_ms() + 1, Ordering::Relaxed);
    }

    /// It ended, however.
    pub(crate) fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// Whether one has been under way for longer than a disk takes that works.
    pub(crate) fn is_hung(&self) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        let under_way = Duration::from_millis(self.now_ms().saturating_sub(since));
        since > 0 && under_way > limits::DISK_HUNG_AFTER
    }

    fn now_ms(&self) -> u64 {
        let since = clock::now().saturating_duration_since(self.began);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// As if it had begun so much earlier.
    #[cfg(test)]
    pub(crate) fn age(&mut self, by: Duration) {
        self.began = self.began.checked_sub(by).expect("the machine is older");
    }
}
