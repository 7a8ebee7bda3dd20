//! Finished jobs on their way back to the I/O thread that owns the connection.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use tokio::sync::Notify;

use super::job::Job;

/// Nothing was put in by a slot that works on more.
const NOT_AT_ALL: u32 = u32::MAX;

/// A bounded ring with one reader. It has a place for every job of the reader's pool, so a push
/// always finds room: the place was reserved when the job was taken from the pool.
#[derive(Debug)]
pub(crate) struct CompletionRing {
    ring: ArrayQueue<Box<Job>>,
    ready: Notify,
    /// Something was put in by a slot that works on more: the least time that it may be kept for, in microseconds.
    /// Otherwise [`NOT_AT_ALL`].
    patience_us: AtomicU32,
    /// The reader looks again by itself, when that has passed.
    pausing: AtomicBool,
}

impl CompletionRing {
    /// A ring with a place for each of `jobs` jobs.
    pub(crate) fn new(jobs: usize) -> Self {
        Self {
            ring: ArrayQueue::new(jobs),
            ready: Notify::new(),
            patience_us: AtomicU32::new(NOT_AT_ALL),
            pausing: AtomicBool::new(false),
        }
    }

    /// Puts a finished job in. The reader is woken by [`Self::notify`], once a batch.
    pub(crate) fn push(&self, job: Box<Job>) {
        let pushed = self.ring.push(job);
        debug_assert!(pushed.is_ok(), "a job without a reserved place");
    }

    /// Wakes the reader.
    pub(crate) fn notify(&self) {
        self.ready.notify_one();
    }

    /// Wakes the reader, unless it pauses. For the results of a slot in which many requests wait: they come one
    /// by one, and waking the reader for each would take a good part of the time that a fast module needs for
    /// the next. While they wait here they do not wait in its queue, which never runs empty meanwhile.
    #[cfg(any(test, feature = "pkcs11"))]
    pub(crate) fn notify_in_time(&self, patience: Duration) {
        let micros = u32::try_from(patience.as_micros()).unwrap_or(NOT_AT_ALL - 1);
        self.patience_us.fetch_min(micros, Ordering::Relaxed);
        // After the push, as the reader takes after `resume`: one of the two sees what the other did.
        fence(Ordering::SeqCst);
        if !self.pausing.load(Ordering::Relaxed) {
            self.notify();
        }
    }

    /// For the reader, when it has taken all there was: how long to pause, if more will follow soon. It must then come
    /// back after that without being woken, and say so by [`Self::resume`].
    pub(crate) fn pause(&self) -> Option<Duration> {
        let micros = self.patience_us.swap(NOT_AT_ALL, Ordering::Relaxed);
        let patience = (micros != NOT_AT_ALL).then(|| Duration::from_micros(micros.into()));
        self.pausing.store(patience.is_some(), Ordering::Relaxed);
        patience
    }

    /// The reader is back, and takes what there is after this.
    pub(crate) fn resume(&self) {
        self.pausing.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The next finished job, if there is one.
    pub(crate) fn pop(&self) -> Option<Box<Job>> {
        self.ring.pop()
    }

    /// Whether the reader has not taken all that was put in.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.ring.is_empty()
    }

    /// Waits until [`Self::notify`] was called since the last wait.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(3);

    async fn is_woken(ring: &CompletionRing) -> bool {
        tokio::time::timeout(Duration::from_millis(1), ring.ready())
            .await
            .is_ok()
    }

    /// A reader that pauses is left alone by those who have more to come, and by nobody else.
    #[tokio::test]
    async fn a_pause_ends_early_only_for_what_has_no_successor() {
        let ring = CompletionRing::new(1);
        assert_eq!(ring.pause(), None, "nothing has come");
        ring.notify_in_time(SOON);
        assert!(is_woken(&ring).await, "the first is waited for");
        assert_eq!(ring.pause(), Some(SOON), "and more will follow");
        ring.notify_in_time(SOON);
        assert!(!is_woken(&ring).await);
        ring.notify();
        assert!(is_woken(&ring).await);
        ring.resume();
        ring.notify_in_time(SOON);
        assert!(is_woken(&ring).await);
        assert_eq!(ring.pause(), Some(SOON));
        assert_eq!(ring.pause(), None, "none has come since");
        ring.notify_in_time(SOON);
        assert!(is_woken(&ring).await, "it pauses no more");
    }
}
